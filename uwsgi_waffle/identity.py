"""What tells stores apart: the place that is written, and where that really is.

``localhost`` in two containers is two servers, and so is one path; one volume may be mounted at two
places. So a place that depends on where a process runs is followed by `REALLY` and by what the
kernel knows it by: for a file that is its place within its file system. Who has no /proc can't
see that, and in a chroot the paths are others as well; so the folder of a file follows, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from . import unix

__all__ = [
    "database_identity",
    "file_identity",
    "knows_mounts",
    "same_place",
    "same_store",
    "server_identity",
    "shown",
    "sqlite_path",
]

REALLY = "\0"  # which is in no path and no URL
PORTS = {"postgresql": 5432, "mysql": 3306, "redis": 6379}
#: What libpq reads of the process environment, and the argument that each stands for.
LIBPQ = {
    "PGHOST": "host",
    "PGPORT": "port",
    "PGDATABASE": "database",
    "PGUSER": "user",
    "PGOPTIONS": "options",
    "PGSERVICE": "service",
}
HOST_AND_DATABASE = ("host", "dbname", "db", "database")
SEARCH_PATH = re.compile(r"(?:-c\s*|--)search[-_]path=((?:\\.|\S)*)")
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
    found = (_mounted(path), _folder(path))
    return REALLY.join(
        (f"{kind}/{path}{rest}", *(f"{text}{rest}" if text else "" for text in found))
    )


def knows_mounts() -> bool:
    """Return whether this process can see where files really are: it has /proc, and no chroot."""
    return bool(_mounted("/"))


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
        network = _network()
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
        environment = {LIBPQ[name]: os.environ[name] for name in LIBPQ if name in os.environ}
        found = {"user": _system_user(), **environment, **found}
    user = found.get("user", "")
    # PostgreSQL takes the one that is called like the user.
    named = map(found.get, HOST_AND_DATABASE[1:])
    parts = {
        # What the URL itself names doesn't come from a service file.
        "service": "" if any(map(arguments.get, HOST_AND_DATABASE)) else found.get("service"),
        "search_path": _search_path(found.get("options", ""), user),
    }
    place = "&".join(f"{name}={value}" for name, value in parts.items() if value)
    what = next(filter(None, named), user) + (f"?{place}" if place else "")
    host = found.get("unix_socket") or found.get("host", "")
    return server_identity(backend, host, found.get("port"), f"{what} {table}".rstrip())


def _search_path(options: str, user: str) -> str:
    """Return where PostgreSQL looks for tables if its options say that, else ``""``."""
    paths = SEARCH_PATH.findall(options)
    names = re.sub(r'[\\"\s]', "", paths[-1]).split(",") if paths else []
    return ",".join(user if name == "$user" else name for name in names)


def _system_user() -> str:
    try:
        return unix.user_name(unix.geteuid())
    except KeyError:  # in a container a user may have a number only
        return ""


def sqlite_path(database: str) -> str:
    """Return the path in a SQLite database's name, which may be a URI; see sqlite.org/uri.html."""
    if not database.startswith("file:"):
        return database
    path = re.split(r"[?#]", database.removeprefix("file:"))[0]
    return unquote(re.sub(r"^//[^/]*", "", path), errors="surrogateescape")


def _network() -> str:
    """Return what tells this process's network from those of other containers, "" without /proc."""
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError:
        return ""


def _mounted(path: str) -> str:
    """Return a real path as its file system knows it, wherever mounted; "" without /proc."""
    best = ("", "", "")
    for device, root, mount in _mounts():
        inside = path == mount or path.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[2]):  # the last one covers those before it
            best = (device, root, mount)
    device, root, mount = best
    if not mount:
        return ""
    below = path[len(mount) :].lstrip("/")
    return f"{device}:{os.path.join(root, below)}"


def _folder(path: str) -> str:
    """Return a file's name after the number of its folder, which a chroot doesn't change."""
    folder, name = os.path.split(path)
    try:
        found = os.stat(folder)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}/{name}"


@cache
def _mounts_of(namespace: str) -> tuple[tuple[str, str, str], ...]:
    lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    fields = [line.split(" ") for line in lines if line]
    return tuple((each[2], _unescaped(each[3]), _unescaped(each[4])) for each in fields)


def _mounts() -> tuple[tuple[str, str, str], ...]:
    """Return device, root and mount point of each mount, see proc(5)."""
    try:
        return _mounts_of(os.readlink("/proc/self/ns/mnt"))
    except OSError:
        return ()


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
