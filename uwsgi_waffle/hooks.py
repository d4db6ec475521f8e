"""The functions that an application wants to be called when values change."""

from __future__ import annotations

import contextvars
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from blinker import Namespace
from flask import Flask

from . import wake
from .snapshot import Change

__all__ = ["Hook", "Hooks", "between_requests", "config_changed"]

log = logging.getLogger("uwsgi_waffle")

Hook = Callable[[Change], object]

config_changed = Namespace().signal(
    "waffle-config-changed",
    doc="Sent in every process that applies a change: sender is the application, ``change`` the "
    "`Change`.",
)

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
    """Calls the ``on_change`` hooks of one application, and the receivers of `config_changed`.

    Args:
        app: the application.
        registered: names and function of each hook; no names stand for all. It may still grow.
    """

    def __init__(self, app: Flask, registered: list[tuple[frozenset[str], Hook]]) -> None:
        self._app, self._registered = weakref.ref(app), registered

    def call(self, change: Change) -> None:
        """Call those that a change concerns, in an application context of their own."""
        app = self._app()
        calls = [
            partial(hook, change)
            for names, hook in self._registered
            if not names or not names.isdisjoint(change.new)
        ]
        if app is not None and config_changed.receivers:
            receivers = config_changed.receivers_for(app)
            calls += [partial(receiver, app, change=change) for receiver in receivers]
        if not calls or app is None:
            return
        if _between_requests.get():
            # In a context of its own, so that a hook sees the newest values.
            contextvars.Context().run(_call_all, app, calls, change)
            return
        # When an application context ends, Flask's teardown functions end the sessions of this
        # thread, which may be in the middle of using them. So the hooks get a thread.
        thread = threading.Thread(
            target=_call_all_in_thread,
            args=(app, calls, change),
            name="uwsgi_waffle hooks",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            log.error(
                "uwsgi_waffle: the on_change hooks of revision %d were not called: %s",
                change.revision,
                error,
            )
            return
        thread.join()


def _call_all_in_thread(app: Flask, calls: list[partial[Any]], change: Change) -> None:
    wake.block_signals()
    _call_all(app, calls, change)


def _call_all(app: Flask, calls: list[partial[Any]], change: Change) -> None:
    try:
        with app.app_context():
            for call in calls:
                try:
                    call()
                except (Exception, SystemExit):  # the other hooks and the process go on
                    log.exception(
                        "uwsgi_waffle: the on_change hook %r failed at revision %d",
                        call.func,
                        change.revision,
                    )
    except Exception:
        log.exception(
            "uwsgi_waffle: a teardown function failed after the on_change hooks of revision %d",
            change.revision,
        )
