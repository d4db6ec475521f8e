"""What the processes of one host share, on its disk."""

from .host import HEAD_SIZE, LEASE, HostFiles, Notes, is_settled
from .slots import ProcessInfo

__all__ = ["HEAD_SIZE", "LEASE", "HostFiles", "Notes", "ProcessInfo", "is_settled"]
