"""Variables as the inputs of a form: which input suits a type, and its text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ..schema import Variable

__all__ = ["NO_VALUE", "Field"]

NO_VALUE = "\N{SYMBOL FOR NULL}"  # the text of None where an input has a box for it
MAX_EDITABLE = 65_536  # characters of a value that the form takes
MAX_LINE = 120  # characters of a text that gets an input of one line
# HTML can't hold these characters, or no keyboard types them.
NOT_EDITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# What a browser's own inputs take; they send everything else back empty or changed.
TAKEN_BY_BROWSERS = {
    "number": re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII),
    "date": re.compile(r"\d{4}-\d\d-\d\d", re.ASCII),
    "time": re.compile(r"\d\d:\d\d(:\d\d)?", re.ASCII),
    "datetime-local": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", re.ASCII),
}
ZERO_SECONDS = re.compile(r"(?<=\d\d:\d\d):00$", re.ASCII)  # browsers leave it out
# "Limit (MB)" or "Limit, in MB"
UNIT = re.compile(r"(?:\(([^()]{1,20})\)|, in ([^\s,]{1,20}?))\.?$")
INPUT_TYPES = {  # by the format or the type in JSON Schema
    "boolean": "checkbox",
    "integer": "number",
    "number": "number",
    "string": "text",
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


@dataclass(frozen=True)
class Field:
    """One variable as a form shows it."""

    variable: Variable

    @property
    def name(self) -> str:
        return self.variable.name

    @cached_property
    def _branches(self) -> list[Mapping[str, Any]]:
        """The alternatives that the type allows, ``None`` among them."""
        schema = self._resolved(self.variable.json_schema)
        return [self._resolved(branch) for branch in schema.get("anyOf", [schema])]

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema without ``None``; empty if several types remain."""
        branches = [branch for branch in self._branches if branch.get("type") != "null"]
        return branches[0] if len(branches) == 1 or self.variable.is_decimal else {}

    @property
    def takes_none(self) -> bool:
        """Whether ``None`` is allowed beside one other type."""
        return bool(self.schema) and any(branch.get("type") == "null" for branch in self._branches)

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The texts of all allowed values, if the type lists them."""
        listed = self.schema.get("enum", ())
        if self.takes_none and self.schema.get("type") == "boolean":
            listed = (True, False)
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
        if self.variable.secret:
            return "secret"
        if self.choices:
            return "choice"
        if self.items:
            return "choices"
        if self.variable.is_decimal:
            return "decimal"
        kinds = (self.schema.get("format"), self.schema.get("type"))
        return next((INPUT_TYPES[kind] for kind in kinds if kind in INPUT_TYPES), "json")

    @cached_property
    def is_optional(self) -> bool:
        """Whether the input needs a box for "no value"."""
        return self.takes_none and self.input_type not in ("secret", "choice", "json")

    @cached_property
    def type_text(self) -> str:
        """The type in words."""
        if self.choices:
            return "one of " + ", ".join(map(self.in_words, self.choices))
        if self.items:
            return "any of " + ", ".join(map(self.item_label, self.items))
        kind = self.schema.get("type", "")
        name = TYPE_NAMES.get(self.input_type) or TYPE_NAMES.get(kind) or kind or "JSON"
        shown = () if self.input_type == "url" else LIMITS
        limits = [LIMITS[key].format(self.schema[key]) for key in shown if key in self.schema]
        return ", ".join([name, *limits]) + (" or no value" if self.is_optional else "")

    @cached_property
    def unit(self) -> str:
        """What stands beside the input: the end of the title, or of the description, says it."""
        if self.input_type not in ("number", "decimal"):
            return ""
        found = UNIT.search(self.variable.title) or UNIT.search(self.variable.desc)
        return found[1] or found[2] if found else ""

    def text(self, value: object) -> str:
        """Return the input's text for a value. A secret's is its JSON; never show it."""
        kind, text = self.input_type, self.variable.dump(value)
        plain = json.loads(text)
        if plain is None and self.is_optional:
            return NO_VALUE
        if kind == "choices":
            texts = [json.dumps(item, ensure_ascii=False) for item in plain]
            if self.schema.get("uniqueItems"):  # a set has no order of its own
                texts.sort(key=self.items.index)
            return f"[{','.join(texts)}]"
        if kind == "json":
            return json.dumps(plain, indent=2, ensure_ascii=False)
        if kind == "duration" and isinstance(value, timedelta) and value >= timedelta():
            return _clock(value)
        if kind == "secret" or not isinstance(plain, str):
            return text
        return ZERO_SECONDS.sub("", plain) if kind in ("time", "datetime-local") else plain

    def parse(self, text: str) -> object:
        """Return the value of an input's text.

        Raises:
            ValueError: the type rejects it, or it is broken JSON.
        """
        if self.is_optional and text == NO_VALUE:
            return self.variable.load(None)
        if self.is_optional and self.input_type in ("text", "decimal"):
            return self.variable.load(text)  # "null" is a text, too
        # A type that takes any text would take broken JSON as a text.
        if self.input_type in ("json", "choices") and text.lstrip()[:1] in ("{", "[", '"'):
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"not JSON: {error}. Correct it, or put a text in quotation marks"
                ) from None
        return self.variable.parse(text)

    def in_words(self, text: str) -> str:
        """Return an input's text as a person reads it."""
        if text == NO_VALUE or (self.input_type == "choice" and text == "null"):
            return "no value"
        if self.schema.get("type") == "boolean":
            return {"true": "on", "false": "off"}.get(text, text)
        if self.input_type == "choices" and (items := self.ticked(text)) is not None:
            return ", ".join(map(self.item_label, items)) or "none"
        return text or "(empty)"

    def item_label(self, item: str) -> str:
        return str(json.loads(item))

    def ticked(self, text: str) -> list[str] | None:
        """Return the boxes that a list's text ticks; ``None`` if boxes can't show it."""
        try:
            texts = [json.dumps(item, ensure_ascii=False) for item in json.loads(text)]
        except (ValueError, TypeError, RecursionError):
            return None
        return texts if texts == [item for item in self.items if item in texts] else None

    def is_native(self, text: str) -> bool:
        """Return whether the browser's own input takes a text. It sends others back changed."""
        pattern = TAKEN_BY_BROWSERS.get(self.input_type)
        if pattern is None or text == NO_VALUE:
            return pattern is not None
        is_number = self.input_type == "number"
        return bool(pattern.fullmatch(text)) and not (is_number and math.isinf(float(text)))

    def is_editable(self, text: str) -> bool:
        """Return whether a browser sends a text back unchanged."""
        return len(text) <= MAX_EDITABLE and not NOT_EDITABLE.search(text)

    def is_long(self, text: str) -> bool:
        """Return whether a text needs more than one line."""
        lists = ("json", "choices")
        return self.input_type in lists or len(text) > MAX_LINE or "\n" in text or "\r" in text

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Follow a reference into the definitions of the whole schema."""
        name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        found: Mapping[str, Any] = self.variable.json_schema.get("$defs", {}).get(name, schema)
        return found


def _clock(value: timedelta) -> str:
    """Return a duration as ``2 days 01:30:00``."""
    days = f"{value.days} day{'' if value.days == 1 else 's'} " if value.days else ""
    return f"{days}{(datetime.min + (value - timedelta(value.days))).time()}"
