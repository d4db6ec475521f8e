"""Where the values are kept: one module per neighbour, one contract for all.

A store is loaded when it is first used: what an application doesn't use costs it nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import SchemaError, taken_by
from .contract import EXPIRES, Commit, CommitBuilder, Context, HistoryRow, Store, Stored
from .memory import MemoryStore

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = [
    "EXPIRES",
    "LAZY",
    "Commit",
    "CommitBuilder",
    "Context",
    "HistoryRow",
    "MemoryStore",
    "Store",
    "Stored",
    "open_store",
]

LAZY = {
    "AlchemyWaffleStore": ".alchemy",
    "PeeweeWaffleStore": ".peewee",
    "RedisStore": ".redis",
    "SQLStore": ".sql",
    "WaffleMixin": ".custom",
    "WaffleStore": ".custom",
}
#: The store of each kind of URL that `open_store` takes.
SCHEMES = {
    **dict.fromkeys(("sqlite", "postgresql", "mysql", "mariadb"), "SQLStore"),
    **dict.fromkeys(("redis", "rediss", "unix", "valkey", "valkeys"), "RedisStore"),
}


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
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
    if scheme in SCHEMES:
        store: Store = __getattr__(SCHEMES[scheme])(url)
        return store
    schemes = ", ".join(f"{known}:" for known in (*SCHEMES, "memory"))
    raise SchemaError(f"WAFFLE_STORE_URL: no store for {scheme!r} URLs; use one of {schemes}.")
