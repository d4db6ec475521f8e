"""Whether a folder is on a network file system, where locks and renames don't reach other hosts."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["network_filesystem"]

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs"}
)


def network_filesystem(path: Path, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the network file system that holds ``path``, ``""`` if it is local.

    Where the kernel has no list of mounts (see proc(5)), every path counts as local.
    """
    try:
        lines = os.fsdecode(Path(mountinfo).read_bytes()).splitlines()
    except OSError:  # not Linux
        return ""
    resolved = path.resolve()
    best, name = -1, ""
    for line in filter(None, lines):
        fields, _, rest = line.partition(" - ")
        # Blanks and the like are written as octal numbers.
        mount = Path(re.sub(r"\\([0-7]{3})", lambda n: chr(int(n[1], 8)), fields.split(" ")[4]))
        if resolved.is_relative_to(mount) and len(mount.parts) >= best:
            best, name = len(mount.parts), rest.split(" ")[0]
    return name if name in NETWORK else ""
