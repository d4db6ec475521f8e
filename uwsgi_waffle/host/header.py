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
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any

from .. import unix
from ..errors import HostBusy, HostFilesError
from .locks import try_flock, unlock
from .private import PrivateFolder, file_id

__all__ = [
    "Header",
    "LockedHeader",
    "Notes",
    "is_current",
    "lock_within",
    "new_host_id",
    "snapshot_in",
]

WORD = 8
NO_WORD = bytes(WORD)
WORDS_SIZE = 3 * WORD
NOTES_SIZE = 8192 - WORDS_SIZE
OPEN_ATTEMPTS = 10
LOCK_PAUSE = 0.0005  # seconds between two attempts to take the lock
CREATE = os.O_RDWR | os.O_CREAT


def is_current(words: bytes) -> bool:
    """Return whether the words say that the published snapshot is the store's newest."""
    return len(words) == WORDS_SIZE and words[:WORD] == words[2 * WORD :] != NO_WORD


def snapshot_in(words: bytes) -> bytes:
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
    """

    host_id: int = 0
    store: str = ""
    watch_stamp: str = ""
    checked_at: int = 0
    failed: str = ""
    retry_at: int = 0
    updates: int = 0
    error: str = ""

    def to_bytes(self) -> bytes:
        """Return the notes as they are written; padded, so that nothing of older ones remains."""
        text = json.dumps(asdict(self), ensure_ascii=False)  # escapes may take twelve bytes each
        return text.encode(errors="surrogatepass").ljust(NOTES_SIZE)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Notes:
        """Read what `to_bytes` wrote; anything else is read as empty notes."""
        try:
            found: dict[str, Any] = json.loads(raw)
            # Another version of the package may write more notes, or fewer.
            known = {f.name: found[f.name] for f in fields(cls) if f.name in found}
            notes = cls(**known)
            if any(type(value) is not type(getattr(cls(), name)) for name, value in known.items()):
                return cls()
            if notes.checked_at > time.monotonic_ns():  # written before the machine's last start
                return replace(notes, checked_at=0, retry_at=0)
        except (ValueError, TypeError, KeyError, RecursionError):
            return cls()
        return notes


class LockedHeader:
    """The header while its lock is held.

    Args:
        read: returns bytes, given size and offset.
        write: writes bytes, given them and an offset.
        was_replaced: returns whether another header is at its path now, or none.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        write: Callable[[bytes, int], object],
        was_replaced: Callable[[], bool],
    ) -> None:
        self._read, self._write, self.was_replaced = read, write, was_replaced

    def words(self) -> bytes:
        """Return the three words."""
        return self._read(WORDS_SIZE, 0)

    def notes(self) -> Notes:
        """Return the notes beside the words."""
        return Notes.from_bytes(self._read(NOTES_SIZE, WORDS_SIZE))

    def note(self, **changes: Any) -> None:
        """Change some of the notes."""
        self._write(replace(self.notes(), **changes).to_bytes(), WORDS_SIZE)

    def invalidate(self) -> bytes:
        """Say that the store may have changed. Return the new generation."""
        generation = os.urandom(WORD)
        self._write(generation, 0)
        return generation

    def publish(self, snapshot: bytes, generation: bytes) -> None:
        """Say that ``snapshot`` is what the store held after ``generation``; in one write."""
        self._write(snapshot + generation, WORD)

    def reset(self) -> None:
        """Write a new header, which isn't current."""
        notes = Notes(host_id=new_host_id())
        self._write(os.urandom(WORD) + 2 * NO_WORD + notes.to_bytes(), 0)


class Header:
    """The header's file. Safe to use after a fork.

    Args:
        folder: where it is.
        ensure: creates what is missing around it, or checks it.
    """

    def __init__(self, folder: PrivateFolder, ensure: Callable[[], None]) -> None:
        self._folder, self._path, self._ensure = folder, str(folder.path / "header"), ensure
        self._file = _OpenFile(-1)
        self._fd = -1

    @property
    def id(self) -> tuple[int, int]:
        """Tells the open header from others."""
        return self._file.id

    def is_open(self) -> bool:
        """Return whether the header at the path is the one that is open."""
        return self._fd >= 0 and file_id(self._path) == self.id == file_id(self._fd)

    def open(self) -> None:
        """Open the header at the path if it isn't the open one; create it if there is none.

        Raises:
            HostFilesError: it can't be opened.
        """
        for _ in range(OPEN_ATTEMPTS):
            if self.is_open():
                return
            try:
                self._ensure()
                file = _OpenFile(self._folder.open("header", CREATE))
            except FileNotFoundError:  # somebody is just removing the folder
                continue
            if self._file.fd == file.fd:
                self._file.fd = -1  # somebody has closed it, and its number is the new one's
            self._file, self._fd = file, file.fd
        raise HostFilesError(f"{self._path} is removed again and again. Check who does that.")

    def words(self) -> bytes:
        """Return the three words.

        Raises:
            OSError: the header was deleted or replaced, or its descriptor closed.
        """
        fd = self._fd
        if not os.fstat(fd).st_nlink:
            raise FileNotFoundError(f"{self._path} was deleted or replaced")
        return unix.pread(fd, WORDS_SIZE, 0)

    def notes(self) -> Notes:
        """Return the notes beside the words."""
        file = self._file
        return Notes.from_bytes(unix.pread(file.fd, NOTES_SIZE, WORDS_SIZE))

    def invalidate(self) -> None:
        """Say that the store may have changed. Needs no lock; creates the header if need be."""
        self.open()
        # Opened anew: if somebody has closed our descriptor, its number may be another file's.
        fd = self._folder.open("header", CREATE)
        try:
            _header(fd, self._path).invalidate()
        finally:
            os.close(fd)

    @contextmanager
    def try_lock(self) -> Iterator[LockedHeader | None]:
        """Hold the lock, or yield ``None`` if another process or thread has it. Never wait."""
        while True:
            self.open()
            try:
                fd = self._folder.open("header", CREATE)
            except FileNotFoundError:  # somebody is just removing the folder
                continue
            if not try_flock(fd):
                yield None
                return
            if file_id(fd) == self.id == file_id(self._path):
                break
            unlock(fd)  # it was replaced meanwhile
        try:
            header = _header(fd, self._path)
            if not header.notes().host_id:
                header.reset()
            yield header
        finally:
            unlock(fd)

    def lock(self, timeout: float) -> AbstractContextManager[LockedHeader]:
        """Hold the lock, waiting for it at most ``timeout`` seconds.

        Raises:
            HostBusy: the time is over.
        """
        return lock_within(timeout, self.try_lock, self._path)


@contextmanager
def lock_within(
    timeout: float, try_lock: Callable[[], AbstractContextManager[LockedHeader | None]], name: str
) -> Iterator[LockedHeader]:
    """Try to take a lock until that succeeds; see `Header.lock`."""
    deadline = time.monotonic() + timeout
    while True:
        with try_lock() as header:
            if header is not None:
                yield header
                return
        if time.monotonic() >= deadline:
            raise HostBusy(
                f"Another process has held the lock on {name} for more than {timeout:g} s; "
                "`lslocks` (on macOS `lsof`) names it. Nothing was changed. Check that the store "
                "responds and that this process isn't stopped, then try again."
            )
        time.sleep(LOCK_PAUSE * (0.5 + random.random()))


def _header(fd: int, path: str) -> LockedHeader:
    def was_replaced() -> bool:
        return file_id(fd) != file_id(path)

    return LockedHeader(partial(unix.pread, fd), partial(unix.pwrite, fd), was_replaced)


class _OpenFile:
    """A descriptor that is closed with its last user, unless somebody else has closed it."""

    def __init__(self, fd: int) -> None:
        self.fd, self.id = fd, file_id(fd)

    def __del__(self) -> None:
        if self.fd >= 0 and file_id(self.fd) == self.id:
            os.close(self.fd)
