"""Private files: one user's own, 0600 in folders of 0700, opened without following links."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from .. import unix
from ..errors import OPEN_FILES_ADVICE, HostFilesError
from ..privileges import acting_as, foreign_owner, make_folder

__all__ = ["OpenFile", "PrivateFolder", "ensure_plain_file", "file_id", "removed_again"]

# O_NONBLOCK: a named pipe in the place of a file must not block us.
SAFE = unix.O_NOFOLLOW | unix.O_NONBLOCK

ADVICE = {
    errno.ENOSPC: "Make room on this disk.",
    errno.EDQUOT: "Make room, or raise this user's quota.",
    errno.EROFS: "Set WAFFLE_WATCHER_FILE to a path on a file system that can be written.",
    errno.ELOOP: "It must not be a link. Remove it.",
    errno.ENOTDIR: "It must be a folder. Remove what is there.",
    errno.EISDIR: "It must be a plain file. Remove the folder.",
    **OPEN_FILES_ADVICE,
    errno.ENAMETOOLONG: "Set WAFFLE_WATCHER_FILE to a shorter path.",
}
OPEN_ATTEMPTS = 10  # somebody may be removing files
LOCAL = (
    "WAFFLE_WATCHER_FILE must name a plain file in a local folder that the server's user may write."
)


class PrivateFolder:
    """A folder of ours and the files in it.

    Root acts as the folder's owner there. So this user can't lead root elsewhere, and every file
    belongs to this user. No link in the place of the folder, or of one above that is ours, is
    followed.
    """

    def __init__(self, path: Path, owner: int, above: PrivateFolder | None = None) -> None:
        self.path, self.owner, self._above = path, owner, above

    def explaining(self, name: str) -> AbstractContextManager[None]:
        """Raise each `OSError` of this block as a `HostFilesError` that names a file, with advice.

        `FileNotFoundError` stays as it is.
        """
        return _explaining(f"{self.path}/{name}", self.owner)

    def subfolder(self, name: str) -> PrivateFolder:
        """Return a folder within this one."""
        return PrivateFolder(self.path / name, self.owner, self)

    def ensure(self) -> None:
        """Create the folder, or check the one that is there.

        Raises:
            HostFilesError: it can't be created, is something else, or is another user's.
        """
        if self._above is not None:
            self._above.ensure()
        with _explaining(self.path, self.owner), acting_as(self.owner):
            make_folder(self.path, 0o700)
            with self._opened() as fd:
                found = os.fstat(fd)
                self._check_owner(found)
                if stat.S_IMODE(found.st_mode) != 0o700:
                    unix.fchmod(fd, 0o700)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        flags = os.O_RDONLY | unix.O_DIRECTORY | SAFE
        if self._above is None:
            fd = os.open(self.path, flags)
        else:
            with self._above._opened() as above:
                fd = os.open(self.path.name, flags, dir_fd=above)
        try:
            yield fd
        finally:
            os.close(fd)

    def open(self, name: str, flags: int) -> int:
        """Open a file and return its descriptor.

        With ``O_CREAT`` a new file gets 0600, and the folder is created if it is gone.

        Raises:
            FileNotFoundError: there is no such file.
            HostFilesError: it is a link, not a plain file, or another user's; or it can't be made.
        """
        path = f"{self.path}/{name}"
        for _ in range(OPEN_ATTEMPTS):
            try:
                with self.explaining(name), acting_as(self.owner), self._opened() as folder:
                    fd = os.open(name, flags | SAFE, 0o600, dir_fd=folder)
                    return self._checked(fd, path, mode=0o600 if flags & os.O_CREAT else None)
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
            with suppress(FileNotFoundError):  # somebody is just removing the folder
                self.ensure()
        raise removed_again(path)

    def _checked(self, fd: int, path: str, mode: int | None) -> int:
        """Return an open file if it is one of ours; give it these rights, whatever the umask."""
        try:
            found = os.fstat(fd)
            self._check_owner(found)
            if not stat.S_ISREG(found.st_mode):
                raise HostFilesError(f"{path} must be a plain file. Remove what is there.")
            if mode is not None and stat.S_IMODE(found.st_mode) != mode:
                unix.fchmod(fd, mode)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def read(self, name: str) -> bytes:
        """Return the content of a file; errors as in `open`."""
        fd = self.open(name, os.O_RDONLY)
        try:
            return os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file.

        Raises:
            HostFilesError: the disk is full, or as in `open`.
        """
        fd = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            with self.explaining(name), open(fd, "wb") as file:
                file.write(content)
        except OSError:
            self.remove(name)
            raise

    def touch(self) -> None:
        """Set the folder's time to now, which inotify and kqueue report to whoever monitors it."""
        with acting_as(self.owner), self._opened() as fd:
            os.utime(fd)

    def names(self) -> list[str]:
        """Return the names in the folder, none if there is no folder."""
        with (
            _explaining(self.path, self.owner),
            suppress(FileNotFoundError, NotADirectoryError),
            acting_as(self.owner),
            self._opened() as fd,
        ):
            return os.listdir(fd)
        return []

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError), acting_as(self.owner), self._opened() as folder:
            os.unlink(name, dir_fd=folder)

    def _check_owner(self, found: os.stat_result) -> None:
        if found.st_uid != self.owner:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def ensure_plain_file(
    path: Path, owner: int, *beside: Path, database: Path | None = None
) -> os.stat_result:
    """Create an empty file that others may read, or check the one that is there.

    Args:
        beside, database: what an error names too, if it is another user's.

    Raises:
        HostFilesError: it can't be created, or is a folder, a link, a device or another user's.
    """
    with _explaining(path, owner, *beside, database=database), acting_as(owner):
        for folder in reversed(path.parents):
            if not folder.exists():
                make_folder(folder, 0o755)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE, 0o644))
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise HostFilesError(f"{path} must be a plain file, not a folder, a link or a device.")
        if found.st_uid not in (owner, unix.getuid()):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return found


def removed_again(path: str) -> HostFilesError:
    """Return the error of what can't be opened because somebody always removes it."""
    return HostFilesError(f"{path} is removed again and again. Check who does that.")


def file_id(file: str | int) -> tuple[int, int]:
    """Return what tells a file from others; ``(-1, -1)`` if it is gone or was closed."""
    try:
        found = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError:
        return (-1, -1)
    return (found.st_dev, found.st_ino)


class OpenFile:
    """An open file, unless somebody else has closed it.

    A program that becomes a daemon does that, and the number may be another file's by now.

    Args:
        fd: the descriptor; none at first.
    """

    def __init__(self, fd: int = -1) -> None:
        self.fd, self.id = fd, file_id(fd)

    def is_open(self) -> bool:
        """Return whether the descriptor still is this file's."""
        return file_id(self.fd) == self.id != (-1, -1)

    def is_at(self, path: str) -> bool:
        """Return whether this is the file at a path, and open."""
        return self.is_open() and file_id(path) == self.id

    def close(self) -> None:
        """Close it, if it is open."""
        if self.is_open():
            os.close(self.fd)


@contextmanager
def _explaining(
    path: Path | str, user: int, *beside: Path, database: Path | None = None
) -> Iterator[None]:
    """Raise an `OSError` as a `HostFilesError` with advice; `FileNotFoundError` stays as it is.

    Args:
        user: who uses the path.
        beside, database: as in `ensure_plain_file`.
    """
    try:
        yield
    except (FileNotFoundError, HostFilesError):
        raise
    except OSError as error:
        text = f"{path}: {error.strerror or error}. {ADVICE.get(error.errno or 0, LOCAL)}"
        if error.errno not in ADVICE:
            others: tuple[Path, ...] = ()
            if database and unix.geteuid() and not os.access(database, os.R_OK):
                others = (database, database.parent)
            text = foreign_owner(user, *others, whole=(path, *beside)) or text
        explained = HostFilesError(text)
        explained.errno = error.errno
        raise explained from error
