"""What the page shows of each variable, and what a save or a rollback changes, in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from ..history import BEGINNING, Beginning, HistoryEntry
from ..schema import MASK, Schema
from ..snapshot import Committed
from .fields import Field
from .submission import Submitted

__all__ = [
    "Change",
    "Row",
    "differences",
    "entry_words",
    "group_rows",
    "in_page_order",
    "shorten",
]

OTHERS = "Others"  # the group of those that declare none, if others do
MAX_SEARCHED = 200  # characters of a value that the filter looks at
MAX_TEXT = 255  # characters of a value, name or note in the history


@dataclass
class Row:
    """One variable in the form.

    Attributes:
        value: the text of the value in force.
        default: the text of the default.
        original: what to compare the submitted text with; ``None`` if the form doesn't hold it.
        submitted: what the form sent for it.
        locked: why it can't be changed here; empty if it can.
        conflict: whether somebody else has changed what this person edited.
        last: the last change, if the page shows it.
        until: when the value goes back by itself, if it does.
        hidden: whether the filter leaves it out.
    """

    field: Field
    value: str
    default: str
    original: str | None
    submitted: Submitted
    locked: str
    error: str
    conflict: bool
    last: HistoryEntry | None
    until: datetime | None
    hidden: bool = False

    @property
    def text(self) -> str:
        """The text of the input; of a secret always empty."""
        text = self.submitted.text if self.edited else self.original
        return "" if text is None or self.field.variable.secret else text

    @property
    def editable(self) -> bool:
        return self.original is not None or self.edited

    @property
    def edited(self) -> bool:
        return self.submitted.edited

    @property
    def reset(self) -> bool:
        return self.submitted.reset

    @property
    def is_default(self) -> bool:
        return self.value == self.default

    @property
    def unsaved(self) -> bool:
        return self.edited or self.reset

    @property
    def needs_look(self) -> bool:
        return bool(self.unsaved or self.error or self.conflict)

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


def in_page_order(fields: Iterable[Field]) -> list[Field]:
    """Return fields by group, in the order of declaration; last those that name no group."""
    fields = list(fields)
    groups = [group for field in fields if (group := field.variable.group)]
    return sorted(fields, key=lambda field: [*groups, ""].index(field.variable.group))


def group_rows(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return the groups of rows that are in the order of the page, with their names."""
    groups = [(k, list(rows)) for k, rows in groupby(rows, lambda row: row.field.variable.group)]
    return [(name or (OTHERS if len(groups) > 1 else ""), inside) for name, inside in groups]


@dataclass(frozen=True)
class Change:
    """A variable that a save or a rollback changes, with its old and new value in words."""

    name: str
    title: str
    old: str
    new: str


def differences(fields: Iterable[Field], schema: Schema, made: Committed) -> list[Change]:
    """Return what an update would change, in the order of the page."""
    found = []
    for field in fields:
        if field.name not in made.new:
            continue
        old, new = _json(schema, field, made.old), _json(schema, field, made.new)
        if old != new:
            words = (
                (MASK, "another value")
                if field.variable.secret
                else (_words(field, old), _words(field, new))
            )
            found.append(Change(field.name, field.variable.title, *words))
    return found


def entry_words(field: Field | None, entry: HistoryEntry) -> tuple[str, str]:
    """Return the old and the new value of an entry; as JSON if its variable isn't declared."""
    return _value_words(field, entry.old), _value_words(field, entry.new)


def _value_words(field: Field | None, value: object) -> str:
    if isinstance(value, Beginning):
        return f"{value.text[:MAX_TEXT]}… (more than {BEGINNING:,} characters)"
    if value == MASK:
        return MASK
    text = json.dumps(value, ensure_ascii=False)
    return shorten(text) if field is None else _words(field, text)


def _json(schema: Schema, field: Field, texts: Mapping[str, str | None]) -> str:
    """Return the JSON text of a variable; of its default if ``texts`` has none."""
    text = texts[field.name]
    return schema.text_of(schema.defaults, field.name) if text is None else text


def _words(field: Field, text: str) -> str:
    try:
        return shorten(field.in_words(field.text(field.variable.load(json.loads(text)))))
    except (ValueError, RecursionError):  # the declaration is another one by now, or it is damaged
        return shorten(text)


def shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"
