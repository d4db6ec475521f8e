"""What a save or a rollback would change, and what one has changed, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from ..history import BEGINNING, Beginning, HistoryEntry
from ..schema import MASK, Schema
from ..snapshot import Committed
from .fields import Field
from .rows import Change

__all__ = ["differences", "entry_words", "saved_changes", "shorten"]

MAX_TEXT = 255  # characters of a value, name or note in the history


def differences(fields: Iterable[Field], schema: Schema, made: Committed) -> list[Change]:
    """Return what an update would change, in the order of the page."""
    found = []
    for field in fields:
        if field.name not in made.new:
            continue
        old, new = _json(schema, field, made.old), _json(schema, field, made.new)
        if old != new:
            words = (
                (MASK, "another value")
                if field.variable.secret
                else (_words(field, old), _words(field, new))
            )
            found.append(Change(field.name, field.variable.title, *words))
    return found


def saved_changes(
    fields: Iterable[Field], entries: Iterable[HistoryEntry], revision: int | None
) -> list[Change]:
    """Return what a revision changed, as far as ``entries`` say so."""
    changed = {entry.key: entry for entry in entries if entry.revision == revision}
    return [
        Change(field.name, field.variable.title, *entry_words(field, changed[field.name]))
        for field in fields
        if field.name in changed
    ]


def entry_words(field: Field | None, entry: HistoryEntry) -> tuple[str, str]:
    """Return the old and the new value of an entry; as JSON if its variable isn't declared."""
    return _value_words(field, entry.old), _value_words(field, entry.new)


def _value_words(field: Field | None, value: object) -> str:
    if field is None or value == MASK or isinstance(value, Beginning):
        return _shorten_value(value)
    return _words(field, json.dumps(value, ensure_ascii=False))


def _json(schema: Schema, field: Field, texts: Mapping[str, str | None]) -> str:
    """Return the JSON text of a variable; of its default if ``texts`` has none."""
    text = texts[field.name]
    return field.variable.dump(getattr(schema.defaults, field.name)) if text is None else text


def _words(field: Field, text: str) -> str:
    try:
        return shorten(field.in_words(field.text(field.variable.load(json.loads(text)))))
    except (ValueError, RecursionError):  # the declaration is another one by now, or it is damaged
        return shorten(text)


def shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"


def _shorten_value(value: object) -> str:
    if isinstance(value, Beginning):
        return f"{value.text[:MAX_TEXT]}… (more than {BEGINNING:,} characters)"
    return shorten(MASK if value == MASK else json.dumps(value, ensure_ascii=False))
