"""What the processes of one host share, on its disk."""

from .alone import Alone
from .files import HostFiles
from .header import LockedHeader, Notes, generation_in, is_current, new_host_id, snapshot_id_in
from .private import file_id
from .processes import UNKNOWN, ProcessInfo, ServerInfo

__all__ = [
    "UNKNOWN",
    "Alone",
    "Host",
    "HostFiles",
    "LockedHeader",
    "Notes",
    "ProcessInfo",
    "ServerInfo",
    "file_id",
    "generation_in",
    "is_current",
    "new_host_id",
    "snapshot_id_in",
]

Host = HostFiles | Alone
