"""The functions that an application wants to be called when values change."""

from __future__ import annotations

import contextvars
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from blinker import Namespace
from flask import Flask

from . import wake
from .snapshot import Change, Update

__all__ = [
    "Hook",
    "Hooks",
    "Registered",
    "between_requests",
    "config_changed",
    "config_updated",
    "register",
]

log = logging.getLogger("uwsgi_waffle")

Hook = Callable[[Any], object]

config_changed = Namespace().signal(
    "waffle-config-changed",
    doc="Sent in every process that applies a change: sender is the application, ``change`` the "
    "`Change`.",
)
config_updated = Namespace().signal(
    "waffle-config-updated",
    doc="Sent once for each update, in the process that made it: sender is the application, "
    "``update`` the `Update`.",
)
# A receiver gets the event by the same keyword.
SIGNALS = {"change": config_changed, "update": config_updated}


@dataclass(frozen=True, slots=True)
class Registered:
    """The hooks of one `WaffleConf`: names and function of each; no names stand for all."""

    on_change: list[tuple[frozenset[str], Hook]] = field(default_factory=list)
    on_update: list[tuple[frozenset[str], Hook]] = field(default_factory=list)


def register(
    hooks: list[tuple[frozenset[str], Hook]],
    given: tuple[Any, ...],
    check: Callable[[frozenset[str]], None],
) -> Any:
    """Register a hook as a decorator does: ``given`` is the function, or the names for the next.

    Args:
        hooks: where it is added.
        given: what the decorator was given.
        check: raises an error if a name isn't declared.
    """
    decorates = len(given) == 1 and callable(given[0])
    if not decorates and not all(isinstance(name, str) for name in given):
        raise TypeError("Name the variables, and decorate: @waffle.on_change('A', 'B').")
    names = frozenset[str]() if decorates else frozenset(given)

    def add(hook: Hook) -> Hook:
        check(names)
        hooks.append((names, hook))
        return hook

    return add(given[0]) if decorates else add


# Whether a signal or a thread of the package's own runs this: then nothing of the application's is
# under way in this thread.
_between_requests: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "uwsgi_waffle_between_requests", default=False
)


@contextmanager
def between_requests() -> Iterator[None]:
    """Say that nothing of the application's is under way in this thread."""
    token = _between_requests.set(True)
    try:
        yield
    finally:
        _between_requests.reset(token)


class Hooks:
    """Calls the hooks of one kind and one application, and the receivers of their signal.

    Args:
        app: the application.
        event: ``change`` or ``update``.
        registered: names and function of each hook. It may still grow.
    """

    def __init__(
        self, app: Flask, event: str, registered: list[tuple[frozenset[str], Hook]]
    ) -> None:
        self._app, self._event, self._registered = weakref.ref(app), event, registered
        self._signal = SIGNALS[event]

    def call(self, event: Change | Update) -> None:
        """Call those that an event concerns, in an application context of their own."""
        app = self._app()
        if app is None:
            return
        calls = [
            partial(hook, event)
            for names, hook in self._registered
            if not names or not names.isdisjoint(event.new)
        ]
        if self._signal.receivers:
            keyword = {self._event: event}
            receivers = self._signal.receivers_for(app)
            calls += [partial(receiver, app, **keyword) for receiver in receivers]
        if not calls:
            return
        run = partial(self._call_all, app, calls, event.revision)
        if _between_requests.get():
            # In a context of its own, so that a hook sees the newest values.
            contextvars.Context().run(run)
            return
        # When an application context ends, Flask's teardown functions end the sessions of this
        # thread, which may be in the middle of using them. So the hooks get a thread.
        try:
            wake.start_thread("uwsgi_waffle hooks", run).join()
        except RuntimeError as error:
            log.error(
                "uwsgi_waffle: the on_%s hooks of revision %d were not called: %s",
                self._event,
                event.revision,
                error,
            )

    def _call_all(self, app: Flask, calls: list[partial[Any]], revision: int) -> None:
        try:
            with app.app_context():
                for call in calls:
                    try:
                        app.ensure_sync(call.func)(*call.args, **call.keywords)
                    except (Exception, SystemExit):  # the other hooks and the process go on
                        log.exception(
                            "uwsgi_waffle: the on_%s hook %r failed at revision %d",
                            self._event,
                            call.func,
                            revision,
                        )
        except Exception:
            log.exception(
                "uwsgi_waffle: a teardown function failed after the on_%s hooks of revision %d",
                self._event,
                revision,
            )
