"""The thread that follows the host where no uWSGI master can wake this process."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from werkzeug.serving import is_running_from_reloader

from .. import unix
from . import uwsgi
from .watchers import Watcher, log, tick_all, watchers

__all__ = [
    "ensure_running",
    "is_reloader_parent",
    "start_background",
    "start_thread",
    "tick_in_thread",
]

LONGEST_TICK = 10.0  # seconds that a fork waits for a tick, and so for a store that is silent

_tick_lock = threading.RLock()
_started: weakref.WeakKeyDictionary[Watcher, int] = weakref.WeakKeyDictionary()


def ensure_running(watcher: Watcher) -> None:
    """Start this process's thread for ``watcher``, unless it runs.

    A thread doesn't survive a fork, whatever `threading.Thread.is_alive` says. So its pid is kept.
    """
    if _started.get(watcher) == os.getpid():
        return
    _started[watcher] = os.getpid()
    # A garbage collection may release it at any point of any thread, which an Event can't bear.
    gone = threading.Lock()
    gone.acquire()
    reference = weakref.ref(watcher, lambda _: gone.release())
    try:
        start_background("uwsgi_waffle", partial(_run, reference, gone))
    except RuntimeError:  # the next call tries again
        del _started[watcher]
        raise


def _run(reference: weakref.ref[Watcher], gone: threading.Lock) -> None:
    while (watcher := reference()) is not None:
        interval = watcher.poll_interval
        del watcher  # so that the application can be forgotten meanwhile
        if gone.acquire(timeout=interval) or (watcher := reference()) is None:
            return
        try:
            if is_reloader_parent():
                watcher.leave()
                return
            with _tick_lock:
                watcher.tick()
        except BaseException:  # even SystemExit would end this thread unseen
            log.exception("uwsgi_waffle: following the host failed; the next tick tries again")
        del watcher


def tick_in_thread() -> bool:
    """Tick each watcher, and let forks wait for it. Return whether there is one.

    Call this in a thread of the package's own.
    """
    with _tick_lock:
        tick_all()
    return bool(watchers)


def start_thread(name: str, run: Callable[[], object]) -> threading.Thread:
    """Start a thread of the package's own.

    Raises:
        RuntimeError: the system allows no more threads.
    """
    thread = threading.Thread(target=_run_without_signals, args=(run,), name=name, daemon=True)
    thread.start()
    return thread


def start_background(name: str, run: Callable[[], object]) -> None:
    """Start a thread that nobody waits for; errors as above.

    Under gevent it may be a greenlet. A mule's or spooler's main thread gives way to none.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and uwsgi.is_mule_or_spooler():
        start = monkey.get_original("_thread", "start_new_thread")
        start(_run_without_signals, (run,))
    else:
        start_thread(name, run)


def _run_without_signals(run: Callable[[], object]) -> None:
    _block_signals()
    run()


def _block_signals() -> None:
    """Block all signals in this thread, so that the kernel delivers them to the main thread.

    uWSGI's handler of SIGTERM calls ``exit()`` in the thread that gets the signal. In this one it
    would wait for the main thread, which goes on serving until the master kills it. Under gevent
    this "thread" may be a greenlet of the main thread, which must not block anything.
    """
    # uWSGI's forks leave `main_thread` as it was in the master; there the pid is its id.
    if threading.get_native_id() not in (os.getpid(), threading.main_thread().native_id):
        unix.block_signals()


def is_reloader_parent() -> bool:
    """Return whether this process only waits for the child of Werkzeug's reloader, which serves."""
    return "werkzeug._reloader" in sys.modules and not is_running_from_reloader()


def _wait_for_ticks() -> None:
    """Before a fork, wait until no thread of ours holds the locks of a database's library."""
    _tick_lock.acquire(timeout=LONGEST_TICK)


def _release_after_fork() -> None:
    with suppress(RuntimeError):  # the wait was given up
        _tick_lock.release()


def _restart_after_fork() -> None:
    global _tick_lock
    _tick_lock = threading.RLock()  # a thread that is gone may have held the other one
    for watcher in list(watchers):
        if watcher in _started:
            ensure_running(watcher)


unix.at_fork(
    before=_wait_for_ticks, after_in_parent=_release_after_fork, after_in_child=_restart_after_fork
)
