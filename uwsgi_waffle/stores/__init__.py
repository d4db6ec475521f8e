"""Where the values are kept: one module per neighbour, one contract for all.

`SQLStore` and `AlchemyWaffleStore` import SQLAlchemy, so they are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import SchemaError, taken_by
from .contract import EXPIRES, Commit, CommitBuilder, Context, HistoryRow, Store, Stored
from .custom import WaffleMixin, WaffleStore
from .memory import MemoryStore
from .peewee import PeeweeWaffleStore
from .redis import RedisStore

if TYPE_CHECKING:
    from sqlalchemy import URL

    from .alchemy import AlchemyWaffleStore
    from .sql import SQLStore
else:

    def __getattr__(name: str) -> Any:
        if name not in LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _load(name)


__all__ = [
    "EXPIRES",
    "AlchemyWaffleStore",
    "Commit",
    "CommitBuilder",
    "Context",
    "HistoryRow",
    "MemoryStore",
    "PeeweeWaffleStore",
    "RedisStore",
    "SQLStore",
    "Store",
    "Stored",
    "WaffleMixin",
    "WaffleStore",
    "open_store",
]

LAZY = {"AlchemyWaffleStore": ".alchemy", "SQLStore": ".sql"}
SQL_SCHEMES = ("sqlite", "postgresql", "mysql", "mariadb")
REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")


def _load(name: str) -> Any:
    try:
        return getattr(import_module(LAZY[name], __name__), name)
    except (ImportError, AttributeError) as error:
        if place := taken_by("sqlalchemy"):
            raise SchemaError(
                f"{name}: {place} has the name of SQLAlchemy. Rename that."
            ) from error
        raise


def open_store(url: str | URL) -> Store:
    """Return the store that ``WAFFLE_STORE_URL`` names, without connecting to it.

    ``memory:`` is a `MemoryStore`, for tests and image builds.

    Raises:
        SchemaError: no store has such URLs.
    """
    scheme = str(url).partition(":")[0].partition("+")[0]
    if url == "memory:":
        return MemoryStore()
    if scheme in REDIS_SCHEMES:
        return RedisStore(str(url))
    if scheme in SQL_SCHEMES:
        store: Store = _load("SQLStore")(url)
        return store
    schemes = ", ".join((*SQL_SCHEMES, *REDIS_SCHEMES, "memory"))
    raise SchemaError(f"WAFFLE_STORE_URL: no store for {scheme!r} URLs; use one of {schemes}.")
