"""uWSGI: the master watches, one signal wakes all workers. The only module that imports `uwsgi`."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .members import Member, log, tick_all

try:
    import uwsgi
except ImportError:  # not under uWSGI
    uwsgi = None

__all__ = ["arm", "armed", "join_births", "kind", "missing", "under_uwsgi", "watch"]

TARGET = "active-workers"  # "workers" would fill the pipes of those that `cheaper` has sent home
ENTRY, ENTRIES = (
    8,
    40,
)  # uWSGI has 64 monitors for its whole life; the rest is for the application's own
LOOK_AGAIN = 2  # seconds after which a monitor that a worker has added is surely active

_signal: int | None = None
_table: mmap.mmap | None = None  # what is being watched; shared with all processes forked later
_lock: IO[bytes] | None = None
_known: set[bytes] = set()
_born: Callable[[], None] | None = None


def under_uwsgi() -> bool:
    """Tell whether this process was started by uWSGI."""
    return uwsgi is not None


def arm(born: Callable[[], None]) -> None:
    """In uWSGI's master, before it forks: register the signal. Elsewhere do nothing.

    Args:
        born: called in each process that uWSGI forks.
    """
    global _signal, _table, _lock, _born
    if uwsgi is None:
        return
    _born = born
    join_births()
    if uwsgi.masterpid() != os.getpid() or uwsgi.worker_id() or uwsgi.mule_id():
        return
    # From above: uwsgidecorators and most applications count from 0.
    number = next((n for n in range(255, -1, -1) if not uwsgi.signal_registered(n)), None)
    try:
        if number is not None:
            uwsgi.register_signal(number, TARGET, tick_all)
            _signal, _table = number, mmap.mmap(-1, ENTRY * ENTRIES)
            _lock = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as uWSGI runs
    except ValueError as error:
        log.warning(
            "uwsgi_waffle: uWSGI refused a signal (%s): set `single-interpreter = true`. A "
            "thread looks instead.",
            error,
        )


def armed() -> bool:
    """Tell whether uWSGI's master wakes this process."""
    return _signal is not None


def missing() -> str:
    """Say which line of the ini would let the master wake this process; called where it can't."""
    if not uwsgi.masterpid():
        return "`master = true`"
    if uwsgi.opt.get("lazy-apps") or uwsgi.opt.get("lazy"):
        return "`shared-import = uwsgi_waffle`, which `lazy-apps` needs"
    return "`import uwsgi_waffle` at the top of the wsgi module, or `shared-import = uwsgi_waffle`"


def kind() -> str | None:
    """Name this process as uWSGI does, ``None`` for its master, which serves nobody."""
    if uwsgi.worker_id():
        return f"worker {uwsgi.worker_id()}"
    if uwsgi.mule_id():
        return f"mule {uwsgi.mule_id()}"
    if uwsgi.i_am_the_spooler():
        return "spooler"
    return None if uwsgi.masterpid() == os.getpid() else "uwsgi"


def shows_metrics() -> bool:
    """Tell whether the ini declares metrics, ours maybe among them; uWSGI can't make one while it
    runs.
    """
    return uwsgi is not None and "metric" in uwsgi.opt


def show(name: str, value: int) -> None:
    """Set a metric of the instance, if the ini declares it."""
    uwsgi.metric_set(name, value)


def has_mules() -> bool:
    """Tell whether the instance has mules."""
    return "mule" in uwsgi.opt or uwsgi.opt.get("mules", b"0") != b"0"


def is_our_mule() -> bool:
    """Tell whether this is a mule, and the ini's last ``mule =`` line is the package's."""
    return bool(
        uwsgi
        and uwsgi.mule_id()
        and uwsgi.opt.get("mule") in (b"uwsgi_waffle.mule", b"uwsgi_waffle.mule:run")
    )


def serve_as_mule() -> None:
    """Do what a mule without a program does: handle uWSGI's signals."""
    while True:
        uwsgi.mule_get_msg(False)  # in uWSGI 2.0 this "no" to signals means yes


def is_first() -> bool:
    """Tell whether this is the process that speaks for all: the master, or the first worker."""
    return uwsgi.worker_id() <= 1 and not uwsgi.mule_id()


def watch(member: Member) -> bool:
    """Have the master watch the member's files and wake everyone at its interval; each is asked for
    only once.

    A file that was replaced is another file, and asked for again.

    Returns:
        Whether all of them are watched.
    """
    return all(
        [_ask(path, member.generation) for path in member.watched]
        + [_ask_timer(member.reconcile_interval)]
    )


def _ask(path: Path, generation: int) -> bool:
    try:
        inode = os.stat(path).st_ino
    except FileNotFoundError:
        return False
    # The inode's number may be used again for a new folder, the header in it tells them apart.
    return _once(
        f"{path}\0{inode}\0{generation}", lambda: uwsgi.add_file_monitor(_signal, str(path))
    )


def _ask_timer(interval: float) -> bool:
    # Three times an interval: the second finds that a comparison is due, so that none comes later
    # than promised.
    seconds = max(1, round(interval / 3))
    return _once(f"timer {seconds}", lambda: uwsgi.add_timer(_signal, seconds))


def _once(what: str, ask: Callable[[], Any]) -> bool:
    key = hashlib.blake2b(what.encode(), digest_size=ENTRY).digest()
    if key in _known:
        return True
    assert _lock is not None
    try:
        # Opened anew, for what a fork has shared would exclude nobody; not uWSGI's lock, which the
        # application may hold.
        with open(f"/proc/self/fd/{_lock.fileno()}") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _claim(key, ask)
    except (ValueError, OSError) as error:
        log.warning(
            "uwsgi_waffle: uWSGI can't watch for us (%s); a thread in each worker looks instead",
            error,
        )
        return False


def _claim(key: bytes, ask: Callable[[], Any]) -> bool:
    """Under the lock, ask unless somebody else has, and remember it for all."""
    assert _table is not None
    entries = [_table[at : at + ENTRY] for at in range(0, len(_table), ENTRY)]
    if key not in entries:
        if bytes(ENTRY) not in entries:
            return False
        at = entries.index(bytes(ENTRY)) * ENTRY
        ask()
        _table[at : at + ENTRY] = key
        if (
            uwsgi.worker_id()
        ):  # the master takes it up at its next turn: have it turn, and look once more then
            uwsgi.signal(_signal)
            uwsgi.add_rb_timer(_signal, LOOK_AGAIN, 1)
    _known.add(key)
    return True


def join_births() -> None:
    """Be called in each process that uWSGI forks, beside whoever else wants to be.

    uwsgidecorators takes the only hook when it is imported and offers a list instead; so this is
    repeated when the
    application is complete.
    """
    if uwsgi is None or _born is None:
        return
    decorators = sys.modules.get("uwsgidecorators")
    if decorators is not None:
        if _born not in decorators.postfork_chain:
            decorators.postfork_chain.append(_born)
        return
    earlier = getattr(uwsgi, "post_fork_hook", None)
    if getattr(earlier, "waffle", False):
        return

    def hook() -> None:
        if earlier is not None:
            earlier()
        if _born is not None:
            _born()

    hook.waffle = True  # type: ignore[attr-defined]  # how the second call knows it
    uwsgi.post_fork_hook = hook
