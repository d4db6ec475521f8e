"""How this process learns of a change while nobody asks it: by uWSGI's signal, else by a thread
that looks.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from . import thread, uwsgi
from .channel import Channel, ChannelDown
from .members import Member, add, log, members, tick_all
from .thread import leave_signals_to_the_main_thread, tick_here
from .uwsgi import is_our_mule, serve_as_mule, show, shows_metrics

__all__ = [
    "Channel",
    "ChannelDown",
    "Member",
    "arm",
    "attach",
    "follow",
    "give_way",
    "is_born",
    "is_first",
    "is_our_mule",
    "kind",
    "leave_signals_to_the_main_thread",
    "may_listen",
    "members",
    "program",
    "serve_as_mule",
    "show",
    "shows_metrics",
    "tick_here",
]

HEAD_START = 0.0003  # seconds that a writer leaves to the workers that it has woken

_warned = False
_armed_in_master = False


def arm(born: Callable[[], object]) -> None:
    """Prepare uWSGI's master; called once, by the import of the package.

    Args:
        born: called in each process that uWSGI forks, after its applications have looked.
    """

    global _armed_in_master
    _armed_in_master = uwsgi.under_uwsgi() and uwsgi.kind() is None

    def look() -> None:
        tick_all()
        born()

    uwsgi.arm(look)


def attach(member: Member) -> None:
    """Have ``member`` ticked at the births of processes; `follow` does the rest."""
    add(member)
    uwsgi.join_births()


def may_listen(*, mule_knows: bool) -> bool:
    """Tell whether this process may be the one of its host that listens to Redis.

    Where uWSGI has mules, its workers leave it to them.

    Args:
        mule_knows: whether a mule knows where to listen: by the application, or by the process
            environment.
    """
    name = kind()
    if name in (None, "spooler") or thread.only_reloads():
        return False
    a_mule_does = uwsgi.under_uwsgi() and uwsgi.has_mules() and _armed_in_master and mule_knows
    return str(name).startswith("mule") or not a_mule_does


def is_born() -> bool:
    """Tell whether this is a process that uWSGI has forked already, so that no birth is still to
    come.
    """
    return uwsgi.under_uwsgi() and kind() is not None


def is_first() -> bool:
    """Tell whether this process may speak for all of its uWSGI instance, so that one of them warns."""
    return not uwsgi.under_uwsgi() or uwsgi.is_first()


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
                "uwsgi_waffle: uWSGI's master can't wake the workers, so a thread in each looks"
                " every %g s. Add %s to the ini.",
                member.poll_interval,
                uwsgi.missing(),
            )
    thread.ensure_running(member)
    return "thread"


def give_way() -> None:
    """Leave the processor to the workers that this process has just woken, if it is one of uWSGI's;
    elsewhere they look by themselves.
    """
    if uwsgi.armed():
        time.sleep(HEAD_START)


def kind() -> str | None:
    """Name this process: ``worker 3``, ``mule 1``, else the program's name; ``None`` for uWSGI's
    master.
    """
    if uwsgi.under_uwsgi():
        return uwsgi.kind()
    return _program()


@functools.cache
def _program() -> str:
    """Name a process outside uWSGI: ``gunicorn``, ``flask run``, ``flask waffle watch``,
    ``backup.py``.
    """
    context = click.get_current_context(silent=True)
    if context is not None:
        return context.command_path.removeprefix("python -m ")
    path = Path(sys.argv[0] if sys.argv and sys.argv[0] else "python")
    return path.parent.name if path.name == "__main__.py" else path.name


def program(kind: str) -> str | None:
    """Return the server that a process of this kind belongs to; ``None`` for a shell's command."""
    if kind.partition(" ")[0] in ("worker", "mule", "spooler", "uwsgi"):
        return "uWSGI"
    return None if kind.startswith("flask ") and kind != "flask run" else kind
