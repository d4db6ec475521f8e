"""The check of what the environment pins: the server's may not be the shell's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..host import ProcessInfo
from ..state import WaffleState
from .finding import Finding, named

__all__ = ["check_pins"]


def check_pins(state: WaffleState, processes: Sequence[ProcessInfo]) -> Iterator[Finding]:
    """Compare what this process pins with what the servers of this host do."""
    pins = state.schema.pins
    own = {name: pin.digest for name, pin in pins.items()}
    others: dict[str, list[ProcessInfo]] = {}
    for process in processes:
        theirs = process.server.get("pinned", {})
        for name in sorted(own.keys() | theirs.keys()):
            if own.get(name) != theirs.get(name):
                text = _difference(name, here=name in own, there=name in theirs)
                others.setdefault(text, []).append(process)
    for text, found in others.items():
        change = "Export the same here as the server has, WAFFLE_ENV_PREFIX included."
        yield Finding("warning", "pinned", f"{text} {named(found)}", change)
    if pins and not others:
        listed = ", ".join(f"{name} by {pin.source}" for name, pin in pins.items())
        yield Finding("ok", "pinned", listed)


def _difference(name: str, *, here: bool, there: bool) -> str:
    if here and there:
        return f"The environment pins {name} to one value here and to another in"
    if here:
        return f"The environment pins {name} here and not in"
    return f"The environment does not pin {name} here, as it does in"
