"""Configuration variables of a Flask application that change while it runs, the same in all its
processes.

Import this package in the wsgi module: in uWSGI's master the import registers the signal that wakes
the workers.
"""

from logging import getLogger  # not the module: `logging` is a module of ours
from typing import TYPE_CHECKING, Any

from . import mule, stores, wake
from .errors import (
    HostBusy,
    HostFilesError,
    InvalidValue,
    ManagedVariable,
    PinnedVariable,
    RevisionConflict,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    UnknownRevision,
    UnknownVariable,
    WaffleError,
)
from .extension import WaffleConf
from .history import HistoryEntry
from .hooks import config_changed, config_updated
from .host import ProcessInfo
from .snapshot import Change, Update
from .stores import MemoryStore
from .text import escape_record, guard
from .update import UpdateResult
from .wake import HostInfo

if TYPE_CHECKING:
    from .stores.alchemy import AlchemyWaffleStore
    from .stores.custom import WaffleMixin, WaffleStore
    from .stores.peewee import PeeweeWaffleStore
    from .stores.redis import RedisStore
    from .stores.sql import SQLStore
else:

    def __getattr__(name: str) -> Any:
        """Load a store when it is first used."""
        if name in stores.LAZY:
            return getattr(stores, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AlchemyWaffleStore",
    "Change",
    "HistoryEntry",
    "HostBusy",
    "HostFilesError",
    "HostInfo",
    "InvalidValue",
    "ManagedVariable",
    "MemoryStore",
    "PeeweeWaffleStore",
    "PinnedVariable",
    "ProcessInfo",
    "RedisStore",
    "RevisionConflict",
    "SQLStore",
    "SchemaError",
    "StoreReadOnly",
    "StoreUnavailable",
    "UnknownRevision",
    "UnknownVariable",
    "Update",
    "UpdateResult",
    "WaffleConf",
    "WaffleError",
    "WaffleMixin",
    "WaffleStore",
    "config_changed",
    "config_updated",
]

__version__ = "0.2.0"

getLogger(__name__).addFilter(escape_record)
guard(getLogger(__name__))
wake.start(mule.after_fork)
