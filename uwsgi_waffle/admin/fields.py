"""Variables as the inputs of a form: which input suits a type, and its text."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from ..schema import Variable
from .shapes import BOOLEANS, Shape

__all__ = ["NO_VALUE", "Field"]

NO_VALUE = "\N{SYMBOL FOR NULL}"  # the text of None where an input has a box for it
MAX_EDITABLE = 65_536  # characters of a value that the form takes
MAX_LINE = 120  # characters of a text that gets an input of one line
MAX_UNIT = 20  # characters
# HTML can't hold these characters, or no keyboard types them.
NOT_EDITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
# What a browser's own inputs take; they send everything else back empty or changed.
TAKEN_BY_BROWSERS = {
    "number": re.compile(r"-?(\d+(\.\d+)?|\.\d+)([eE][+-]?\d+)?", re.ASCII),
    "date": re.compile(r"\d{4}-\d\d-\d\d", re.ASCII),
    "time": re.compile(r"\d\d:\d\d(:\d\d(\.\d{1,3})?)?", re.ASCII),
    "datetime-local": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?", re.ASCII),
}
ZERO_SECONDS = re.compile(r"(?<=\d\d:\d\d):00$", re.ASCII)
UNIT = re.compile(r"(?:\(([^()]+)\)|, in ([^\s,]+?))\.?$")  # "Limit (MB)" or "Limit, in MB"


@dataclass(frozen=True)
class Field:
    """One variable as a form shows it."""

    variable: Variable

    @cached_property
    def shape(self) -> Shape:
        return Shape(self.variable)

    @property
    def name(self) -> str:
        return self.variable.name

    @property
    def input_type(self) -> str:
        return self.shape.input_type

    @cached_property
    def unit(self) -> str:
        """What stands beside the input: the end of the title, or of the description, says it."""
        if self.input_type not in ("number", "decimal"):
            return ""
        found = UNIT.search(self.variable.title) or UNIT.search(self.variable.desc)
        unit = found[1] or found[2] if found else ""
        return unit if len(unit) <= MAX_UNIT else ""

    def text(self, value: object) -> str:
        """Return the input's text for a value. A secret's is its JSON; never show it."""
        text = self.variable.dump(value)
        if self.input_type in ("number", "checkbox", "secret"):
            return NO_VALUE if text == "null" and self.shape.is_optional else text
        plain = json.loads(text)
        if plain is None and self.shape.is_optional:
            return NO_VALUE
        if self.input_type == "choices" and isinstance(plain, list):
            return self._list_text(plain)
        if self.input_type == "json":
            return json.dumps(plain, indent=2, ensure_ascii=False)
        if self.input_type == "duration" and isinstance(value, timedelta):
            return _clock(value) or plain
        if self.input_type in ("time", "datetime-local") and isinstance(plain, str):
            return _shortest_time(plain)
        return plain if isinstance(plain, str) else text

    def _list_text(self, plain: list[object]) -> str:
        texts = [json.dumps(item, ensure_ascii=False) for item in plain]
        if self.shape.schema.get("uniqueItems"):  # a set has no order of its own
            texts.sort(key=self.shape.items.index)
        return f"[{','.join(texts)}]"

    def parse(self, text: str) -> object:
        """Return the value of an input's text.

        Raises:
            ValueError: the type rejects it, or it is broken JSON.
        """
        if self.shape.is_optional and text == NO_VALUE:
            return self.variable.load(None)
        if self.input_type == "decimal" or (self.shape.is_optional and self.input_type == "text"):
            return self.variable.load(text)  # not by way of a float; "null" and "1" are texts, too
        # A type that takes any text would take broken JSON as a text.
        if self.input_type in ("json", "choices") and text.lstrip()[:1] in ("{", "[", '"'):
            return self._parse_json(text)
        return self.variable.parse(text)

    def _parse_json(self, text: str) -> object:
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"not JSON: {error}. Correct it, or put a text in quotation marks"
            ) from None
        try:
            return self.variable.parse(text)
        except ValueError:
            return self.variable.load(plain)  # its error is about the value, not about its text

    def in_words(self, text: str) -> str:
        """Return an input's text as a person reads it."""
        if text == NO_VALUE or (self.input_type == "choice" and text == "null"):
            return "no value"
        if self.input_type == "checkbox" or self.shape.choices == BOOLEANS:
            return {"true": "on", "false": "off"}.get(text, text)
        if self.input_type == "choices" and (items := self.ticked(text)) is not None:
            return ", ".join(map(self.item_label, items)) or "none"
        return text or "(empty)"

    def item_label(self, item: str) -> str:
        return str(json.loads(item))

    def ticked(self, text: str) -> list[str] | None:
        """Return the boxes that a list's text ticks; ``None`` if boxes can't show it."""
        items = self.shape.items
        try:
            plain = json.loads(text)
            texts = [json.dumps(item, ensure_ascii=False) for item in plain]
        except (ValueError, TypeError, RecursionError):
            return None
        return texts if texts == [item for item in items if item in texts] else None

    def is_native(self, text: str) -> bool:
        """Return whether the browser's own input takes a text. It sends others back changed."""
        pattern = TAKEN_BY_BROWSERS.get(self.input_type)
        if pattern is None or text == NO_VALUE:
            return pattern is not None
        is_number = self.input_type == "number"
        return bool(pattern.fullmatch(text)) and not (is_number and math.isinf(float(text)))

    def is_editable(self, text: str) -> bool:
        """Return whether a browser sends a text back unchanged; always true for a secret."""
        if self.variable.secret:
            return True
        return len(text) <= MAX_EDITABLE and not NOT_EDITABLE.search(text)

    def is_long(self, text: str) -> bool:
        """Return whether a text needs more than one line."""
        lists = ("json", "choices")
        return self.input_type in lists or len(text) > MAX_LINE or "\n" in text or "\r" in text


def _clock(value: timedelta) -> str:
    """Return a duration as ``2 days 01:30:00``; nothing if it is negative."""
    if value < timedelta(0):
        return ""
    days = f"{value.days} day{'' if value.days == 1 else 's'} " if value.days else ""
    minutes, seconds = divmod(value.seconds, 60)
    text = f"{days}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    return f"{text}.{value.microseconds:06}".rstrip("0") if value.microseconds else text


def _shortest_time(text: str) -> str:
    """Return a time as browsers write it: without a zero at the end."""
    if "." in text and not text.endswith("Z") and "+" not in text:
        text = text.rstrip("0")
    return ZERO_SECONDS.sub("", text)
