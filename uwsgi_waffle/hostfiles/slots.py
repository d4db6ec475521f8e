"""The table of processes in the header: each writes its own line, everyone reads all."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..snapshot import DIGEST_SIZE

__all__ = ["SLOTS_SIZE", "ProcessInfo", "Slots", "started"]

SLOT_COUNT = 512
SLOT = struct.Struct(
    f"<qqqq{DIGEST_SIZE}s24s192s"
)  # pid, its start, revision, applied at, digest, kind, error
OWNER = struct.Struct("<qq")
SLOTS_SIZE = SLOT.size * SLOT_COUNT

Read = Callable[[int, int], bytes]
Write = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of this host.

    Attributes:
        pid: its process id.
        kind: what it is: ``worker 3``, ``mule 1``, ``spooler``, or the program's name outside
            uWSGI.
        revision: the revision that it serves.
        applied_at: when it applied that revision, in seconds of the monotonic clock.
        digest: the name of the snapshot that it serves.
        error: its last own error, ``""`` if none.
    """

    pid: int
    kind: str
    revision: int
    applied_at: float
    digest: bytes
    error: str


class Slots:
    """The lines of the table, without a lock: a process writes only its own, and looks whether it
    still is.

    Two processes that take the same free line at the same moment both write; the one that finds the
    other's pid there at
    its next note takes another line.
    """

    def __init__(self, read: Read, write: Write) -> None:
        self._read, self._write = read, write
        self._index = -1
        self._me = (0, 0)

    def note(self, kind: str, revision: int, digest: bytes, applied_at: int, error: str) -> bool:
        """Write this process's line, taking one first if need be; ``False`` if the table is full."""
        if self._me[0] != os.getpid():
            self._me, self._index = (os.getpid(), started(os.getpid())), -1
        if self._index < 0 or self._read(self._offset(self._index), OWNER.size) != OWNER.pack(
            *self._me
        ):
            self._index = self._free()
            if self._index < 0:
                return False
        line = SLOT.pack(*self._me, revision, applied_at, digest, _cut(kind, 24), _cut(error, 192))
        self._write(self._offset(self._index), line)
        return True

    def leave(self) -> None:
        """Free this process's line."""
        if self._index >= 0 and self._me[0] == os.getpid():
            self._write(self._offset(self._index), bytes(SLOT.size))
            self._index = -1

    def __iter__(self) -> Iterator[ProcessInfo]:
        """Yield the living processes."""
        table = self._read(0, SLOTS_SIZE)
        for pid, start, revision, applied_at, digest, kind, error in SLOT.iter_unpack(
            table[: len(table) // SLOT.size * SLOT.size]
        ):
            if pid > 0 and started(pid) == start >= 0:
                yield ProcessInfo(
                    pid, _text(kind), revision, applied_at / 1e9, digest, _text(error)
                )

    def _free(self) -> int:
        """Return a line that is free or a dead process's, ``-1`` if there is none."""
        for step in range(SLOT_COUNT):
            index = (self._me[0] + step) % SLOT_COUNT
            owner = self._read(self._offset(index), OWNER.size)
            pid, start = OWNER.unpack(owner) if len(owner) == OWNER.size else (0, 0)
            if pid <= 0 or started(pid) != start or (pid, start) == self._me:
                return index
        return -1

    def _offset(self, index: int) -> int:
        return index * SLOT.size


def started(pid: int) -> int:
    """Return when a process was started, in kernel ticks, ``-1`` if there is none: a pid alone may
    be used again.

    It is field 22 of ``/proc/<pid>/stat``, see proc(5); where there is no ``/proc``, ``0`` for
    every living process.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return -1 if os.path.exists("/proc/self/stat") or not _alive(pid) else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _cut(text: str, size: int) -> bytes:
    return text.encode()[:size]


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="ignore")
