"""The thread that looks, where no uWSGI master can wake this process."""

from __future__ import annotations

import os
import sys
import threading
import weakref

from .members import Member, log, members

__all__ = ["ensure_running"]

_started: weakref.WeakKeyDictionary[Member, int] = weakref.WeakKeyDictionary()


def ensure_running(member: Member) -> None:
    """Start this process's thread for ``member``, unless it runs already.

    A thread doesn't outlive a fork, whatever `threading.Thread.is_alive` says: so the pid is kept with it.
    """
    if _started.get(member) == os.getpid():
        return
    _started[member] = os.getpid()
    threading.Thread(target=_run, args=(weakref.ref(member),), name="uwsgi_waffle", daemon=True).start()


def _run(reference: weakref.ref[Member]) -> None:
    pause = threading.Event()  # never set: a wait that gevent can patch
    while (member := reference()) is not None:
        interval = member.poll_interval
        del member  # let the application go while nobody looks
        pause.wait(interval)
        member = reference()
        if member is None or _is_reloaders_parent():
            return
        try:
            member.tick()
        except Exception:
            log.exception("uwsgi_waffle: the look at the store's state failed; it will be tried again")
        del member


def _is_reloaders_parent() -> bool:
    """Tell whether this process only waits for Werkzeug's reloader to end its child, which is the one that serves."""
    return "werkzeug._reloader" in sys.modules and os.environ.get("WERKZEUG_RUN_MAIN") != "true"


def _restart_after_fork() -> None:
    for member in members():
        if member in _started:
            ensure_running(member)


os.register_at_fork(after_in_child=_restart_after_fork)
