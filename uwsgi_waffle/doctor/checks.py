"""The checks of an installation: each is a small function that yields what it has found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import server
from ..config import Watching
from ..errors import (
    HostBusy,
    HostFilesError,
    InvalidValue,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    WaffleError,
)
from ..extension import Binding
from ..hostfiles import HostFiles, ProcessInfo, is_aside
from ..plans import plan_update
from ..stores import open_store
from .options import Options
from .processes import Account, account_of, account_of_user, may

__all__ = ["Finding", "Installation", "Level", "examine"]

Level = Literal["ok", "warning", "error"]
PAUSE = 0.05  # seconds between two looks at what may be under way
OUR_MULES = ("uwsgi_waffle.mule", "uwsgi_waffle.mule:run")
SHARED_IMPORTS = ("shared-import", "shared-pyimport", "shared-py-import")
REDIS_PY = "Run: pip install 'uwsgi_waffle[redis]'"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``; ``warning``, where all works, but not in the best way; ``error``, where
            something doesn't work as it is meant to.
        check: what was looked at, in a word.
        text: how it is.
        change: what to change; ``""`` if nothing.
    """

    level: Level
    check: str
    text: str
    change: str = ""


@dataclass(frozen=True)
class Installation:
    """What is examined.

    Attributes:
        binding: what the application has of the extension; ``None`` if the application can't start.
        config: the application's configuration.
        instance: its instance folder.
        options: those of each uWSGI instance that is to be judged.
        patience: seconds for which something may be under way before it counts as late.
    """

    binding: Binding | None
    config: Mapping[str, Any]
    instance: Path
    options: tuple[Options, ...]
    patience: float

    @property
    def host(self) -> HostFiles | None:
        return self.binding.state.host if self.binding else None

    @property
    def servers(self) -> list[ProcessInfo]:
        """The processes of this host that serve the application."""
        others = self.binding.state.processes() if self.binding else []
        return [
            process
            for process in others
            if process.pid != os.getpid() and server.program(process.kind)
        ]

    def watching(self, options: Options | None = None) -> Watching:
        """Return where the processes of a uWSGI instance find each other; without one, where this
        process does.
        """
        own = {key: value for key, value in self.config.items() if key.startswith("WAFFLE_")}
        return Watching.read({**(options.settings if options else {}), **own}, self.instance)

    def eventually(self, look: Callable[[], bool]) -> bool:
        """Look until it is so, but no longer than the patience lasts: what is under way needs a
        moment.
        """
        end = time.monotonic() + self.patience
        while not look():
            if time.monotonic() > end:
                return False
            time.sleep(PAUSE)
        return True


def examine(installation: Installation) -> Iterator[Finding]:
    """Yield what all checks find."""
    watched = {installation.watching(): None} if installation.binding else {}
    for options in installation.options:
        yield from check_files(options)
        if not options.unread:
            for check in (check_master, check_interpreters, check_threads):
                yield from check(options)
            try:
                watching = installation.watching(options)
            except SchemaError as error:
                yield Finding(
                    "error",
                    "settings",
                    f"the server's environment: {error}",
                    "Correct this setting.",
                )
            else:
                watched[watching] = None
                yield from check_mule(options, watching)
                yield from check_settings(installation, options, watching)
    if not installation.options:
        yield from check_no_options(installation)
    if installation.binding is not None:
        yield from check_store(installation.binding)
        if installation.host is None:
            yield Finding(
                "warning",
                "processes",
                "nothing is shared with other processes: WAFFLE_MULTIPROC is False, or the "
                "store is in memory",
                "Unless one process is all there is, leave WAFFLE_MULTIPROC out and set "
                "WAFFLE_STORE_URL.",
            )
        else:
            yield from check_folder(installation, installation.host)
            for watching in watched:
                if watching.watchtype == "redis":
                    yield from check_redis(installation, installation.host, watching)
            yield from check_processes(installation, installation.binding)


def check_files(options: Options) -> Iterator[Finding]:
    for text in options.unread:
        yield Finding(
            "warning",
            "ini",
            f"{options.source}: {text}; its lines were not judged",
            "Name an ini with --ini that holds them all.",
        )
    for text in options.assumed:
        yield Finding(
            "warning",
            "ini",
            f"{options.source}: {text}",
            "Look whether it does, or judge an ini without it.",
        )
    if not options.unread and not options.assumed:
        yield Finding("ok", "ini", options.source)


def check_no_options(installation: Installation) -> Iterator[Finding]:
    programs = sorted({server.program(process.kind) or "" for process in installation.servers})
    text = (
        f"served by {', '.join(programs)}"
        if programs
        else "no server of this application runs on this host"
    )
    yield Finding("ok", "ini", f"{text}; no ini of uWSGI was judged (--ini names one)")


def check_master(options: Options) -> Iterator[Finding]:
    """The master wakes the workers: is there one, and does it know the package?"""
    if not options.has_master:
        yield Finding(
            "error",
            "master",
            "uWSGI has no master, so nobody wakes its workers; a thread in each has to look",
            "Add to the ini: master = true",
        )
    elif options.on("lazy-apps", "lazy") and "uwsgi_waffle" not in options.all(*SHARED_IMPORTS):
        yield Finding(
            "error",
            "master",
            "with lazy-apps the master doesn't import the package, so it can't wake the "
            "workers; a thread in each has to look",
            "Add to the ini: shared-import = uwsgi_waffle",
        )
    else:
        yield Finding("ok", "master", "there is one, and it wakes the workers")


def check_interpreters(options: Options) -> Iterator[Finding]:
    loaded = len(options.all("mount")) + bool(options.all("module", "wsgi", "wsgi-file", "file"))
    if loaded > 1 and not options.on("single-interpreter", "single-interp"):
        yield Finding(
            "error",
            "interpreter",
            f"{loaded} applications are loaded, each in an interpreter of its own, where pydantic can't be imported",
            "Add to the ini: single-interpreter = true",
        )
    else:
        yield Finding(
            "ok", "interpreter", "one for all applications" if loaded > 1 else "one application"
        )


def check_threads(options: Options) -> Iterator[Finding]:
    if options.on("enable-threads"):
        yield Finding(
            "warning",
            "threads",
            "enable-threads is from old manuals: uWSGI allows threads without it since 2.0.27",
            "Remove from the ini: enable-threads",
        )
    else:
        yield Finding("ok", "threads", "nothing superfluous")


def check_mule(options: Options, watching: Watching) -> Iterator[Finding]:
    """A mule listens to Redis: is there one where Redis is used, and only there, and does it know
    where?
    """
    ours = [name for name in options.all("mule") if name in OUR_MULES]
    lazy = options.on("lazy-apps", "lazy")
    redis = watching.watchtype == "redis"
    if ours and lazy and OUR_MULES[1] in ours:
        yield Finding(
            "error",
            "mule",
            "uWSGI can't start a mule with a function when lazy-apps is set",
            "Write in the ini: mule = uwsgi_waffle.mule",
        )
    elif ours and not redis:
        yield Finding(
            "warning",
            "mule",
            "a mule waits for other hosts' messages, and WAFFLE_WATCHTYPE isn't 'redis', so "
            "there are none",
            f"With more than one host set WAFFLE_WATCHTYPE to 'redis' and WAFFLE_REDIS_URL; with one remove from the ini: mule = {ours[0]}",
        )
    elif redis and not ours:
        yield Finding(
            "warning",
            "mule",
            "WAFFLE_WATCHTYPE is 'redis' and no mule listens, so a worker has to, in a thread",
            "Add to the ini: mule = uwsgi_waffle.mule",
        )
    elif ours and lazy and not _knows(options, watching):
        yield Finding(
            "warning",
            "mule",
            "with lazy-apps the mule has no application, and the environment doesn't tell it "
            "the same as the application's settings, "
            "so a worker listens, in a thread",
            f"Add to the ini: env = WAFFLE_WATCHTYPE=redis, env = WAFFLE_WATCHER_FILE={watching.watcher_file}, "
            "and WAFFLE_REDIS_… as in the application",
        )
    else:
        yield Finding(
            "ok", "mule", "a mule listens to Redis" if ours else "none, and none is needed"
        )


def _knows(options: Options, watching: Watching) -> bool:
    """Tell whether a process without the application finds the same settings in its environment."""
    try:
        return Watching.read(options.settings, Path()) == watching
    except SchemaError:
        return False


def check_settings(
    installation: Installation, options: Options, watching: Watching
) -> Iterator[Finding]:
    """The server's environment isn't the shell's: do both mean the same files and the same store?"""
    if installation.binding is None:
        return
    differing = (
        ["WAFFLE_WATCHER_FILE"]
        if watching.watcher_file != installation.watching().watcher_file
        else []
    )
    url = (
        None
        if "WAFFLE_STORE_URL" in installation.config
        else options.settings.get("WAFFLE_STORE_URL")
    )
    try:
        if url is not None and open_store(url).name != installation.binding.state.store.name:
            differing.append("WAFFLE_STORE_URL")
    except WaffleError as error:
        yield Finding(
            "error", "settings", f"the server's environment: {error}", "Correct this setting."
        )
        return
    for name in differing:
        yield Finding(
            "error",
            "settings",
            f"the server has another {name} than this shell, which therefore sees other values",
            f"Export {name} in the shell as the server has it, or set app.config[{name!r}].",
        )
    if not differing:
        yield Finding("ok", "settings", "this shell has the server's")


def check_store(binding: Binding) -> Iterator[Finding]:
    """The store must answer, hold values that fit, and take writes: an update that changes nothing
    goes all the way but for the last.
    """
    changes = {
        StoreReadOnly: "Give the server's user the right to write there.",
        StoreUnavailable: "Have the store answer, or correct WAFFLE_STORE_URL.",
        InvalidValue: "Give these variables values that fit, or their defaults: flask waffle unset NAME",
        HostBusy: "Look what the process does that it names.",
        HostFilesError: "Give the server's user this folder, or set WAFFLE_WATCHER_FILE to another.",
    }
    try:
        revision = binding.update(plan_update(binding.schema, {}), None, None, None, None).revision
        binding.state.store.probe()
    except WaffleError as error:
        yield Finding(
            "error",
            "store",
            str(error),
            next((text for kind, text in changes.items() if isinstance(error, kind)), ""),
        )
    else:
        yield Finding(
            "ok",
            "store",
            f"{binding.state.store.name}, revision {revision}, can be read and written",
        )


def check_folder(installation: Installation, host: HostFiles) -> Iterator[Finding]:
    """The server's user must be able to write what the processes share, and it must be on this
    host.
    """
    if host.network:
        yield Finding(
            "error",
            "folder",
            f"{host.folder} is on a network file system ({host.network}), where processes of other hosts neither lock nor see it reliably",
            "Set WAFFLE_WATCHER_FILE to a path on a local disk; the store may be anywhere.",
        )
    refused = [
        found
        for account in _accounts(installation)
        for found in _refused(installation, host, account)
    ]
    yield from refused
    if not refused and not host.network:
        who = ", ".join(sorted({str(account) for account in _accounts(installation)}))
        yield Finding("ok", "folder", f"{host.folder}: {who} can write there")


def _accounts(installation: Installation) -> set[Account]:
    """Return whom the server runs as: by its processes, else by the ini, else who asks."""
    found = {account for process in installation.servers if (account := account_of(process.pid))}
    named = {
        account
        for options in installation.options
        for name in options.all("uid")[-1:]
        if (account := account_of_user(name))
    }
    own = account_of(os.getpid())
    return found or named or ({own} if own else set())


def _refused(installation: Installation, host: HostFiles, account: Account) -> Iterator[Finding]:
    ours = [host.folder, *host.folder.rglob("*"), host.watch_file]
    strange = [
        path
        for path in ours
        if _owner(path) not in (None, account.uid)
        and not is_aside(path.relative_to(host.folder.parent))
    ]
    if strange and account.uid != 0:
        yield Finding(
            "error",
            "folder",
            f"{strange[0]} doesn't belong to {account}, as whom the server runs, so its processes can't use it",
            f"As root: chown -R {account} {host.folder} {host.watch_file}",
        )
    needed = {
        parent: 1 for path in (host.folder, *_database(installation)) for parent in path.parents
    }
    for path in _database(installation):
        needed |= {path: 6, path.parent: 7}
    for path, bits in needed.items():
        if path.exists() and not may(account, path, bits):
            done = "write" if bits & 2 else "enter"
            yield Finding(
                "error",
                "folder",
                f"{account}, as whom the server runs, can't {done} {path}",
                f"Let {account} {done} {path}.",
            )


def _owner(path: Path) -> int | None:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # a snapshot that was removed at this moment
        return None


def _database(installation: Installation) -> list[Path]:
    """Return the file of a store that is one."""
    assert installation.binding is not None
    scheme, _, place = installation.binding.state.store.name.partition(":///")
    path = Path(place.partition("?")[0]).absolute()
    return [path] if scheme.startswith("sqlite") and path.is_file() else []


def check_redis(
    installation: Installation, host: HostFiles, watching: Watching
) -> Iterator[Finding]:
    """Redis must answer, and where a server runs somebody must listen."""
    listeners = 0

    def heard() -> bool:
        nonlocal listeners
        listeners = channel.listeners()
        return listeners > 0 and host.listener().pid not in (0, os.getpid())

    try:
        channel = server.Channel(watching.redis_url, watching.redis_channel)
        well = heard() or not installation.servers or installation.eventually(heard)
    except ImportError:
        yield Finding(
            "error",
            "redis",
            "WAFFLE_WATCHTYPE is 'redis' and redis-py isn't installed, so hosts don't hear each"
            " other",
            REDIS_PY,
        )
    except (server.ChannelDown, SchemaError) as error:
        yield Finding("error", "redis", str(error), "Start Redis, or correct WAFFLE_REDIS_URL.")
    else:
        if well:
            yield Finding(
                "ok",
                "redis",
                f"answers; {listeners} listening to the channel {watching.redis_channel!r}",
            )
        else:
            yield Finding(
                "error",
                "redis",
                f"answers, and no process of this host listens to the channel {watching.redis_channel!r}",
                "Look into the server's log why not, and whether it has the same settings.",
            )


def check_processes(installation: Installation, binding: Binding) -> Iterator[Finding]:
    """All processes of the host must run on the newest revision, at the second look at the latest."""
    newest = binding.state.look()

    def late() -> list[ProcessInfo]:
        return [
            p
            for p in binding.state.processes()
            if p.pid != os.getpid() and p.digest != newest.digest and p.revision != newest.revision
        ]

    installation.eventually(lambda: not late())
    found = [_late(process, newest.revision) for process in late()]
    found += [
        _failed(process)
        for process in binding.state.processes()
        if process.pid != os.getpid() and process.error
    ]
    yield from found
    if not found:
        servers = len(installation.servers)
        yield Finding(
            "ok",
            "processes",
            f"{servers} on this host, all on revision {newest.revision}"
            if servers
            else "none on this host",
        )


def _late(process: ProcessInfo, newest: int) -> Finding:
    text = f"{process.kind} (pid {process.pid}) is on revision {process.revision}, and the host on {newest}"
    change = "It is in a long request, hangs, or was stopped. If the next look finds the same, see what it does, or end it."
    return Finding(
        "error" if server.program(process.kind) else "warning", "processes", text, change
    )


def _failed(process: ProcessInfo) -> Finding:
    return Finding(
        "error",
        "processes",
        f"{process.kind} (pid {process.pid}): {process.error}",
        "Mend what it says; a restart isn't needed.",
    )
