"""A note in the store of who declares which variable, so that two applications don't mix theirs."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .errors import SchemaError
from .schema import Schema
from .stores import Store, Stored

__all__ = ["Conflicts"]

log = logging.getLogger("uwsgi_waffle")


class Conflicts:
    """What one application declares, beside what others have noted in the same store.

    The note says by variable what JSON holds it, and which application wrote last that declares it.
    If another application declares it as something else, each would write what the other can't
    read. A new release of the same application may do so, and is only warned.

    Args:
        app_name: the application's name, as Flask knows it.
        schema: its variables.
        store: named in errors.
    """

    def __init__(self, app_name: str, schema: Schema, store: Store) -> None:
        kinds = {name: _json_kind(found.json_schema) for name, found in schema.variables.items()}
        self._kinds = {name: kind for name, kind in kinds.items() if kind}
        self._app_name, self._store = app_name, store
        self._checked: str | None = None  # has no news, so what it warns of is logged once

    def check(self, stored: Stored) -> None:
        """Compare the store's note with what this application declares.

        Raises:
            SchemaError: another application declares a variable of the same name differently.
        """
        if stored.declared in (None, self._checked):
            return
        for name, (kind, app_name) in _parse(stored.declared).items():
            ours = self._kinds.get(name, kind)
            if ours == kind:
                continue
            if app_name != self._app_name:
                raise SchemaError(
                    f"{name} is declared as {ours} here, and as {kind} by the application "
                    f"{app_name!r}, which uses the same store, {self._store.name}. Set "
                    "WAFFLE_NAMESPACE for one of them. If that is a former name of this "
                    "application, delete the store's entry WAFFLE_DECLARED."
                )
            log.warning(
                "uwsgi_waffle: %s is declared as %s, and %s was when the store was last written. "
                "If that was another application, set WAFFLE_NAMESPACE for one of them.",
                name,
                ours,
                kind,
            )
        self._checked = stored.declared

    def note(self, stored: Stored) -> str | None:
        """Check, and return the note to write, ``None`` if the store's is right."""
        self.check(stored)
        known = _parse(stored.declared)
        ours = {name: (kind, self._app_name) for name, kind in self._kinds.items()}
        if all(known.get(name, ("", ""))[0] == kind for name, kind in self._kinds.items()):
            return None
        return json.dumps({**known, **ours}, separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=1)  # it seldom changes, and may be long
def _parse(text: str | None) -> dict[str, tuple[str, str]]:
    """Read a note; one that somebody else has damaged is an empty one."""
    try:
        return {
            str(name): (str(kind), str(app_name))
            for name, (kind, app_name) in json.loads(text or "{}").items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _json_kind(schema: Mapping[str, Any]) -> str:
    """Return what JSON holds a type, such as ``integer or null``; empty if that isn't known."""
    shared = {f"#/$defs/{name}": part for name, part in schema.get("$defs", {}).items()}
    parts, kinds = [schema], list[Any]()
    for part in parts:  # to which those that it consists of are added
        found = shared.get(part.get("$ref", ""), part)
        more = found.get("anyOf") or found.get("oneOf") or []
        parts += [each for each in more if each not in parts]
        kinds += [] if more else [found.get("type")]
    return " or ".join(sorted(set(kinds))) if all(isinstance(kind, str) for kind in kinds) else ""
