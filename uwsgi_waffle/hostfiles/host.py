"""What the processes of one host share: the watch file, and beside it a folder with header,
snapshots and bell.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..errors import SchemaError
from ..snapshot import Encoded, SnapshotDamaged, decode
from .election import UPDATES_AT, Election
from .files import (
    MARK,
    create_file,
    ensure_folder,
    ensure_watch_file,
    opened_folder,
    read_file,
    rewrite_file,
)
from .header import (
    COMING_AT,
    HEAD_SIZE,
    SLOTS_AT,
    WATCH_AT,
    WORD,
    blank,
    digest_in,
    identity_of,
    is_settled,
    settled,
)

__all__ = ["HostFiles"]

COARSE = 5 * 10**9  # nanoseconds; more than any file system rounds a time by
STAGED = ".staged"  # ends the name of a snapshot that isn't in the store yet, or was a moment ago
#: The file of a former snapshot, kept to be written again. A new one costs more, and on an ext4
#: without journal more and more from
#: update to update: the kernel passes over the inodes that were freed in the last minutes
#: (`recently_deleted` in its fs/ext4/ialloc.c).
SPARE = "spare"

DIGEST = f"[0-9a-f]{{{2 * WORD}}}"  # the name of a snapshot
MANY = 2**53  # so far floats count
FOREIGN_AT = UPDATES_AT + WORD
assert FOREIGN_AT + WORD <= SLOTS_AT

_claimed: set[tuple[int, int]] = (
    set()
)  # the headers that applications of this process, or of its parent, use


class Watched(NamedTuple):
    """What tells whether the watch file was touched or replaced."""

    device: int
    inode: int
    size: int
    mtime: int


def _watched(path: str) -> Watched:
    found = os.lstat(path)
    return Watched(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _stamp(watched: Watched) -> bytes:
    return hashlib.blake2b(struct.pack("<QQqq", *watched), digest_size=WORD).digest()


class HostFiles(Election):
    """The shared files beside one watch file: the header, the doorbells, and the snapshots."""

    #: The inode of the watch file at the last look.
    watched_inode = -1
    _seen: tuple[Watched, bytes] | None = (
        None  # how the watch file was at the last look, and how the header notes it, if that is so
    )
    _touch: tuple[int, Watched | None] | None = None  # the one that is prepared

    def claim(self, store: str) -> None:
        """Under the lock, note which store these files belong to; those of another that nobody uses
        are given up.

        Raises:
            SchemaError: processes that live use them for another store.
        """
        mine = hashlib.blake2b(store.encode(), digest_size=WORD).digest()
        theirs = self.notes().store
        if theirs not in (mine, bytes(WORD)):
            if self._identity in _claimed or any(self.slots):
                raise SchemaError(
                    f"WAFFLE_WATCHER_FILE {self.watch_file} is used for another store than {store}. Give each application a watch file "
                    "of its own; if the store has moved, stop all processes that use it before "
                    "one is started anew."
                )
            self._write(0, blank())
            self.tidy()
        self._write(COMING_AT - WORD, mine)
        _claimed.add(self._identity)

    # The doorbells

    def toll(self) -> None:
        """Under the lock, wake uWSGI's masters and all others who watch the watch file: by one
        touch, so that it is one event.
        """
        mtime, before = self._touch or self._prepare_touch()
        self._touch = None
        if self._look_at_watch() != before:  # what somebody else's touch has told isn't told yet
            self.ring()
            self._note_foreign_touch()
        try:
            os.utime(self._watch, ns=(mtime, mtime), follow_symlinks=False)
        finally:
            if self._is_maybe_unwatched():
                self.knock()

    def announce(self, digest: bytes) -> bytes:
        """Under the lock, before a commit: ring, and wake uWSGI's workers, so that they prepare the
        staged snapshot meanwhile.

        Returns:
            The words that say, when it is committed, that the snapshot is the newest.
        """
        self.ring()
        head = settled(self.bell(), digest)
        os.pwrite(
            self._fd, head + head[:WORD], COMING_AT
        )  # the second part: other hosts aren't told yet
        self.knock()
        return head

    def coming(self) -> bytes:
        """Return the words that the header will have when what was announced last is committed."""
        return os.pread(self._fd, HEAD_SIZE, COMING_AT)

    def is_in_flight(self) -> bool:
        """Under the lock, tell whether an update was announced and not shown: its writer is dead,
        its commit may still come.
        """
        coming = self.coming()
        return is_settled(coming) and digest_in(coming) != digest_in(self.peek())

    def land(self) -> None:
        """Under the lock, note that what was announced is committed, or never will be."""
        if self.is_in_flight():
            self._write(COMING_AT, bytes(HEAD_SIZE))

    def knock(self) -> None:
        """Wake uWSGI's masters, and they their workers."""
        try:
            os.utime(self._bell_path, follow_symlinks=False)
        except (
            FileNotFoundError,
            PermissionError,
        ):  # gone, or left by a shell of root's that was killed
            ensure_folder(self.bell_folder)
            create_file(self._bell_file, b"", self._owner)

    def _prepare_touch(self) -> tuple[int, Watched | None]:
        """Note how the watch file will be after our touch, so that nobody takes that for somebody
        else's.

        Returns:
            The time that it will have, and how it must be before, ``None`` if it isn't so now.
        """
        found = self._look_at_watch()
        before = found if _stamp(found) == self._noted_watch() else None
        mtime = time.time_ns()
        self._write(WATCH_AT, _stamp(found._replace(mtime=mtime)))
        return mtime, before

    def _note_foreign_touch(self) -> None:
        """Note that the watch file may have been replaced: no number tells, for an inode's is used
        again at once.
        """
        self._write(FOREIGN_AT, b"\1" * WORD)

    def _is_maybe_unwatched(self) -> bool:
        """Tell whether masters may watch a file that was here before, since somebody else has
        touched this one, or replaced it.
        """
        return os.pread(self._fd, WORD, FOREIGN_AT) != bytes(WORD)

    def is_touched(self) -> bool:
        """Tell whether the watch file isn't as it was last noted: somebody touched it, or is
        writing at this moment.
        """
        found, noted = self._look_at_watch(), self._noted_watch()
        touched = _stamp(found) != noted
        self._seen = None if touched else (found, noted)
        return touched

    def is_as_seen(self) -> bool:
        """Tell whether header and watch file are the ones that `verify` and `is_touched` have seen,
        and the latter found untouched.
        """
        if identity_of(self._header) != self._identity:
            return False
        try:
            return (_watched(self._watch), self._noted_watch()) == self._seen
        except OSError:  # it is gone; whoever looks closer makes another
            return False

    def take_touch(self) -> bool:
        """Under the lock, ring if somebody touched the watch file, and note that; tell whether
        somebody did.
        """
        if not self.is_touched():
            return False
        self.ring()  # first: who dies after it has told everyone
        if self._noted_watch() != bytes(WORD):  # else it is the first note
            self._note_foreign_touch()
        if abs(time.time_ns() - self._look_at_watch().mtime) < COARSE:
            self._make_distinct()
        self._write(WATCH_AT, _stamp(self._look_at_watch()))
        return True

    def _make_distinct(self) -> None:
        """Give the watch file a time that no touch can give it that comes within the same tick of
        clock or file system.
        """
        for back in (0, COARSE):
            mtime = time.time_ns() - back
            os.utime(self._watch, ns=(mtime, mtime), follow_symlinks=False)
            if os.lstat(self._watch).st_mtime_ns == mtime:
                return

    def _look_at_watch(self) -> Watched:
        try:
            found = _watched(self._watch)
        except FileNotFoundError:
            ensure_watch_file(self.watch_file)
            found = _watched(self._watch)
        self.watched_inode = found.inode
        return found

    def _noted_watch(self) -> bytes:
        return os.pread(self._fd, WORD, WATCH_AT)

    # The snapshots, each in a file that is named by its digest

    def snapshot(self, digest: bytes) -> Encoded | None:
        """Return the snapshot with this digest, ``None`` if it is gone, damaged, unreadable or not
        ours: the store has it.
        """
        if len(digest) != WORD:  # of a header that is cut off
            return None
        path = self._prefix + digest.hex()
        for place in (path, path + STAGED, path):  # it may be promoted between two looks
            try:
                return decode(read_file(place, self._owner), digest)
            except OSError:  # also if something else stands there
                continue
            except SnapshotDamaged:
                break
        return None

    def last(self) -> Encoded | None:
        """Return the snapshot that was published last; if the header doesn't tell, the one with the
        highest revision.
        """
        named = self.snapshot(digest_in(self.peek()))
        if named is not None:
            return named
        try:
            found = os.listdir(self._snapshots)
        except FileNotFoundError:
            return None
        names = [bytes.fromhex(name) for name in found if re.fullmatch(DIGEST, name)]
        return max(
            filter(None, map(self.snapshot, names)), key=lambda found: found.revision, default=None
        )

    def stage(self, encoded: Encoded) -> None:
        """Under the lock, write a snapshot to the disk, where nobody looks at it, and all else that
        can be written before.

        Raises:
            HostFilesError: the disk is full, …
        """
        name = encoded.digest.hex() + STAGED
        ensure_folder(self._snapshots)
        with self._in_snapshots() as folder:
            if not rewrite_file(SPARE, name, encoded.blob, self._owner, folder):
                create_file(self._snapshots / name, encoded.blob, self._owner, folder)
        self._touch = self._prepare_touch()

    def promote(self, digest: bytes) -> None:
        """Under the lock, put the staged snapshot, which the store has now, where `settle` will
        name it.
        """
        with self._in_snapshots() as folder:
            os.rename(digest.hex() + STAGED, digest.hex(), src_dir_fd=folder, dst_dir_fd=folder)
        self._write(UPDATES_AT, struct.pack("<Q", self.updates() + 1))

    def updates(self) -> int:
        """Return how many snapshots were published since the header was made; not counted is one
        whose writer died at it.
        """
        return int.from_bytes(os.pread(self._fd, WORD, UPDATES_AT), "little") % MANY

    def tidy(self, *kept: bytes) -> None:
        """Under the lock, remove all snapshots but those with the digests ``kept``.

        If some are kept, the file of one other is, too, to be written again. Who has opened that
        one before and reads it then, finds it
        damaged, as its digest says, and looks again.
        """
        names = {MARK, *(digest.hex() for digest in kept), *([SPARE] if kept else [])}
        with self._in_snapshots() as folder:
            for name in os.listdir(folder):
                if name in names:
                    continue
                if kept and re.fullmatch(DIGEST, name):
                    with suppress(OSError):  # something else stands there
                        os.rename(name, SPARE, src_dir_fd=folder, dst_dir_fd=folder)
                        continue
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)

    @contextmanager
    def _in_snapshots(self) -> Iterator[int]:
        with (
            opened_folder(self.folder, self._owner) as above,
            opened_folder(self._snapshots.name, self._owner, above) as folder,
        ):
            yield folder
