"""The header that the processes of one host share: its words, its lock, its table of processes.

The header begins with three words that every look compares:

- ``bell``: a fresh random number each time somebody says "the store may have changed";
- ``digest``: names the snapshot that is published;
- ``seal``: a checksum of the two, written by whoever has read the store *after* that bell.

If the seal holds, the header is *settled*: the snapshot with that digest is the store's newest. If
not (somebody rang, a
writer died, the file is damaged) whoever gets the lock reads the store. Nothing in the file is
trusted further than that.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import random
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import HostBusy, HostFilesError
from ..snapshot import DIGEST_SIZE
from .files import (
    aside_of,
    create_file,
    ensure_folder,
    ensure_watch_file,
    filesystem_of,
    is_network,
    open_file,
)
from .slots import SLOTS_SIZE, Slots

__all__ = [
    "COMING_AT",
    "HEAD_SIZE",
    "LEASE",
    "NOTES_AT",
    "SLOTS_AT",
    "WATCH_AT",
    "WORD",
    "Header",
    "Notes",
    "blank",
    "digest_in",
    "held",
    "identity_of",
    "is_settled",
    "settled",
    "text_in",
]

WORD = DIGEST_SIZE
HEAD_SIZE = 3 * WORD
MAGIC = b"waffle\0\1"
ERROR_SIZE = 432
NOTES = struct.Struct(f"<8sqqqqq{WORD}s{ERROR_SIZE}s{WORD}s{HEAD_SIZE}s")
NOTES_AT, SLOTS_AT = HEAD_SIZE, 1024
WATCH_AT = NOTES_AT + 48
COMING_AT = NOTES_AT + NOTES.size - HEAD_SIZE
SIZE = SLOTS_AT + SLOTS_SIZE

#: Seconds for which a process may go on without looking whether the header at the path is still the
#: one it has open.
#: Whoever opens a header lets this time pass before an update on it returns (as with the leases of
#: Gray and Cheriton,
#: SOSP 1989): by then everyone has it open, too, and even a deleted or replaced header makes nobody
#: stale.
LEASE = 0.01
FIRST_RETRY, LAST_RETRY = 0.1, 5.0  # seconds between attempts to read a store that fails
LOCK_PAUSE = 0.0005  # seconds between two looks at a lock that another process holds


_opening = threading.Lock()  # one thread opens a header at a time
held: set[int] = set()  # the descriptors by which this process holds locks


@dataclass(frozen=True, slots=True)
class Notes:
    """What the header says beyond its three words; times in nanoseconds of the monotonic clock.

    Its ``generation`` is a random number that tells this header from those that were here before.
    """

    generation: int = 0
    store: bytes = bytes(WORD)
    checked_at: int = 0
    retry_at: int = 0
    failures: int = 0
    holder: int = 0
    incident: bytes = b""

    @property
    def error(self) -> str:
        """Why the store couldn't be read last time, ``""`` if it could."""
        return text_in(self.incident) if self.failures > 0 else ""


def digest_in(head: bytes) -> bytes:
    """Return the digest that the three words name."""
    return head[WORD : 2 * WORD]


def is_settled(head: bytes) -> bool:
    """Tell whether the three words say that the published snapshot is the newest."""
    return len(head) == HEAD_SIZE and head[2 * WORD :] == _seal(head[: 2 * WORD])


def settled(bell: bytes, digest: bytes) -> bytes:
    """Return the three words that say that the snapshot ``digest`` was the store's newest after
    that bell.
    """
    return bell + digest + _seal(bell + digest)


class Header:
    """The header beside one watch file.

    Args:
        watch_file: `WAFFLE_WATCHER_FILE`.

    Nothing here is changed by a fork: a child may go on with its parent's object.
    """

    def __init__(self, watch_file: Path) -> None:
        self.watch_file = watch_file.absolute()
        self.folder = self.watch_file.with_name(self.watch_file.name + ".d")
        #: Watched by uWSGI's master. One file in it is touched, so that one update is one event; a
        #: folder's watch survives
        #: whatever is done to the file.
        self.bell_folder = self.folder / "bell"
        self._bell_file = self.bell_folder / "bell"
        self._snapshots = self.folder / "snapshots"
        # As text, for what every look needs.
        self._header = str(self.folder / "header")
        self._prefix = f"{self._snapshots}/"
        self._watch = str(self.watch_file)
        self._bell_path = str(self._bell_file)
        self._owner = -1
        self._fd = -1
        self._identity = (-1, -1)
        #: When the header was opened, in seconds of the monotonic clock.
        self.opened_at = 0.0
        self._closing = weakref.finalize(self, _close, -1, self._identity)
        self._elected: tuple[int, int] | None = (
            None  # the descriptor by which the process with that pid is the listener
        )
        self.peek: Callable[[], bytes] = bytes
        self.slots = Slots(self._read_slots, self._write_slots)

    @property
    def network(self) -> str:
        """The name of the network file system that the folder is on, ``""`` if it is local."""
        name = filesystem_of(self.folder)
        return name if is_network(name) else ""

    # Identity: the header at the path is the one that is open

    def verify(self) -> bool:
        """Open the header at the path if it isn't the one that is open; create it if there is none.

        Returns:
            Whether it is another one than before.

        Raises:
            HostFilesError: the watch file or the folder can't be used; the text says why.
        """
        if self._fd >= 0 and identity_of(self._header) == self._identity == identity_of(self._fd):
            return False
        with _opening:
            return self._open()

    def _open(self) -> bool:
        if self._fd >= 0 and identity_of(self._header) == self._identity == identity_of(self._fd):
            return True  # by another thread, a moment ago
        ensure_watch_file(self.watch_file)
        self._owner = ensure_folder(self.folder)
        ensure_folder(self.bell_folder)
        ensure_folder(self._snapshots)
        while True:
            try:
                fd = open_file(self._header, os.O_RDWR, self._owner)
                break
            except FileNotFoundError:
                self._create()
        with suppress(OSError):  # without it each look costs a tenth more
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NOATIME)
        identity = identity_of(fd)
        if self._fd >= 0 and identity_of(self._fd) == self._identity:
            # Keep the number: another thread may be reading through it at this moment.
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)
        else:
            self._fd = fd
            self.peek = functools.partial(os.pread, fd, HEAD_SIZE, 0)
        self._identity = identity
        self.opened_at = time.monotonic()
        self._closing.detach()
        self._closing = weakref.finalize(self, _close, self._fd, identity)
        return True

    def _create(self) -> None:
        fresh = aside_of(self.folder / "header")
        create_file(fresh, blank(), self._owner)
        try:
            os.link(fresh, self._header)
        except FileExistsError:  # another process was faster; its header is as good
            return
        except OSError as error:
            hint = "The folder must be on a local file system that knows hard links."
            raise HostFilesError(f"{self._header}: {error.strerror}. {hint}") from error
        finally:
            fresh.unlink(missing_ok=True)

    # The lock, held by one writer or fetcher at a time

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Hold the lock, or yield ``False`` if another process, thread or greenlet has it. Never
        waits.
        """
        fd = self._acquire()
        if fd is None:
            yield False
            return
        held.add(fd)
        try:
            self._write(NOTES_AT + 40, struct.pack("<q", os.getpid()))
            yield True
        finally:
            held.discard(fd)
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Hold the lock, waiting at most ``timeout`` seconds.

        Raises:
            HostBusy: the time is over.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self.try_lock() as locked:
                if locked:
                    yield
                    return
            if time.monotonic() >= deadline:
                raise HostBusy(
                    f"Process {self.notes().holder} has been writing to the store for more than {timeout:g} s, so nothing was changed. "
                    "Look whether the store answers, then try again."
                )
            time.sleep(LOCK_PAUSE * (0.5 + random.random()))

    def _acquire(self) -> int | None:
        while True:
            self.verify()
            try:
                fd = open_file(self._header, os.O_RDWR, self._owner)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            if identity_of(fd) == self._identity == identity_of(self._header):
                return fd
            os.close(fd)

    # Words

    def bell(self) -> bytes:
        """Return the bell that was rung last."""
        return self.peek()[:WORD]

    def ring(self) -> None:
        """Say that the store may have changed."""
        self._write(0, os.urandom(WORD))

    def settle(self, head: bytes) -> None:
        """Under the lock, say that the store was read after the bell in ``head`` and gave the
        snapshot in it.
        """
        os.pwrite(
            self._fd, head[WORD:], WORD
        )  # which file it is was looked at when the lock was taken

    def succeed(self) -> None:
        """Under the lock, note that the store was read just now."""
        self._write(NOTES_AT + 16, struct.pack("<qqq", time.monotonic_ns(), 0, 0))

    def mend(self) -> bool:
        """Under the lock, write a whole header if this one is cut off or isn't one; tell whether
        that was needed.
        """
        if os.fstat(self._fd).st_size == SIZE and os.pread(self._fd, len(MAGIC), NOTES_AT) == MAGIC:
            return False
        self._write(0, blank())
        return True

    def fail(self, error: str) -> bool:
        """Under the lock, note that the store couldn't be read and when to try again; tell whether
        that is news.
        """
        notes = self.notes()
        known = notes.failures > 0 and notes.error == error.encode()[:ERROR_SIZE].decode(
            errors="ignore"
        )
        failures = notes.failures + 1 if notes.failures > 0 else 1
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)
        self._write(
            NOTES_AT + 24, struct.pack("<qq", time.monotonic_ns() + round(pause * 1e9), failures)
        )
        self._write(NOTES_AT + 56, error.encode()[:ERROR_SIZE].ljust(ERROR_SIZE, b"\0"))
        return not known

    def notes(self) -> Notes:
        """Read what the header says beyond its words; what can't be so is read as 0."""
        raw = os.pread(self._fd, NOTES.size, NOTES_AT)
        if len(raw) < NOTES.size:
            return Notes()
        magic, generation, checked, retry, failures, holder, _, incident, store, *_ = NOTES.unpack(
            raw
        )
        if magic != MAGIC:
            return Notes()
        now = time.monotonic_ns()
        return Notes(
            generation=generation,
            store=store,
            checked_at=checked
            if checked <= now
            else 0,  # later than now: written before the machine's last start
            retry_at=retry if retry <= now + round(LAST_RETRY * 1e9) else 0,
            failures=failures if 0 <= failures < 1_000_000 else 0,
            holder=holder,
            incident=incident,
        )

    def _write(self, offset: int, data: bytes) -> None:
        if identity_of(self._fd) != self._identity:
            with _opening:  # maybe another thread is just opening another header
                if (
                    identity_of(self._fd) != self._identity
                ):  # somebody closed our descriptor and its number is another file's now
                    self._fd = -1
                    self._open()
        os.pwrite(self._fd, data, offset)

    def _read_slots(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, SLOTS_AT + offset)

    def _write_slots(self, offset: int, data: bytes) -> None:
        self._write(SLOTS_AT + offset, data)


def _close(fd: int, identity: tuple[int, int]) -> None:
    if identity_of(fd) == identity:
        os.close(fd)


def _let_go() -> None:
    """In a forked child: it has its parent's descriptors, and mustn't keep the lock when the parent
    dies.
    """
    global _opening
    _opening = threading.Lock()
    while held:
        os.close(held.pop())


os.register_at_fork(after_in_child=_let_go)


def text_in(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="ignore")


def _seal(words: bytes) -> bytes:
    return hashlib.blake2b(words, digest_size=WORD).digest()


def blank() -> bytes:
    """Return a header that isn't settled."""
    notes = NOTES.pack(
        MAGIC,
        int.from_bytes(os.urandom(7), "big"),
        0,
        0,
        0,
        0,
        bytes(WORD),
        b"",
        bytes(WORD),
        bytes(HEAD_SIZE),
    )
    return (os.urandom(HEAD_SIZE) + notes).ljust(SIZE, b"\0")


def identity_of(file: str | int) -> tuple[int, int]:
    try:
        found = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError:  # gone, or closed by somebody else: not the file that was asked for
        return (-2, -2)
    return (found.st_dev, found.st_ino)
