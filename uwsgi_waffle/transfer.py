"""Values on their way from one store to another: one JSON document, with the revision and the declarations that they had."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from .errors import InvalidValue
from .schema import Schema, Variable
from .snapshot import Snapshot

__all__ = ["Difference", "differences", "document", "values_in"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Difference:
    """A variable that an import would change: JSON texts of its value now and then."""

    name: str
    old: str
    new: str


def document(schema: Schema, snapshot: Snapshot, *, secrets: bool) -> dict[str, Any]:
    """Return all values in force with their revision, and what is declared for each.

    Args:
        secrets: whether the values of secret variables are in it.
    """
    shown = {name: variable for name, variable in schema.variables.items() if secrets or not variable.secret}
    return {
        "uwsgi_waffle": FORMAT,
        "revision": snapshot.revision,
        "values": {name: json.loads(variable.dump(getattr(snapshot.values, name))) for name, variable in shown.items()},
        "schema": {name: _declared(variable) for name, variable in schema.variables.items()},
    }


def _declared(variable: Variable) -> dict[str, Any]:
    try:
        kind: Any = variable.adapter.json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):  # a type that JSON Schema has no words for
        kind = {}
    return {"desc": variable.desc, "secret": variable.secret, "type": kind}


def values_in(text: str) -> Mapping[str, Any]:
    """Return the values in a document.

    Raises:
        ValueError: it isn't one; the text says why.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it isn't JSON ({error})") from None
    if not isinstance(told, dict) or told.get("uwsgi_waffle") != FORMAT or not isinstance(told.get("values"), dict):
        raise ValueError(f'it isn\'t what `flask waffle export` writes: an object with "uwsgi_waffle": {FORMAT} and "values"')
    values: Mapping[str, Any] = told["values"]
    return values


def differences(schema: Schema, snapshot: Snapshot, values: Mapping[str, Any]) -> list[Difference]:
    """Return what of ``values`` is another than now, sorted by name.

    Raises:
        UnknownVariable: one of them isn't declared here.
        InvalidValue: with all values that are refused by themselves.
    """
    found: list[Difference] = []
    problems: dict[str, str] = {}
    for name in sorted(values):
        variable = schema.variable(name)
        try:
            old, new = variable.dump(getattr(snapshot.values, name)), variable.dump(variable.load(values[name]))
        except ValueError as error:
            problems[name] = str(error)
            continue
        if old != new:
            found.append(Difference(name, old, new))
    if problems:
        raise InvalidValue(problems)
    return found
