"""How this process hears of a change while nobody asks it: uWSGI's signal, else a thread."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import click

from .. import unix
from ..host import UNKNOWN, ServerInfo
from ..identity import mount_of
from . import thread, uwsgi
from .channel import CHANNELS, Channel, ChannelDown, open_channel
from .listener import ELECTION_INTERVAL, Listener, open_listener
from .roll_call import HostInfo, RollCall
from .thread import start_background, start_thread
from .uwsgi import has_metrics, is_our_mule, serve_as_mule, set_metric
from .watchers import Watcher, log, tick_all, watchers

__all__ = [
    "CHANNELS",
    "ELECTION_INTERVAL",
    "Channel",
    "ChannelDown",
    "HostInfo",
    "Listener",
    "RollCall",
    "Watcher",
    "attach",
    "can_subscribe",
    "describe",
    "ensure_watched",
    "has_metrics",
    "is_forked",
    "is_our_mule",
    "open_channel",
    "open_listener",
    "process_name",
    "serve_as_mule",
    "server_of",
    "set_metric",
    "start",
    "start_background",
    "start_thread",
    "watchers",
]

_hook_ran = False  # in this process, after its fork, so that it runs in mules, too


def start(after_fork: Callable[[], object]) -> None:
    """Have uWSGI's master wake its processes, and each tick once after its fork.

    Called once, by the import of the package. Outside uWSGI do nothing.

    Args:
        after_fork: called in each process that uWSGI forks, after its applications have ticked.
    """

    def run_hook() -> None:
        global _hook_ran
        _hook_ran = True
        tick_all()
        after_fork()

    uwsgi.register_signal(run_hook)


def attach(watcher: Watcher) -> None:
    """Have ``watcher`` ticked in each process after its fork; `ensure_watched` does the rest."""
    watchers.add(watcher)
    uwsgi.install_post_fork_hook()
    found, is_first = describe(), not uwsgi.is_present() or uwsgi.is_first()
    if is_first and (found.get("chroot") or not found["knows_mounts"]):
        _warn_of_chroot()


@functools.cache
def _warn_of_chroot() -> None:
    """Log it; only the first call does."""
    log.warning(
        "uwsgi_waffle: this process runs in a chroot or has no /proc: its paths may mean other "
        "files outside, and a network file system may go unnoticed. Mount /proc there if it is "
        "missing. Commands from outside need WAFFLE_STORE_URL and WAFFLE_WATCHER_FILE with the "
        "paths of the outside"
    )


def can_subscribe(*, mule_is_configured: bool) -> bool:
    """Return whether this process may be the one of its host that listens to other hosts.

    Where uWSGI has mules, its workers leave it to them. The mules don't know of us if the package
    wasn't imported in the master, or if uwsgidecorators, imported later, took our hook's place.

    Args:
        mule_is_configured: whether a mule knows where to listen: from the application, or from
            the process environment.
    """
    name = process_name()
    if name in (None, "spooler") or thread.is_reloader_parent():
        return False
    mules = uwsgi.is_present() and uwsgi.has_mules()
    a_mule_does = mules and _hook_ran and mule_is_configured
    return str(name).startswith("mule") or not a_mule_does


def is_forked() -> bool:
    """Return whether uWSGI has forked this process already, so that no hook is still to come."""
    return uwsgi.is_present() and process_name() is not None


def ensure_watched(watcher: Watcher) -> str:
    """Make sure that this process is woken, also after a fork or when a file was replaced.

    Returns:
        What notifies it: ``signal``, or ``thread`` where no signal comes, as in mules and spoolers.
    """
    name = process_name()
    if uwsgi.signal_registered():
        # The master asks for its workers, before they are forked.
        if (name is None or name.startswith("worker")) and uwsgi.ensure_monitored(watcher):
            return "signal"
    elif uwsgi.is_present() and uwsgi.is_first():
        _warn_of_polling()
    if name is not None:  # the master serves nobody, and forks
        thread.ensure_running(watcher)
    return "thread"


@functools.cache
def _warn_of_polling() -> None:
    """Log it; only the first call does, also for the processes that are forked later."""
    log.warning(
        "uwsgi_waffle: uWSGI's master can't wake the workers, so a thread in each looks every "
        "WAFFLE_POLL_INTERVAL. Add to the ini: %s",
        uwsgi.missing_ini_line(),
    )


def process_name() -> str | None:
    """Name this process: ``worker 3``, ``mule 1``, else the program; ``None``: uWSGI's master."""
    return uwsgi.process_name() if uwsgi.is_present() else _program()


def describe() -> ServerInfo:
    """Return how this process's server runs, for `flask waffle doctor`."""
    is_linux = hasattr(unix.libc(), "setfsuid")  # others have no /proc
    knows = mount_of("/") is not None or not is_linux
    return {"knows_mounts": knows, **(uwsgi.describe() if uwsgi.is_present() else {})}


@functools.cache
def _program() -> str:
    """Name a process outside uWSGI: ``gunicorn``, ``flask run``, ``backup.py``."""
    context = click.get_current_context(silent=True)
    if context is not None:
        return context.command_path.removeprefix("python -m ")
    path = Path(sys.argv[0] if sys.argv and sys.argv[0] else "python")
    return path.parent.name if path.name == "__main__.py" else path.name


def server_of(process: str) -> str | None:
    """Return the server that a process of this kind belongs to; ``None`` for a command."""
    if process == UNKNOWN:
        return None
    if process.partition(" ")[0] in ("worker", "mule", "spooler", "uwsgi"):
        return "uWSGI"
    return None if process.startswith("flask ") and process != "flask run" else process
