"""The form that changes variables: what a person submitted, and the rows to show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from ..report import HistoryEntry
from .fields import Field

__all__ = ["MAX_FORM", "Row", "Submitted", "editable_names", "read_form"]

MAX_FORM = 4 * 2**20  # bytes of a submitted form
# Bytes that the present values may take of it. Each is sent twice: in its input, and as the
# original to compare with.
MAX_ORIGINALS = MAX_FORM // 4


@dataclass(frozen=True)
class Submitted:
    """What a form sent for one variable.

    Attributes:
        text: the text of the input; ``None`` if there was none.
        original: the text that the form showed; empty for a secret; ``None`` if it isn't known.
        reset: whether the box for the default is ticked.
    """

    text: str | None
    original: str | None
    reset: bool

    @property
    def edited(self) -> bool:
        return self.text is not None and self.text != self.original


@dataclass(frozen=True)
class Row:
    """One variable in the form.

    Attributes:
        text: the text of the input; of a secret always empty.
        original: what to compare the submitted text with; ``None`` if the form doesn't hold it.
        value: the text of the value in force.
        default: the text of the default.
        conflict: whether somebody else has changed what this person edited.
        last: the last change, if the page shows it.
    """

    field: Field
    text: str
    original: str | None
    value: str
    default: str
    editable: bool
    edited: bool = False
    reset: bool = False
    error: str = ""
    focused: bool = False
    conflict: bool = False
    last: HistoryEntry | None = None


def read_form(fields: Iterable[Field], form: Mapping[str, str]) -> dict[str, Submitted]:
    """Return what a form sent, by name; without the variables that it had no input for."""
    submitted: dict[str, Submitted] = {}
    for field in fields:
        secret = field.variable.secret
        original = "" if secret else form.get(f"original-{field.name}")
        text = form.get(f"value-{field.name}")
        reset = f"reset-{field.name}" in form
        if text is None and field.input_type == "checkbox" and original is not None:
            text = "false"  # a browser sends nothing for a box that isn't ticked
        if text is not None or reset:
            submitted[field.name] = Submitted(_unix_lines(text), _unix_lines(original), reset)
    return submitted


def editable_names(fields: Iterable[Field], texts: Mapping[str, str]) -> set[str]:
    """Return the variables that get an input: the shortest ones that fit into a form together."""
    names: set[str] = set()
    free = MAX_ORIGINALS
    for field in sorted(fields, key=lambda field: len(texts[field.name])):
        text = texts[field.name]
        if not field.is_editable(text):
            continue
        free -= 0 if field.variable.secret else len(quote_plus(text, errors="replace"))
        if free >= 0 or field.variable.secret:
            names.add(field.name)
    return names


def _unix_lines(text: str | None) -> str | None:
    """Undo that browsers change the line ends."""
    return text if text is None else re.sub(r"\r\n?", "\n", text)
