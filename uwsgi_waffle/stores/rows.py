"""A store in a key/value table of the application's own, with nothing changed about the table."""

from __future__ import annotations

import copy
import logging
import textwrap
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime, timezone
from typing import Any

from typing_extensions import Self

from ..errors import InvalidValue, StoreUnavailable, UnknownRevision
from ..legacy import as_json
from .contract import EXPIRES, Commit, CommitBuilder, Context, HistoryRow, Store, Stored
from .row_history import HISTORY_ROWS, RowHistory
from .translation import TableMissing, retry

__all__ = [
    "HISTORY",
    "MYSQL",
    "MYSQL_TEXT",
    "NAMES",
    "REVISION",
    "Found",
    "RowStore",
    "names_in",
]

log = logging.getLogger("uwsgi_waffle")

# Reserved names, which no variable can have.
REVISION = "WAFFLE_REVISION"
HISTORY = "WAFFLE_HISTORY"
NAMES = "WAFFLE_NAMES"
RESERVED = "WAFFLE_"
HISTORY_SIZE = 2**22  # characters
MYSQL = ("mysql", "mariadb")
MYSQL_HISTORY_SIZE = 2**19  # characters; in one statement with the values it fits a packet there
MYSQL_TEXT = 2**16 - 1  # what a TEXT column holds there

Found = Mapping[str, "str | None"]


class RowStore(Store):
    """Keeps each value as one row, and three more under reserved names.

    Those are the revision, a history of the newest changes, and the names that were ever written.
    A row is a value if this application declares its name, or if it is one of those names: another
    version of the application, which shares the table while one replaces the other, declares them.
    All other rows are the application's own, and changing them is no change here.

    A row that Flask-WaffleConf wrote is read as the JSON text of its value. The first update of the
    variable writes JSON.
    """

    _names: frozenset[str] | None = None
    _context: Context = staticmethod(nullcontext)
    _table_missing = False  # since this host first saw the store

    def bind(self, names: frozenset[str], context: Context) -> Self:
        bound = copy.copy(self)
        bound._names, bound._context = names, context
        with suppress(StoreUnavailable):  # the first call says why
            bound.shared = not bound._in_memory
        return bound

    @property
    def _in_memory(self) -> bool:
        """Whether the table is in the memory of this process alone."""
        return False

    @abstractmethod
    def _open(self, *, lock: bool) -> AbstractContextManager[Any]:
        """Open a connection for one transaction.

        Args:
            lock: make all other writers wait, with its first statement.
        """

    @abstractmethod
    def _read_rows(self, connection: Any) -> Found:
        """Return all rows, in one statement."""

    @abstractmethod
    def _write_row(self, connection: Any, key: str, text: str | None, *, exists: bool) -> None:
        """Add or change a row; ``None`` removes one that exists.

        The revision is the last that an update writes.
        """

    def _column_lengths(self) -> tuple[int | None, int | None]:
        """Return the maximum length of keys and of values in characters; ``None`` is unlimited."""
        return None, None

    @property
    def _backend(self) -> str:
        """The kind of database, as SQLAlchemy calls it; empty if it knows no lock."""
        return ""

    @property
    def _has_server(self) -> bool:
        """Whether a server may still commit for a writer that has died."""
        return self._backend not in ("", "sqlite")

    def prepare(self) -> None:
        retry(self._prepare)

    def _prepare(self) -> None:
        try:
            with self._open(lock=False) as connection:
                found = self._read_rows(connection)
        except TableMissing:
            self._table_missing = True
            log.warning("uwsgi_waffle: %s: the table does not exist yet; using defaults", self.name)
            return
        if REVISION not in found:
            with self._open(lock=True) as connection:
                if REVISION not in self._read_rows(connection):
                    self._write_row(connection, REVISION, "0", exists=False)

    def load(self) -> Stored:
        return self._stored(self._read())

    def load_after_pending_writes(self) -> Stored:
        return retry(lambda: self._stored(self._read(lock=self._has_server)))

    def rows(self) -> Mapping[str, str]:
        return _without_reserved(self._read())

    def _read(self, *, lock: bool = False) -> Found:
        try:
            with self._open(lock=lock) as connection:
                found = self._read_rows(connection)
        except TableMissing:
            if self._table_missing:  # a command of this application is about to create it
                return {}
            raise
        self._table_missing = False
        return found

    def transact(self, build_commit: CommitBuilder) -> Stored:
        return retry(lambda: self._transact(build_commit))

    def _transact(self, build_commit: CommitBuilder) -> Stored:
        with self._open(lock=True) as connection:
            found = self._read_rows(connection)
            stored = self._stored(found)
            commit = build_commit(stored)
            if commit is None:
                return stored
            self._write(connection, found, stored, commit)
            return stored.with_commit(commit)

    def _write(self, connection: Any, found: Found, stored: Stored, commit: Commit) -> None:
        max_key, max_value = self._column_lengths()
        self._check_lengths(commit.changes, max_key, max_value)
        size = MYSQL_HISTORY_SIZE if self._backend in MYSQL else HISTORY_SIZE
        past = RowHistory.parse(found.get(HISTORY), stored.revision)
        past.rows.extend(commit.rows(stored, datetime.now(timezone.utc)))
        names = names_in(found)
        new = commit.changes.keys() - names
        texts = {
            **(_names_rows(names | new, max_value) if new else {}),
            **commit.changes,
            HISTORY: past.to_json(min(max_value or size, size)),
            REVISION: str(stored.revision + 1),  # last, for a table without transactions
        }
        for key, text in texts.items():
            if text is not None or key in stored.values:
                self._write_row(connection, key, text, exists=key in found)

    def _check_lengths(
        self, changes: Mapping[str, str | None], max_key: int | None, max_value: int | None
    ) -> None:
        problems: dict[str, str] = {}
        for key, text in changes.items():
            for length, limit, what in (
                (len(text or ""), max_value, "the value: as JSON it"),
                (len(key), max_key, "the name: it"),
            ):
                if limit is not None and length > limit:
                    problems[key] = (
                        f"{self.name} can't hold {what} has {length} characters, the column takes "
                        f"{limit}"
                    )
        if problems:
            raise InvalidValue(problems)

    def history(
        self, limit: int, key: str | None = None, *, max_length: int | None = None
    ) -> list[HistoryRow]:
        _, past = self._read_history()
        rows = [row for row in reversed(past.rows) if key is None or row.key == key]
        return [row.cut(max_length) for row in rows[: max(0, limit)]]

    def check_history(self, revision: int) -> None:
        self._read_history_since(revision)

    def values_at(self, revision: int) -> Mapping[str, str]:
        stored, past = self._read_history_since(revision)
        return past.undo(stored.values, revision)

    def _read_history_since(self, revision: int) -> tuple[Stored, RowHistory]:
        stored, past = self._read_history()
        stored.check_revision(revision)
        if revision < past.since:
            raise UnknownRevision(
                f"Revision {revision} is no longer known: in the application's own table the "
                f"history keeps the newest {HISTORY_ROWS} changes, or as many as its column takes. "
                f"They lead back to revision {past.since}."
            )
        return stored, past

    def _read_history(self) -> tuple[Stored, RowHistory]:
        found = self._read()
        stored = self._stored(found)
        return stored, RowHistory.parse(found.get(HISTORY), stored.revision)

    def _stored(self, found: Found) -> Stored:
        revision = found.get(REVISION) or "0"
        if not (revision.isascii() and revision.isdigit() and len(revision) < 20):
            raise StoreUnavailable(
                f"{self.name}: the row {REVISION} holds {revision[:40]!r}, which is no revision. "
                "Restore it, or delete it."
            )
        values = _without_reserved(found)
        if self._names is not None:
            names = self._names | names_in(found)
            values = {key: text for key, text in values.items() if key in names}
        return Stored(int(revision), {key: _json(text) for key, text in values.items()})


def _json(value: object) -> str:
    """Return a row as JSON, or as it is if that is impossible: whoever uses it then says why."""
    text = str(value)  # a column of the application's own type may hold anything else
    try:
        return as_json(text)
    except ValueError:
        return text


def names_in(found: Found) -> set[str]:
    """Return the names that any version of the application has ever written."""
    return {
        name
        for key, text in found.items()
        if key.startswith(NAMES)
        for name in (text or "").split()
    }


def _names_rows(names: set[str], max_length: int | None) -> dict[str, str]:
    """Return the rows for these names: more than one if the column is short."""
    joined = " ".join(sorted(names))
    lines = textwrap.wrap(
        joined, max(1, max_length or len(joined)), break_long_words=False, break_on_hyphens=False
    )
    return {NAMES + (str(number) if number else ""): line for number, line in enumerate(lines)}


def _without_reserved(found: Found) -> dict[str, str]:
    return {
        key: text
        for key, text in found.items()
        if text is not None and (key == EXPIRES or not key.startswith(RESERVED))
    }
