"""uWSGI: the master monitors, one signal wakes all workers. The only module that knows uwsgi."""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from ..host import ServerInfo, file_id
from .inotify import check_inotify
from .watchers import Watcher, log, tick_all

# uWSGI puts its module there. It isn't imported: the application's own entry file may be uwsgi.py,
# which would run too early. A test may have put something else there.
uwsgi: Any = sys.modules.get("uwsgi")
if not isinstance(uwsgi, ModuleType) or not hasattr(uwsgi, "masterpid"):
    uwsgi = None
elif not all(hasattr(uwsgi, name) for name in ("register_signal", "add_file_monitor", "add_timer")):
    log.warning(
        "uwsgi_waffle: this uWSGI has no signals, so its master can't wake the workers, and a "
        "thread in each looks. Install a uWSGI that is built with them: pip install uwsgi"
    )
    uwsgi = None

__all__ = [
    "describe",
    "ensure_monitored",
    "has_metrics",
    "has_mules",
    "install_post_fork_hook",
    "is_first",
    "is_mule_or_spooler",
    "is_our_mule",
    "is_present",
    "missing_ini_line",
    "process_name",
    "register_signal",
    "serve_as_mule",
    "set_metric",
    "signal_registered",
]

TARGET = "active-workers"  # "workers" would fill the signal pipes of those that `cheaper` stopped
# uWSGI has 64 monitors for its whole life; the rest is for the application's own.
KEY_SIZE, KEY_COUNT = 8, 40
LONGEST_PATH = 255  # bytes of a path, from which on uWSGI monitors it no more
OUR_MULES = ("uwsgi_waffle.mule", "uwsgi_waffle.mule:run")

_signal: int | None = None
_table: mmap.mmap | None = None  # what is monitored; shared with all processes forked later
_after_fork: Callable[[], None] | None = None
_monitor_error = _logged_error = ""  # why the master doesn't wake this process


def is_present() -> bool:
    """Return whether uWSGI started this process."""
    return uwsgi is not None


def register_signal(after_fork: Callable[[], None]) -> None:
    """In uWSGI's master, before it forks: register the signal. In every uWSGI process: the hook.

    Outside uWSGI do nothing.

    Args:
        after_fork: called in each process that uWSGI forks from now on, see
            `install_post_fork_hook`.
    """
    global _signal, _table, _after_fork
    if uwsgi is None:
        return
    _after_fork = after_fork
    install_post_fork_hook()
    if uwsgi.masterpid() != os.getpid() or uwsgi.worker_id() or uwsgi.mule_id():
        return
    # From above: uwsgidecorators and most applications count from 0.
    number = next((n for n in range(255, -1, -1) if not uwsgi.signal_registered(n)), None)
    try:
        if number is not None:
            uwsgi.register_signal(number, TARGET, tick_all)
            _signal, _table = number, mmap.mmap(-1, KEY_SIZE * KEY_COUNT)
    except ValueError as error:
        log.warning(
            "uwsgi_waffle: uWSGI refused a signal (%s). Set `single-interpreter = true`. "
            "A thread in each worker looks instead.",
            error,
        )


def signal_registered() -> bool:
    """Return whether uWSGI's master can wake this process."""
    return _signal is not None


def missing_ini_line() -> str:
    """Return the line of the ini that would let the master wake this process, ``""`` if it can."""
    if not uwsgi.masterpid():
        return "master = true"
    return "" if signal_registered() else "shared-import = uwsgi_waffle"


def process_name() -> str | None:
    """Name this process as uWSGI does; ``None`` for its master, which serves nobody."""
    # The master signals its children. What a worker forks has the worker's id, and no signal.
    if uwsgi.worker_id() and uwsgi.masterpid() in (0, os.getppid()):
        return f"worker {uwsgi.worker_id()}"
    if uwsgi.mule_id():
        return f"mule {uwsgi.mule_id()}"
    if uwsgi.i_am_the_spooler():
        return "spooler"
    return None if uwsgi.masterpid() == os.getpid() else "uwsgi"


def is_mule_or_spooler() -> bool:
    """Return whether uWSGI forked this process for other work than requests."""
    return bool(uwsgi and (uwsgi.mule_id() or uwsgi.i_am_the_spooler()))


def describe() -> ServerInfo:
    """Return what `flask waffle doctor` judges: how the running uWSGI was configured."""
    return {
        "uwsgi": uwsgi.version.decode(),
        "missing_ini_line": missing_ini_line(),
        "monitor_error": _monitor_error,
        "lazy_apps": is_on("lazy-apps") or is_on("lazy"),
        "enable_threads": is_on("enable-threads"),
        "chroot": _opt("chroot"),
        "our_mule": _opt("mule") if _opt("mule") in OUR_MULES else "",
        "not_loaded": "" if is_on("single-interpreter") else _mount_not_loaded(),
    }


def _mount_not_loaded() -> str:
    """Return where the ini's last ``mount =`` line is, if this worker has other applications only.

    `uwsgi.opt` has the last of several lines.
    """
    place, _, _ = _opt("mount").partition("=")
    for worker in uwsgi.workers() or ():
        places = [app["mountpoint"].decode(errors="replace") for app in worker["apps"]]
        if worker["id"] == uwsgi.worker_id() and places and place not in places:
            return place
    return ""


def _opt(name: str) -> str:
    value = uwsgi.opt.get(name, b"")
    return "true" if value is True else value.decode(errors="replace")


def is_on(name: str) -> bool:
    """Return whether a flag is set in the ini; ``flag = false`` isn't."""
    return _opt(name).lower() not in ("", "false", "off", "no", "0")


def has_metrics() -> bool:
    """Return whether the ini declares metrics; uWSGI can't make one while it runs."""
    return uwsgi is not None and "metric" in uwsgi.opt


def set_metric(name: str, value: int) -> None:
    """Set a metric of the instance, if the ini declares it."""
    uwsgi.metric_set(name, value)


def has_mules() -> bool:
    """Return whether the instance has mules."""
    return "mule" in uwsgi.opt or _opt("mules") not in ("", "0")


def is_our_mule() -> bool:
    """Return whether this is a mule, and the ini's last ``mule =`` line is the package's."""
    return bool(uwsgi and uwsgi.mule_id() and _opt("mule") in OUR_MULES)


def serve_as_mule() -> None:
    """Do what a mule without a program does: handle uWSGI's signals."""
    while True:
        uwsgi.mule_get_msg(False)  # in uWSGI 2.0 this "no" to signals means yes


def is_first() -> bool:
    """Return whether this process may warn for all: it is the master, or the first worker."""
    return uwsgi.worker_id() <= 1 and not uwsgi.mule_id()


def ensure_monitored(watcher: Watcher) -> bool:
    """Have the master monitor the watcher's files, and wake everyone at its interval.

    Each is asked for once in the life of the instance. A file that was replaced is another file.
    Return whether all of them are monitored.
    """
    # Three ticks in an interval: the second finds the comparison due, so none is late.
    seconds = max(1, round(watcher.reconcile_interval / 3))
    errors = [_register_once(f"timer {seconds}", lambda: uwsgi.add_timer(_signal, seconds))]
    for path in map(str, watcher.watched):
        add, check = partial(_add_monitor, path), partial(check_inotify, path)
        errors.append(_register_once(path, add, check=check, version=str(file_id(path))))
    _report(next(filter(None, errors), ""))
    return not any(errors)


def _report(error: str) -> None:
    """Log once why the master doesn't wake this process; keep it for `describe`."""
    global _monitor_error, _logged_error
    if error and error != _logged_error and is_first():
        log.warning("uwsgi_waffle: uWSGI can't monitor %s; a thread looks", error)
        _logged_error = error
    _monitor_error = error


def _add_monitor(path: str) -> None:
    try:
        uwsgi.add_file_monitor(_signal, path)
    except ValueError as error:
        if len(os.fsencode(path)) < LONGEST_PATH:
            raise
        raise ValueError(f"{error}. Set WAFFLE_WATCHER_FILE to a shorter path") from None


def _register_once(
    what: str,
    register: Callable[[], Any],
    *,
    check: Callable[[], None] = lambda: None,
    version: str = "",
) -> str:
    """Register something with the master, unless another process has. Return why it can't be.

    Args:
        check: raises why it can't be, before others may take it for registered.
    """
    assert _table is not None
    key = hashlib.blake2b(f"{what} {version}".encode(), digest_size=KEY_SIZE).digest()
    keys = [_table[at : at + KEY_SIZE] for at in range(0, len(_table), KEY_SIZE)]
    if key in keys:
        return ""
    if bytes(KEY_SIZE) not in keys:
        return f"{what} (there are {KEY_COUNT} monitors already. Restart uWSGI)"
    if error := _error_of(check):
        return f"{what} ({error})"
    at = keys.index(bytes(KEY_SIZE)) * KEY_SIZE
    _table[at : at + KEY_SIZE] = key
    if error := _error_of(register):
        _table[at : at + KEY_SIZE] = bytes(KEY_SIZE)
        return f"{what} ({error})"
    if uwsgi.worker_id():  # the master takes it up when its loop turns: make it turn
        uwsgi.signal(_signal)
    return ""


def _error_of(step: Callable[[], Any]) -> str:
    try:
        step()
    except (ValueError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def install_post_fork_hook() -> None:
    """Install our post-fork hook without replacing others.

    When uwsgidecorators is imported it takes the only hook and offers a list instead. So this is
    repeated when the application is complete.
    """
    if uwsgi is None or _after_fork is None:
        return
    decorators = sys.modules.get("uwsgidecorators")
    if decorators is not None:
        if _after_fork not in decorators.postfork_chain:
            decorators.postfork_chain.append(_after_fork)
        return
    earlier = getattr(uwsgi, "post_fork_hook", None)
    if getattr(earlier, "waffle", False):
        return

    def hook() -> None:
        if earlier is not None:
            earlier()
        if _after_fork is not None:
            _after_fork()

    hook.waffle = True  # type: ignore[attr-defined]  # how the second call knows it
    uwsgi.post_fork_hook = hook
