"""What a person asks to have changed: the submitted form, read, checked and saved."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote_plus

from flask import current_app, g
from werkzeug.datastructures import MultiDict

from .. import expiry
from ..changes import Changeset
from ..errors import RevisionConflict, UnknownRevision, WaffleError
from ..extension import WaffleConf
from ..update import UpdateResult
from .fields import NO_VALUE, Field

__all__ = [
    "MAX_FORM",
    "NOTHING",
    "TIME",
    "NotAllowed",
    "Submission",
    "Submitted",
    "editable_names",
]

TIME = "WAFFLE_TIME"  # the key of the error that the time has; no variable can have it
MAX_FORM = 4 * 2**20  # bytes of a submitted form
# Bytes that the present values may take of it. Each is sent twice: in its input, and as the
# original to compare with.
MAX_ORIGINALS = MAX_FORM // 4
MAX_ATTEMPTS = 10  # updates of other variables that may overtake one of ours


@dataclass(frozen=True)
class Submitted:
    """What a form sent for one variable.

    Attributes:
        text: the text of the input; ``None`` if there was none.
        original: the text that the form showed; empty for a secret; ``None`` if it isn't known.
        reset: whether the box for the default is ticked.
        error: what is wrong with it, whatever the type.
    """

    text: str | None
    original: str | None
    reset: bool
    error: str = ""

    @property
    def edited(self) -> bool:
        return self.text is not None and self.text != self.original


NOTHING = Submitted(None, None, reset=False)


def read_field(field: Field, form: MultiDict[str, str]) -> Submitted:
    """Return what a form sent for one variable, and what is wrong with its inputs together."""
    name, is_secret, error = field.name, field.variable.secret, ""
    original = "" if is_secret else _unix_lines(form.get(f"original-{name}"))
    text, reset = _unix_lines(form.get(f"value-{name}")), f"reset-{name}" in form
    if text and is_secret:
        text = text.removesuffix("\n")  # often pasted along, and nobody would see it
    if text is None and original is not None:  # a browser sends nothing for an empty box
        if field.input_type == "checkbox" and not field.is_optional:
            text = "false"
        elif f"items-{name}" in form:
            text = f"[{','.join(form.getlist(f'item-{name}'))}]"
    if f"none-{name}" in form and field.is_optional:
        if text in (None, "", original):
            text = NO_VALUE
        else:
            error = 'there is a new value, and the box "no value" is ticked: choose one'
    if not text and f"again-{name}" in form:
        error = "type the new value again, or load the page again to keep the former one"
    if reset and text not in (None, original):
        error = "there is a new value, and the box for the default is ticked: choose one"
    return Submitted(text, original, reset, error)


def editable_names(fields: Iterable[Field], texts: Mapping[str, str]) -> set[str]:
    """Return the variables that get an input: the shortest ones that fit into a form together."""
    names: set[str] = set()
    free = MAX_ORIGINALS
    shown = {f.name: "" if f.variable.secret else texts[f.name] for f in fields}
    for field in sorted(fields, key=lambda field: len(shown[field.name])):
        if field.is_editable(shown[field.name]):
            free -= len(quote_plus(shown[field.name], errors="replace"))
            if free >= 0:
                names.add(field.name)
    return names


def _unix_lines(text: str | None) -> str | None:
    """Undo that browsers change the line ends."""
    return text if text is None else re.sub(r"\r\n?", "\n", text)


class NotAllowed(WaffleError):
    """A request would change what this person may not change."""


class Submission:
    """The form of one request; empty until it is read.

    Attributes:
        time: for how long the new values count, as it was typed; empty is for good.
        revision: of the form; it stays until the form shows a conflict.
        errors: by variable; ``""`` is about all together.
        conflicts: the edited variables that somebody else has changed.
    """

    def __init__(
        self,
        waffle: WaffleConf,
        fields: Sequence[Field],
        may_change: Callable[[str], bool] | None,
    ) -> None:
        self._waffle, self._fields = waffle, fields
        self._may_change = may_change or (lambda name: True)
        self.submitted: Mapping[str, Submitted] = {}
        self.note = self.time = ""
        self.expires: timedelta | None = None
        self.revision = waffle.revision
        self.errors: dict[str, str] = {}
        self.conflicts: Collection[str] = ()

    def read(self) -> None:
        self.submitted = {field.name: read_field(field, g.waffle_form) for field in self._fields}
        self.note = g.waffle_form.get("note", "")
        self.time = g.waffle_form.get("time", "").strip()
        self.revision = g.waffle_form.get("revision", -1, type=int)  # -1 if it doesn't say so

    def changes(self) -> tuple[dict[str, object], list[str]]:
        """Return the new values and the resets; put what is wrong into ``errors``."""
        declared = self._waffle.state.schema.variables.keys()
        parts = (key.partition("-") for key in g.waffle_form)
        names = {name for kind, _, name in parts if kind in ("value", "original", "reset")}
        if unknown := ", ".join(sorted(names - declared)):
            self.errors[""] = (
                f"No longer declared: {unknown}. Copy what you need and load the page again"
            )
        try:
            self.expires = expiry.duration(self.time) if self.time else None
        except ValueError as error:
            self.errors[TIME] = str(error).rstrip(".")
        values: dict[str, object] = {}
        for field in self._fields:
            submitted = self.submitted[field.name]
            if submitted.error:
                self.errors[field.name] = submitted.error
            elif submitted.text is not None and submitted.edited:
                try:
                    values[field.name] = field.parse(submitted.text)
                except ValueError as error:
                    self.errors[field.name] = str(error)
        return values, [name for name, submitted in self.submitted.items() if submitted.reset]

    def lock(self, name: str) -> str:
        """Return why a variable can't be changed here; empty if it can."""
        if pin := self._waffle.state.schema.pins.get(name):
            return f"Set by the environment variable {pin.source}, so it can't be changed here."
        return "" if self._allows(name) else "You may not change this variable."

    def check_allowed(self, names: Iterable[str]) -> None:
        """Check that this person may change all of ``names``.

        Raises:
            NotAllowed: naming those that they may not change.
        """
        refused = ", ".join(name for name in names if not self._allows(name))
        if refused:
            raise NotAllowed(
                f"You may not change {refused}, so nothing was changed. Ask somebody who may."
            )

    def _allows(self, name: str) -> bool:
        allowed = current_app.ensure_sync(self._may_change)(name)
        if not isinstance(allowed, (bool, type(None))):  # a coroutine is truthy
            raise TypeError(f"may_change must return True or False, not {type(allowed).__name__}.")
        return bool(allowed)

    def save(self, changeset: Changeset, names: Iterable[str]) -> UpdateResult:
        """Update unless somebody else has changed one of ``names`` since the form was made.

        Raises:
            RevisionConflict: somebody has.
        """
        expected, note = self.revision, self.note or None
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._waffle.state.update(
                    changeset,
                    expect_revision=expected,
                    actor=g.waffle_actor,
                    note=note,
                    expires=self.expires,
                )
            except RevisionConflict as conflict:
                self.check_conflict(names, conflict.actual)
                # Only other variables have changed.
                expected = conflict.actual
        raise RevisionConflict(self.revision, expected)

    def check_conflict(self, names: Iterable[str], newest: int) -> None:
        """Check that nobody else has changed one of ``names`` since the form was made.

        Raises:
            RevisionConflict: somebody has.
        """
        if self.revision == newest:
            return
        schema, store = self._waffle.state.schema, self._waffle.state.store
        try:
            then, now = store.values_at(self.revision), store.load().values
        except UnknownRevision:  # also if a backup was restored, which is at an earlier one
            self.conflicts = set(names)
        else:
            self.conflicts = {
                name
                for name in names
                if then.get(schema.source(name, then)) != now.get(schema.source(name, now))
            }
        if self.conflicts:
            raise RevisionConflict(self.revision, newest)
