"""What a store promises: values and a revision that change together, or not at all."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import SchemaError, UnknownRevision

__all__ = [
    "EXPIRES",
    "Commit",
    "CommitBuilder",
    "Context",
    "HistoryRow",
    "Notification",
    "Store",
    "Stored",
]

#: The name under which a store keeps which values are temporary. No variable can have it.
EXPIRES = "WAFFLE_EXPIRES"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds: JSON texts by name, and the revision that they form together.

    Attributes:
        values: not in the `repr`, because they may be secrets. A text that isn't JSON is a row that
            somebody else damaged.
        declared: a note of how the applications that write here declare their variables, see
            `conflicts.Conflicts`.
    """

    revision: int
    values: Mapping[str, str] = field(repr=False)
    declared: str | None = field(default=None, repr=False)

    def check_revision(self, revision: int) -> None:
        """Raise `UnknownRevision` if the store has never been at ``revision``."""
        if not 0 <= revision <= self.revision:
            raise UnknownRevision(
                f"There is no revision {revision}: the store is at {self.revision}."
            )

    def with_commit(self, commit: Commit) -> Stored:
        """Return what the store holds after ``commit``."""
        merged = {**self.values, **commit.changes}
        values = {key: text for key, text in merged.items() if text is not None}
        declared = self.declared if commit.declared is None else commit.declared
        return Stored(self.revision + 1, values, declared)


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: the new JSON text by name; ``None`` removes the row.

    Attributes:
        old: the earlier texts for the history, where they differ from what the store holds.
        declared: replaces `Stored.declared` if it isn't ``None``.
    """

    changes: Mapping[str, str | None] = field(repr=False)
    actor: str | None = None
    note: str | None = None
    old: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    declared: str | None = field(default=None, repr=False)

    def rows(self, stored: Stored, at: datetime) -> list[HistoryRow]:
        """Return the history rows of this commit to ``stored``."""
        return [
            HistoryRow(
                revision=stored.revision + 1,
                key=key,
                old=self.old[key] if key in self.old else stored.values.get(key),
                new=new,
                actor=self.actor,
                note=self.note,
                at=at,
            )
            for key, new in self.changes.items()
            if key != EXPIRES
        ]


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One changed variable of one revision; ``None`` as a text means that no value was stored."""

    revision: int
    key: str
    old: str | None = field(repr=False)
    new: str | None = field(repr=False)
    actor: str | None
    note: str | None
    at: datetime

    def cut(self, max_length: int | None) -> HistoryRow:
        """Return the row with the first ``max_length`` characters of its values."""
        if max_length is None:
            return self
        old, new = (text and text[:max_length] for text in (self.old, self.new))
        return replace(self, old=old, new=new)

    def to_json(self) -> str:
        """Return the row as a JSON object."""
        return json.dumps({**asdict(self), "at": self.at.isoformat()}, separators=(",", ":"))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> HistoryRow:
        """Build a row from the object that `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: it is no such object.
        """
        return cls(**{**fields, "at": datetime.fromisoformat(fields["at"])})


#: Returns the commit to make, given the newest values; ``None`` changes nothing.
CommitBuilder = Callable[[Stored], "Commit | None"]
#: Enters the context of the application that uses a store, in any thread.
Context = Callable[[], AbstractContextManager[object]]
#: A channel of PostgreSQL, and what makes a message for it.
Notification: TypeAlias = tuple[str, Callable[[], str]]


class Store(ABC):
    """Holds the values. Every method may raise `StoreUnavailable`; no connection may cross a fork.

    Several versions of an application may use a store at once, while one replaces the other, and
    share what they have read. So a value is every name that this package has written, whichever
    version did, until it is removed. Only in a table of the application's own, where other rows
    lie beside the values, must a row that the package hasn't written yet be declared.
    """

    #: Whether other processes see the same values; if not, no host files are needed.
    shared: bool = True
    #: What each commit sends, see `notifying`.
    notification: Notification | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The store as people may see it, without a password."""

    @property
    @abstractmethod
    def identity(self) -> str:
        """The place of the data: scheme, server, database or real path, table or prefix.

        Two stores with the same data have the same identity, as `identity.same_store` compares
        them, whoever connects and however a path is spelled; it holds no password.
        """

    def bind(self, names: frozenset[str], context: Context) -> Store:
        """Return this store for one application that declares ``names``; most need neither."""
        return self

    def within(self, namespace: str) -> Store:
        """Return this store under a namespace, see ``WAFFLE_NAMESPACE``.

        A store in the application's own table stays as it is: the application has named the table.
        """
        return self

    def beside(self, folder: Path) -> Store:
        """Return this store with its path, if it has a relative one, read as one in ``folder``."""
        return self

    @property
    def file(self) -> Path | None:
        """The file that holds the data, if every process opens it itself; else ``None``."""
        return None

    @property
    def libpq_url(self) -> str:
        """The URL of its PostgreSQL server, as libpq reads it; empty if it has none."""
        return ""

    def notifying(self, channel: str, message: Callable[[], str]) -> Store:
        """Return this store, with each commit sending ``message()`` to a channel of PostgreSQL.

        It is sent in the commit's own transaction: if and only if that is carried out.

        Raises:
            SchemaError: the store can't do this.
        """
        if not self.libpq_url:
            raise SchemaError(
                f"WAFFLE_WATCHTYPE is 'postgres', and {self.name} can't notify other hosts. "
                "SQLStore and AlchemyWaffleStore can, on PostgreSQL; with another store use "
                "'redis'."
            )
        bound = copy.copy(self)
        bound.notification = (channel, message)
        return bound

    @abstractmethod
    def prepare(self) -> None:
        """Create what is missing; called when this host has never seen the store."""

    @abstractmethod
    def load(self) -> Stored:
        """Read values and revision in one transaction."""

    def load_after_pending_writes(self) -> Stored:
        """Read like `load`, after a server has finished what a writer that just died began.

        Raises:
            StoreReadOnly: this needs a lock that the server doesn't grant; use `load`.
        """
        return self.load()

    def rows(self) -> Mapping[str, str]:
        """Return the text of every row as it is stored, whether it is JSON or not."""
        return self.load().values

    @abstractmethod
    def transact(self, build_commit: CommitBuilder) -> Stored:
        """Carry out what ``build_commit`` returns for the newest values, while no other can write.

        ``build_commit`` may be called again when another writer was faster. An error that it
        raises, or ``None``, changes nothing.

        Returns:
            What the store holds afterwards.

        Raises:
            StoreReadOnly: the store can't be written.
            InvalidValue: the store can't hold a value.
        """

    def probe(self) -> None:
        """Check that the store can be written, and change nothing; errors as in `transact`."""
        self.transact(lambda stored: None)

    @abstractmethod
    def history(
        self, limit: int, key: str | None = None, *, max_length: int | None = None
    ) -> list[HistoryRow]:
        """Return the newest ``limit`` rows, newest first; of one variable if ``key`` is given.

        With ``max_length``, only so many characters of each value.
        """

    def check_history(self, revision: int) -> None:
        """Check that the history holds all changes since ``revision``; errors as in `values_at`."""
        self.load().check_revision(revision)

    @abstractmethod
    def values_at(self, revision: int) -> Mapping[str, str]:
        """Return the values that formed ``revision``.

        Raises:
            UnknownRevision: the history doesn't hold it.
        """
