"""What a person submitted, and what fits into a form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from werkzeug.datastructures import MultiDict

from .fields import NO_VALUE, Field

__all__ = ["MAX_FORM", "Submitted", "editable_names", "read_form"]

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
        error: what is wrong with it, whatever the type.
    """

    text: str | None
    original: str | None
    reset: bool
    error: str = ""

    @property
    def edited(self) -> bool:
        return self.text is not None and self.text != self.original


def read_form(fields: Iterable[Field], form: MultiDict[str, str]) -> dict[str, Submitted]:
    """Return what a form sent, by name; without the variables that it had no input for."""
    submitted: dict[str, Submitted] = {}
    for field in fields:
        original = "" if field.variable.secret else _unix_lines(form.get(f"original-{field.name}"))
        text, error = _read_input(field, form, original)
        reset = f"reset-{field.name}" in form
        if text is not None or reset:
            if reset and text not in (None, original):
                error = "there is a new value, and the box for the default is ticked: choose one"
            submitted[field.name] = Submitted(text, original, reset, error)
    return submitted


def _read_input(
    field: Field, form: MultiDict[str, str], original: str | None
) -> tuple[str | None, str]:
    """Return the text of a variable's inputs, and what is wrong with them together."""
    text = _unix_lines(form.get(f"value-{field.name}"))
    if text is None and original is not None:  # a browser sends nothing for an empty box
        if field.input_type == "checkbox" and not field.shape.is_optional:
            return "false", ""
        if f"items-{field.name}" in form:
            return f"[{','.join(form.getlist(f'item-{field.name}'))}]", ""
    if f"none-{field.name}" in form and field.shape.is_optional:
        if text in (None, "", original):
            return NO_VALUE, ""
        return text, 'there is a new value, and the box "no value" is ticked: choose one'
    if not text and f"again-{field.name}" in form:
        return text, "type the new value again, or load the page again to keep the former one"
    return text, ""


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
