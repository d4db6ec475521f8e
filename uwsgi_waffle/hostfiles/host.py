"""What the processes of one host share: the watch file, and beside it a folder with header, snapshot and lock.

The header begins with three words that every look compares:

- ``bell``: a fresh random number each time somebody says "the store may have changed";
- ``digest``: names the snapshot that is published;
- ``seal``: a checksum of the two, written by whoever has read the store *after* that bell.

If the seal holds, the header is *settled*: the snapshot with that digest is the store's newest. If not (somebody rang, a
writer died, the file is damaged) whoever gets the lock reads the store. Nothing in the file is trusted further than that.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import random
import re
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import HostBusy, HostFilesError, SchemaError
from ..snapshot import DIGEST_SIZE, Encoded, SnapshotDamaged, decode
from .files import create_file, ensure_folder, ensure_watch_file, filesystem_of, is_network, open_file, read_file
from .slots import SLOTS_SIZE, Slots, started

__all__ = ["HEAD_SIZE", "LEASE", "HostFiles", "Listener", "Notes", "digest_in", "is_settled", "settled"]

WORD = DIGEST_SIZE
HEAD_SIZE = 3 * WORD
MAGIC = b"waffle\0\1"
ERROR_SIZE = 432
NOTES = struct.Struct(f"<8sqqqqq{WORD}s{ERROR_SIZE}s{WORD}s{HEAD_SIZE}s")
NOTES_AT, SLOTS_AT = HEAD_SIZE, 1024
COMING_AT = NOTES_AT + NOTES.size - HEAD_SIZE
UNTOLD_AT = COMING_AT + HEAD_SIZE
LISTENER, TROUBLE_SIZE = struct.Struct("<qqq"), 200  # its pid, its start, its number; then what is wrong with listening and with telling
LISTENER_AT = UNTOLD_AT + WORD
TROUBLES_AT = LISTENER_AT + LISTENER.size
assert TROUBLES_AT + 2 * TROUBLE_SIZE <= SLOTS_AT
SIZE = SLOTS_AT + SLOTS_SIZE

#: Seconds for which a process may go on without looking whether the header at the path is still the one it has open.
#: Whoever opens a header lets this time pass before an update on it returns (as with the leases of Gray and Cheriton,
#: SOSP 1989): by then everyone has it open, too, and even a deleted or replaced header makes nobody stale.
LEASE = 0.01
FIRST_RETRY, LAST_RETRY = 0.1, 5.0  # seconds between attempts to read a store that fails
LOCK_PAUSE = 0.0005  # seconds between two looks at a lock that another process holds


STAGED = ".staged"  # ends the name of a snapshot that isn't in the store yet, or was a moment ago

_opening = threading.Lock()  # one thread opens a header at a time
_held: set[int] = set()  # the descriptors by which this process holds locks
_claimed: set[tuple[int, int]] = set()  # the headers that applications of this process, or of its parent, use


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
    watch: bytes = bytes(WORD)
    incident: bytes = b""

    @property
    def error(self) -> str:
        """Why the store couldn't be read last time, ``""`` if it could."""
        return _text(self.incident) if self.failures > 0 else ""


@dataclass(frozen=True, slots=True)
class Listener:
    """The process of the host that listens to other hosts.

    Attributes:
        pid: its process id; 0 if there is none.
        number: drawn at its election; the messages of this host carry it.
        listening: what is wrong with that, ``""`` if nothing is.
        telling: likewise, with telling other hosts.
    """

    pid: int
    number: int
    listening: str
    telling: str


def digest_in(head: bytes) -> bytes:
    """Return the digest that the three words name."""
    return head[WORD : 2 * WORD]


def is_settled(head: bytes) -> bool:
    """Tell whether the three words say that the published snapshot is the newest."""
    return len(head) == HEAD_SIZE and head[2 * WORD :] == _seal(head[: 2 * WORD])


def settled(bell: bytes, digest: bytes) -> bytes:
    """Return the three words that say that the snapshot ``digest`` was the store's newest after that bell."""
    return bell + digest + _seal(bell + digest)


class HostFiles:
    """The shared files beside one watch file.

    Args:
        watch_file: `WAFFLE_WATCHER_FILE`.

    Nothing here is changed by a fork: a child may go on with its parent's object.
    """

    def __init__(self, watch_file: Path) -> None:
        self.watch_file = watch_file.absolute()
        self.folder = self.watch_file.with_name(self.watch_file.name + ".d")
        #: Watched by uWSGI's master. One file is in it, so that one update is one event; a folder's watch survives
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
        self._touch: tuple[int, bytes] | None = None
        self._elected: tuple[int, int] | None = None  # the descriptor by which the process with that pid is the listener
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
        if self._fd >= 0 and _identity(self._header) == self._identity == _identity(self._fd):
            return False
        with _opening:
            return self._open()

    def _open(self) -> bool:
        if self._fd >= 0 and _identity(self._header) == self._identity == _identity(self._fd):
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
        identity = _identity(fd)
        if self._fd >= 0 and _identity(self._fd) == self._identity:
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
        fresh = self.folder / f"header.{os.getpid()}.{os.urandom(4).hex()}"
        create_file(fresh, _blank(), self._owner)
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
        """Hold the lock, or yield ``False`` if another process, thread or greenlet has it. Never waits."""
        fd = self._acquire()
        if fd is None:
            yield False
            return
        _held.add(fd)
        try:
            self._write(NOTES_AT + 40, struct.pack("<q", os.getpid()))
            yield True
        finally:
            _held.discard(fd)
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
            if _identity(fd) == self._identity == _identity(self._header):
                return fd
            os.close(fd)

    # The one process that listens to other hosts

    def elect(self) -> bool:
        """Make this process the listener, until it ends, if no other is; tell whether it is. Never waits."""
        self.verify()
        if not self._is_elected():
            self.resign()
            ensure_folder(self.bell_folder)
            fd = os.open(self.bell_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            _held.add(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                _held.discard(fd)
                os.close(fd)
                if isinstance(error, BlockingIOError):
                    return False
                raise
            self._elected = (fd, os.getpid())
        if self.listener().pid != os.getpid():
            self._write(LISTENER_AT, LISTENER.pack(os.getpid(), started(os.getpid()), int.from_bytes(os.urandom(7), "big")))
        return True

    def resign(self) -> None:
        """Be no longer the listener."""
        if self._elected is not None and self._elected[1] == os.getpid():
            if self.listener().pid == os.getpid():
                self._write(LISTENER_AT, bytes(LISTENER.size))
            fd = self._elected[0]
            fcntl.flock(fd, fcntl.LOCK_UN)  # also for a child that was forked at this moment
            _held.discard(fd)
            os.close(fd)
        self._elected = None

    def _is_elected(self) -> bool:
        return (
            self._elected is not None
            and self._elected[1] == os.getpid()
            and _identity(self._elected[0]) == _identity(str(self.bell_folder))
        )

    def listener(self) -> Listener:
        """Return who listens, and what is wrong with listening and telling."""
        raw = os.pread(self._fd, LISTENER.size + 2 * TROUBLE_SIZE, LISTENER_AT).ljust(LISTENER.size + 2 * TROUBLE_SIZE, b"\0")
        pid, start, number = LISTENER.unpack_from(raw)
        listening, telling = raw[LISTENER.size : -TROUBLE_SIZE], raw[-TROUBLE_SIZE:]
        alive = pid > 0 and started(pid) == start
        return Listener(pid if alive else 0, max(0, number), _text(listening), _text(telling))

    def note_trouble(self, *, listening: str | None = None, telling: str | None = None) -> None:
        """Note what is wrong with listening to other hosts, or with telling them, ``""`` if nothing is."""
        for index, text in enumerate((listening, telling)):
            if text is not None:
                self._write(TROUBLES_AT + index * TROUBLE_SIZE, text.encode(errors="replace")[:TROUBLE_SIZE].ljust(TROUBLE_SIZE, b"\0"))

    def untold(self) -> bytes:
        """Return what says that there may be something that other hosts weren't told; all zeros if there is nothing."""
        return os.pread(self._fd, WORD, UNTOLD_AT)

    def note_told(self, untold: bytes) -> None:
        """Note that other hosts were told, unless there is something new since ``untold`` was read."""
        if self.untold() == untold:
            self._write(UNTOLD_AT, bytes(WORD))

    # Words

    def bell(self) -> bytes:
        """Return the bell that was rung last."""
        return self.peek()[:WORD]

    def ring(self) -> None:
        """Say that the store may have changed."""
        self._write(0, os.urandom(WORD))

    def settle(self, head: bytes) -> None:
        """Under the lock, say that the store was read after the bell in ``head`` and gave the snapshot in it."""
        os.pwrite(self._fd, head[WORD:], WORD)  # which file it is was looked at when the lock was taken

    def succeed(self) -> None:
        """Under the lock, note that the store was read just now."""
        self._write(NOTES_AT + 16, struct.pack("<qqq", time.monotonic_ns(), 0, 0))

    def claim(self, store: str) -> None:
        """Under the lock, note which store these files belong to; those of another that nobody uses are given up.

        Raises:
            SchemaError: processes that live use them for another store.
        """
        mine = hashlib.blake2b(store.encode(), digest_size=WORD).digest()
        theirs = self.notes().store
        if theirs not in (mine, bytes(WORD)):
            if self._identity in _claimed or any(self.slots):
                raise SchemaError(
                    f"WAFFLE_WATCHER_FILE {self.watch_file} is used for another store than {store}. Give each application a watch file "
                    "of its own; if the store has moved, stop all processes that use it before one is started anew."
                )
            self._write(0, _blank())
            self.tidy()
        self._write(COMING_AT - WORD, mine)
        _claimed.add(self._identity)

    def mend(self) -> bool:
        """Under the lock, write a whole header if this one is cut off or isn't one; tell whether that was needed."""
        if os.fstat(self._fd).st_size == SIZE and os.pread(self._fd, len(MAGIC), NOTES_AT) == MAGIC:
            return False
        self._write(0, _blank())
        return True

    def fail(self, error: str) -> bool:
        """Under the lock, note that the store couldn't be read and when to try again; tell whether that is news."""
        notes = self.notes()
        known = notes.failures > 0 and notes.error == error.encode()[:ERROR_SIZE].decode(errors="ignore")
        failures = notes.failures + 1 if notes.failures > 0 else 1
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)
        self._write(NOTES_AT + 24, struct.pack("<qq", time.monotonic_ns() + round(pause * 1e9), failures))
        self._write(NOTES_AT + 56, error.encode()[:ERROR_SIZE].ljust(ERROR_SIZE, b"\0"))
        return not known

    def notes(self) -> Notes:
        """Read what the header says beyond its words; what can't be so is read as 0."""
        raw = os.pread(self._fd, NOTES.size, NOTES_AT)
        if len(raw) < NOTES.size:
            return Notes()
        magic, generation, checked, retry, failures, holder, watch, incident, store, _ = NOTES.unpack(raw)
        if magic != MAGIC:
            return Notes()
        now = time.monotonic_ns()
        return Notes(
            generation=generation,
            store=store,
            checked_at=checked if checked <= now else 0,  # later than now: written before the machine's last start
            retry_at=retry if retry <= now + round(LAST_RETRY * 1e9) else 0,
            failures=failures if 0 <= failures < 1_000_000 else 0,
            holder=holder,
            watch=watch,
            incident=incident,
        )

    # The doorbells

    def toll(self) -> None:
        """Under the lock, wake uWSGI's master, and touch the watch file for those who watch only that."""
        mtime, before = self._touch or self._prepare_touch()
        if self._stamp() != before:  # what somebody else's touch has told isn't told yet
            self.ring()
        os.utime(self._watch, ns=(mtime, mtime))
        self.knock()  # at once, so that the master reads both as one event
        self._touch = None

    def announce(self, digest: bytes) -> bytes:
        """Under the lock, before a commit: ring, and wake uWSGI's workers, so that they prepare the staged snapshot meanwhile.

        Returns:
            The words that say, when it is committed, that the snapshot is the newest.
        """
        self.ring()
        head = settled(self.bell(), digest)
        os.pwrite(self._fd, head + head[:WORD], COMING_AT)  # the second part: other hosts aren't told yet
        self.knock()
        return head

    def coming(self) -> bytes:
        """Return the words that the header will have when what was announced last is committed."""
        return os.pread(self._fd, HEAD_SIZE, COMING_AT)

    def knock(self) -> None:
        """Wake uWSGI's masters, and they their workers."""
        try:
            os.utime(self._bell_path)
        except FileNotFoundError:
            ensure_folder(self.bell_folder)
            create_file(self._bell_file, b"", self._owner)

    def _prepare_touch(self) -> tuple[int, bytes]:
        """Note how the watch file will be after our touch, so that nobody takes that for somebody else's.

        Returns:
            The time that it will have, and how it must be before.
        """
        mtime, before = time.time_ns(), self.notes().watch
        self._write(NOTES_AT + 48, self._stamp(mtime))
        return mtime, before

    def is_touched(self) -> bool:
        """Tell whether the watch file isn't as it was last noted: somebody touched it, or is writing at this moment."""
        return self._stamp() != self.notes().watch

    def take_touch(self) -> bool:
        """Under the lock, tell whether somebody touched the watch file, and note how it is now."""
        stamp = self._stamp()
        if stamp == self.notes().watch:
            return False
        self._write(NOTES_AT + 48, stamp)
        return True

    def _stamp(self, mtime: int | None = None) -> bytes:
        try:
            found = os.lstat(self._watch)
        except FileNotFoundError:
            ensure_watch_file(self.watch_file)
            found = os.lstat(self._watch)
        told = struct.pack("<QQqq", found.st_dev, found.st_ino, found.st_size, mtime or found.st_mtime_ns)
        return hashlib.blake2b(told, digest_size=WORD).digest()

    # The snapshots, each in a file that is named by its digest and never changes

    def snapshot(self, digest: bytes) -> Encoded | None:
        """Return the snapshot with this digest, ``None`` if there is none or it is damaged."""
        path = self._prefix + digest.hex()
        for place in (path, path + STAGED, path):  # it may be promoted between two looks
            try:
                return decode(read_file(place, self._owner), digest)
            except FileNotFoundError:
                continue
            except SnapshotDamaged:
                break
        return None

    def last(self) -> Encoded | None:
        """Return the snapshot that was published last; if the header doesn't tell, the one with the highest revision."""
        named = self.snapshot(digest_in(self.peek()))
        if named is not None:
            return named
        try:
            found = os.listdir(self._snapshots)
        except FileNotFoundError:
            return None
        names = [bytes.fromhex(name) for name in found if re.fullmatch(f"[0-9a-f]{{{2 * WORD}}}", name)]
        return max(filter(None, map(self.snapshot, names)), key=lambda found: found.revision, default=None)

    def stage(self, encoded: Encoded) -> None:
        """Under the lock, write a snapshot to the disk, where nobody looks at it, and all else that can be written before.

        Raises:
            HostFilesError: the disk is full, …
        """
        ensure_folder(self._snapshots)
        create_file(Path(self._prefix + encoded.digest.hex() + STAGED), encoded.blob, self._owner)
        self._touch = self._prepare_touch()

    def promote(self, digest: bytes) -> None:
        """Under the lock, put the staged snapshot, which the store has now, where `settle` will name it."""
        path = self._prefix + digest.hex()
        os.rename(path + STAGED, path)

    def tidy(self, *kept: bytes) -> None:
        """Under the lock, remove all snapshots but those with the digests ``kept``."""
        names = {digest.hex() for digest in kept}
        for name in os.listdir(self._snapshots):
            if name not in names:
                (self._snapshots / name).unlink(missing_ok=True)

    def _write(self, offset: int, data: bytes) -> None:
        if _identity(self._fd) != self._identity:  # somebody closed our descriptor and its number is another file's now
            self._fd = -1
            self.verify()
        os.pwrite(self._fd, data, offset)

    def _read_slots(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, SLOTS_AT + offset)

    def _write_slots(self, offset: int, data: bytes) -> None:
        self._write(SLOTS_AT + offset, data)


def _close(fd: int, identity: tuple[int, int]) -> None:
    if _identity(fd) == identity:
        os.close(fd)


def _let_go() -> None:
    """In a forked child: it has its parent's descriptors, and mustn't keep the lock when the parent dies."""
    global _opening
    _opening = threading.Lock()
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="ignore")


def _seal(words: bytes) -> bytes:
    return hashlib.blake2b(words, digest_size=WORD).digest()


def _blank() -> bytes:
    """Return a header that isn't settled."""
    notes = NOTES.pack(MAGIC, int.from_bytes(os.urandom(7), "big"), 0, 0, 0, 0, bytes(WORD), b"", bytes(WORD), bytes(HEAD_SIZE))
    return (os.urandom(HEAD_SIZE) + notes).ljust(SIZE, b"\0")


def _identity(file: str | int) -> tuple[int, int]:
    try:
        found = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError:  # gone, or closed by somebody else: not the file that was asked for
        return (-2, -2)
    return (found.st_dev, found.st_ino)
