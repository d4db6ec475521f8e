"""Variables as the fields of a form: which input fits the type, and what was typed into it."""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from ..errors import InvalidValue
from ..plans import encoded
from ..schema import Schema, Variable
from ..stores import Stored

__all__ = ["Field", "Marks", "Typed", "fields", "read"]

EDITABLE = 65_536  # characters of a value that the page takes into the form
LINE = 120  # characters up to which a text has one line
UNFIT = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]"
)  # what HTML can't hold, or no keyboard types
NUMBER = re.compile(
    r"-?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d+)?", re.ASCII
)  # HTML's "valid floating-point number"
KINDS = {"boolean": "checkbox", "integer": "number", "number": "number", "string": "text"}
LIMITS = {
    "exclusiveMinimum": "above {}",
    "minimum": "at least {}",
    "exclusiveMaximum": "below {}",
    "maximum": "at most {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "matching {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}
WORDS = {
    "boolean": "yes or no",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "array": "JSON list",
    "object": "JSON object",
}


@dataclass(frozen=True)
class Field:
    """One variable as a form shows it."""

    variable: Variable

    @property
    def name(self) -> str:
        return self.variable.name

    @cached_property
    def declared(self) -> Mapping[str, Any]:
        """The type as JSON Schema; empty if that has no words for it."""
        try:
            return self.variable.adapter.json_schema()
        except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
            return {}

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The values among which one is to be chosen, as they are sent."""
        texts = tuple(
            choice if isinstance(choice, str) else json.dumps(choice)
            for choice in self.declared.get("enum", ())
        )
        return texts if len(set(texts)) == len(texts) else ()

    @cached_property
    def kind(self) -> str:
        """The kind of input that fits the type."""
        if self.variable.secret:
            return "secret"
        return "choice" if self.choices else KINDS.get(self.declared.get("type", ""), "json")

    @cached_property
    def wanted(self) -> str:
        """The type in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        kind = WORDS.get(self.declared.get("type", ""), "JSON")
        return ", ".join(
            [
                kind,
                *(
                    text.format(self.declared[key])
                    for key, text in LIMITS.items()
                    if key in self.declared
                ),
            ]
        )

    def text(self, value: object) -> str:
        """Return what the input holds for a value; a secret's JSON text, which is never shown."""
        text = self.variable.dump(value)
        if self.kind in ("text", "choice"):
            plain = json.loads(text)
            return plain if isinstance(plain, str) else text
        return (
            json.dumps(json.loads(text), indent=2, ensure_ascii=False)
            if self.kind == "json"
            else text
        )

    def parse(self, text: str) -> object:
        """Read what was typed.

        Raises:
            ValueError: it isn't of the type, or looks like JSON and isn't.
        """
        if self.kind == "json" and text.lstrip()[:1] in ("{", "[", '"'):
            try:
                json.loads(text)
            except (
                ValueError,
                RecursionError,
                # where the type takes any text, this one would be meant as JSON all the same
            ) as error:
                raise ValueError(
                    f"not JSON: {error}. Mend it, or put a text in quotation marks"
                ) from None
        return self.variable.parse(text)

    def holds(self, text: str) -> bool:
        """Tell whether a browser's number input takes a text; it would be sent back empty
        otherwise.
        """
        return bool(NUMBER.fullmatch(text)) and math.isfinite(float(text))

    def fits(self, text: str) -> bool:
        """Tell whether a browser would send a text back as it got it."""
        return self.variable.secret or (len(text) <= EDITABLE and not UNFIT.search(text))

    def is_long(self, text: str) -> bool:
        """Tell whether a text needs more than one line."""
        return self.kind == "json" or len(text) > LINE or "\n" in text or "\r" in text


_made: WeakKeyDictionary[Schema, dict[str, Field]] = WeakKeyDictionary()


def fields(schema: Schema) -> Mapping[str, Field]:
    """Return the variables as fields, by name; made once, for a type's JSON Schema takes its time."""
    if schema not in _made:
        _made[schema] = {name: Field(variable) for name, variable in schema.variables.items()}
    return _made[schema]


@dataclass(frozen=True)
class Marks:
    """Marks by which a form tells which values it was made of, without telling them.

    Each is a keyed hash (HMAC, RFC 2104) of a name and a text, so that who sees the mark of a
    secret learns nothing of it.
    """

    key: bytes

    def mark(self, field: Field, text: str) -> str:
        """Return the mark of a text; line ends don't count, for browsers change them."""
        told = f"uwsgi_waffle.admin\0{field.name}\0{_lines(text)}"
        return hmac.digest(self.key, told.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]

    def moved(self, schema: Schema, stored: Stored, seen: Mapping[str, str]) -> bool:
        """Tell whether one of the values in the store is no longer the one that was ``seen``."""
        try:
            values = schema.load(
                encoded(stored).values
            )  # as the page shows them: validators may have changed what is stored
        except InvalidValue:
            values = None
        return any(
            self._stored(fields(schema)[name], schema, stored, values) not in (mark, None)
            for name, mark in seen.items()
        )

    def _stored(self, field: Field, schema: Schema, stored: Stored, values: object) -> str | None:
        text = stored.values.get(field.name)
        try:
            if values is not None or text is None:
                return self.mark(field, field.text(getattr(values or schema.defaults, field.name)))
            return self.mark(field, field.text(field.variable.load(json.loads(text))))
        except ValueError:  # not of the type, so nobody has seen it; whoever sets it mends it
            return None


@dataclass(frozen=True)
class Typed:
    """What somebody sent for one variable.

    Attributes:
        text: what the input held.
        seen: the mark of the value that the form was made of.
        reset: whether the default is to be given back.
        edited: whether the text is another than the form's.
    """

    text: str
    seen: str
    reset: bool
    edited: bool


def read(schema: Schema, form: Mapping[str, str], marks: Marks) -> dict[str, Typed]:
    """Return what was typed or ticked, by name; what nobody touched isn't in it."""
    typed: dict[str, Typed] = {}
    for field in fields(schema).values():
        text, seen, reset = (
            form.get(f"value-{field.name}"),
            form.get(f"seen-{field.name}", ""),
            f"reset-{field.name}" in form,
        )
        if field.kind == "checkbox" and seen:
            text = (
                "false" if text is None else "true"
            )  # a browser doesn't send a box that isn't ticked
        text = text if text is None else _lines(text)
        edited = (
            bool(text)
            if field.kind == "secret"
            else text is not None and marks.mark(field, text) != seen
        )
        if edited or reset:
            typed[field.name] = Typed(text or "", seen, reset, edited)
    return typed


def _lines(text: str) -> str:
    return re.sub(r"\r\n?", "\n", text)
