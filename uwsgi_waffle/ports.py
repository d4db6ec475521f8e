"""What the core asks of the world around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .snapshot import Change, Committed

__all__ = ["Ports"]


@dataclass(frozen=True, slots=True)
class Ports:
    """The functions by which one application's core reaches its surroundings.

    Attributes:
        process_name: names this process, ``None`` for one that serves nobody.
        call_hooks: called with each change, in the process and thread that applied it; and with
            what this process has committed because it found that somebody had edited the store.
        ensure_watched: called when uWSGI's master may have to monitor other files than before.
        notify_hosts: tells other hosts that the store has something new.
        describe: says how this process's server runs.
    """

    process_name: Callable[[], str | None]
    call_hooks: Callable[[Change | Committed], None]
    ensure_watched: Callable[[], None]
    notify_hosts: Callable[[], None]
    describe: Callable[[], dict[str, object]]
