"""Locks that end with the process that took them, and not with its children."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import Any

from .. import unix
from .private import OpenFile, PrivateFolder

__all__ = ["LockedFile", "read_locked", "try_flock", "unlock"]

READ_ATTEMPTS, READ_PAUSE = 5, 0.001  # a file may be read while its process writes it; seconds
LARGEST = 2**20  # bytes of a file; an error may be long


_held = set[OpenFile]()  # by this process


def try_flock(file: OpenFile) -> bool:
    """Lock a file for this process. Never wait. If it is held, close it: ``False``."""
    _held.add(file)  # first: a child that is forked meanwhile has to close it
    try:
        unix.flock(file.fd, unix.LOCK_EX | unix.LOCK_NB)
    except OSError as error:
        _held.discard(file)
        file.close()
        if not isinstance(error, BlockingIOError):
            raise
        return False
    return True


def unlock(file: OpenFile) -> None:
    """Release a lock, also for a child that is being forked at this moment, and close the file."""
    if file in _held and file.is_open():
        unix.flock(file.fd, unix.LOCK_UN)
        file.close()
    _held.discard(file)


class LockedFile:
    """A small JSON file that one process holds locked for as long as it lives."""

    def __init__(self, folder: PrivateFolder, name: str) -> None:
        self._folder, self.name = folder, name
        self._file, self._pid = OpenFile(), 0

    def __del__(self) -> None:
        self.release()

    def acquire(self, content: dict[str, Any] | None = None) -> bool:
        """Lock the file, unless another process holds it. Never wait. Return whether it is ours.

        Args:
            content: what to write then, instead of the pid alone.
        """
        if not self.is_ours():
            self.release()
            file = OpenFile(self._folder.open(self.name, os.O_RDWR | os.O_CREAT))
            if not try_flock(file):
                return False
            self._file, self._pid = file, os.getpid()
            self.write(content or {"pid": os.getpid()})
        return self.is_ours()  # somebody may have removed it before it was locked

    def is_ours(self) -> bool:
        """Return whether this process holds the file, and it is still at its path."""
        return self._pid == os.getpid() and self._file.is_at(f"{self._folder.path}/{self.name}")

    def write(self, content: dict[str, Any]) -> None:
        """Write the file; it must be ours.

        Raises:
            HostFilesError: the disk is full; nobody can read the file until it is written again.
        """
        text = json.dumps(content).encode()
        with self._folder.explaining(self.name):
            written = unix.pwrite(self._file.fd, text, 0)
            os.ftruncate(self._file.fd, written)
            if written < len(text):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def release(self) -> None:
        """Give the file up."""
        if self._pid == os.getpid():
            unlock(self._file)
        else:  # the parent's: uWSGI without a master forks without Python's knowledge
            self._file.close()
        self._file, self._pid = OpenFile(), 0


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
        _held.pop().close()


unix.at_fork(after_in_child=_close_inherited)
