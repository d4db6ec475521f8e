"""One response of the admin page: the form in force, with what a person submitted on top."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask import Response, current_app, g, redirect, request, url_for
from flask_wtf.csrf import generate_csrf, validate_csrf
from jinja2 import Environment, PackageLoader, StrictUndefined
from wtforms import ValidationError

from ..changes import Changeset, changes_for_rollback, changes_for_update
from ..errors import (
    HostBusy,
    HostFilesError,
    InvalidValue,
    RevisionConflict,
    StoreUnavailable,
    WaffleError,
)
from ..extension import WaffleConf
from ..history import HistoryEntry, history
from ..update import UpdateResult
from .fields import NO_VALUE, Field
from .rows import (
    Change,
    Row,
    differences,
    entry_words,
    group_rows,
    in_page_order,
    shorten,
)
from .submission import NOTHING, TIME, NotAllowed, Submission, editable_names

__all__ = ["Page", "error_text"]

HISTORY = 20  # changes that the page shows
MAX_HISTORY = 100  # changes that it shows on request
NO_TIME_LIMIT = 10 * 365 * 86400  # seconds

ViewResult = Any


class Page:
    """One request to the page, and its response."""

    def __init__(self, waffle: WaffleConf, may_change: Callable[[str], bool] | None) -> None:
        if not current_app.secret_key:
            raise WaffleError(
                "The admin page needs a secret key for its forms: set app.secret_key to a random "
                "text of your own."
            )
        self.waffle = waffle
        self.schema = waffle.state.schema
        self.fields = in_page_order(map(Field, self.schema.variables.values()))
        self.form = Submission(waffle, self.fields, may_change)
        self.error = ""
        self.conflict = False
        self.preview: Sequence[Change] = ()  # what the next save will change

    def check_csrf(self) -> ViewResult:
        """Read the form; return an error page if it isn't one of this page for this visitor."""
        if not current_app.config.get("WTF_CSRF_ENABLED", True):
            self.form.read()
            return None
        token = g.waffle_form.get(_csrf_field())
        try:
            validate_csrf(token, time_limit=NO_TIME_LIMIT)
            # An expired token is this visitor's all the same: keep what was typed.
            self.form.read()
            validate_csrf(token)
        except ValidationError as error:
            self.error = f"{error} Nothing was changed. Check the page, then save again."
            return self.render(), 400
        return None

    def save(self) -> ViewResult:
        """Save what was submitted as one update, or show what that will change."""
        values, resets = self.form.changes()
        names = [*values, *resets]
        try:
            refused = (name for name in self.form.errors if name in self.schema.variables)
            self.form.check_allowed(dict.fromkeys([*names, *refused]))
            if self.form.errors:
                raise InvalidValue(self.form.errors)
            if not names:
                return _redirect(None)
            changeset = changes_for_update(self.schema, values, reset=tuple(resets))
            if "preview" not in g.waffle_form:
                return _redirect(self.form.save(changeset, names))
            self.form.check_conflict(names, self.waffle.revision)
            self.preview = self._differences(changeset)
        except WaffleError as error:
            return self._error_page(error)
        return self.render() if self.preview else _redirect(None)

    def rollback(self, revision: int) -> ViewResult:
        """Save the values of an earlier revision, unless anything has changed since the form."""
        expected = self.form.revision
        try:
            if expected != self.waffle.revision:
                raise RevisionConflict(expected, self.waffle.revision)
            self._check_rollback(revision)
            result = self.waffle.rollback(revision, expect_revision=expected, actor=g.waffle_actor)
        except WaffleError as error:
            return self._error_page(error)
        return _redirect(result)

    def confirm_rollback(self, revision: int) -> ViewResult:
        """Ask before a rollback, and show what it will change."""
        try:
            store = self.waffle.state.store
            changes = self._differences(changes_for_rollback(self.schema, store, revision))
        except WaffleError as error:
            return self._error_page(error)
        try:
            self._check_rollback(revision)
        except WaffleError as error:
            self.error = str(error)
        return self._template("rollback.html", to=revision, changes=changes)

    def _check_rollback(self, revision: int) -> None:
        """Check that this person may change all rows that it changes, also to an equal value."""
        store = self.waffle.state.store
        self.form.check_allowed(changes_for_rollback(self.schema, store, revision)(store.load()))

    def _differences(self, changeset: Changeset) -> list[Change]:
        return differences(self.fields, self.schema, self.waffle.state.writer.preview(changeset))

    def _error_page(self, error: WaffleError) -> ViewResult:
        """Return the page again, with what was submitted and what is wrong with it."""
        if isinstance(error, InvalidValue):
            self.form.errors = error.problems
            return self.render(), 422
        if isinstance(error, RevisionConflict):
            self.conflict = True
            try:
                self.form.revision = self.waffle.refresh()  # what the page shows as in force
            except InvalidValue as unfit:  # it says what is stored, which may be replaced
                self.form.revision, self.error = error.actual, str(unfit)
            except WaffleError as unavailable:
                self.error = str(unavailable)
            return self.render(), 409
        self.error = str(error)
        if isinstance(error, NotAllowed):
            return self.render(), 403
        temporary = isinstance(error, (StoreUnavailable, HostBusy, HostFilesError))
        return self.render(), 503 if temporary else 400

    def render(self) -> Response:
        """Return the page as HTML."""
        limit = min(max(request.args.get("history", HISTORY, type=int), 1), MAX_HISTORY)
        entries = self._history(limit)
        saved = request.args.get("saved", type=int)
        rows = self._rows(entries)
        searched, only_changed = request.args.get("q", "").strip(), "changed" in request.args
        for row in rows:  # what needs to be seen is never hidden
            found = searched.lower() in row.search.lower()
            shown = found and not (only_changed and row.is_default)
            row.hidden = not (shown or row.needs_look)
        fields = {field.name: field for field in self.fields}
        words = [entry_words(fields.get(entry.key), entry) for entry in entries]
        made = {e.key: told for e, told in zip(entries, words, strict=True) if e.revision == saved}
        changes = [Change(n, f.variable.title, *made[n]) for n, f in fields.items() if n in made]
        temporary = self.waffle.state.current().temporary
        ends = [temporary[change.name] for change in changes if change.name in temporary]
        problems = (row.field.name for row in rows if row.error or row.conflict)
        return self._template(
            "admin.html",
            saved="nothing" if request.args.get("saved") == "nothing" else saved,
            saved_changes=changes,
            saved_until=max(ends, default=None),
            searched=searched,
            only_changed=only_changed,
            rows=rows,
            groups=group_rows(rows),
            focused=next(problems, TIME if TIME in self.form.errors else ""),
            entries=entries,
            words=words,
            max_history=MAX_HISTORY if len(entries) == limit < MAX_HISTORY else None,
        )

    def _template(self, name: str, **context: Any) -> Response:
        has_hosts = self.waffle.state.listener is not None
        status = self.waffle.status(hosts=has_hosts and "hosts" in request.args)
        text = TEMPLATES.get_template(name).render(
            page=self,
            form=self.form,
            site=current_app.name,
            actor=g.waffle_actor,
            status=status,
            has_hosts=has_hosts,
            error=self.error or error_text(status),
            is_posted=request.method == "POST",
            revision=self.waffle.revision,
            csrf_field=_csrf_field(),
            csrf_token=generate_csrf(),
            url_for=url_for,
            **context,
        )
        # The application's own response may be of JSON. A path may hold what isn't UTF-8.
        return Response(text.encode(errors="replace"), mimetype="text/html")

    def _rows(self, entries: Iterable[HistoryEntry]) -> list[Row]:
        values, temporary = self.waffle.values, self.waffle.state.current().temporary
        texts = {field.name: field.text(values[field.name]) for field in self.fields}
        newest = [entry for name in self.form.conflicts for entry in self._history(1, name)]
        last = {entry.key: entry for entry in (*newest, *reversed(list(entries)))}
        editable, rows = editable_names(self.fields, texts), []
        for field in self.fields:
            name, locked = field.name, self.form.lock(field.name)
            submitted = NOTHING if locked else self.form.submitted.get(name, NOTHING)
            # What the form shows it goes on showing, until it has shown a conflict.
            original = None if self.conflict else submitted.original
            if original is None and name in editable:
                original = texts[name]
            rows.append(
                Row(
                    field,
                    value=texts[name],
                    default=field.text(vars(self.schema.defaults)[name]),
                    original=original,
                    submitted=submitted,
                    locked=locked,
                    error=self.form.errors.get(name, ""),
                    conflict=name in self.form.conflicts,
                    last=last.get(name),
                    until=temporary.get(name),
                )
            )
        return rows

    def _history(self, limit: int, name: str | None = None) -> list[HistoryEntry]:
        try:
            return history(self.waffle.state, limit, name, beginnings=True)
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


def _redirect(result: UpdateResult | None) -> ViewResult:
    saved = result.revision if result is not None and result.changed else "nothing"
    return redirect(url_for(".index", saved=saved), 303)


# The application's own environment may have other delimiters, filters and templates.
TEMPLATES = Environment(
    loader=PackageLoader("uwsgi_waffle.admin"), autoescape=True, undefined=StrictUndefined
)
TEMPLATES.globals.update(no_value=NO_VALUE, TIME=TIME)
TEMPLATES.filters.update(shorten=shorten)
