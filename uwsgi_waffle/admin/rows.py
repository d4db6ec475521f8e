"""What the page shows of each variable, and in which groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from flask import request

from ..history import HistoryEntry
from .fields import Field

__all__ = [
    "Change",
    "Filter",
    "Group",
    "Row",
    "first_problem",
    "group_rows",
    "in_page_order",
]

OTHERS = "Others"  # the group of those that declare none, if others do
ALL_OPEN = 12  # variables up to which all groups are open
MAX_SEARCHED = 200  # characters of a value that the filter looks at


@dataclass(frozen=True)
class Change:
    """A variable that a save or a rollback changes, with its old and new value in words."""

    name: str
    title: str
    old: str
    new: str


@dataclass(frozen=True)
class Row:
    """One variable in the form.

    Attributes:
        text: the text of the input; of a secret always empty.
        original: what to compare the submitted text with; ``None`` if the form doesn't hold it.
        value: the text of the value in force.
        default: the text of the default.
        locked: why it can't be changed here; empty if it can.
        conflict: whether somebody else has changed what this person edited.
        last: the last change, if the page shows it.
        until: when the value goes back by itself, if it does.
        hidden: whether the filter leaves it out.
    """

    field: Field
    text: str
    original: str | None
    value: str
    default: str
    editable: bool
    locked: str = ""
    edited: bool = False
    reset: bool = False
    error: str = ""
    conflict: bool = False
    last: HistoryEntry | None = None
    until: datetime | None = None
    hidden: bool = False

    @property
    def is_default(self) -> bool:
        return self.value == self.default

    @property
    def ticked(self) -> list[str] | None:
        """The boxes that are ticked; ``None`` if the input has no boxes, or they can't show it."""
        return self.field.ticked(self.text) if self.field.input_type == "choices" else None

    @property
    def search(self) -> str:
        """What the filter finds it by."""
        variable = self.field.variable
        value = "" if variable.secret else self.field.in_words(self.value)[:MAX_SEARCHED]
        return " ".join((variable.name, variable.title, variable.desc, value))


@dataclass(frozen=True)
class Group:
    """Variables that are declared to belong together."""

    name: str
    rows: tuple[Row, ...]
    open: bool

    @property
    def id(self) -> str:
        """The group in the address and in ids: the name of its first variable is unique."""
        return f"group-{self.rows[0].field.name}"

    @property
    def hidden(self) -> bool:
        return all(row.hidden for row in self.rows)

    @property
    def changed(self) -> int:
        return sum(not row.is_default for row in self.rows)

    @property
    def temporary(self) -> int:
        return sum(row.until is not None for row in self.rows)

    @property
    def unsaved(self) -> int:
        return sum(row.edited or row.reset for row in self.rows)


@dataclass(frozen=True)
class Filter:
    """Which variables the page shows; a browser without JavaScript asks for it in the address."""

    text: str
    only_changed: bool

    @classmethod
    def from_request(cls) -> Filter:
        return cls(request.args.get("q", "").strip(), "changed" in request.args)

    @property
    def active(self) -> bool:
        return bool(self.text or self.only_changed)

    def applied_to(self, row: Row) -> Row:
        """Return a row, hidden if it isn't asked for. What needs to be seen is never hidden."""
        if row.edited or row.reset or row.error:
            return row
        wanted = self.text.lower() in row.search.lower() and not (
            self.only_changed and row.is_default
        )
        return row if wanted else replace(row, hidden=True)


def in_page_order(fields: Iterable[Field]) -> list[Field]:
    """Return fields by group, in the order of declaration; last those that name no group."""
    groups: dict[str, list[Field]] = {}
    for field in fields:
        groups.setdefault(field.variable.group, []).append(field)
    without = groups.pop("", [])
    return [field for group in (*groups.values(), without) for field in group]


def group_rows(rows: Sequence[Row], *, filtered: bool) -> list[Group]:
    """Return the groups of rows that are in the order of the page."""
    found = groupby(rows, key=lambda row: row.field.variable.group)
    groups = [(name, tuple(inside)) for name, inside in found]
    others = OTHERS if len(groups) > 1 else ""
    few = len(rows) <= ALL_OPEN
    return [
        Group(name or others, inside, open=few or _any_open(inside, filtered))
        for name, inside in groups
    ]


def first_problem(rows: Iterable[Row]) -> str:
    """Return the first variable, from the top of the page, that a person has to look at."""
    return next((row.field.name for row in rows if row.error or row.conflict), "")


def _any_open(rows: Iterable[Row], filtered: bool) -> bool:
    return any(
        row.edited or row.reset or row.error or row.conflict or (filtered and not row.hidden)
        for row in rows
    )
