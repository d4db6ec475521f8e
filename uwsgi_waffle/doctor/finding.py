"""What a check has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..host import ProcessInfo

__all__ = ["Finding", "named"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        level: ``ok``; ``warning``, if it works, but not in the best way; ``error``, if something
            doesn't work as it is meant to.
        check: what was checked, in a word.
        text: how it is.
        change: what to change, ``""`` if nothing.
    """

    level: Literal["ok", "warning", "error"]
    check: str
    text: str
    change: str = ""


def named(processes: Iterable[ProcessInfo]) -> str:
    """Name processes for a person."""
    return ", ".join(f"{process.kind} (pid {process.pid})" for process in processes)
