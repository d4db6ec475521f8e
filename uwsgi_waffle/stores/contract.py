"""What a store promises: values and a revision that change together, or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

__all__ = ["Commit", "Context", "Decide", "HistoryRow", "Store", "Stored"]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store holds: JSON texts by name, and the revision that they form together."""

    revision: int
    values: Mapping[str, str] = field(repr=False)  # they may be secrets

    def after(self, commit: Commit) -> Stored:
        """Return what the store will hold when ``commit`` is carried out."""
        merged = {**self.values, **commit.changes}
        return Stored(
            self.revision + 1, {key: text for key, text in merged.items() if text is not None}
        )


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction: the new JSON text by name, ``None`` removes the row.

    Attributes:
        old: what the history shall call the earlier text, where that isn't what the store holds.
    """

    changes: Mapping[str, str | None] = field(repr=False)
    actor: str | None = None
    note: str | None = None
    old: Mapping[str, str | None] = field(default_factory=dict, repr=False)

    def rows(self, stored: Stored, at: datetime) -> list[HistoryRow]:
        """Return the history of this commit, made upon ``stored``."""
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
        ]


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One changed variable of one revision; ``None`` for a text means that no value was stored."""

    revision: int
    key: str
    old: str | None = field(repr=False)
    new: str | None = field(repr=False)
    actor: str | None
    note: str | None
    at: datetime


Decide = Callable[[Stored], "Commit | None"]
#: Enters the context of the application that uses a store, in any thread.
Context = Callable[[], AbstractContextManager[object]]


class Store(ABC):
    """Holds the values. Every method may raise `StoreUnavailable`; no connection may cross a fork.

    Several versions of an application may use a store at once, while one replaces the other, and
    pass what they have read on to
    each other. So what counts as a value doesn't depend on what the reader declares: it is every
    name that this package has
    written, by whichever version, until it is removed. Only where the application's own rows lie
    beside them, in a table of its
    own, must a row that the package hasn't written yet be declared by the reader to count.
    """

    #: Whether other processes see the same values; if not, nothing is shared through the host's
    #: files.
    shared: ClassVar[bool] = True

    @property
    @abstractmethod
    def name(self) -> str:
        """The store as a person may see it: no password in it."""

    def bind(self, names: frozenset[str], context: Context) -> Store:
        """Return this store as one application uses it, which declares ``names``; most stores need
        to know neither.
        """
        return self

    @abstractmethod
    def prepare(self) -> None:
        """Create what is missing; called where this host has never seen the store."""

    @abstractmethod
    def load(self) -> Stored:
        """Read values and revision in one transaction."""

    def load_behind_writers(self) -> Stored:
        """Read like `load`, but wait for what a server may still be committing for a writer that
        has died.
        """
        return self.transact(lambda stored: None)

    def rows(self) -> Mapping[str, str]:
        """Return every row as it stands, those that aren't JSON, too."""
        return self.load().values

    @abstractmethod
    def transact(self, decide: Decide) -> Stored:
        """Let ``decide`` look at the newest values, with all other writers held off, and carry out
        what it returns.

        ``decide`` may be called again when somebody was faster; an error that it raises, or
        ``None``, changes nothing.

        Returns:
            What the store holds afterwards.

        Raises:
            StoreReadOnly: the store can't be written.
            InvalidValue: the store can't hold a value.
        """

    def probe(self) -> None:
        """Find out whether the store can be written, and change nothing; errors as in `transact`."""
        self.transact(lambda stored: None)

    @abstractmethod
    def history(self, limit: int, key: str | None = None) -> list[HistoryRow]:
        """Return the newest ``limit`` rows, newest first; of one variable if ``key`` is given."""

    @abstractmethod
    def values_at(self, revision: int) -> Mapping[str, str]:
        """Return the values that formed ``revision``.

        Raises:
            UnknownRevision: the history doesn't hold it.
        """
