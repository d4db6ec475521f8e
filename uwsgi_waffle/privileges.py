"""Act as a folder's owner, who then can't lead a command of root's to other files."""

from __future__ import annotations

import logging
import os
import shlex
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from . import unix
from .errors import SchemaError

__all__ = [
    "acting_as",
    "acting_user",
    "as_owner_of",
    "exposed_to",
    "foreign_owner",
    "make_folder",
    "name_user",
    "resolve",
    "warn_if_exposed",
]

log = logging.getLogger("uwsgi_waffle")

LONGEST_CHAIN = 40  # links, as in Linux

_warned_of: set[Path] = set()
_thread = threading.local()  # `uid`: as whom it acts, if it does


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Use files with the rights of a user and its groups in this block, if this process is root's.

    On Linux this concerns only the calling thread; see setfsuid(2). Elsewhere it is the effective
    user of the whole process. A block within a block acts as its own user, root too.

    Raises:
        PermissionError: this root may not do that, as in a container without CAP_SETUID.
    """
    outer = getattr(_thread, "uid", None)
    if outer is None and (uid == 0 or unix.geteuid() != 0):
        yield
        return
    groups = unix.groups_of(uid)
    before = unix.become(uid, groups[0], groups)
    _thread.uid = uid
    try:
        yield
    finally:
        _thread.uid = outer
        unix.become(*before)


def make_folder(path: Path, mode: int) -> None:
    """Create a folder with these rights, whatever the umask; one that is there stays as it is."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    try:
        fd = os.open(path, os.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW)
    except PermissionError:  # an umask of 0777; it doesn't keep root out, whom a link could lead
        os.chmod(path, mode)
        return
    unix.fchmod(fd, mode)
    os.close(fd)


def acting_user(path: str | os.PathLike[str]) -> int:
    """Return as whom this process uses files at ``path``, which may not exist yet.

    Root does so as the nearest owner of a parent. As root only if nobody else owns a folder or a
    link on the way, because whoever does can exchange what is below it; or if a folder of root's
    keeps this owner out.
    """
    if uid := unix.geteuid():
        return uid
    above = (*Path(os.path.abspath(path)).parents, Path("/"))
    folder = next(place for place in above if place.is_dir())
    found, is_straight = folder.stat(), os.path.realpath(folder) == str(folder)
    if found.st_uid == 0 and not found.st_mode & 0o022 and is_straight:
        return 0
    for spelling in (os.path.realpath(path), os.path.abspath(path)):
        for place, uid in _owners(spelling):
            if uid:
                return 0 if _is_kept_out(uid, place.parent) else uid
    return 0


def _is_kept_out(uid: int, folder: Path) -> bool:
    """Return whether root keeps a user from a folder; who keeps himself out may come back."""
    for place in (*reversed(folder.parents), folder):
        try:
            with acting_as(uid):
                os.stat(f"{place}/.")  # needs the right to enter it
        except PermissionError:
            return place.stat().st_uid == 0
    return False


def resolve(path: Path) -> Path:
    """Follow the links in a path that may not exist yet.

    Raises:
        SchemaError: root would be led to a folder of its own by a link of somebody who owns nothing
            there.
    """
    real = Path(os.path.realpath(path))
    if acting_user(real) == 0:
        owners = {uid for _, uid in _owners(real)} | {0}
        for link in _links(path):
            if (uid := link.lstat().st_uid) not in owners:
                raise SchemaError(
                    f"{path} leads to {real} by {link}, a link of {name_user(uid)}, which root "
                    "doesn't follow. Let WAFFLE_WATCHER_FILE, WAFFLE_STORE_URL or the instance "
                    f"folder name {real}."
                )
    return real


def _links(path: Path, depth: int = 0) -> Iterator[Path]:
    """Yield each link on the way, also in what links lead to."""
    for part in (*reversed(path.parents), path):
        if part.is_symlink() and depth < LONGEST_CHAIN:
            yield part
            yield from _links(part.parent / os.readlink(part) / path.relative_to(part), depth + 1)
            return


def _owners(path: str | os.PathLike[str]) -> Iterator[tuple[Path, int]]:
    """Yield what is there of a path and the folders above it, the nearest first, and its owner."""
    for place in (Path(path), *Path(path).parents):
        with suppress(FileNotFoundError, NotADirectoryError):
            yield place, place.lstat().st_uid


def name_user(uid: int) -> str:
    """Name a user in a message."""
    return f"user {uid}" if uid else "root"


def foreign_owner(user: int, *paths: Path | str, whole: Sequence[Path | str] = ()) -> str:
    """Say which paths belong to somebody else than ``user``, and what to run; empty if none does.

    Args:
        user: as whom this process uses them.
        whole: those that are given away with all that is in them; they come first.
    """
    owners: dict[str, int] = {}
    hidden: list[str] = []
    for path in map(str, (*whole, *paths)):
        try:
            found = os.stat(path)
            if not (stat.S_ISDIR(found.st_mode) and found.st_mode & 0o002):  # such as /tmp
                owners[path] = found.st_uid
        except PermissionError:
            hidden.append(path)  # it will be somebody else's, as the folder is
        except OSError:
            continue
    foreign = [path for path, uid in owners.items() if uid != user and unix.PRESENT]
    if not foreign:
        return ""
    uid = owners[foreign[0]]
    commands = []
    for command, group in (("chown -R", whole), ("chown", paths)):
        if given := [path for path in map(str, group) if path in (*foreign, *hidden)]:
            commands.append(f"{command} {user} {shlex.join(given)}")
    return (
        f"{foreign[0]} belongs to {name_user(uid)}, and this process uses it as {name_user(user)}. "
        f"Run this as {name_user(uid)}; or give it away, as root: {' && '.join(commands)}"
    )


def as_owner_of(path: Path | None) -> AbstractContextManager[None]:
    """Act as the owner of a file that may have to be created, if this is a command of root's.

    Warn if other users can exchange it. Without a file do nothing.
    """
    if path is None:
        return nullcontext()
    warn_if_exposed(path)
    return acting_as(acting_user(path))


def warn_if_exposed(path: Path) -> None:
    """Warn once of each folder at or above a path that lets others exchange what is there."""
    spellings = {Path(os.path.abspath(path)), Path(os.path.realpath(path))}
    for place in {place for spelling in spellings for place in (spelling, *spelling.parents)}:
        with suppress(OSError):  # whoever opens it will say why
            who, remedy = exposed_to(place, path)
            if who and place not in _warned_of:
                _warned_of.add(place)
                log.warning(
                    "uwsgi_waffle: %s may write %s, and so exchange %s. Run: %s",
                    who,
                    place,
                    path,
                    remedy,
                )


def exposed_to(place: Path, path: Path) -> tuple[str, str]:
    """Return who may exchange what is there, and what to run; empty if nobody may.

    In a sticky folder nobody may. A group counts in a folder of root's if root itself uses the
    path, and so could be led by it.
    """
    found = place.stat()
    mode = found.st_mode if unix.PRESENT and not found.st_mode & 0o1000 else 0
    if mode & 0o002:
        return "every user", f"chmod o-w {shlex.quote(str(place))}"
    group = mode & 0o020 and found.st_uid == 0 != found.st_gid
    if group and acting_user(path) == 0:
        return f"group {found.st_gid}", f"chmod g-w {shlex.quote(str(place))}"
    return "", ""
