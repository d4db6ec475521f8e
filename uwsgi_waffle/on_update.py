"""What is done once for each update: the ``on_update`` hooks, then a line in the audit log."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from types import MappingProxyType

from .frozen import freeze
from .hooks import Hooks
from .schema import MASK, Schema
from .snapshot import Committed, Update
from .text import escape_line, to_json

__all__ = ["Updates"]

log = logging.getLogger("uwsgi_waffle")
audit = logging.getLogger("uwsgi_waffle.audit")


class Updates:
    """Calls hooks and writes the audit log, in the process that made an update or found it.

    Args:
        schema: the declared variables.
        hooks: the ``on_update`` hooks.
    """

    def __init__(self, schema: Schema, hooks: Hooks) -> None:
        self._schema, self._hooks = schema, hooks

    def dispatch(self, committed: Committed) -> None:
        """Call the hooks that the update concerns, then write the line."""
        names = [
            name
            for name, text in committed.new.items()
            # Not what has only moved from its former name.
            if name in self._schema.variables and text != committed.old.get(name)
        ]
        if not names:
            return
        update = Update(
            committed.revision,
            MappingProxyType({name: self._value(name, committed.old.get(name)) for name in names}),
            MappingProxyType({name: self._value(name, committed.new[name]) for name in names}),
            committed.actor,
            committed.note,
            datetime.now(timezone.utc),
        )
        self._hooks.call(update)
        try:
            self._log(update)
        except Exception:  # a filter or a handler of the application's own
            log.exception("uwsgi_waffle: the audit log failed at revision %d", update.revision)

    def _value(self, name: str, text: str | None) -> object:
        if text is None:
            return vars(self._schema.defaults)[name]  # no deprecated one warns of us
        try:
            plain = json.loads(text)
            return freeze(self._schema.variables[name].load(plain))
        except (ValueError, RecursionError):  # it is being repaired, or was edited by hand
            return text

    def _log(self, update: Update) -> None:
        if not audit.isEnabledFor(logging.INFO):
            return
        changes = {
            name: {"old": self._shown(name, old), "new": self._shown(name, update.new[name])}
            for name, old in update.old.items()
        }
        words = ", ".join(
            f"{name}: {to_json(change['old'], compact=True)} -> "
            f"{to_json(change['new'], compact=True)}"
            for name, change in changes.items()
        )
        note = "" if update.note is None else f" ({update.note})"
        record = {
            "revision": update.revision,
            "changes": changes,
            "actor": update.actor,
            "note": update.note,
            "at": update.at.isoformat(timespec="milliseconds"),
        }
        audit.info(
            "%s",
            escape_line(f"revision {update.revision} by {update.actor or '-'}: {words}{note}"),
            extra={"waffle_update": record},
        )

    def _shown(self, name: str, value: object) -> object:
        variable = self._schema.variables[name]
        if variable.secret:
            return MASK
        try:
            return json.loads(variable.dump(value))
        except ValueError:
            return str(value)
