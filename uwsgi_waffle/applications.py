"""The applications of one `WaffleConf`."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from flask import Flask, current_app, has_app_context

from .errors import WaffleError
from .state import WaffleState, state_of

__all__ = ["Applications"]


class Applications:
    """The applications of one `WaffleConf`. They come and go: nothing here keeps one alive.

    Attributes:
        single: returns the state of the only application, ``None`` if there isn't just one; faster
            than `state`.
    """

    def __init__(self) -> None:
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self.single: Callable[[], WaffleState | None] = lambda: None

    def add(self, app: Flask, state: WaffleState) -> None:
        """Add an application that has the extension from now on."""
        self._apps.add(app)
        self.single = weakref.ref(state) if len(self._apps) == 1 else lambda: None

    def states(self) -> list[WaffleState]:
        """Return the states of all applications."""
        return [state_of(app) for app in list(self._apps)]

    def state(self) -> WaffleState:
        """Return the state of the only application, or of that whose context is active.

        Raises:
            WaffleError: there is none, or there are several and none is active.
        """
        state = self.single()
        if state is not None:
            return state
        apps = list(self._apps)
        if has_app_context() and current_app in apps:
            return state_of(current_app)
        if len(apps) == 1:  # the others are gone
            state = state_of(apps[0])
            self.single = weakref.ref(state)
            return state
        if not apps:
            raise WaffleError(
                "This WaffleConf has no application yet: call waffle.init_app(app) first."
            )
        raise WaffleError(
            "This WaffleConf serves several applications: use it within app.app_context() of "
            "one of them."
        )
