"""The header: three words that every read compares, and notes for whoever looks closer.

- ``generation``: a fresh random number each time somebody says "the store may have changed";
- ``snapshot``: the id of the published snapshot, which is always a committed one;
- ``fetched``: the generation that was read before the store was last read.

The published snapshot is current if ``generation == fetched``. Otherwise somebody is writing, or a
writer died, or another host has news: whoever gets the lock reads the store.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from random import SystemRandom
from typing import Any

from .. import unix
from ..errors import HostBusy
from .locks import try_flock, unlock
from .private import OpenFile, PrivateFolder, file_id, removed_again

__all__ = [
    "NOTES_SIZE",
    "WORDS_SIZE",
    "Header",
    "LockedHeader",
    "Notes",
    "generation_in",
    "is_current",
    "lock_within",
    "new_host_id",
    "snapshot_id_in",
]

WORD = 8
NO_WORD = bytes(WORD)
WORDS_SIZE = 3 * WORD
NOTES_SIZE = 8192 - WORDS_SIZE
LOCK_ATTEMPTS = 10
LOCK_PAUSE = 0.0005  # seconds between two attempts to take the lock
CREATE = os.O_RDWR | os.O_CREAT

_random = SystemRandom()  # the application may have seeded the other one


def is_current(words: bytes) -> bool:
    """Return whether the words say that the published snapshot is the store's newest."""
    return len(words) == WORDS_SIZE and generation_in(words) == words[2 * WORD :] != NO_WORD


def generation_in(words: bytes) -> bytes:
    """Return the generation: what was said last about the store."""
    return words[:WORD]


def snapshot_id_in(words: bytes) -> bytes:
    """Return the id of the published snapshot."""
    return words[WORD : 2 * WORD]


def new_host_id() -> int:
    """Return a random number that tells a host's messages from others."""
    return int.from_bytes(os.urandom(6), "big") + 1


@dataclass(frozen=True, slots=True)
class Notes:
    """What the header says beside its words; times in nanoseconds of the monotonic clock.

    Attributes:
        host_id: a random number that this host's messages carry; 0 in a header that is damaged.
        store: identity of the store that the files belong to.
        watch_stamp: how the watch file was when it was last looked at.
        checked_at: when the store was last read or written.
        failed: the generation, in hexadecimal digits, at which it couldn't be read.
        retry_at: when it may be read again, if that failed.
        updates: how many snapshots were published.
        error: why the store couldn't be read, ``""`` if it could.
        is_in_log: whether a server has logged that error, and not only a command.
    """

    host_id: int = 0
    store: str = ""
    watch_stamp: str = ""
    checked_at: int = 0
    failed: str = ""
    retry_at: int = 0
    updates: int = 0
    error: str = ""
    is_in_log: bool = False

    def to_bytes(self) -> bytes:
        """Return the notes as one line of JSON. The rest of a longer, former one may follow it."""
        notes = {name: getattr(self, name) for name in NOTE_TYPES}
        return json.dumps(notes, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"

    @classmethod
    def from_bytes(cls, raw: bytes) -> Notes:
        """Read what `to_bytes` wrote; anything else is read as empty notes."""
        try:
            found: dict[str, Any] = json.loads(raw.partition(b"\n")[0])
            # Another version of the package may write more notes, or fewer.
            known = {name: found[name] for name in NOTE_TYPES if name in found}
        except (ValueError, TypeError, RecursionError):
            return cls()
        if any(type(value) is not NOTE_TYPES[name] for name, value in known.items()):
            return cls()
        notes = cls(**known)
        if notes.checked_at > time.monotonic_ns():  # written before the machine's last start
            return replace(notes, checked_at=0, retry_at=0)
        return notes


NOTE_TYPES = {field.name: type(field.default) for field in fields(Notes)}


class LockedHeader:
    """The header while its lock is held.

    Args:
        read: like `os.pread`.
        write: like `os.pwrite`, but it explains its errors.
        was_replaced: returns whether another header is at its path now, or none.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        write: Callable[[bytes, int], object],
        was_replaced: Callable[[], bool],
    ) -> None:
        self._read, self._write, self.was_replaced = read, write, was_replaced
        self._notes = Notes.from_bytes(read(NOTES_SIZE, WORDS_SIZE))
        if not self._notes.host_id:  # new, or damaged
            self.reset()

    def words(self) -> bytes:
        """Return the three words."""
        return self._read(WORDS_SIZE, 0)

    def notes(self) -> Notes:
        """Return the notes beside the words; nobody else writes them meanwhile."""
        return self._notes

    def set_notes(self, **changes: Any) -> None:
        """Change some of the notes."""
        self._notes = replace(self._notes, **changes)
        self._write(self._notes.to_bytes(), WORDS_SIZE)

    def invalidate(self) -> bytes:
        """Say that the store may have changed. Return the new generation."""
        generation = os.urandom(WORD)
        self._write(generation, 0)
        return generation

    def publish(self, snapshot_id: bytes, generation: bytes) -> None:
        """Say that this snapshot is what the store held after ``generation``; in one write."""
        self._write(snapshot_id + generation, WORD)

    def reset(self) -> None:
        """Write a new header, which isn't current."""
        self._notes = Notes(host_id=new_host_id())
        self._write(os.urandom(WORD) + 2 * NO_WORD + self._notes.to_bytes(), 0)


class Header:
    """The header's file. Safe to use after a fork.

    Args:
        ensure: creates what is missing around it, or checks it.
    """

    def __init__(self, folder: PrivateFolder, ensure: Callable[[], None]) -> None:
        self._folder, self._path, self._ensure = folder, str(folder.path / "header"), ensure
        self._file = OpenFile()

    def __del__(self) -> None:
        self._file.close()

    @property
    def id(self) -> tuple[int, int]:
        """Tells the open header from others."""
        return self._file.id

    def is_open(self) -> bool:
        """Return whether the header at the path is the one that is open."""
        return self._file.is_at(self._path)

    def open(self) -> None:
        """Open the header at the path if it isn't the open one; create it if there is none.

        Raises:
            HostFilesError: it can't be opened.
        """
        if self.is_open():
            return
        with suppress(FileNotFoundError):  # somebody is just removing the folder
            self._ensure()
        former, self._file = self._file, OpenFile(self._folder.open("header", CREATE))
        if former.fd != self._file.fd:  # else somebody closed it, and its number is the new one's
            former.close()

    def words(self) -> bytes:
        """Return the three words.

        Raises:
            OSError: the header was deleted or replaced, or its descriptor closed.
        """
        fd = self._file.fd
        if not os.fstat(fd).st_nlink:
            raise FileNotFoundError(f"{self._path} was deleted or replaced")
        return unix.pread(fd, WORDS_SIZE, 0)

    def notes(self) -> Notes:
        """Return the notes beside the words."""
        return Notes.from_bytes(unix.pread(self._file.fd, NOTES_SIZE, WORDS_SIZE))

    def invalidate(self) -> None:
        """Say that the store may have changed. Needs no lock; creates the header if need be."""
        self.open()
        # Opened anew: if somebody has closed our descriptor, its number may be another file's.
        fd = self._folder.open("header", CREATE)
        try:
            self._write(fd, os.urandom(WORD), 0)
        finally:
            os.close(fd)

    @contextmanager
    def try_lock(self) -> Iterator[LockedHeader | None]:
        """Hold the lock, or yield ``None`` if another process or thread has it. Never wait."""
        self.open()
        for _ in range(LOCK_ATTEMPTS):
            file = OpenFile(self._folder.open("header", CREATE))
            if not try_flock(file):
                yield None
                return
            if file.is_at(self._path) and file.id == self.id:
                break
            unlock(file)  # it was replaced meanwhile
            self.open()
        else:
            raise removed_again(self._path)
        try:
            yield LockedHeader(
                partial(unix.pread, file.fd),
                partial(self._write, file.fd),
                was_replaced=lambda: file_id(self._path) != file.id,
            )
        finally:
            unlock(file)

    def _write(self, fd: int, data: bytes, offset: int) -> None:
        with self._folder.explaining("header"):
            unix.pwrite(fd, data, offset)


@contextmanager
def lock_within(
    timeout: float, try_lock: Callable[[], AbstractContextManager[LockedHeader | None]], busy: str
) -> Iterator[LockedHeader]:
    """Hold a lock, waiting for it at most ``timeout`` seconds.

    Args:
        busy: says that others have it.

    Raises:
        HostBusy: the time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        with try_lock() as header:
            if header is not None:
                yield header
                return
        if time.monotonic() >= deadline:
            raise HostBusy(
                f"{busy}. Nothing was read or changed. Check that the store responds, then try "
                "again."
            )
        time.sleep(LOCK_PAUSE * (0.5 + _random.random()))
