"""The history as a person sees it: values by their declarations, secrets masked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .schema import MASK, Schema
from .state import WaffleState
from .stores import HistoryRow
from .text import to_json

__all__ = [
    "BEGINNING",
    "Beginning",
    "HistoryEntry",
    "history",
    "history_since",
    "visible",
]

#: No store has more changes, and each takes this number.
MAX_LIMIT = 2**31 - 1

#: Characters of a value's JSON text that are enough to show its beginning.
BEGINNING = 4096

ESCAPES = re.compile(r"""(?:\\u[0-9a-fA-F]{4})+|\\["\\/bfnrt]""")


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One changed variable of one revision.

    Attributes:
        revision: the revision that changed it.
        key: its name.
        old: its value before, as JSON gives it; the default if none was stored; a mask if the
            variable is secret or no longer declared.
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


@dataclass(frozen=True, slots=True)
class Beginning:
    """The first `BEGINNING` characters of a value's JSON text, in the place of a long value."""

    text: str


def history(
    state: WaffleState, limit: int, key: str | None, *, beginnings: bool = False
) -> list[HistoryEntry]:
    """Return the newest changes, newest first.

    Args:
        beginnings: of a long value return a `Beginning`, and read no more from the store.

    Raises:
        UnknownVariable: ``key`` is neither declared nor in the history.
    """
    if key is not None and not key.isidentifier():  # not every store can be asked for any text
        state.schema.variable(key)
    # One character more says that there is more.
    length = BEGINNING + 1 if beginnings else None
    rows = state.store.history(min(limit, MAX_LIMIT), key, max_length=length)
    if not rows and key is not None:
        state.schema.variable(key)
    return [_entry(state.schema, row, beginnings=beginnings) for row in rows]


def history_since(
    state: WaffleState, revision: int, key: str | None, *, beginnings: bool = False
) -> list[HistoryEntry]:
    """Return the changes that were made after ``revision``, newest first; arguments as above.

    Raises:
        UnknownRevision: the history doesn't hold all of them.
        UnknownVariable: as for `history`.
    """
    state.store.check_history(revision)
    limit = 100
    while True:
        entries = history(state, limit, key, beginnings=beginnings)
        if len(entries) < limit or entries[-1].revision <= revision:
            return [entry for entry in entries if entry.revision > revision]
        limit *= 10


def _entry(schema: Schema, row: HistoryRow, *, beginnings: bool) -> HistoryEntry:
    def shown(text: str | None) -> Any:
        value = visible(schema, row.key, text)
        if beginnings and text is not None and len(text) > BEGINNING and value is not MASK:
            return Beginning(_readable(text[:BEGINNING]))
        return value

    old, new = shown(row.old), shown(row.new)
    return HistoryEntry(row.revision, row.key, old, new, row.actor, row.note, row.at)


def visible(schema: Schema, name: str, text: str | None) -> Any:
    """Return a stored value as people and programs may see it; its default if none is stored.

    A mask if it is secret, or may be because it isn't declared; the text if that isn't JSON.
    """
    if name not in schema.variables or name in schema.secrets:
        return MASK
    if text is None:
        text = schema.text_of(schema.defaults, name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _readable(text: str) -> str:
    """Return the beginning of a JSON text with its letters as they are."""
    return ESCAPES.sub(lambda found: to_json(json.loads(f'"{found[0]}"'))[1:-1], text)
