"""What a person is told: the history, and the state of store and processes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

from .hostfiles import digest_in, is_settled
from .schema import MASK, Schema
from .server import program
from .snapshot import Encoded, Snapshot
from .state import State
from .stores import HistoryRow

__all__ = ["HistoryEntry", "gauges", "history", "problems", "status"]

#: Seconds that a comparison with the store may take longer than its interval: a store has so long
#: to answer.
GRACE = 5.0


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One changed variable of one revision.

    Attributes:
        revision: the revision that changed it.
        key: its name.
        old: its value before, as JSON gives it; the default if none was stored; a mask if it is
            secret, or may be: when it
            isn't declared any more nobody knows.
        new: likewise, after.
        actor: who changed it; ``outside`` for an edit that was made behind the package's back.
        note: why.
        at: when, in UTC, by the clock of the host that wrote it; for people, never compared.
    """

    revision: int
    key: str
    old: Any
    new: Any
    actor: str | None
    note: str | None
    at: datetime


def history(state: State, limit: int, key: str | None) -> list[HistoryEntry]:
    """Return the newest changes, newest first.

    Raises:
        UnknownVariable: ``key`` is neither declared nor in the history.
    """
    rows = state.store.history(limit, key)
    if not rows and key is not None:
        state.schema.variable(key)
    return [_entry(state.schema, row) for row in rows]


def _entry(schema: Schema, row: HistoryRow) -> HistoryEntry:
    def shown(text: str | None) -> Any:
        variable = schema.variables.get(row.key)
        if variable is None or variable.secret:
            return MASK
        try:
            return json.loads(
                variable.dump(getattr(schema.defaults, row.key)) if text is None else text
            )
        except (ValueError, RecursionError):  # an edit from outside that was no JSON
            return text

    return HistoryEntry(
        row.revision, row.key, shown(row.old), shown(row.new), row.actor, row.note, row.at
    )


def status(state: State) -> dict[str, Any]:
    """Return what an operator wants to know, as JSON-able values; ages in seconds.

    Among them are the ``newest`` revision that this host has, and how many ``updates`` its
    processes were shown.
    """
    snapshot, now, host, processes = state.look(), monotonic(), state.host, state.processes()
    notes = None if host is None else host.notes()
    newest = _newest(state, snapshot)
    return {
        "revision": snapshot.revision,
        "newest": newest.revision,
        "updates": None if host is None else host.updates(),
        "store": state.store.name,
        "store_error": notes.error if notes else "",
        "store_checked": None
        if notes is None or not notes.checked_at
        else round(now - notes.checked_at / 1e9, 3),
        "error": state.error,
        "watcher_file": None if host is None else str(host.watch_file),
        "pid": os.getpid(),
        "servers": sorted(
            {name for name in (program(process.kind) for process in processes) if name is not None}
        ),
        "processes": [
            {
                "pid": p.pid,
                "kind": p.kind,
                "revision": p.revision,
                "age": round(now - p.applied_at, 3),
                "behind": p.digest != newest.digest,
                "error": p.error,
            }
            for p in processes
        ],
    }


def gauges(state: State) -> dict[str, int]:
    """Return what a server that has metrics of its own shows of this host, by name."""
    error = state.host is not None and state.host.notes().error
    return {
        "waffle.revision": _newest(state, state.look()).revision,
        "waffle.store_error": int(bool(error)),
    }


def _newest(state: State, snapshot: Snapshot) -> Snapshot | Encoded:
    """Return the newest that this host has: what this process serves, or what was published and
    can't be served here.
    """
    if state.host is None or digest_in(state.host.peek()) == snapshot.digest:
        return snapshot
    return state.host.last() or snapshot


def problems(state: State, interval: float) -> list[str]:
    """Say what keeps this process from serving what the store holds, after a comparison with it if
    one is due.

    Anybody may read the words: no path, address or value is in them.

    Args:
        interval: seconds within which the store has to be seen, `GRACE` added.
    """
    host = state.host
    if host is None:
        return []
    state.wake(interval)  # so that nothing is wrong only because nobody has looked
    found: list[str] = []
    notes = host.notes()
    if notes.error:
        found.append("the store can't be used")
    elif monotonic() - max(notes.checked_at / 1e9, host.opened_at) > interval + GRACE:
        found.append(f"the store was not compared within {interval:g} s")
    head, mine = host.peek(), state.look().digest
    if (
        is_settled(head) and mine != digest_in(head) and head == host.peek()
    ):  # not only because of what came meanwhile
        found.append("this process doesn't serve the newest revision of its host")
    return found
