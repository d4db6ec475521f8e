"""Which variables can't be changed on the page, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flask import current_app

from ..errors import WaffleError
from ..extension import WaffleConf

__all__ = ["Locks", "MayChange", "NotAllowed"]

MayChange = Callable[[str], bool]


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
