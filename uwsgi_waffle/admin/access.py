"""Who may use the admin page and change what, and the headers that all its responses have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import werkzeug.wrappers
from flask import Response, abort, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from ..errors import WaffleError
from ..extension import WaffleConf

__all__ = [
    "HEADERS",
    "Authorize",
    "GuardedResponse",
    "Locks",
    "MayChange",
    "NotAllowed",
    "check_access",
]

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
MayChange = Callable[[str], bool]


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


class NotAllowed(WaffleError):
    """A request would change what this person may not change."""


@dataclass(frozen=True)
class Locks:
    """The variables that this person, in this process, can't change."""

    waffle: WaffleConf
    may_change: MayChange | None

    def reason(self, name: str) -> str:
        """Return why a variable can't be changed here; empty if it can."""
        if pin := self.waffle.state.schema.pins.get(name):
            return f"Set by the environment variable {pin.source}, so it can't be changed here."
        return "" if self._allows(name) else "You may not change this variable."

    def check(self, names: Iterable[str]) -> None:
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
        if self.may_change is None:
            return True
        allowed = current_app.ensure_sync(self.may_change)(name)
        if not isinstance(allowed, (bool, type(None))):  # a coroutine is truthy
            raise TypeError(f"may_change must return True or False, not {type(allowed).__name__}.")
        return bool(allowed)
