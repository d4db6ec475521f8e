"""One declared variable: its type, and how a value becomes JSON and is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin

from pydantic import (
    JsonValue,
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    SecretBytes,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError

__all__ = ["Variable", "contains", "format_location", "infer_type", "validator_error"]

MAX_SHOWN = 60  # characters of a rejected value in an error


@dataclass(frozen=True)
class Variable:
    """One declared variable.

    Attributes:
        group: the heading that it is shown under, ``""`` if none.
        title: its name for people, ``""`` if it has none.
        was: its former names, the latest first.
    """

    name: str
    desc: str
    type: Any
    default: Any = field(repr=False)  # it may be a secret
    secret: bool
    adapter: TypeAdapter[Any]
    group: str = ""
    title: str = ""
    was: tuple[str, ...] = ()

    @cached_property
    def json_schema(self) -> Mapping[str, Any]:
        """The type as JSON Schema; empty if JSON Schema can't express it."""
        try:
            return self.adapter.json_schema()
        except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
            return {}

    @cached_property
    def is_decimal(self) -> bool:
        """Whether it is a decimal number, or that or ``None``."""
        kinds = [branch.get("type") for branch in self.json_schema.get("anyOf", ())]
        return kinds[:2] == ["number", "string"] and contains(self.type, Decimal)

    def to_json(self, value: object) -> str:
        """Validate a Python value and return the JSON text to store.

        Raises:
            ValueError: the type rejects the value, or JSON can't represent it; the text says why.
        """
        return self.dump(self._validate(value))

    def dump(self, validated: object) -> str:
        """Return the JSON text of a value that is already validated.

        Raises:
            ValueError: reading the JSON text back doesn't give the same value.
        """
        problem = ""
        for by_alias in (True, False):  # a model within may be read by either
            try:
                text = self._text(validated, by_alias=by_alias)
                if self.adapter.validate_json(text) == validated:
                    return text
            except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
                detail = "" if self.secret else f": {error}"
                problem = problem or f"can't be written as JSON{detail}"
        raise ValueError(
            problem
            or "changes when it is written as JSON and read back; choose a type that JSON can hold"
        )

    def _text(self, validated: object, *, by_alias: bool) -> str:
        plain = _reveal(validated) or self.adapter.dump_python(
            validated, mode="json", by_alias=by_alias, round_trip=True, warnings="error"
        )
        return json.dumps(plain, allow_nan=False, separators=(",", ":"))

    def means(self, value: object, current: object) -> bool:
        """Return whether a value that somebody assigns is the validated value ``current``."""
        try:
            return value is current or self.to_json(value) == self.dump(current)
        except ValueError:
            return False

    def load(self, plain: object) -> object:
        """Validate a value that comes from `json.loads`.

        Raises:
            ValueError: the type rejects it; the text says why.
        """
        return self._read(json.dumps(plain), plain)

    def parse(self, text: str) -> object:
        """Validate what a person typed: as JSON if the type accepts that, else as plain text.

        Decimals are text first: a number in JSON would lose digits.

        Raises:
            ValueError: the type accepts neither.
        """
        if contains(self.type, Decimal):
            with suppress(ValueError):
                return self._validate(text)
        if not self._is_text():
            with suppress(ValueError):
                return self._read(text, text)
        try:
            return self._validate(text)
        except ValueError:
            meant_as_json = isinstance(self.default, (list, dict)) or text.startswith(("[", "{"))
            if self._is_text() or not meant_as_json:
                raise
        return self._read(text, text)  # its error is about the list, not about the text

    def _read(self, text: str, shown: object) -> object:
        try:
            return self.adapter.validate_json(text)
        except Exception as error:
            raise self._as_value_error(error, shown) from None

    def _validate(self, value: object) -> object:
        try:
            return self.adapter.validate_python(value)
        except Exception as error:
            raise self._as_value_error(error, value) from None

    def _is_text(self) -> bool:
        bare = self.type.__origin__ if get_origin(self.type) is Annotated else self.type
        return isinstance(bare, type) and issubclass(bare, (str, SecretStr))

    def _as_value_error(self, error: Exception, value: object) -> ValueError:
        if not isinstance(error, ValidationError):
            return ValueError(f"its {validator_error(error, secret=self.secret)}")
        if self.secret:
            return ValueError(f"refused ({', '.join(entry['type'] for entry in error.errors())})")
        reasons = "; ".join(
            entry["msg"] + format_location(entry["loc"])
            for entry in error.errors(include_url=False, include_context=False)
        )
        shown = repr(value)
        if len(shown) > MAX_SHOWN:
            shown = shown[: MAX_SHOWN - 3] + "..."
        return ValueError(f"{reasons}, not {shown}")


def validator_error(error: Exception, *, secret: bool) -> str:
    """Describe what a validator of the application raised, without the text if it may be secret."""
    return f"validator failed with {type(error).__name__}" + ("" if secret else f": {error}")


def format_location(location: tuple[int | str, ...]) -> str:
    """Return where within a value pydantic found an error."""
    return f" at {'.'.join(map(str, location))}" if location else ""


def contains(annotation: Any, *types: type) -> bool:
    """Return whether a type is, or is built from, one of ``types`` or a subclass."""
    return any(isinstance(part, type) and issubclass(part, types) for part in _parts(annotation))


def _parts(annotation: Any, within: tuple[Any, ...] = ()) -> Iterator[Any]:
    yield annotation
    # The targets of a NewType and of a type alias.
    targets = [getattr(annotation, name, None) for name in ("__supertype__", "__value__")]
    for part in (*targets, *get_args(annotation)):
        if part is not None and annotation not in within:
            yield from _parts(part, (*within, annotation))


def infer_type(default: object) -> Any:
    """Return the type of a variable that declares only its default."""
    if default is None:
        return JsonValue
    if isinstance(default, list):
        return list[JsonValue]
    return dict[str, JsonValue] if isinstance(default, dict) else type(default)


def _reveal(value: object) -> str | None:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return value.get_secret_value().decode() if isinstance(value, SecretBytes) else None
