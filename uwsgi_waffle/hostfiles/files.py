"""Files that are ours and nobody else's: opened without following links, owned by the folder's
owner, 0600 in 0700.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import HostFilesError

__all__ = [
    "aside_of",
    "create_file",
    "ensure_folder",
    "ensure_watch_file",
    "filesystem_of",
    "is_aside",
    "is_network",
    "open_file",
    "opened_folder",
    "read_file",
    "rewrite_file",
]

# O_NONBLOCK: a named pipe in our file's place must not hang us.
SAFE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
NETWORK_FILESYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "9p",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
    }
)
MARK = ".uwsgi_waffle"  # the file that a folder of ours is born with


def ensure_folder(path: Path) -> int:
    """Create or check a private folder and return its owner's uid.

    Raises:
        HostFilesError: it can't be created, is a link, or is another user's.
    """
    try:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            _make_folder(path)
            found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise HostFilesError(
                f"{path} must be a folder of our own and is something else (a link or a file). Remove it."
            )
        _check_owner(path, found, _owner_of_new(path))
        if stat.S_IMODE(found.st_mode) != 0o700:  # by somebody
            with opened_folder(path, found.st_uid) as fd:
                os.fchmod(fd, 0o700)
    except OSError as error:
        raise _explained(path, error) from error
    return found.st_uid


def _make_folder(path: Path) -> None:
    """Create a private folder all at once: who is killed leaves nothing in its way, and who is
    slower replaces nothing.

    rename(2) replaces a folder that is empty, and who has just entered that one finds nothing there
    any more. So ours is
    born with a file in it. Nothing here goes to what the server's user puts in the way of a shell
    of root's.
    """
    owner, aside = _owner_of_new(path), aside_of(path)
    os.mkdir(aside, 0o700)
    try:
        if os.geteuid() != 0:
            os.chmod(aside, 0o700)  # whatever the umask
        with opened_folder(aside, os.geteuid()) as fd:
            if os.listdir(fd):
                raise HostFilesError(f"{aside} isn't the folder that was made there a moment ago.")
            mark = os.open(MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE, 0o600, dir_fd=fd)
            try:
                _hand_over(mark, 0o600, owner)
            finally:
                os.close(mark)
            _hand_over(fd, 0o700, owner)
        os.rename(aside, path)
    except BaseException as error:
        with suppress(OSError):
            (aside / MARK).unlink(missing_ok=True)
            aside.rmdir()
        if not isinstance(error, OSError) or error.errno not in (
            errno.ENOTEMPTY,
            errno.EEXIST,
        ):  # another process was faster
            raise


@contextmanager
def opened_folder(path: Path | str, owner: int, above: int | None = None) -> Iterator[int]:
    """Open one of our folders, for what is done in it with its descriptor can't be led to another
    one.

    Raises:
        HostFilesError: it is another user's.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | SAFE, dir_fd=above)
    try:
        _check_owner(path, os.fstat(fd), owner)
        yield fd
    finally:
        os.close(fd)


def _hand_over(fd: int, mode: int, owner: int) -> None:
    """Give what root has made to the server's user, with its mode whatever the umask."""
    os.fchmod(fd, mode)
    if os.geteuid() == 0:
        os.fchown(fd, owner, -1)


def _owner_of_new(path: Path) -> int:
    """Return whose ``path`` is to be: the owner's of the folder above if it is a shell of root's
    that makes it.
    """
    return os.stat(path.parent).st_uid if os.geteuid() == 0 else os.geteuid()


def aside_of(path: Path) -> Path:
    """Return where something is prepared that is to be at ``path`` all at once; see `is_aside`."""
    return path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")


def is_aside(path: Path) -> bool:
    """Tell whether a path, relative to a folder of ours, is of something prepared; if nobody goes
    on with it, its process was killed.
    """
    return any(re.search(r"\.\d+\.[0-9a-f]{8}$", part) for part in path.parts)


def open_file(path: str, flags: int, owner: int) -> int:
    """Open one of our files and return its descriptor.

    Raises:
        FileNotFoundError: there is none.
        HostFilesError: it is a link, not a plain file, or another user's.
    """
    return _open(path, flags, owner)[0]


def _open(path: str, flags: int, owner: int) -> tuple[int, int]:
    """Return a descriptor and the size of the file."""
    try:
        fd = os.open(path, flags | SAFE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _explained(path, error) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise HostFilesError(
                f"{path} must be a plain file of our own. Remove what stands there."
            )
        if found.st_uid != owner:
            _check_owner(path, found, owner)
    except BaseException:
        os.close(fd)
        raise
    return fd, found.st_size


def create_file(path: Path, content: bytes, owner: int, folder: int | None = None) -> None:
    """Write a new file of ours with 0600 under any umask, in place of one that a dead process left.

    Args:
        folder: the descriptor of the folder, if nobody must be able to put another in its place.

    Raises:
        HostFilesError: the disk is full, the folder can't be written, …; nothing is left behind.
    """
    name = path if folder is None else path.name
    try:
        fd = _open_new(name, folder)
        try:
            _hand_over(fd, 0o600, owner)
            _write_all(fd, content)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        raise _explained(path, error) from error


def _open_new(name: Path | str, folder: int | None) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE
    try:
        return os.open(name, flags, 0o600, dir_fd=folder)
    except FileExistsError:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        return os.open(name, flags, 0o600, dir_fd=folder)


def rewrite_file(old: str, name: str, content: bytes, owner: int, folder: int) -> bool:
    """Give a file that nobody reads any more another name and content; tell whether that worked,
    else a new file is needed.

    It must be as `create_file` has made it and have no other name: else somebody else might read
    what is written, or lose
    what it holds. The name comes first, so that of two processes one has the file.
    """
    try:
        fd = os.open(old, os.O_WRONLY | SAFE, dir_fd=folder)
    except OSError:
        return False
    try:
        found = os.fstat(fd)
        if (found.st_mode, found.st_uid, found.st_nlink) != (stat.S_IFREG | 0o600, owner, 1):
            return False
        os.rename(old, name, src_dir_fd=folder, dst_dir_fd=folder)
        _write_all(fd, content)
        os.ftruncate(
            fd, len(content)
        )  # last, for ext4 writes a file to the disk that was empty meanwhile
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def read_file(path: str, owner: int) -> bytes:
    """Return the whole of one of our files; errors as in `open_file`."""
    fd, size = _open(path, os.O_RDONLY, owner)
    try:
        content = os.read(fd, size)
        while len(content) < size and (more := os.read(fd, size - len(content))):
            content += more
    finally:
        os.close(fd)
    return content


def ensure_watch_file(path: Path) -> None:
    """Create or check the watch file, which anyone may touch.

    Raises:
        HostFilesError: it can't be created, or is a folder, a link, or another user's.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        owner = _owner_of_new(path)
        if not os.path.lexists(path):
            aside = aside_of(path)
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFE, 0o644)
            try:
                os.fchown(fd, owner, -1)
                with suppress(FileExistsError):  # another process was faster
                    os.link(aside, path)
            finally:
                os.close(fd)
                aside.unlink(missing_ok=True)
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            raise HostFilesError(
                f"WAFFLE_WATCHER_FILE {path} must be a plain file, not a folder, a link or a device."
            )
        _check_owner(path, found, owner)
    except OSError as error:
        raise _explained(path, error, "WAFFLE_WATCHER_FILE ") from error


def filesystem_of(path: Path, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the file system that holds ``path``, ``""`` where the kernel doesn't tell
    (see proc(5)).
    """
    try:
        lines = os.fsdecode(Path(mountinfo).read_bytes()).split("\n")
    except OSError:  # not Linux
        return ""
    resolved = path.resolve()
    best, name = -1, ""
    for line in filter(None, lines):
        fields, _, rest = line.partition(" - ")
        mount = Path(
            re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split(" ")[4])
        )
        if resolved.is_relative_to(mount) and len(mount.parts) >= best:
            best, name = len(mount.parts), rest.split(" ")[0]
    return name


def is_network(filesystem: str) -> bool:
    """Tell whether a file system is shared with other hosts, where neither locks nor renames reach
    our processes.
    """
    return filesystem in NETWORK_FILESYSTEMS


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def _check_owner(path: Path | str, found: os.stat_result, owner: int) -> None:
    if found.st_uid != owner and not found.st_uid == os.geteuid() == 0:
        raise HostFilesError(
            f"{path} belongs to user {found.st_uid}, not to user {owner}: it isn't ours. "
            "Remove it, or set WAFFLE_WATCHER_FILE to another path."
        )


def _explained(path: Path | str, error: OSError, setting: str = "") -> HostFilesError:
    if isinstance(error, HostFilesError):
        return error
    hint = "WAFFLE_WATCHER_FILE names a plain file in a local folder that this process may write."
    return HostFilesError(f"{setting}{path}: {error.strerror or error}. {hint}")
