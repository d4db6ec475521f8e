"""Change sets: what an update writes, worked out on what the store holds at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pydantic_core import from_json

from .errors import InvalidValue
from .schema import MASK, RESERVED_PREFIX, Schema
from .snapshot import Encoded, encode
from .stores import Commit, Store, Stored

__all__ = [
    "Changeset",
    "changes_for_rollback",
    "changes_for_update",
    "check_revision",
    "check_sizes",
    "encode_readable",
    "encode_stored",
    "undeclared",
    "with_former_names",
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
        PinnedVariable: the environment pins one of them.
    """
    variables = [schema.changeable(name) for name in values]
    defaults: dict[str, str | None] = {schema.changeable(name).name: None for name in reset}

    def changes(stored: Stored) -> Mapping[str, str | None]:
        texts = dict(defaults)
        problems: dict[str, str] = {}
        for variable in variables:
            try:
                texts[variable.name] = text = variable.to_json(values[variable.name])
            except ValueError as error:
                problems[variable.name] = str(error)
            else:
                if variable.secret and text == f'"{MASK}"':  # copied from what a command printed
                    problems[variable.name] = (
                        "it is what is shown in the place of a secret; give the secret itself"
                    )
        return _validated(schema, stored, texts, problems)

    return changes


def changes_for_rollback(schema: Schema, store: Store, revision: int) -> Changeset:
    """Give all variables the values of a former revision; leave out those that are pinned.

    Raises:
        UnknownRevision: the store doesn't know it.
    """
    check_revision(revision)
    former = store.values_at(revision)
    names = [name for name in schema.variables if name not in schema.pins]
    texts = {name: former.get(schema.source(name, former)) for name in names}

    def changes(stored: Stored) -> Mapping[str, str | None]:
        now = {name: stored.values.get(schema.source(name, stored.values)) for name in names}
        differing = {name: text for name, text in texts.items() if text != now[name]}
        return _validated(schema, stored, differing, {})

    return changes


def check_revision(revision: object) -> None:
    """Refuse what is no revision's number, such as the text of a form's field.

    Raises:
        TypeError: it is something else; ``None`` may stand for none.
    """
    if not isinstance(revision, int | None):
        raise TypeError(f"A revision is a whole number, not {revision!r}. Nothing was changed.")


def check_sizes(texts: Mapping[str, str | None], limit: int) -> None:
    """Refuse JSON texts of more than ``limit`` bytes.

    Raises:
        InvalidValue: naming each, its size and the setting.
    """
    sizes = {name: len(text.encode()) for name, text in texts.items() if text is not None}
    problems = {
        name: f"it has {size:,} bytes as JSON, and WAFFLE_MAX_VALUE_SIZE allows {limit:,}"
        for name, size in sizes.items()
        if size > limit
    }
    if problems:
        raise InvalidValue(problems)


def undeclared(schema: Schema, names: Iterable[str]) -> list[str]:
    """Return those of the names in a store that no declaration reads, sorted.

    The package's own, and former names of variables, aren't among them.
    """
    read = schema.variables.keys() | schema.former_names.keys()
    return sorted(
        name for name in names if name not in read and not name.startswith(RESERVED_PREFIX)
    )


def encode_stored(stored: Stored) -> Encoded:
    """Encode what a store holds as a snapshot.

    Raises:
        InvalidValue: rows aren't JSON; it names each.
    """
    encoded, problems = encode_readable(stored)
    if problems:
        raise InvalidValue(problems, "The store is damaged")
    return encoded


def encode_readable(stored: Stored) -> tuple[Encoded, dict[str, str]]:
    """Encode the rows of a store that are JSON. Return why the others aren't, too, by name."""
    values: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name, text in stored.values.items():
        try:  # with the parser that reads the values later; `json` takes more than it
            from_json(text, allow_inf_nan=False, cache_strings=False)
            values[name] = text
        except ValueError as error:
            from .legacy import bad_row  # only here: it explains what is rare

            problems[name] = bad_row(text, error)
    return encode(stored.revision, values), problems


def _validated(
    schema: Schema, stored: Stored, texts: Mapping[str, str | None], problems: dict[str, str]
) -> Mapping[str, str | None]:
    """Return ``texts`` as they come out of the validation of all values together."""
    found = texts
    try:
        found = _read_back(schema, stored, texts)
        if found != texts:  # validators have changed some, and see them again at each read
            again = _read_back(schema, stored, found)
            changing = [name for name, text in found.items() if text != again[name]]
            reason = "a validator changes its own result, so this would change at each read"
            problems.update(dict.fromkeys(changing, reason))
    except InvalidValue as error:
        for name, problem in error.problems.items():
            hint = ""
            if name and name not in texts:
                declared = name in schema.variables
                hint = "set or reset it, too" if declared else f"run flask waffle unset {name}"
                hint = f" (this is what the store holds; {hint})"
            problems.setdefault(name, problem + hint)
    if problems:
        raise InvalidValue(problems)
    return found


def _read_back(
    schema: Schema, stored: Stored, texts: Mapping[str, str | None]
) -> Mapping[str, str | None]:
    """Return what ``texts`` are where they are read, as JSON texts again."""
    wanted = stored.with_commit(Commit(with_former_names(schema, stored, texts)))
    model = schema.load(encode_stored(wanted).values)
    return {
        name: None if text is None else schema.text_of(model, name) for name, text in texts.items()
    }


def with_former_names(
    schema: Schema, stored: Stored, texts: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Move what is stored under former names, and keep their rows for code that reads them."""
    written = dict(texts)
    for source, (name, *formers) in schema.families(stored.values).items():
        if rows := [former for former in formers if former in stored.values]:
            text = written.setdefault(name, stored.values[source])
            written.update(dict.fromkeys(rows, text))
    return written
