"""The admin page's URLs, who may open them, and the headers of all responses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any, cast

import werkzeug.wrappers
from flask import Blueprint, Response, abort, current_app, g, jsonify, request
from flask_wtf.csrf import CSRFError
from werkzeug.datastructures import Headers, MultiDict
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from ..extension import WaffleConf
from .page import Page, error_text
from .submission import MAX_FORM

__all__ = ["admin_blueprint"]


# Not /static: the page may be at the root.
STATIC: dict[str, Any] = {"static_folder": "static", "static_url_path": "/waffle-static"}


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class GuardedResponse(Response):
    """A response whose security headers hold, whatever the application sets later."""

    def get_wsgi_headers(self, environ: Any) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers.update(HEADERS)
        return headers


def admin_blueprint(
    waffle: WaffleConf,
    authorize: Callable[[], Any],
    *,
    may_change: Callable[[str], bool] | None = None,
    name: str = "waffle_admin",
) -> Blueprint:
    """Return a page that lists the variables and changes them; by default at ``/waffle/``.

    Args:
        waffle: the extension of the application that registers the blueprint.
        authorize: called without arguments in every request. A non-empty string allows it and is
            the actor in the history; ``True`` allows it; a false value means 403; a response, such
            as a redirect to the login, is sent instead; anything else is an error (500).
        may_change: called with a variable's name: whether this person may change it, or only see
            it. Default: they may change all.
        name: the blueprint's name, for `flask.url_for`: ``url_for("waffle_admin.index")``.

    Raises:
        TypeError: ``authorize`` isn't callable.

    Example:
        >>> from flask import Flask
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> from uwsgi_waffle.admin import admin_blueprint
        >>> app = Flask(__name__)
        >>> app.config.update(SECRET_KEY="your own", WAFFLE_CONFS={"SITENAME": {"default": "x"}})
        >>> waffle = WaffleConf(app, MemoryStore())
        >>> app.register_blueprint(admin_blueprint(waffle, authorize=lambda: False))
        >>> app.test_client().get("/waffle/").status
        '403 FORBIDDEN'
    """
    if not callable(authorize):
        raise TypeError(f"authorize must be a function, not {authorize!r}.")
    blueprint = Blueprint(name, __name__, url_prefix="/waffle", **STATIC)
    make_page = partial(Page, waffle, may_change)
    _add_guards(blueprint, make_page, authorize)
    _add_views(blueprint, waffle, make_page)
    return blueprint


def _check_access(authorize: Callable[[], Any]) -> tuple[str | None, Any]:
    """Ask the application who sends this request.

    Returns:
        The actor for the history, and a response to send instead of the page.

    Raises:
        TypeError: ``authorize`` returned something that is neither permission nor refusal.
    """
    allowed = current_app.ensure_sync(authorize)()
    if isinstance(allowed, (werkzeug.wrappers.Response, HTTPException)):
        return None, allowed
    if not allowed:
        abort(403)
    if allowed is True:
        return request.remote_user, None
    if isinstance(allowed, str):
        return str(allowed), None  # plain text, also of a Markup
    # A coroutine, ("no", 403) or the number 403 is truthy, and no permission.
    raise TypeError(
        f"authorize must return a name, True, False or a response, not {type(allowed).__name__}."
    )


def _read_form() -> MultiDict[str, str]:
    if (request.content_length or 0) > MAX_FORM:
        raise RequestEntityTooLarge
    body, parser = request.get_data(), request.make_form_data_parser()
    _, form, _ = parser.parse(BytesIO(body), request.mimetype, len(body), request.mimetype_params)
    return form


def _add_guards(
    blueprint: Blueprint, make_page: Callable[[], Page], authorize: Callable[[], Any]
) -> None:
    @blueprint.url_value_preprocessor
    def keep_body(endpoint: object, values: object) -> None:
        """Keep the body: a hook of the application may put a plain dict in the form's place."""
        request.max_form_memory_size = MAX_FORM
        with suppress(AttributeError):  # Flask 3.0 has the application's limit only
            request.max_content_length = MAX_FORM
        if 0 < (request.content_length or 0) <= MAX_FORM:
            request.get_data()

    @blueprint.before_request
    def authorize_request() -> Any:
        g.waffle_actor, response = _check_access(authorize)
        if response is None:
            g.waffle_form = _read_form()
        return response

    @blueprint.after_request
    def guard(response: Response) -> GuardedResponse:
        response.headers.update(HEADERS)  # a later hook of the application may copy only these
        return cast(GuardedResponse, GuardedResponse.force_type(response))

    @blueprint.errorhandler(RequestEntityTooLarge)
    def too_large(error: RequestEntityTooLarge) -> tuple[str, int]:
        limit = min(request.max_content_length or MAX_FORM, MAX_FORM)
        text = f"Nothing was changed: the form has more than {limit:,} bytes. Send less at once, or"
        return f"{text} use `flask waffle set`.", 413

    @blueprint.errorhandler(CSRFError)
    def csrf_error(error: CSRFError) -> Any:
        """Keep what was typed if the application's own CSRFProtect refuses the request.

        It does so before ``authorize`` was called.
        """
        try:
            return authorize_request() or make_page().check_csrf() or error
        except HTTPException as refusal:
            return refusal


def _add_views(blueprint: Blueprint, waffle: WaffleConf, make_page: Callable[[], Page]) -> None:
    @blueprint.get("/")
    def index() -> Any:
        to = request.args.get("rollback", type=int)
        return make_page().render() if to is None else make_page().confirm_rollback(to)

    @blueprint.post("/")
    def save() -> Any:
        page = make_page()
        return page.check_csrf() or page.save()

    @blueprint.post("/rollback")
    def rollback() -> Any:
        page = make_page()
        return page.check_csrf() or page.rollback(g.waffle_form.get("to", -1, type=int))

    @blueprint.get("/processes")
    def processes() -> Response:
        status = waffle.status()
        return jsonify(
            revision=status["revision"], processes=status["processes"], error=error_text(status)
        )
