"""How this process learns of a change while nobody asks it: by uWSGI's signal, else by a thread that looks."""

from __future__ import annotations

import os
import sys

from . import thread, uwsgi
from .members import Member, add, log, tick_all

__all__ = ["Member", "arm", "attach", "follow", "kind"]

_warned = False


def arm() -> None:
    """Prepare uWSGI's master; called once, by the import of the package."""
    uwsgi.arm(tick_all)


def attach(member: Member) -> None:
    """Have ``member`` ticked at the births of processes; `follow` does the rest."""
    add(member)
    uwsgi.join_births()


def follow(member: Member) -> str:
    """Make sure that this process is woken, also after a fork or when a watched file was replaced.

    Returns:
        How: ``signal``, or ``thread`` where no signal comes: also in mules and spoolers.
    """
    global _warned
    if uwsgi.armed():
        name = kind() or "worker"  # the master asks for its workers, before they are born
        if name.startswith("worker") and (uwsgi.watch(member) or name == "worker"):
            return "signal"
    elif kind() is None:
        return "thread"  # in the workers; not in uWSGI's master, which serves nobody and forks
    elif uwsgi.under_uwsgi() and not _warned:
        _warned = True
        if uwsgi.is_first():
            log.warning(
                "uwsgi_waffle: uWSGI's master can't wake the workers, so a thread in each looks every %g s. Add %s to the ini.",
                member.poll_interval,
                uwsgi.missing(),
            )
    thread.ensure_running(member)
    return "thread"


def kind() -> str | None:
    """Name this process: ``worker 3``, ``mule 1``, else the program's name; ``None`` for uWSGI's master."""
    if uwsgi.under_uwsgi():
        return uwsgi.kind()
    return os.path.basename(sys.argv[0] if sys.argv and sys.argv[0] else "python")
