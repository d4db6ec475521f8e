"""Locks that end with the process that took them, and not with its children."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import Any

from .. import unix
from .private import PrivateFolder, file_id

__all__ = ["LockedFile", "read_locked", "try_flock", "unlock"]

READ_ATTEMPTS, READ_PAUSE = 5, 0.001  # a file may be read while its process writes it; seconds
LARGEST = 2**20  # bytes of a file; an error may be long


# By descriptor. The file tells whether it is still ours: somebody may have closed it, as a program
# does that becomes a daemon, and its number may be another file's by now.
_held: dict[int, tuple[int, int]] = {}


def try_flock(fd: int) -> bool:
    """Lock an open file for this process. Never wait. If it is held, close it: ``False``."""
    _held[fd] = file_id(fd)  # first: a child that is forked meanwhile has to close it
    try:
        unix.flock(fd, unix.LOCK_EX | unix.LOCK_NB)
    except OSError as error:
        _held.pop(fd, None)
        os.close(fd)
        if not isinstance(error, BlockingIOError):
            raise
        return False
    return True


def unlock(fd: int) -> None:
    """Release a lock, also for a child that is being forked at this moment, and close the file."""
    if _held.pop(fd, None) == file_id(fd) != (-1, -1):
        unix.flock(fd, unix.LOCK_UN)
        os.close(fd)


class LockedFile:
    """A small JSON file that one process holds locked for as long as it lives."""

    def __init__(self, folder: PrivateFolder, name: str) -> None:
        self._folder, self.name = folder, name
        self._fd, self._pid, self._id = -1, 0, (-1, -1)

    def __del__(self) -> None:
        self.release()

    def acquire(self, content: dict[str, Any] | None = None) -> bool:
        """Lock the file, unless another process holds it. Never wait. Return whether it is ours.

        Args:
            content: what to write then, instead of the pid alone.
        """
        if not self.is_ours():
            self.release()
            fd = self._folder.open(self.name, os.O_RDWR | os.O_CREAT)
            if not try_flock(fd):
                return False
            self._fd, self._pid, self._id = fd, os.getpid(), file_id(fd)
            self.write(content or {"pid": os.getpid()})
        return self.is_ours()  # somebody may have removed it before it was locked

    def is_ours(self) -> bool:
        """Return whether this process holds the file, and it is still at its path."""
        path = f"{self._folder.path}/{self.name}"
        return self._pid == os.getpid() and file_id(self._fd) == self._id == file_id(path)

    def write(self, content: dict[str, Any]) -> None:
        """Write the file; it must be ours.

        Raises:
            HostFilesError: the disk is full; nobody can read the file until it is written again.
        """
        text = json.dumps(content).encode()
        with self._folder.explaining(self.name):
            written = unix.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, written)
            if written < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def release(self) -> None:
        """Give the file up."""
        if self._pid == os.getpid():
            unlock(self._fd)
        elif file_id(self._fd) == self._id != (-1, -1):  # the parent's: uWSGI without a master
            os.close(self._fd)  # forks without Python's knowledge
        self._pid, self._id = 0, (-1, -1)


def read_locked(folder: PrivateFolder, name: str) -> dict[str, Any] | None:
    """Return the content of a `LockedFile`, or ``None`` if no living process holds it.

    It is empty if the file is damaged.

    Raises:
        OSError: it can't be opened.
    """
    fd = folder.open(name, os.O_RDONLY)
    try:
        unix.flock(fd, unix.LOCK_SH | unix.LOCK_NB)  # those that look don't disturb each other
        return None
    except BlockingIOError:
        for _ in range(READ_ATTEMPTS):
            try:
                return dict(json.loads(unix.pread(fd, LARGEST, 0)))
            except (ValueError, TypeError, RecursionError):  # damaged, or just being written
                time.sleep(READ_PAUSE)
        return {}
    finally:
        os.close(fd)


def _close_inherited() -> None:
    """In a forked child: close what its parent locked, or the lock would outlive the parent."""
    while _held:
        fd, file = _held.popitem()
        if file_id(fd) == file:
            os.close(fd)


unix.at_fork(after_in_child=_close_inherited)
