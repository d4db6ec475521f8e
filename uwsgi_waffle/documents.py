"""Values on their way from a file to a store and back: JSON, TOML and .env; and those of
Flask-WaffleConf.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass
from typing import Any

from .changes import Changeset, changes_for_update, check_sizes
from .errors import InvalidValue
from .formats import env_line, read_env, read_toml, toml_line
from .legacy import as_json, is_json
from .schema import Schema, Variable
from .snapshot import Snapshot
from .stores import Stored
from .text import escape_line, to_json

__all__ = [
    "FORMATS",
    "Document",
    "changes_for",
    "convert_legacy",
    "format_of",
    "of_texts",
    "read",
    "written",
]

FORMAT = 1
FORMATS = ("json", "toml", "env")
MAX_SHOWN = 60  # characters of a default in a comment


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says.

    Attributes:
        values: what it says of each variable.
        set: the names of those that are set; the others were the default.
        load: validates what it says of one.
    """

    values: Mapping[str, Any]
    set: frozenset[str]
    load: Callable[[Variable, Any], object] = Variable.load


def format_of(path: str) -> str:
    """Return the format that a file's name asks for, ``""`` if it asks for none."""
    _, dot, ending = path.lower().rpartition(".")
    return ending if dot and ending in FORMATS else ""


def of_texts(texts: Mapping[str, str]) -> Document:
    """Return a document of what a person has typed."""
    return Document(texts, frozenset(texts), Variable.parse)


def read(text: str, wanted: str = "") -> Document:
    """Read a file.

    Args:
        text: what it holds.
        wanted: its format; ``""`` takes that which it looks like.

    Raises:
        ValueError: it holds something else; the text says what.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if not text.strip():
        raise ValueError("it is empty")
    if wanted == "json" or (not wanted and text.lstrip().startswith("{")):
        return _read_json(text)
    if wanted != "toml":
        try:
            return of_texts(read_env(text))
        except ValueError as error:
            if wanted:
                raise
            reason = error
    try:
        values = read_toml(text)
    except ValueError as error:
        other = "" if wanted else f", nor a .env file ({reason}), nor a JSON object"
        raise ValueError(f"it isn't TOML ({error}){other}") from None
    return Document(values, frozenset(values))


def _read_json(text: str) -> Document:
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it isn't JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError("it isn't a JSON object of values by name")
    if "uwsgi_waffle" not in found:
        return Document(found, frozenset(found))
    values = found.get("values")
    names = found.get("set", list(values) if isinstance(values, dict) else None)
    if (
        found["uwsgi_waffle"] == FORMAT
        and isinstance(values, dict)
        and isinstance(names, list)
        and all(isinstance(name, str) for name in names)
    ):
        return Document(values, frozenset(names))
    raise ValueError(
        "it isn't what `flask waffle export` writes: an object with "
        f'"uwsgi_waffle": {FORMAT}, "values" and "set"'
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        name, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"it names {name} again")
    return found


def changes_for(schema: Schema, document: Document, *, reset_others: bool) -> Changeset:
    """Set what a file says.

    What was only the default where the file comes from is set only if it isn't the default here.

    Args:
        schema: the declarations.
        document: what the file says.
        reset_others: whether variables that it doesn't name get their defaults; pinned ones don't.

    Raises:
        UnknownVariable: one of them isn't declared here.
        InvalidValue: with all values that are refused by themselves.
    """
    values: dict[str, object] = {}
    problems: dict[str, str] = {}
    for name, said in document.values.items():
        variable = schema.variable(name)
        try:
            values[name] = document.load(variable, said)
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        raise InvalidValue(problems)
    defaults = {
        name
        for name in values.keys() - document.set
        if schema.variables[name].means(values[name], vars(schema.defaults)[name])
    }
    unnamed = schema.variables.keys() - values.keys() - schema.pins.keys()
    others = unnamed if reset_others else set[str]()

    def changes(stored: Stored) -> Mapping[str, str | None]:
        is_set = {n for n in schema.variables if schema.source(n, stored.values) in stored.values}
        wanted = {n: v for n, v in values.items() if n not in defaults or n in is_set}
        return changes_for_update(schema, wanted, reset=tuple(others & is_set))(stored)

    return changes


def written(
    schema: Schema,
    snapshot: Snapshot,
    wanted: str,
    *,
    left_out: Collection[str],
    only_set: bool,
) -> str:
    """Return values as a file that `read` understands.

    Args:
        schema: the declarations.
        snapshot: the values.
        wanted: the format.
        left_out: the variables whose values aren't in it.
        only_set: whether values that are only the default are left out, too.

    Raises:
        InvalidValue: naming those that the format can't hold.
    """
    is_set = snapshot.values.model_fields_set
    shown = {
        name: json.loads(schema.text_of(snapshot.values, name))
        for name in schema.variables
        if name not in left_out and (name in is_set or not only_set)
    }
    if wanted == "json":
        document = {
            "uwsgi_waffle": FORMAT,
            "revision": snapshot.revision,
            "values": shown,
            "set": sorted(is_set & shown.keys()),
            "schema": {
                name: {"desc": one.desc, "secret": one.secret, "type": one.json_schema}
                for name, one in schema.variables.items()
            },
        }
        return to_json(document, indent=2)
    head = f"# flask waffle export, revision {snapshot.revision}"
    return "\n".join([head, *_commented(schema, shown, is_set, wanted)])


def _commented(
    schema: Schema, shown: Mapping[str, object], is_set: Set[str], wanted: str
) -> list[str]:
    """Return the lines of TOML or .env; what it can't hold and isn't set either is a comment."""
    lines: list[str] = []
    problems: dict[str, str] = {}
    for name, value in shown.items():
        variable = schema.variables[name]
        lines += ["", escape_line(f"# {_described(variable)}")]
        try:
            if wanted == "toml":
                lines.append(toml_line(name, value))
            else:
                lines.append(env_line(name, _typed(variable, value)))
        except ValueError as error:
            lines.append(f"# {name} isn't set, and {error}")
            if name in is_set:
                problems[name] = f"{error}; write it with --format json"
    if problems:
        raise InvalidValue(problems, "Nothing was written")
    return lines


def _typed(variable: Variable, value: object) -> str:
    """Return what a person types to set a value."""
    text = json.dumps(value)
    if isinstance(value, str):
        try:
            if json.loads(variable.dump(variable.parse(value))) == value:
                return value
        except ValueError:
            pass  # the JSON text it is
    return text


def _described(variable: Variable) -> str:
    def in_words(schema: Mapping[str, Any]) -> str:
        if "enum" in schema:
            return "one of " + ", ".join(map(to_json, schema["enum"]))
        return str(schema.get("format") or schema.get("type") or "any JSON")

    options = variable.json_schema.get("anyOf", [variable.json_schema])
    words = " or ".join(dict.fromkeys(map(in_words, options)))
    if not variable.secret:
        default = to_json(json.loads(variable.dump(variable.default)))
        if len(default) > MAX_SHOWN:
            default = f"{default[:MAX_SHOWN]}..."
        words += f", by default {default}"
    return f"{variable.desc} ({words})".lstrip()


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
