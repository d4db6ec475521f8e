"""Who is to be woken in this process, whatever server it runs under."""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Protocol

__all__ = ["Member", "add", "members", "tick_all"]

log = logging.getLogger("uwsgi_waffle")


class Member(Protocol):
    """One application's part in this process."""

    poll_interval: float
    reconcile_interval: float

    @property
    def watched(self) -> tuple[Path, ...]:
        """What uWSGI's master has to watch."""

    @property
    def generation(self) -> int:
        """A number that changes when what is watched was made anew."""

    def tick(self) -> None:
        """Look whether something changed; called by signals and by the thread."""

    def leave(self) -> None:
        """Be no longer counted among the processes that follow changes."""


_members: list[weakref.ref[Member]] = []


def add(member: Member) -> None:
    """Let ``member`` be woken until it is forgotten by everyone else."""
    _members.append(weakref.ref(member, _members.remove))


def members() -> list[Member]:
    """Return all that are to be woken."""
    return [member for reference in tuple(_members) if (member := reference()) is not None]


def tick_all(_: object = None) -> None:
    """Wake everyone; whatever one of them raises is logged, so that the others and the process go
    on.
    """
    for reference in tuple(_members):
        member = reference()
        try:
            if member is not None:
                member.tick()
        except BaseException:  # SystemExit, too, would end a uWSGI worker here
            log.exception(
                "uwsgi_waffle: the look at the store's state failed; it will be tried again"
            )
