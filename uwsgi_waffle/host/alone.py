"""In place of the host's files where nothing is shared: one process, or a store in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock

from ..snapshot import Encoded
from .header import NOTES_SIZE, WORDS_SIZE, LockedHeader, Notes, lock_within
from .processes import ProcessInfo

__all__ = ["Alone"]


class Alone:
    """Does for one process what `HostFiles` do for many; see there."""

    shared = False
    watched_id = None

    def __init__(self) -> None:
        self._bytes = bytearray(WORDS_SIZE + NOTES_SIZE)
        self._lock, self._pid = Lock(), os.getpid()
        self.snapshots, self.processes = _Snapshots(), _Processes()

    @contextmanager
    def try_lock(self) -> Iterator[LockedHeader | None]:
        if self._pid != os.getpid():  # another thread of the parent may have held it
            self._lock, self._pid = Lock(), os.getpid()
        if not self._lock.acquire(blocking=False):
            yield None
            return
        try:
            yield LockedHeader(self._read, self._write, was_replaced=lambda: False)
        finally:
            self._lock.release()

    def lock(self, timeout: float) -> AbstractContextManager[LockedHeader]:
        busy = f"Other threads have held this process's lock for more than {timeout:g} s"
        return lock_within(timeout, self.try_lock, busy)

    def words(self) -> bytes:
        return self._read(WORDS_SIZE, 0)

    def notes(self) -> Notes:
        return Notes.from_bytes(self._read(NOTES_SIZE, WORDS_SIZE))

    def open(self) -> None: ...

    def invalidate(self) -> None: ...

    def wake(self) -> None: ...

    def is_touched(self) -> bool:
        return False

    def consume_touch(self, header: LockedHeader) -> None: ...

    def _read(self, size: int, offset: int) -> bytes:
        return bytes(self._bytes[offset : offset + size])

    def _write(self, data: bytes, offset: int) -> None:
        self._bytes[offset : offset + len(data)] = data


class _Snapshots:
    def __init__(self) -> None:
        self._newest: Encoded | None = None

    def write(self, encoded: Encoded) -> None:
        self._newest = encoded

    def read(self, snapshot_id: bytes) -> Encoded | None:
        newest = self._newest
        return newest if newest is not None and newest.id == snapshot_id else None

    def prune(self, *keep: bytes) -> None: ...


class _Processes:
    token = ""

    def report(self, process: ProcessInfo) -> None: ...

    def leave(self) -> None: ...

    def __iter__(self) -> Iterator[ProcessInfo]:
        return iter(())
