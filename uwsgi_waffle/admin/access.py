"""Who may use the admin page, and the headers that all its responses have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import werkzeug.wrappers
from flask import Response, abort, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

__all__ = ["HEADERS", "Authorize", "GuardedResponse", "check_access"]

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

Authorize = Callable[[], Any]


class GuardedResponse(Response):
    """A response whose security headers hold, whatever the application sets later."""

    def get_wsgi_headers(self, environ: Any) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers.update(HEADERS)
        return headers


def check_access(authorize: Authorize) -> tuple[str | None, Any]:
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
