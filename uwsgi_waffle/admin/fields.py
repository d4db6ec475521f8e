"""Variables as the inputs of a form: which input suits a type, and its text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property

from ..schema import Variable

__all__ = ["Field"]

MAX_EDITABLE = 65_536  # characters of a value that the form takes
MAX_LINE = 120  # characters of a text that gets an input of one line
# HTML can't hold these characters, or no keyboard types them.
NOT_EDITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# HTML's "valid floating-point number"
NUMBER = re.compile(r"-?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
INPUT_TYPES = {"boolean": "checkbox", "integer": "number", "number": "number", "string": "text"}
TYPE_NAMES = {
    "boolean": "yes or no",
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "array": "JSON list",
    "object": "JSON object",
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
    def choices(self) -> tuple[str, ...]:
        """The texts of all allowed values, if the type lists them."""
        texts = tuple(
            choice if isinstance(choice, str) else json.dumps(choice)
            for choice in self.variable.json_schema.get("enum", ())
        )
        return texts if len(set(texts)) == len(texts) else ()

    @cached_property
    def input_type(self) -> str:
        """``secret``, ``choice``, ``checkbox``, ``number``, ``text`` or ``json``."""
        if self.variable.secret:
            return "secret"
        if self.choices:
            return "choice"
        return INPUT_TYPES.get(self.variable.json_schema.get("type", ""), "json")

    @cached_property
    def type_text(self) -> str:
        """The type in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        schema = self.variable.json_schema
        limits = [text.format(schema[key]) for key, text in LIMITS.items() if key in schema]
        return ", ".join([TYPE_NAMES.get(schema.get("type", ""), "JSON"), *limits])

    def text(self, value: object) -> str:
        """Return the input's text for a value. A secret's is its JSON; never show it."""
        text = self.variable.dump(value)
        if self.input_type in ("text", "choice"):
            plain = json.loads(text)
            return plain if isinstance(plain, str) else text
        if self.input_type == "json":
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        return text

    def parse(self, text: str) -> object:
        """Return the value of an input's text.

        Raises:
            ValueError: the type rejects it, or it is broken JSON.
        """
        # A type that takes any text would take broken JSON as a text.
        if self.input_type == "json" and text.lstrip()[:1] in ("{", "[", '"'):
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"not JSON: {error}. Correct it, or put a text in quotation marks"
                ) from None
        return self.variable.parse(text)

    def is_number_input(self, text: str) -> bool:
        """Return whether a browser's number input takes a text. It sends others back empty."""
        return bool(NUMBER.fullmatch(text)) and math.isfinite(float(text))

    def is_editable(self, text: str) -> bool:
        """Return whether a browser sends a text back unchanged; always true for a secret."""
        if self.variable.secret:
            return True
        return len(text) <= MAX_EDITABLE and not NOT_EDITABLE.search(text)

    def is_long(self, text: str) -> bool:
        """Return whether a text needs more than one line."""
        return self.input_type == "json" or len(text) > MAX_LINE or "\n" in text or "\r" in text
