"""The admin page's requests: who may, what was typed, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import werkzeug.wrappers
from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_wtf.csrf import CSRFError, generate_csrf, validate_csrf
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from wtforms import ValidationError

from ..errors import (
    HostBusy,
    HostFilesError,
    InvalidValue,
    RevisionConflict,
    StoreUnavailable,
    WaffleError,
)
from ..extension import Binding, WaffleConf
from ..plans import Plan, plan_rollback, plan_update
from ..report import HistoryEntry, history
from ..schema import MASK
from ..stores import Stored
from .fields import Field, Marks, Typed, fields, read

__all__ = ["admin_blueprint"]

MAX_FORM = 4 * 2**20  # bytes that a form may have
HISTORY = 20  # changes that the page shows unless asked for more
HISTORY_MOST = 1000
HISTORY_READ = 200  # changes among which the page looks for the last of each variable
LONG_AGO = 10 * 365 * 86400  # seconds: no time limit
SHORT = 255  # characters of a value, a name or a note that the history shows
ROOM = (
    MAX_FORM // 2
)  # bytes that the values in force may take of a form; the rest is for what is typed
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'"
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

Authorize = Callable[[], Any]


def admin_blueprint(
    waffle: WaffleConf, authorize: Authorize, *, name: str = "waffle_admin"
) -> Blueprint:
    """Return a page that lists the variables and changes them, as a blueprint; without a
    ``url_prefix`` of yours it is at ``/waffle/``.

    Args:
        waffle: the extension whose variables the page shows; the application that registers the
            blueprint must be one of its own.
        authorize: called without arguments at every request of the blueprint. A string allows it
            and is the actor in the
            history; ``True`` allows it; what is false refuses it (403); a response, such as a
            redirect to the login, is sent
            instead. It may also ``abort``. Anything else is an error (500), for nobody knows what
            it was to mean.
        name: the blueprint's name, for `flask.url_for`: ``url_for("waffle_admin.index")``.

    Raises:
        TypeError: ``authorize`` can't be called.

    Example:
        >>> from flask import Flask
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> from uwsgi_waffle.admin import admin_blueprint
        >>> app = Flask(__name__)
        >>> app.config.update(SECRET_KEY="of your own", WAFFLE_CONFS={"SITENAME": {"default": "Waffle"}})
        >>> waffle = WaffleConf(app, MemoryStore())
        >>> app.register_blueprint(admin_blueprint(waffle, authorize=lambda: False))
        >>> app.test_client().get("/waffle/").status
        '403 FORBIDDEN'
    """
    if not callable(authorize):
        raise TypeError(
            f"authorize must be a function that tells who may use the page, not {authorize!r}."
        )
    blueprint = Blueprint(
        name,
        __name__,
        url_prefix="/waffle",
        template_folder="templates",
        static_folder="static",
        static_url_path="/waffle-static",  # also where the page is at the application's root
    )

    @blueprint.before_request
    def allow() -> Any:
        allowed = current_app.ensure_sync(authorize)()
        if isinstance(allowed, (werkzeug.wrappers.Response, HTTPException)):
            return allowed
        if not allowed:
            abort(403)
        if not isinstance(allowed, (int, str)):  # a coroutine, ("no", 403): true, and not meant so
            raise TypeError(
                f"authorize must return a name, True, False or a response, not {type(allowed).__name__}."
            )
        g.waffle_actor = allowed if isinstance(allowed, str) else request.remote_user
        request.max_content_length = request.max_form_memory_size = MAX_FORM
        return None

    @blueprint.after_request
    def guard(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @blueprint.errorhandler(RequestEntityTooLarge)
    def too_large(error: RequestEntityTooLarge) -> tuple[str, int]:
        most = (
            request.max_content_length or MAX_FORM
        )  # the application's, if it has read the form before this page could
        return (
            f"Nothing was changed: the form has more than {most:,} bytes. Send less at once, or use `flask waffle set`.",
            413,
        )

    @blueprint.errorhandler(CSRFError)
    def refused_by_the_application(error: CSRFError) -> Any:
        """Keep what was typed where the application's own CSRFProtect has refused the request,
        which nobody was asked about yet.
        """
        try:
            return allow() or _Page(waffle.state).refused() or error
        except HTTPException as refusal:
            return refusal

    @blueprint.get("/")
    def index() -> str:
        return _Page(waffle.state).render()

    @blueprint.post("/")
    def save() -> Any:
        page = _Page(waffle.state)
        return page.refused() or page.save()

    @blueprint.post("/rollback")
    def rollback() -> Any:
        page = _Page(waffle.state)
        return page.refused() or page.rollback(request.form.get("to", -1, type=int))

    @blueprint.get("/processes")
    def processes() -> Response:
        status = waffle.status()
        return jsonify(
            revision=status["revision"], processes=status["processes"], trouble=_trouble(status)
        )

    return blueprint


@dataclass
class _Row:
    """A variable as the template sees it."""

    field: Field
    value: str
    default: str
    is_default: bool
    fits: bool
    mark: str
    typed: Typed | None
    problem: str
    first_problem: bool
    last: HistoryEntry | None
    moved: bool


@dataclass
class _Page:
    """One answer: the form of the values in force, with what was typed on top of it."""

    binding: Binding
    typed: Mapping[str, Typed] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    conflict: bool = False
    trouble: str = ""

    @property
    def _marks(self) -> Marks:
        if not current_app.secret_key:
            raise WaffleError(
                "The admin page needs a secret key for its forms: set app.secret_key to a "
                "random text of your own."
            )
        key = current_app.secret_key
        return Marks(key.encode() if isinstance(key, str) else key)

    @property
    def _token_name(self) -> str:
        return str(current_app.config.get("WTF_CSRF_FIELD_NAME", "csrf_token"))

    def refused(self) -> tuple[str, int] | None:
        """Answer a request that doesn't prove that it comes from this page."""
        if not current_app.config.get("WTF_CSRF_ENABLED", True):
            return None
        token = request.form.get(self._token_name)
        try:
            validate_csrf(token, time_limit=LONG_AGO)
            self._read()  # an old page of this session's: what was typed is kept
            validate_csrf(token)
        except ValidationError as error:
            self.trouble = (
                f"{error} Nothing was changed. Look at the page once more, then save again."
            )
            return self.render(), 400
        return None

    def save(self) -> Any:
        """Carry out what was typed: one update, or nothing."""
        self._read()
        schema = self.binding.schema
        sent = {name.removeprefix("seen-") for name in request.form if name.startswith("seen-")}
        gone = ", ".join(sorted(sent - schema.variables.keys()))
        problems = (
            {"": f"No longer declared: {gone}. Copy what you need and load the page again"}
            if gone
            else {}
        )
        values: dict[str, object] = {}
        for name, typed in self.typed.items():
            try:
                if typed.edited and typed.reset:
                    problems[name] = (
                        "there is a new value, and the box for the default is ticked: choose one"
                    )
                elif typed.edited:
                    values[name] = fields(schema)[name].parse(typed.text)
            except ValueError as error:
                problems[name] = str(error)
        if problems:
            return self._again(InvalidValue(problems))
        if not self.typed:
            return redirect(url_for(".index", saved="nothing"), 303)
        resets = tuple(name for name, typed in self.typed.items() if typed.reset)
        return self._carry_out(
            self._unless_moved(plan_update(schema, values, reset=resets)), self.note
        )

    def _read(self) -> None:
        self.typed = read(self.binding.schema, request.form, self._marks)
        self.note = request.form.get("note", "")

    def rollback(self, revision: int) -> Any:
        """Make the values of a former revision a new one, unless something has changed since the
        page was made.
        """
        try:
            plan = plan_rollback(self.binding.schema, self.binding.state.store, revision)
        except WaffleError as error:
            return self._again(error)
        return self._carry_out(
            plan,
            f"rollback to revision {revision}",
            expect=request.form.get("revision", -1, type=int),
        )

    def _unless_moved(self, plan: Plan) -> Plan:
        seen, marks = {name: typed.seen for name, typed in self.typed.items()}, self._marks

        def unless_moved(stored: Stored) -> Mapping[str, str | None]:
            if marks.moved(self.binding.schema, stored, seen):
                raise RevisionConflict(request.form.get("revision", -1, type=int), stored.revision)
            return plan(stored)

        return unless_moved

    def _carry_out(self, plan: Plan, note: str, expect: int | None = None) -> Any:
        try:
            result = self.binding.update(plan, expect, g.waffle_actor, note or None, None)
        except WaffleError as error:
            return self._again(error)
        return redirect(
            url_for(".index", saved=result.revision if result.changed else "nothing"), 303
        )

    def _again(self, error: WaffleError) -> tuple[str, int]:
        """Show the page again, with all that was typed and what was wrong."""
        if isinstance(error, InvalidValue):
            self.problems = error.problems
            return self.render(), 422
        if isinstance(error, RevisionConflict):
            self.conflict = True
            try:
                self.binding.update_conf()
            except WaffleError as newer:
                self.trouble = str(newer)
            return self.render(), 409
        self.trouble = str(error)
        return self.render(), 503 if isinstance(
            error, (StoreUnavailable, HostBusy, HostFilesError)
        ) else 400

    def render(self) -> str:
        """Return the page."""
        marks, status = (
            self._marks,
            self.binding.status(),
        )  # first of all: without a key there is no page
        limit = min(max(request.args.get("history", HISTORY, type=int), 1), HISTORY_MOST)
        entries, last = self._history(limit)
        return render_template(
            "uwsgi_waffle/admin.html",
            page=self,
            site=current_app.name,
            rows=self._rows(marks, last),
            policy=POLICY,
            status=status,
            revision=self.binding.current().revision,
            trouble=self.trouble or _trouble(status),
            entries=entries,
            limit=limit,
            more=limit
            if len(entries) < limit or limit == HISTORY_MOST
            else min(limit * 5, HISTORY_MOST),
            saved="nothing"
            if request.args.get("saved") == "nothing"
            else request.args.get("saved", type=int),
            token_name=self._token_name,
            token=generate_csrf(),
            actor=g.waffle_actor,
            brief=_brief,
            short=_short,
        )

    def _rows(self, marks: Marks, last: Mapping[str, HistoryEntry]) -> list[_Row]:
        rows = [
            self._row(name, marks, last.get(name)) for name in sorted(self.binding.schema.variables)
        ]
        left = ROOM
        for row in sorted(
            rows, key=lambda row: len(row.value)
        ):  # of many long values the longest aren't in the form
            left -= len(quote_plus(row.value, errors="replace")) if row.fits else 0
            row.fits = row.fits and (left >= 0 or row.field.variable.secret)
        return rows

    def _row(self, name: str, marks: Marks, last: HistoryEntry | None) -> _Row:
        schema, typed = self.binding.schema, self.typed.get(name)
        shown = fields(schema)[name]
        value, default = (
            shown.text(getattr(values, name))
            for values in (self.binding.current().values, schema.defaults)
        )
        mark = marks.mark(shown, value)
        moved = self.conflict and typed is not None and typed.seen != mark
        # Until a conflict has been shown, the form goes on telling which value it was made of.
        keep = typed.seen if typed is not None and not self.conflict else mark
        first = name == next(iter(self.problems), None)
        fits = shown.fits(value)
        return _Row(
            shown,
            value,
            default,
            value == default,
            fits,
            keep,
            typed,
            self.problems.get(name, ""),
            first,
            last,
            moved,
        )

    def _history(self, limit: int) -> tuple[list[HistoryEntry], dict[str, HistoryEntry]]:
        """Return the newest changes, and of each variable the last."""
        try:
            entries = history(self.binding.state, max(limit, HISTORY_READ), None)
        except WaffleError as error:
            self.trouble = self.trouble or str(error)
            return [], {}
        return entries[:limit], {entry.key: entry for entry in reversed(entries)}


def _trouble(status: Mapping[str, Any]) -> str:
    """Return what is wrong with the store or in this process, in words; empty if nothing is."""
    if status["store_error"]:
        return (
            f"The store can't be used, so the last good values are served: {status['store_error']}"
        )
    return str(status["error"])


def _brief(value: object) -> str:
    """Return a value of the history in one short piece."""
    return _short(MASK if value == MASK else json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[:SHORT]}… ({len(text):,} characters)"
