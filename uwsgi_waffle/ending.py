"""How temporary values end: whichever process ticks first after their time sets them back."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from time import monotonic

from . import expiry
from .changes import encode_stored, with_former_names
from .errors import InvalidValue, error_text
from .served import Served
from .snapshot import Snapshot
from .stores import Commit, Stored

__all__ = ["Ending"]


class Ending:
    """Ends temporary values of one application.

    Args:
        served: has the declarations, and writes the log.
        write: makes an update like `WaffleState.write`.
        interval: seconds between two attempts, if one fails.
    """

    def __init__(self, served: Served, write: Callable[..., object], interval: float) -> None:
        self._served, self._write, self._interval = served, write, interval
        self._next_attempt, self._error = 0.0, ""
        self._refused: InvalidValue | None = None  # why some can't end yet

    def end_due(self, snapshot: Snapshot) -> None:
        """End those of ``snapshot`` whose time has come. Never raise: the next tick tries again."""
        if not snapshot.temporary or monotonic() < self._next_attempt:
            return
        if min(snapshot.temporary.values()) > datetime.now(timezone.utc):
            return
        self._next_attempt = monotonic() + self._interval
        try:
            self._write(self._ended, actor=expiry.ACTOR)
            if self._refused is not None:
                raise self._refused
        except Exception as error:  # a store of the user's own may raise anything
            text, cause = error_text(error)
            if text != self._error:
                said = f"temporary values have expired and can't be set back yet: {text}"
                self._served.log(logging.WARNING, said, cause)
            self._error = text
        else:
            self._next_attempt, self._error = 0.0, ""

    def _ended(self, stored: Stored) -> Mapping[str, str | None]:
        """Return the changes that end expired values, without those that the schema refuses."""
        schema = self._served.schema
        changes: dict[str, str | None] = {}
        self._refused = None
        for found in expiry.ended(stored, schema.families(stored.values)):
            fitting = {name: self._fitting(name, text, stored) for name, text in found.items()}
            texts = with_former_names(schema, stored, changes | fitting)
            try:
                schema.load(encode_stored(stored.with_commit(Commit(texts))).values)
            except InvalidValue as error:
                self._refused = error
            else:
                changes |= fitting
        return changes

    def _fitting(self, name: str, text: str | None, stored: Stored) -> str | None:
        """Return the text to go back to; none if the declaration has changed since."""
        variable = self._served.schema.variables.get(name)
        if variable is not None and text is not None and text != stored.values.get(name):
            try:
                variable.load(json.loads(text))
            except ValueError as error:
                said = f"the value of {name} before its temporary one doesn't fit any more, so it "
                self._served.log(logging.WARNING, f"{said}gets its default: {error}")
                return None
        return text
