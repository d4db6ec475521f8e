"""A store in a key/value table of the application's own, with nothing changed about the table."""

from __future__ import annotations

import copy
import json
import logging
import textwrap
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Protocol, TypeVar

from pydantic_core import from_json

from ..errors import InvalidValue, StoreUnavailable, UnknownRevision
from .contract import Commit, Context, Decide, HistoryRow, Store, Stored
from .translation import Collision

__all__ = [
    "ADVICE",
    "HISTORY",
    "HISTORY_ROWS",
    "LIMITS",
    "MYSQL_TEXT",
    "REVISION",
    "RowStore",
    "Rows",
    "in_memory",
    "is_json",
    "names_in",
]

log = logging.getLogger("uwsgi_waffle")

# Reserved names, so no variable's.
REVISION = "WAFFLE_REVISION"
HISTORY = "WAFFLE_HISTORY"
NAMES = "WAFFLE_NAMES"
RESERVED = "WAFFLE_"

HISTORY_ROWS = 100
HISTORY_SIZE = 2**22  # characters
MYSQL_TEXT = 2**16 - 1  # what a TEXT column holds there
# Seconds that a transaction of the application's own may hold an update off.
LIMITS = {
    "postgresql": ("SET LOCAL lock_timeout = '5s'", "SET LOCAL statement_timeout = '5s'"),
    "mysql": ("SET innodb_lock_wait_timeout = 5",),
    "mariadb": ("SET innodb_lock_wait_timeout = 5",),
}
ADVICE = "Look whether the database answers and has the table; it is tried again."

ATTEMPTS = 5

S = TypeVar("S", bound="RowStore")
T = TypeVar("T")


class Rows(Protocol):
    """One transaction on the table."""

    def exist(self) -> bool:
        """Tell whether there is a table."""

    def read(self, *, history: bool = False) -> Mapping[str, str | None]:
        """Return all rows, in one statement; the one that holds the history only when it is wanted."""

    def insert(self, key: str, text: str) -> None:
        """Add a row."""

    def update(self, key: str, text: str) -> None:
        """Change a row that is there."""

    def delete(self, key: str) -> None:
        """Remove a row that is there."""


@dataclass(frozen=True)
class Log:
    """The history as it is kept in one row: changes, oldest first, and the revision that they lead
    back to.
    """

    since: int
    rows: list[HistoryRow] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str | None, revision: int) -> Log:
        """Read what `to_json` wrote; what isn't a history that leads to ``revision`` is none."""
        try:
            told = json.loads(text or "")
            rows = [
                HistoryRow(**{**entry, "at": datetime.fromisoformat(entry["at"])})
                for entry in told["rows"]
            ]
            if all(row.revision <= revision for row in rows):
                return cls(int(told["since"]), rows)
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            if text:
                log.warning(
                    "uwsgi_waffle: the history in the row %s can't be read (%s); it begins anew",
                    HISTORY,
                    type(error).__name__,
                )
        return cls(revision)

    def to_json(self, room: int) -> str:
        """Write the newest changes: so many as are kept, fewer if there is no room for them."""
        kept: list[str] = []
        since, left = self.since, room - len('{"since":,"rows":[]}') - len(str(2**63))
        for row in reversed(self.rows):
            text = json.dumps({**asdict(row), "at": row.at.isoformat()}, separators=(",", ":"))
            left -= len(text) + 1
            if len(kept) == HISTORY_ROWS or left < 0:
                since = row.revision
                break
            kept.append(text)
        return f'{{"since":{since},"rows":[{",".join(reversed(kept))}]}}'

    def undo(self, values: Mapping[str, str], revision: int) -> dict[str, str]:
        """Return what ``values`` were at a former revision."""
        texts: dict[str, str | None] = dict(values)
        for row in reversed(self.rows):
            if row.revision > revision:
                texts[row.key] = row.old
        return {key: text for key, text in texts.items() if text is not None}


class RowStore(Store):
    """Keeps each value as one row, and three more under reserved names.

    These are the revision, a history of the newest changes, and the names that were ever written
    here. A row counts as a
    value if this application declares its name, or if it is one of those: another version of the
    application, that shares
    the table while one replaces the other, declares them. All other rows are the application's own;
    whatever becomes of
    them is no change.
    """

    _names: frozenset[str] | None = None
    _context: Context = staticmethod(nullcontext)
    _awaited = False  # whether there was no table yet when this host first saw the store

    def bind(self: S, names: frozenset[str], context: Context) -> S:
        bound = copy.copy(self)
        bound._names, bound._context = names, context
        return bound

    @abstractmethod
    def _open(self, *, lock: bool) -> AbstractContextManager[Rows]:
        """Open a connection of its own with one transaction, that ends with it.

        Args:
            lock: hold off all other writers, with its first statement.
        """

    @abstractmethod
    def _room(self) -> tuple[int | None, int | None]:
        """Return how many characters the columns for keys and for values take, ``None`` for any
        number.
        """

    def prepare(self) -> None:
        _repeated(self._begin)

    def _begin(self) -> None:
        with self._open(lock=False) as rows:
            self._awaited = not rows.exist()
        if self._awaited:
            log.warning(
                "uwsgi_waffle: %s: there is no such table yet; until it is made the defaults count",
                self.name,
            )
        else:
            with self._open(lock=True) as rows:
                if REVISION not in rows.read():
                    rows.insert(REVISION, "0")

    def load(self) -> Stored:
        with self._open(lock=False) as rows:
            if (
                self._awaited and not rows.exist()
            ):  # a database that is yet to be set up, by a command of this application's
                return Stored(0, {})
            self._awaited = False
            return self._stored(rows.read())

    def rows(self) -> Mapping[str, str]:
        with self._open(lock=False) as rows:
            return _without_reserved(rows.read())

    def transact(self, decide: Decide) -> Stored:
        return _repeated(lambda: self._transact(decide))

    def _transact(self, decide: Decide) -> Stored:
        with self._open(lock=True) as rows:
            found = rows.read(history=True)
            stored = self._stored(found)
            commit = decide(stored)
            if commit is None:
                return stored
            self._write(rows, found, stored, commit)
            return stored.after(commit)

    def _write(
        self, rows: Rows, found: Mapping[str, str | None], stored: Stored, commit: Commit
    ) -> None:
        keys, values = self._room()
        self._check_lengths(commit.changes, keys, values)
        past = Log.parse(found.get(HISTORY), stored.revision)
        past = Log(past.since, past.rows + commit.rows(stored, datetime.now(timezone.utc)))
        names, written = names_in(found), commit.changes.keys()
        after = {
            **({} if written <= names else _names_rows(names | written, values)),
            **commit.changes,
            HISTORY: past.to_json(HISTORY_SIZE if values is None else min(values, HISTORY_SIZE)),
            REVISION: str(stored.revision + 1),  # last, for where there are no transactions
        }
        for key, text in after.items():
            if text is not None:
                (rows.update if key in found else rows.insert)(key, text)
            elif key in stored.values:
                rows.delete(key)

    def _check_lengths(
        self, changes: Mapping[str, str | None], keys: int | None, values: int | None
    ) -> None:
        problems: dict[str, str] = {}
        for key, text in changes.items():
            if keys is not None and len(key) > keys:
                problems[key] = (
                    f"{self.name} can't hold the name: it has {len(key)} characters, the column takes {keys}"
                )
            elif text is not None and values is not None and len(text) > values:
                problems[key] = (
                    f"{self.name} can't hold the value: as JSON it has {len(text)} characters, the column takes {values}"
                )
        if problems:
            raise InvalidValue(problems)

    def history(self, limit: int, key: str | None = None) -> list[HistoryRow]:
        with self._open(lock=False) as rows:
            found = {} if self._awaited and not rows.exist() else rows.read(history=True)
        past = Log.parse(found.get(HISTORY), self._stored(found).revision)
        return [row for row in reversed(past.rows) if key is None or row.key == key][
            : max(0, limit)
        ]

    def values_at(self, revision: int) -> Mapping[str, str]:
        with self._open(lock=False) as rows:
            found = rows.read(history=True)
        stored = self._stored(found)
        past = Log.parse(found.get(HISTORY), stored.revision)
        if not 0 <= revision <= stored.revision:
            raise UnknownRevision(
                f"There is no revision {revision}: the store is at {stored.revision}."
            )
        if revision < past.since:
            raise UnknownRevision(
                f"Revision {revision} isn't known any more: in the application's own table the history keeps the newest {HISTORY_ROWS} "
                f"changes, or as many as its column takes. They lead back to revision {past.since}."
            )
        return past.undo(stored.values, revision)

    def _stored(self, found: Mapping[str, str | None]) -> Stored:
        told = found.get(REVISION) or "0"
        if not (told.isascii() and told.isdigit() and len(told) < 20):
            raise StoreUnavailable(
                f"{self.name}: the row {REVISION} holds {told[:40]!r}, which is no revision. Restore it, or delete it."
            )
        values = _without_reserved(found)
        if self._names is not None:
            counted = self._names | names_in(found)
            values = {key: text for key, text in values.items() if key in counted}
        return Stored(int(told), values)


def names_in(found: Mapping[str, str | None]) -> set[str]:
    """Return the names that were ever written, by whichever version of the application."""
    return {
        name
        for key, text in found.items()
        if key.startswith(NAMES)
        for name in (text or "").split()
    }


def _names_rows(names: set[str], room: int | None) -> dict[str, str]:
    """Write them down, in more than one row if the column is short."""
    joined = " ".join(sorted(names))
    lines = textwrap.wrap(
        joined, max(1, room or len(joined)), break_long_words=False, break_on_hyphens=False
    )
    return {NAMES + (str(number) if number else ""): line for number, line in enumerate(lines)}


def _repeated(act: Callable[[], T]) -> T:
    """Do something that other hosts may be doing at this moment."""
    for _ in range(ATTEMPTS - 1):
        try:
            return act()
        except Collision:
            continue
    return act()


def in_memory(database: str | None, mode: object = None) -> bool:
    """Tell whether a SQLite database, named with a ``mode`` beside it or within it, is in no file."""
    return not database or ":memory:" in database or "mode=memory" in database or mode == "memory"


def _without_reserved(found: Mapping[str, str | None]) -> dict[str, str]:
    return {
        key: text
        for key, text in found.items()
        if text is not None and not key.startswith(RESERVED)
    }


def is_json(text: str) -> bool:
    """Tell whether a text is JSON."""
    try:
        from_json(text)  # what validates them reads less than `json` does
    except ValueError:
        return False
    return True
