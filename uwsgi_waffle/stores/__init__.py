"""Where the values are kept: one module per neighbour, one contract for all."""

from __future__ import annotations

from ..errors import SchemaError
from .alchemy import AlchemyWaffleStore
from .contract import Commit, Context, Decide, HistoryRow, Store, Stored
from .memory import MemoryStore
from .own import WaffleMixin, WaffleStore
from .peewee import PeeweeWaffleStore
from .redis import RedisStore
from .rows import is_json
from .sql import SQLStore

__all__ = [
    "AlchemyWaffleStore",
    "Commit",
    "Context",
    "Decide",
    "HistoryRow",
    "MemoryStore",
    "PeeweeWaffleStore",
    "RedisStore",
    "SQLStore",
    "Store",
    "Stored",
    "WaffleMixin",
    "WaffleStore",
    "is_json",
    "open_store",
]

STORES: dict[str, type[SQLStore] | type[RedisStore]] = {
    **dict.fromkeys(("sqlite", "postgresql", "mysql", "mariadb"), SQLStore),
    **dict.fromkeys(("redis", "rediss", "unix"), RedisStore),
}


def open_store(url: str) -> Store:
    """Return the store that ``WAFFLE_STORE_URL`` names; nothing is connected yet.

    Raises:
        SchemaError: no store knows such a URL.
    """
    scheme = url.partition(":")[0].partition("+")[0]
    if scheme not in STORES:
        raise SchemaError(
            f"WAFFLE_STORE_URL: no store for {scheme!r} URLs; use one of {', '.join(STORES)}."
        )
    return STORES[scheme](url)
