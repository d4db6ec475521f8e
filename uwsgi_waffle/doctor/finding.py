"""What a check has found, and how it speaks of processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..host import ProcessInfo

__all__ = ["Finding", "Processes", "named", "reported"]

Processes = Sequence[ProcessInfo]


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


def named(processes: Processes) -> str:
    """Name processes for a person."""
    return ", ".join(f"{process.kind} (pid {process.pid})" for process in processes)


def reported(processes: Processes, name: str) -> list[Any]:
    """Return the different answers of the processes, without those that are empty."""
    return sorted({process.server.get(name) for process in processes} - {None, "", False})
