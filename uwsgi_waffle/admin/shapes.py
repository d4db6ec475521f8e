"""What a form needs to know about a type, read from its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin

from ..schema import Variable

__all__ = ["BOOLEANS", "Shape"]

INPUT_TYPES = {"boolean": "checkbox", "integer": "number", "number": "number", "string": "text"}
FORMATS = {
    "date": "date",
    "time": "time",
    "date-time": "datetime-local",
    "duration": "duration",
    "uri": "url",
}
TYPE_NAMES = {
    "boolean": "on or off",
    "string": "text",
    "date": "date",
    "time": "time of day",
    "datetime-local": "date and time",
    "duration": "duration: days and hours:minutes:seconds, such as 1 day 02:30:00, or seconds",
    "decimal": "decimal number",
    "url": "URL",
    "array": "JSON list",
    "object": "JSON object",
    "integer": "whole number",
}
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
BOOLEANS = ("true", "false", "null")  # the choices of ``bool | None``


@dataclass(frozen=True)
class Shape:
    """The type of a variable, as a form sees it."""

    variable: Variable

    @cached_property
    def _branches(self) -> list[Mapping[str, Any]]:
        """The alternatives that the type allows, ``None`` among them."""
        schema = self._resolved(self.variable.json_schema)
        return [self._resolved(branch) for branch in schema.get("anyOf", [schema])]

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema without ``None``; empty if several types remain."""
        branches = [branch for branch in self._branches if branch.get("type") != "null"]
        return branches[0] if len(branches) == 1 or self.is_decimal else {}

    @property
    def takes_none(self) -> bool:
        """Whether ``None`` is allowed beside one other type."""
        return bool(self.schema) and any(branch.get("type") == "null" for branch in self._branches)

    @cached_property
    def is_decimal(self) -> bool:
        return any(
            isinstance(part, type) and issubclass(part, Decimal)
            for part in _parts(self.variable.type)
        ) and [branch.get("type") for branch in self._branches[:2]] == ["number", "string"]

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The texts of all allowed values, if the type lists them."""
        if self.takes_none and self.schema.get("type") == "boolean":
            return BOOLEANS
        listed = self.schema.get("enum", ())
        plain = [*listed, None] if self.takes_none and listed else listed
        texts = tuple(choice if isinstance(choice, str) else json.dumps(choice) for choice in plain)
        return texts if len(set(texts)) == len(texts) else ()

    @cached_property
    def items(self) -> tuple[str, ...]:
        """The JSON texts of what a list may have in it, if the type lists them."""
        if self.schema.get("type") != "array" or self.takes_none:
            return ()
        item = self._resolved(self.schema.get("items") or {})
        return tuple(json.dumps(plain, ensure_ascii=False) for plain in item.get("enum", ()))

    @cached_property
    def input_type(self) -> str:
        """``secret``, ``choice``, ``choices``, ``duration``, ``decimal``, ``json``, or the type of
        an HTML input.
        """
        kind = self.schema.get("type", "")
        if self.variable.secret:
            return "secret"
        if self.choices:
            return "choice"
        if self.items:
            return "choices"
        if self.is_decimal:
            return "decimal"
        if kind == "string":
            return FORMATS.get(self.schema.get("format", ""), "text")
        return INPUT_TYPES.get(kind, "json")

    @cached_property
    def is_optional(self) -> bool:
        """Whether the input needs a box for "no value"."""
        return self.takes_none and self.input_type not in ("secret", "choice", "json")

    @cached_property
    def type_text(self) -> str:
        """The type in words."""
        if self.choices:
            if self.choices == BOOLEANS:
                return "on, off or no value"
            return "one of " + ", ".join("no value" if c == "null" else c for c in self.choices)
        if self.items:
            return "any of " + ", ".join(str(json.loads(item)) for item in self.items)
        kind = self.schema.get("type", "")
        name = TYPE_NAMES.get(self.input_type) or TYPE_NAMES.get(kind) or kind or "JSON"
        shown = () if self.input_type == "url" else LIMITS
        limits = [LIMITS[key].format(self.schema[key]) for key in shown if key in self.schema]
        return ", ".join([name, *limits]) + (" or no value" if self.is_optional else "")

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a reference into the definitions of the whole schema."""
        name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        found: Mapping[str, Any] = self.variable.json_schema.get("$defs", {}).get(name, schema)
        return found


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Return what a type is made of: ``Annotated[Decimal, ...] | None`` has a Decimal."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    return tuple(part for one in get_args(annotation) for part in _parts(one)) or (annotation,)
