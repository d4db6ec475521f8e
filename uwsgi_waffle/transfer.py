"""Values on their way from one store to another: one JSON document, with the revision and the
declarations that they had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from .changes import check_sizes
from .errors import InvalidValue
from .legacy import as_json, is_json
from .schema import Schema, Variable
from .snapshot import Snapshot

__all__ = ["Difference", "Document", "convert_legacy", "differences", "document", "read"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Document:
    """What an import needs of a document.

    Attributes:
        values: the values that were in force, as `json.loads` gives them.
        set: the names of those that were set; the others were the default.
    """

    values: Mapping[str, Any]
    set: frozenset[str]


@dataclass(frozen=True, slots=True)
class Difference:
    """A variable that an import would set: JSON texts of its value now and then; the same where it
    is the default by now.
    """

    name: str
    old: str
    new: str


def document(schema: Schema, snapshot: Snapshot, *, secrets: bool) -> dict[str, Any]:
    """Return all values in force with their revision, which of them are set, and what is declared
    for each.

    Args:
        secrets: whether the values of secret variables are in it.
    """
    shown = {
        name: variable
        for name, variable in schema.variables.items()
        if secrets or not variable.secret
    }
    return {
        "uwsgi_waffle": FORMAT,
        "revision": snapshot.revision,
        "values": {
            name: json.loads(variable.dump(getattr(snapshot.values, name)))
            for name, variable in shown.items()
        },
        "set": sorted(snapshot.values.model_fields_set & shown.keys()),
        "schema": {name: _declared(variable) for name, variable in schema.variables.items()},
    }


def _declared(variable: Variable) -> dict[str, Any]:
    try:
        kind: Any = variable.adapter.json_schema()
    except (
        PydanticInvalidForJsonSchema,
        PydanticSchemaGenerationError,
    ):  # a type that JSON Schema has no words for
        kind = {}
    return {"desc": variable.desc, "secret": variable.secret, "type": kind}


def read(text: str) -> Document:
    """Read a document; one that doesn't say which values were set has set them all.

    Raises:
        ValueError: it isn't one; the text says why.
    """
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it isn't JSON ({error})") from None
    if (
        isinstance(told, dict)
        and told.get("uwsgi_waffle") == FORMAT
        and isinstance(told.get("values"), dict)
    ):
        names = told.get("set", list(told["values"]))
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return Document(told["values"], frozenset(names))
    raise ValueError(
        "it isn't what `flask waffle export` writes: an object with "
        f'"uwsgi_waffle": {FORMAT}, "values" and "set"'
    )


def differences(schema: Schema, snapshot: Snapshot, document: Document) -> list[Difference]:
    """Return what has to be set so that the document's values are in force, and those set that
    were; sorted by name.

    Raises:
        UnknownVariable: one of them isn't declared here.
        InvalidValue: with all values that are refused by themselves.
    """
    found: list[Difference] = []
    problems: dict[str, str] = {}
    for name in sorted(document.values):
        variable = schema.variable(name)
        try:
            old, new = (
                variable.dump(getattr(snapshot.values, name)),
                variable.dump(variable.load(document.values[name])),
            )
        except ValueError as error:
            problems[name] = str(error)
            continue
        if old != new or name in document.set - snapshot.values.model_fields_set:
            found.append(Difference(name, old, new))
    if problems:
        raise InvalidValue(problems)
    return found


def convert_legacy(
    schema: Schema, rows: Mapping[str, str], *, max_size: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Convert the rows of a store that aren't JSON, to texts of at most ``max_size`` bytes.

    Returns:
        The JSON texts of those that Flask-WaffleConf wrote, and why others can't be converted.
    """
    converted: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name, text in sorted(rows.items()):
        if is_json(text):
            continue
        try:
            new = as_json(text)
            if name not in schema.variables:
                raise ValueError("it is not declared in WAFFLE_CONFS")
            schema.variables[name].load(json.loads(new))
            check_sizes({name: new}, max_size)
            converted[name] = new
        except InvalidValue as error:
            problems |= error.problems
        except ValueError as error:
            problems[name] = str(error)
    return converted, problems
