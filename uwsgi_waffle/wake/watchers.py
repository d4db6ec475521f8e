"""Who is to be woken in this process, whatever server it runs under."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

__all__ = ["Watcher", "log", "tick_all", "watchers"]

log = logging.getLogger("uwsgi_waffle")


class Watcher(Protocol):
    """One application's part in this process: its `WaffleState`.

    Attributes:
        poll_interval: seconds between two ticks of the thread.
        reconcile_interval: seconds within which ticks read the store, even without news.
    """

    poll_interval: float
    reconcile_interval: float

    @property
    def watched(self) -> tuple[Path, ...]:
        """What uWSGI's master has to monitor."""

    def tick(self) -> None:
        """Follow the host; called by signals and by the thread."""

    def leave(self) -> None:
        """Stop being one of the processes that follow changes."""


watchers: WeakSet[Watcher] = WeakSet()


def tick_all(_: object = None) -> None:
    """Tick each watcher. An exception of one is logged, so that the others go on.

    uWSGI gives the signal's number, which is always ours.

    Raises:
        SystemExit: uWSGI's master ends this process, which has only just been forked.
    """
    for watcher in list(watchers):
        try:
            watcher.tick()
        except KeyboardInterrupt:  # uWSGI prints it, and the master waits in vain
            raise SystemExit from None
        except BaseException:  # in a uWSGI worker even SystemExit would end the process here
            log.exception("uwsgi_waffle: following the host failed; the next tick tries again")
