"""What the processes of one host share, on its disk."""

from .files import is_aside
from .header import HEAD_SIZE, LEASE, Notes, digest_in, is_settled, settled
from .host import HostFiles
from .slots import ProcessInfo

__all__ = [
    "HEAD_SIZE",
    "LEASE",
    "HostFiles",
    "Notes",
    "ProcessInfo",
    "digest_in",
    "is_aside",
    "is_settled",
    "settled",
]
