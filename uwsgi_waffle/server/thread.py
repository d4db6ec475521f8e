"""The thread that looks, where no uWSGI master can wake this process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from pathlib import Path

import click
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

from .members import Member, log, members, tick_all

__all__ = ["ensure_running", "leave_signals_to_the_main_thread", "only_reloads", "tick_here"]

LONGEST_TICK = 10.0  # seconds that a fork waits for a store that doesn't answer

_busy = threading.RLock()  # held while a thread of ours looks
_waited: list[bool] = []
_started: weakref.WeakKeyDictionary[Member, int] = weakref.WeakKeyDictionary()


def ensure_running(member: Member) -> None:
    """Start this process's thread for ``member``, unless it runs already.

    A thread doesn't outlive a fork, whatever `threading.Thread.is_alive` says: so the pid is kept
    with it.
    """
    if _started.get(member) == os.getpid() or _will_only_reload():
        return
    _started[member] = os.getpid()
    try:
        threading.Thread(
            target=_run, args=(weakref.ref(member),), name="uwsgi_waffle", daemon=True
        ).start()
    except RuntimeError:  # as many as the system allows: whoever asks next tries again
        del _started[member]
        raise


def _run(reference: weakref.ref[Member]) -> None:
    leave_signals_to_the_main_thread()
    pause = threading.Event()  # never set: a wait that gevent can patch
    while (member := reference()) is not None:
        interval = member.poll_interval
        del member  # let the application go while nobody looks
        pause.wait(interval)
        member = reference()
        if member is None:
            return
        try:
            if only_reloads():
                member.leave()
                return
            with _busy:
                member.tick()
        except Exception:
            log.exception(
                "uwsgi_waffle: the look at the store's state failed; it will be tried again"
            )
        del member


def tick_here() -> None:
    """Look in a thread of the package's own, with forks held off meanwhile."""
    with _busy:
        tick_all()


def leave_signals_to_the_main_thread() -> None:
    """Block all signals in this thread, so that the kernel gives those sent to the process to the
    main thread.

    uWSGI's handler of SIGTERM calls ``exit()`` in whichever thread has it; in this one it would
    wait for the main
    thread, which goes on serving, until the master loses patience and kills. A greenlet, which
    gevent may have made of
    this thread, runs in the main thread and must not block anything.
    """
    try:
        thread = Path("/proc/thread-self").readlink().name
    except OSError:  # not Linux
        return
    if thread != str(os.getpid()):
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def only_reloads() -> bool:
    """Tell whether this process only waits for the child of Werkzeug's reloader, which is the one
    that serves.
    """
    return "werkzeug._reloader" in sys.modules and not is_running_from_reloader()


def _will_only_reload() -> bool:
    """Tell the same of a process in which ``flask run --debug`` is loading the application."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run" or is_running_from_reloader():
        return False
    reload = context.params.get("reload")
    return get_debug_flag() if reload is None else bool(reload)


def _wait_for_ticks() -> None:
    """Before a fork, wait until no thread of ours is within a database's library, whose locks the
    child would inherit.
    """
    if _busy.acquire(timeout=LONGEST_TICK):
        _waited.append(True)


def _go_on() -> None:
    if _waited:
        _waited.pop()
        _busy.release()


def _restart_after_fork() -> None:
    _go_on()
    for member in members():
        if member in _started:
            ensure_running(member)


os.register_at_fork(
    before=_wait_for_ticks, after_in_parent=_go_on, after_in_child=_restart_after_fork
)
