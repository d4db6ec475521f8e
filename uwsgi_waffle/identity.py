"""What tells stores apart: the place that is written, and where that really is.

``localhost`` in two containers is two servers, and so is one path; one volume may be mounted at two
places. So a place that depends on where a process runs is followed by `REALLY` and by what the
kernel knows it by: for a file that is its place within its file system. Who has no /proc can't
see that, and in a chroot the paths are others as well; so the folder of a file follows, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

__all__ = [
    "Mount",
    "database_identity",
    "file_identity",
    "mount_of",
    "parse_mounts",
    "same_place",
    "same_store",
    "server_identity",
    "shown",
    "sqlite_path",
]

REALLY = "\0"  # which is in no path and no URL
PORTS = {"postgresql": 5432, "mysql": 3306, "redis": 6379}
LIBPQ = ("host", "port", "database", "user", "options")  # each is PGHOST and so on, too
LOOPBACK = re.compile(r"|localhost|localhost\.localdomain|127\.\d+\.\d+\.\d+|::1|\[::1\]")


def same_store(one: str, other: str) -> bool:
    """Return whether two identities are of one store.

    If one of them couldn't find out where it really is, as without /proc, the same folder is
    enough, or that the same is written.
    """
    (place, really, folder), (other_place, other_really, other_folder) = (
        (*text.split(REALLY, 2), "", "")[:3] for text in (one, other)
    )
    if really and other_really:
        return really == other_really
    return place == other_place or (bool(folder) and folder == other_folder)


def same_place(one: str, other: str) -> bool:
    """Return whether two identities are written alike, wherever that is."""
    return one.partition(REALLY)[0] == other.partition(REALLY)[0]


def shown(identity: str) -> str:
    """Return an identity for people: what is written, and where that really is."""
    return " = ".join(filter(None, identity.split(REALLY)[:2]))


def file_identity(kind: str, path: str, rest: str = "") -> str:
    """Return the identity of what a file holds."""
    path = os.path.realpath(path)
    mount = mount_of(path)
    found = (mount.place(path) if mount else "", _folder(path))
    return REALLY.join(
        (f"{kind}/{path}{rest}", *(f"{text}{rest}" if text else "" for text in found))
    )


def server_identity(backend: str, host: str, port: int | str | None, rest: str) -> str:
    """Return the identity of what a server holds.

    Args:
        backend: the kind of server.
        host: its name, or the path of its socket.
        port: its port, if it isn't the usual one.
        rest: which of its data.
    """
    rest = f":{port or PORTS.get(backend, '')}/{rest}"
    if host.startswith("/"):
        return file_identity(f"{backend}:/", host, rest)
    if LOOPBACK.fullmatch(host.lower()):
        network = _namespace("net")
        return f"{backend}://localhost{rest}" + (f"{REALLY}{network}{rest}" if network else "")
    return f"{backend}://{host.lower()}{rest}"


def database_identity(backend: str, arguments: Mapping[str, object], table: str) -> str:
    """Return the identity of a table in a server's database.

    Args:
        backend: the kind of server.
        arguments: what its driver is given to connect.
        table: its name, or what the names of all tables begin with.
    """
    found = {name: str(value) for name, value in arguments.items() if value}
    if backend == "postgresql":
        environment = {name: os.environ.get(f"PG{name.upper()}", "") for name in LIBPQ}
        found = {**environment, **found}
    # PostgreSQL takes the database that is called like the user.
    what = next(filter(None, map(found.get, ("dbname", "db", "database", "user"))), "")
    if options := found.get("options"):  # may say where tables are
        what = f"{what}?{options}"
    host = found.get("unix_socket") or found.get("host", "")
    return server_identity(backend, host, found.get("port"), f"{what} {table}".rstrip())


def sqlite_path(database: str) -> str:
    """Return the path in a SQLite database's name, which may be a URI; see sqlite.org/uri.html."""
    if not database.startswith("file:"):
        return database
    path = re.split(r"[?#]", database.removeprefix("file:"))[0]
    return unquote(re.sub(r"^//[^/]*", "", path), errors="surrogateescape")


def _namespace(kind: str) -> str:
    """Return what tells this process's namespace from those of containers, "" without /proc."""
    try:
        return os.readlink(f"/proc/self/ns/{kind}")
    except OSError:
        return ""


def _folder(path: str) -> str:
    """Return a file's name after the number of its folder, which a chroot doesn't change."""
    folder, name = os.path.split(path)
    try:
        found = os.stat(folder)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}/{name}"


@dataclass(frozen=True, slots=True)
class Mount:
    """A file system, or a folder of one, that is mounted somewhere.

    Attributes:
        device: the file system.
        root: the folder in it that is mounted.
        point: where it is mounted.
        kind: the type of the file system.
    """

    device: str
    root: str
    point: str
    kind: str

    def place(self, path: str) -> str:
        """Return what a path here is in the file system, wherever that is mounted."""
        below = path[len(self.point) :].lstrip("/")
        return f"{self.device}:{os.path.join(self.root, below)}"


def mount_of(path: str, mounts: Iterable[Mount] | None = None) -> Mount | None:
    """Return what a real path is on; ``None`` if this process can't see that.

    It can't without /proc, or in a chroot.

    Args:
        mounts: those to look among; by default the mounts that this process sees.
    """
    best = None
    for mount in _mounts() if mounts is None else mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        # The last one covers those before it.
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def _mounts() -> tuple[Mount, ...]:
    namespace = _namespace("mnt")
    return _mounts_of(namespace) if namespace else ()


@cache
def _mounts_of(namespace: str) -> tuple[Mount, ...]:
    return parse_mounts(Path("/proc/self/mountinfo").read_bytes())


def parse_mounts(content: bytes) -> tuple[Mount, ...]:
    """Read the kernel's list."""
    found = []
    for line in filter(None, os.fsdecode(content).splitlines()):
        fields, _, rest = line.partition(" - ")
        device, root, point = fields.split(" ")[2:5]
        found.append(Mount(device, _unescaped(root), _unescaped(point), rest.split(" ")[0]))
    return tuple(found)


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
