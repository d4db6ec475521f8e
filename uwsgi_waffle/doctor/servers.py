"""The checks of how the servers of this host run, by what their processes have reported."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from ..host import HostFiles, ProcessInfo
from ..state import WaffleState
from ..wake import CHANNELS, server_of
from .finding import Finding, Processes, named, reported

__all__ = ["check_pins", "check_servers"]

THREADS_ALWAYS_RUN = (2, 0, 27)  # the first uWSGI in which `enable-threads` is superfluous
MULE = "uwsgi_waffle.mule"


def check_servers(state: WaffleState, host: HostFiles, processes: Processes) -> Iterator[Finding]:
    """Check what serves the application here, and how it was configured."""
    programs = {
        f"{server_of(process.kind)} {process.server.get('uwsgi', '')}".rstrip()
        for process in processes
    }
    if not programs:
        text = "No server process here uses this store"
        change = (
            "Start it. If one runs, its WAFFLE_STORE_URL, WAFFLE_WATCHER_FILE or instance folder "
            "isn't this shell's: export them here as the server has them."
        )
        yield Finding("warning", "server", text, change)
        return
    yield Finding("ok", "server", ", ".join(sorted(programs)))
    yield from _check_settings(state, processes)
    yield from _check_root(processes)
    uwsgi = [process for process in processes if process.server.get("uwsgi")]
    if uwsgi:
        yield _check_master([p for p in uwsgi if p.kind.startswith(("worker", "uwsgi"))])
        yield _check_interpreter(uwsgi)
        yield _check_threads(uwsgi)
        yield _check_mule(host, uwsgi)


def _check_settings(state: WaffleState, processes: Processes) -> Iterator[Finding]:
    """The server's environment isn't the shell's: do both tell other hosts in the same way?"""
    own = state.watching.watchtype
    for other in reported(processes, "watchtype"):
        if other != own:
            text = f"WAFFLE_WATCHTYPE is {other!r} in the server and {own!r} in this shell"
            change = "Export WAFFLE_WATCHTYPE and what belongs to it here as the server has them."
            yield Finding("warning", "settings", text, change)


def _check_root(processes: Processes) -> Iterator[Finding]:
    """Do the servers see the files of the host as others do?"""
    blind = [p for p in processes if p.server.get("knows_mounts") is False]
    inside = [p for p in processes if p.server.get("chroot")]
    if found := inside or blind:
        root = "".join(reported(inside, "chroot")[:1])
        place = shlex.quote(f"{root or 'CHROOT'}/proc")
        where = f"in the chroot {root}" if root else "in a chroot, or without /proc"
        text = (
            f"{named(found)} {'runs' if len(found) == 1 else 'run'} {where}: paths may mean other "
            "files there, and a network file system may go unnoticed"
        )
        change = (
            f"Mount /proc there if it is missing: mount -t proc proc {place}. "
            "Export WAFFLE_STORE_URL and WAFFLE_WATCHER_FILE elsewhere with the paths of there."
        )
        yield Finding("warning", "chroot", text, change)


def _check_master(workers: Processes) -> Finding:
    """The master wakes the workers: can it, and does it?"""
    lines = reported(workers, "missing_ini_line")
    if lines:
        text = "uWSGI's master can't wake the workers, so a thread in each looks now and then"
        return Finding("warning", "master", text, f"Add to the ini: {', '.join(lines)}")
    asleep = [worker for worker in workers if worker.server.get("woken_by") != "signal"]
    if asleep:
        text = f"uWSGI's master doesn't wake {named(asleep)}; a thread looks now and then"
        change = "Look into the server's log for the reason, then restart it."
        if errors := reported(asleep, "monitor_error"):
            text, change = f"{text}: it can't monitor {errors[0]}", "Do what it says."
        return Finding("warning", "master", text, change)
    return Finding("ok", "master", "it wakes the workers")


def _check_interpreter(processes: Processes) -> Finding:
    places = ", ".join(reported(processes, "not_loaded"))
    if not places:
        return Finding("ok", "interpreter", "the application is loaded")
    text = (
        f"the application at {places} isn't loaded: each has an interpreter of its own, where "
        "pydantic can't be imported"
    )
    return Finding("error", "interpreter", text, "Add to the ini: single-interpreter = true")


def _check_threads(processes: Processes) -> Finding:
    """Does the ini say what this uWSGI needs to run threads, and no more?"""
    enabled, version = reported(processes, "enable_threads"), reported(processes, "uwsgi")[0]
    is_new = tuple(map(int, re.findall(r"\d+", version)[:3])) >= THREADS_ALWAYS_RUN
    if is_new and enabled:
        text = "enable-threads isn't needed: uWSGI allows threads without it since 2.0.27"
        return Finding("warning", "threads", text, "Remove from the ini: enable-threads")
    if not is_new and not enabled:
        text = f"uWSGI {version} runs no threads, and the package may need one"
        return Finding("error", "threads", text, "Add to the ini: enable-threads = true")
    return Finding("ok", "threads", "uWSGI runs them")


def _check_mule(host: HostFiles, processes: Processes) -> Finding:
    """A mule listens to other hosts if there are any: is it there, and does it know where?"""
    used = reported(processes, "watchtype")
    name = next((name for name in CHANNELS if name in used), None)
    ours = "".join(reported(processes, "our_mule")[:1])
    listener = host.listener().get("pid")
    in_worker = any(p.pid == listener and not p.kind.startswith("mule") for p in processes)
    if ours not in ("", MULE) and reported(processes, "lazy_apps"):
        text = "uWSGI can't start a mule with a function when lazy-apps is set"
        return Finding("error", "mule", text, f"Write in the ini: mule = {MULE}")
    if name is None and ours:
        known = " or ".join(map(repr, CHANNELS))
        text = f"a mule waits for other hosts, and WAFFLE_WATCHTYPE isn't {known}"
        settings = ", ".join(needs.setting for needs in CHANNELS.values())
        change = (
            f"With more than one host set WAFFLE_WATCHTYPE to {known}, and {settings}; with "
            f"one remove from the ini: mule = {ours}"
        )
        return Finding("warning", "mule", text, change)
    if name is None:
        return Finding("ok", "mule", "none, and none is needed")
    if in_worker and ours:
        text = "the mule doesn't know where to listen (lazy-apps), so a thread in a worker does"
        change = (
            f"Add to the ini: env = WAFFLE_WATCHTYPE={name}, "
            f"env = WAFFLE_WATCHER_FILE={host.watch_file}, and {CHANNELS[name].setting} likewise"
        )
        return Finding("warning", "mule", text, change)
    if in_worker:
        text = f"no mule listens to {CHANNELS[name].server}, so a thread in a worker does"
        return Finding("warning", "mule", text, f"Add to the ini: mule = {MULE}")
    return Finding("ok", "mule", f"no worker listens to {CHANNELS[name].server} in its place")


def check_pins(state: WaffleState, processes: Processes) -> Iterator[Finding]:
    """Compare what this process pins with what the servers of this host do."""
    pins = state.schema.pins
    others: dict[str, list[ProcessInfo]] = {}
    for process in processes:
        theirs = process.server.get("pinned", {})
        for name in sorted(pins.keys() | theirs.keys()):
            if name not in theirs:
                text = f"The environment pins {name} here and not in"
            elif name not in pins:
                text = f"The environment does not pin {name} here, as it does in"
            elif pins[name].digest != theirs[name]:
                text = f"The environment pins {name} to one value here and to another in"
            else:
                continue
            others.setdefault(text, []).append(process)
    for text, found in others.items():
        change = "Export the same here as the server has, WAFFLE_ENV_PREFIX included."
        yield Finding("warning", "pinned", f"{text} {named(found)}", change)
    if pins and not others:
        listed = ", ".join(f"{name} by {pin.source}" for name, pin in pins.items())
        yield Finding("ok", "pinned", listed)
