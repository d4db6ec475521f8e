"""What an update is to write, worked out upon what the store holds at that moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from .errors import InvalidValue
from .legacy import bad_row
from .schema import Schema
from .snapshot import Encoded, encode
from .stores import Commit, Store, Stored

__all__ = ["Plan", "encoded", "plan_reset", "plan_rollback", "plan_update"]

#: Gets what the store holds and returns the JSON texts to write by name, ``None`` for "no value, so
#: the default".
Plan = Callable[[Stored], Mapping[str, "str | None"]]


def plan_update(
    schema: Schema, values: Mapping[str, object], *, reset: tuple[str, ...] = ()
) -> Plan:
    """Plan to give variables new values, and those in ``reset`` their defaults.

    Raises:
        UnknownVariable: one of them isn't declared.
    """
    variables = [schema.variable(name) for name in values]
    defaults: dict[str, str | None] = {schema.variable(name).name: None for name in reset}

    def plan(stored: Stored) -> Mapping[str, str | None]:
        texts = dict(defaults)
        problems: dict[str, str] = {}
        for variable in variables:
            try:
                texts[variable.name] = variable.to_json(values[variable.name])
            except ValueError as error:
                problems[variable.name] = str(error)
        return _validated(schema, stored, texts, problems)

    return plan


def plan_reset(schema: Schema, names: tuple[str, ...]) -> Plan:
    """Plan to give variables their defaults back; errors as in `plan_update`."""
    return plan_update(schema, {}, reset=names)


def plan_rollback(schema: Schema, store: Store, revision: int) -> Plan:
    """Plan to give all variables the values of a former revision.

    Raises:
        UnknownRevision: the store doesn't know it.
    """
    former = store.values_at(revision)
    texts = {name: former.get(name) for name in schema.variables}
    return lambda stored: _validated(schema, stored, texts, {})


def encoded(stored: Stored) -> Encoded:
    """Return what a store holds as a snapshot.

    Raises:
        InvalidValue: a row isn't JSON.
    """
    try:
        new = encode(stored.revision, stored.values)
        if json.loads(new.values, object_pairs_hook=len) == len(
            stored.values
        ):  # an object of so many members: no row is more or less
            return new
    except (ValueError, RecursionError):
        pass  # which row it is, is found below
    for name, text in stored.values.items():
        try:
            json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidValue({name: bad_row(text, error)}, "The store is damaged") from None
    raise InvalidValue({"": "the rows don't form one JSON object together"}, "The store is damaged")


def _validated(
    schema: Schema, stored: Stored, texts: Mapping[str, str | None], problems: dict[str, str]
) -> Mapping[str, str | None]:
    """Return ``texts`` as they come out of the validation of all values together."""
    try:
        model = schema.load(encoded(stored.after(Commit(texts))).values)
    except InvalidValue as error:
        for name, problem in error.problems.items():
            ours = not name or name in texts
            problems.setdefault(
                name,
                problem
                if ours
                else f"{problem} (this is what the store holds; set or reset it, too)",
            )
    if problems:
        raise InvalidValue(problems)
    return {
        name: None if text is None else schema.variables[name].dump(getattr(model, name))
        for name, text in texts.items()
    }
