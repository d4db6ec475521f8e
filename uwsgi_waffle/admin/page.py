"""One response of the admin page: the form in force, with what a person submitted on top."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flask import current_app, g, redirect, request, url_for
from flask_wtf.csrf import generate_csrf, validate_csrf
from jinja2 import Environment, PackageLoader, StrictUndefined
from wtforms import ValidationError

from ..changes import Changeset, changes_for_update
from ..errors import (
    HostBusy,
    HostFilesError,
    InvalidValue,
    RevisionConflict,
    StoreUnavailable,
    WaffleError,
)
from ..extension import WaffleConf
from ..report import HistoryEntry
from ..schema import MASK
from ..update import UpdateResult
from .fields import Field
from .form import Row, Submitted, editable_names, read_form

__all__ = ["Page", "error_text"]

HISTORY = 20  # changes that the page shows
MAX_HISTORY = 100  # changes that it shows on request
MAX_TEXT = 255  # characters of a value, name or note in the history
MAX_ATTEMPTS = 10  # updates of other variables that may overtake one of ours
NO_TIME_LIMIT = 10 * 365 * 86400  # seconds

ViewResult = Any


class Page:
    """One request to the page, and its response."""

    def __init__(self, waffle: WaffleConf) -> None:
        if not current_app.secret_key:
            raise WaffleError(
                "The admin page needs a secret key for its forms: set app.secret_key to a random"
                " text of your own."
            )
        self.waffle = waffle
        self.schema = waffle.state.schema
        self.fields = [Field(self.schema.variables[name]) for name in sorted(self.schema.variables)]
        self.submitted: Mapping[str, Submitted] = {}
        self.note = ""
        self.error = ""
        self.errors: dict[str, str] = {}  # by variable; "" is about all together
        self.conflict = False
        # The edited variables that somebody else has changed, with the last change of each.
        self.conflicts: Mapping[str, HistoryEntry | None] = {}
        self.revision = waffle.revision  # of the form; it stays until the form shows a conflict

    def check_csrf(self) -> ViewResult:
        """Return an error page if the request doesn't come from a form of this page."""
        if not current_app.config.get("WTF_CSRF_ENABLED", True):
            return None
        token = request.form.get(_csrf_field())
        try:
            validate_csrf(token, time_limit=NO_TIME_LIMIT)
            # An expired token is this visitor's all the same: keep what was typed.
            self._read_form()
            validate_csrf(token)
        except ValidationError as error:
            self.error = f"{error} Nothing was changed. Check the page, then save again."
            return self.render(), 400
        return None

    def save(self) -> ViewResult:
        """Save what was submitted as one update."""
        self._read_form()
        values, resets = self._changes()
        if self.errors:
            return self._error_page(InvalidValue(self.errors))
        if not values and not resets:
            return _redirect(None)
        try:
            changeset = changes_for_update(self.schema, values, reset=tuple(resets))
            return _redirect(self._update(changeset, [*values, *resets]))
        except WaffleError as error:
            return self._error_page(error)

    def rollback(self, revision: int) -> ViewResult:
        """Save the values of an earlier revision, unless anything has changed since the form."""
        try:
            result = self.waffle.rollback(
                revision, expect_revision=_form_revision(), actor=g.waffle_actor
            )
        except WaffleError as error:
            return self._error_page(error)
        return _redirect(result)

    def _read_form(self) -> None:
        self.submitted = read_form(self.fields, request.form)
        self.note = request.form.get("note", "")
        self.revision = _form_revision()

    def _changes(self) -> tuple[dict[str, object], list[str]]:
        """Return the new values and the resets; put what is wrong into ``errors``."""
        names = {name.removeprefix("value-") for name in request.form if name.startswith("value-")}
        if unknown := ", ".join(sorted(names - self.schema.variables.keys())):
            self.errors[""] = (
                f"No longer declared: {unknown}. Copy what you need and load the page again"
            )
        values: dict[str, object] = {}
        for field in self.fields:
            submitted = self.submitted.get(field.name)
            if submitted is None or submitted.text is None or not submitted.edited:
                continue
            if submitted.reset:
                self.errors[field.name] = (
                    "there is a new value, and the box for the default is ticked: choose one"
                )
                continue
            try:
                values[field.name] = field.parse(submitted.text)
            except ValueError as error:
                self.errors[field.name] = str(error)
        return values, [name for name, submitted in self.submitted.items() if submitted.reset]

    def _update(self, changeset: Changeset, names: Iterable[str]) -> UpdateResult:
        """Update unless somebody else has changed one of ``names`` since the form was made.

        Raises:
            RevisionConflict: somebody has.
        """
        expected, note = self.revision, self.note or None
        for _ in range(MAX_ATTEMPTS):
            try:
                return self.waffle.state.update(
                    changeset, expect_revision=expected, actor=g.waffle_actor, note=note
                )
            except RevisionConflict as conflict:
                self.conflicts = self._changed_since_form(names, conflict.actual)
                if self.conflicts:
                    raise
                # Only other variables have changed.
                expected = conflict.actual
        raise RevisionConflict(self.revision, expected)

    def _changed_since_form(
        self, names: Iterable[str], newest: int
    ) -> dict[str, HistoryEntry | None]:
        # A store that was restored from a backup may be at an earlier revision than the form.
        comparable = 0 <= self.revision <= newest
        changed: dict[str, HistoryEntry | None] = {}
        for name in names:
            last = next(iter(self.waffle.history(limit=1, key=name)), None)
            if not comparable or (last is not None and last.revision > self.revision):
                changed[name] = last
        return changed

    def _error_page(self, error: WaffleError) -> ViewResult:
        """Return the page again, with what was submitted and what is wrong with it."""
        if isinstance(error, InvalidValue):
            self.errors = error.problems
            return self.render(), 422
        if isinstance(error, RevisionConflict):
            # The next attempt is compared with what this one was compared with.
            self.conflict, self.revision = True, error.actual
            try:
                self.waffle.refresh()
            except WaffleError as unavailable:
                self.error = str(unavailable)
            return self.render(), 409
        self.error = str(error)
        temporary = isinstance(error, (StoreUnavailable, HostBusy, HostFilesError))
        return self.render(), 503 if temporary else 400

    def render(self) -> str:
        """Return the page as HTML."""
        status = self.waffle.status()
        limit = min(max(request.args.get("history", HISTORY, type=int), 1), MAX_HISTORY)
        entries = self._history(limit)
        saved = request.args.get("saved", type=int)
        return TEMPLATES.get_template("admin.html").render(
            page=self,
            site=current_app.name,
            actor=g.waffle_actor,
            status=status,
            error=self.error or error_text(status),
            saved="nothing" if request.args.get("saved") == "nothing" else saved,
            revision=self.waffle.revision,
            rows=self._rows(entries),
            entries=entries,
            max_history=MAX_HISTORY if len(entries) == limit < MAX_HISTORY else None,
            csrf_field=_csrf_field(),
            csrf_token=generate_csrf(),
            url_for=url_for,
        )

    def _rows(self, entries: Iterable[HistoryEntry]) -> list[Row]:
        values = self.waffle.values
        texts = {field.name: field.text(values[field.name]) for field in self.fields}
        last = {entry.key: entry for entry in reversed(list(entries))}
        last.update({name: entry for name, entry in self.conflicts.items() if entry})
        editable = editable_names(self.fields, texts)
        return [self._row(f, texts[f.name], f.name in editable, last) for f in self.fields]

    def _row(
        self, field: Field, value: str, editable: bool, last: Mapping[str, HistoryEntry]
    ) -> Row:
        name = field.name
        submitted = self.submitted.get(name, Submitted(None, None, reset=False))
        # What the form shows it goes on showing, until it has shown a conflict.
        original = None if self.conflict else submitted.original
        if original is None and editable:
            original = value
        text = (submitted.text if submitted.edited else original) or ""
        return Row(
            field,
            text="" if field.variable.secret else text,
            original=None if field.variable.secret else original,
            value=value,
            default=field.text(getattr(self.schema.defaults, name)),
            editable=original is not None or submitted.edited,
            edited=submitted.edited,
            reset=submitted.reset,
            error=self.errors.get(name, ""),
            focused=name == next(iter(self.errors), None),
            conflict=name in self.conflicts,
            last=last.get(name),
        )

    def _history(self, limit: int) -> list[HistoryEntry]:
        try:
            return self.waffle.history(limit)
        except WaffleError as error:
            self.error = self.error or str(error)
            return []


def error_text(status: Mapping[str, Any]) -> str:
    """Return the error of the store or of this process; empty if there is none."""
    if status["store_error"]:
        return (
            f"The store can't be used, so the last good values are served: {status['store_error']}"
        )
    return str(status["error"])


def _csrf_field() -> str:
    return str(current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token"))


def _form_revision() -> int:
    """Return the revision that the form was made of; -1 if it doesn't say so."""
    return request.form.get("revision", -1, type=int)


def _redirect(result: UpdateResult | None) -> ViewResult:
    saved = result.revision if result is not None and result.changed else "nothing"
    return redirect(url_for(".index", saved=saved), 303)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"


def _shorten_value(value: object) -> str:
    return _shorten(MASK if value == MASK else json.dumps(value, ensure_ascii=False))


# The application's own environment may have other delimiters, filters and templates.
TEMPLATES = Environment(
    loader=PackageLoader("uwsgi_waffle.admin"), autoescape=True, undefined=StrictUndefined
)
TEMPLATES.filters.update(shorten=_shorten, shorten_value=_shorten_value)
