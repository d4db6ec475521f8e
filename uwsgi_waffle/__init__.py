"""Configuration variables of a Flask application that change while it runs, the same in all its
processes.

Import this package in the wsgi module: in uWSGI's master the import registers the signal that wakes
the workers.
"""

from . import mule, server
from .errors import (
    HostBusy,
    HostFilesError,
    InvalidValue,
    ManagedVariable,
    RevisionConflict,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    UnknownRevision,
    UnknownVariable,
    WaffleError,
)
from .extension import WaffleConf, config_changed
from .hostfiles import ProcessInfo
from .report import HistoryEntry
from .snapshot import Change
from .state import UpdateResult
from .stores import (
    AlchemyWaffleStore,
    MemoryStore,
    PeeweeWaffleStore,
    RedisStore,
    SQLStore,
    WaffleMixin,
    WaffleStore,
)

__all__ = [
    "AlchemyWaffleStore",
    "Change",
    "HistoryEntry",
    "HostBusy",
    "HostFilesError",
    "InvalidValue",
    "ManagedVariable",
    "MemoryStore",
    "PeeweeWaffleStore",
    "ProcessInfo",
    "RedisStore",
    "RevisionConflict",
    "SQLStore",
    "SchemaError",
    "StoreReadOnly",
    "StoreUnavailable",
    "UnknownRevision",
    "UnknownVariable",
    "UpdateResult",
    "WaffleConf",
    "WaffleError",
    "WaffleMixin",
    "WaffleStore",
    "config_changed",
]

server.arm(mule.born)
