"""What the processes of one host share, on its disk."""

from .host import HEAD_SIZE, LEASE, HostFiles, Notes, digest_in, is_settled, settled
from .slots import ProcessInfo

__all__ = ["HEAD_SIZE", "LEASE", "HostFiles", "Notes", "ProcessInfo", "digest_in", "is_settled", "settled"]
