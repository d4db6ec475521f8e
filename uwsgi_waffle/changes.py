"""Change sets: what an update writes, worked out on what the store holds at that moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from .errors import InvalidValue
from .legacy import bad_row
from .schema import Schema
from .snapshot import Encoded, encode
from .stores import Commit, Store, Stored

__all__ = [
    "Changeset",
    "changes_for_reset",
    "changes_for_rollback",
    "changes_for_update",
    "encode_readable",
    "encode_stored",
]

#: Gets what the store holds. Returns the JSON texts to write by name; ``None`` stands for "no
#: value, so the default".
Changeset = Callable[[Stored], Mapping[str, "str | None"]]


def changes_for_update(
    schema: Schema, values: Mapping[str, object], *, reset: tuple[str, ...] = ()
) -> Changeset:
    """Give variables new values, and those in ``reset`` their defaults.

    Raises:
        UnknownVariable: one of them isn't declared.
    """
    variables = [schema.variable(name) for name in values]
    defaults: dict[str, str | None] = {schema.variable(name).name: None for name in reset}

    def changes(stored: Stored) -> Mapping[str, str | None]:
        texts = dict(defaults)
        problems: dict[str, str] = {}
        for variable in variables:
            try:
                texts[variable.name] = variable.to_json(values[variable.name])
            except ValueError as error:
                problems[variable.name] = str(error)
        return _validated(schema, stored, texts, problems)

    return changes


def changes_for_reset(schema: Schema, names: tuple[str, ...]) -> Changeset:
    """Give variables their defaults back; errors as in `changes_for_update`."""
    return changes_for_update(schema, {}, reset=names)


def changes_for_rollback(schema: Schema, store: Store, revision: int) -> Changeset:
    """Give all variables the values of a former revision.

    Raises:
        UnknownRevision: the store doesn't know it.
    """
    former = store.values_at(revision)
    texts = {name: former.get(name) for name in schema.variables}

    def changes(stored: Stored) -> Mapping[str, str | None]:
        differing = {name: text for name, text in texts.items() if text != stored.values.get(name)}
        return _validated(schema, stored, differing, {})

    return changes


def encode_stored(stored: Stored) -> Encoded:
    """Encode what a store holds as a snapshot.

    Raises:
        InvalidValue: a row isn't JSON.
    """
    try:
        encoded = encode(stored.revision, stored.values)
        # An object with so many members: no row is more or less than one value.
        if json.loads(encoded.values, object_pairs_hook=len) == len(stored.values):
            return encoded
    except (ValueError, RecursionError):
        pass  # the row is found below
    for name, text in stored.values.items():
        try:
            json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidValue({name: bad_row(text, error)}, "The store is damaged") from None
    raise InvalidValue({"": "the rows don't form one JSON object"}, "The store is damaged")


def encode_readable(stored: Stored) -> tuple[Encoded, dict[str, str]]:
    """Encode the rows of a store that are JSON. Return why the others aren't, too, by name."""
    problems: dict[str, str] = {}
    while True:
        values = {name: text for name, text in stored.values.items() if name not in problems}
        try:
            return encode_stored(Stored(stored.revision, values)), problems
        except InvalidValue as error:
            if not error.problems.keys() & values.keys():
                raise
            problems |= error.problems


def _validated(
    schema: Schema, stored: Stored, texts: Mapping[str, str | None], problems: dict[str, str]
) -> Mapping[str, str | None]:
    """Return ``texts`` as they come out of the validation of all values together."""
    try:
        model = schema.load(encode_stored(stored.with_commit(Commit(texts))).values)
    except InvalidValue as error:
        for name, problem in error.problems.items():
            ours = not name or name in texts
            hint = "" if ours else " (this is what the store holds; set or reset it, too)"
            problems.setdefault(name, problem + hint)
    if problems:
        raise InvalidValue(problems)
    return {
        name: None if text is None else schema.variables[name].dump(getattr(model, name))
        for name, text in texts.items()
    }
