"""The kernel's list of mounts, see proc(5): what file system a path is on, and where in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Mount", "mount_of", "parse_mounts"]


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system, or a folder of one, that is mounted somewhere.

    Attributes:
        device: the file system.
        root: the folder in it that is mounted.
        point: where it is mounted.
        kind: the type of the file system.
    """

    device: str
    root: str
    point: str
    kind: str

    def place(self, path: str) -> str:
        """Return what a path here is in the file system, wherever that is mounted."""
        below = path[len(self.point) :].lstrip("/")
        return f"{self.device}:{os.path.join(self.root, below)}"


def mount_of(path: str, mounts: Iterable[Mount] | None = None) -> Mount | None:
    """Return what a real path is on; ``None`` without /proc, or in a chroot.

    Args:
        mounts: those to look among; by default the mounts that this process sees.
    """
    best = None
    for mount in _mounts() if mounts is None else mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        # The last one covers those before it.
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _mounts() -> tuple[Mount, ...]:
    try:
        return _mounts_of(os.readlink("/proc/self/ns/mnt"))
    except OSError:
        return ()


@cache
def _mounts_of(namespace: str) -> tuple[Mount, ...]:
    return parse_mounts(Path("/proc/self/mountinfo").read_bytes())


def parse_mounts(content: bytes) -> tuple[Mount, ...]:
    """Read the kernel's list."""
    found = []
    for line in filter(None, os.fsdecode(content).splitlines()):
        fields, _, rest = line.partition(" - ")
        device, root, point = fields.split(" ")[2:5]
        found.append(Mount(device, _unescaped(root), _unescaped(point), rest.split(" ")[0]))
    return tuple(found)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
