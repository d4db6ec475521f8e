"""What a person sees of it: the state of store and processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import monotonic
from typing import Any

from . import wake
from .barrier import NO_CHANNEL
from .errors import StoreUnavailable, WaffleError, repair_commands
from .history import visible
from .host import HostFiles, ProcessInfo, is_current, snapshot_id_in
from .schema import MASK
from .state import WaffleState
from .text import to_json

__all__ = [
    "Misfit",
    "misfits",
    "problems",
    "server_processes",
    "status",
    "why_no_server",
]

#: Seconds that a comparison with the store may be late: a store has so long to respond.
GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Misfit:
    """A stored value that can't be used, so that the variable has its default here.

    Attributes:
        name: the variable.
        problem: why it can't be used.
        stored: what is stored; a mask if it is secret, or may be.
        is_known: whether it could be read; if not, ``stored`` is ``None``.
        commands: what repairs it.
    """

    name: str
    problem: str
    stored: Any
    is_known: bool
    commands: str

    def __str__(self) -> str:
        shown = self.stored if self.stored is MASK else to_json(self.stored, compact=True)
        stored = f"{shown} is stored, which" if self.is_known else "what is stored"
        return f"{stored} can't be used: {self.problem.rstrip('.')}"


def misfits(state: WaffleState) -> list[Misfit]:
    """Return the stored values that can't be used; `repairing` has let the application start."""
    if not state.served.misfits:
        return []
    try:
        rows = state.store.rows()
    except StoreUnavailable:
        rows = {}
    found = []
    for name, problem in state.served.misfits.items():
        text = rows.get(state.schema.source(name, rows))
        stored = None if text is None else visible(state.schema, name, text)
        commands = repair_commands(name, state.schema.variables)
        found.append(Misfit(name, problem, stored, text is not None, commands))
    return found


def server_processes(state: WaffleState) -> list[ProcessInfo]:
    """Return the processes of this host that use the same store, but for shells."""
    return [process for process in state.host.processes if wake.server_of(process.kind)]


def why_no_server(state: WaffleState) -> str:
    """Say why no server of this host applies what this process changes, ``""`` if one does."""
    return why_alone(state) or (
        "" if server_processes(state) else "No server process here uses this store"
    )


def why_alone(state: WaffleState) -> str:
    """Say why this process neither sees the host's others nor is seen, ``""`` if it is."""
    if state.host.shared:
        return ""
    if state.follows_store:
        return (
            "On Windows processes don't see each other: each compares with the store every "
            "WAFFLE_POLL_INTERVAL"
        )
    return (
        "Nothing is shared with other processes: WAFFLE_MULTIPROC is False, or the store is "
        "in memory"
    )


def status(state: WaffleState, *, hosts: bool = False) -> dict[str, Any]:
    """Return what an operator wants to know, as JSON-able values; ages in seconds.

    Among them are the ``newest`` revision that this host has, and how many ``updates`` it has
    published.

    Args:
        hosts: ask the other hosts, too; see `WaffleConf.status`.
    """
    asked = _ask_hosts(state) if hosts else {}
    snapshot, now, host = state.sync.latest(), monotonic(), state.host
    notes, processes = host.notes(), list(host.processes)
    newest, known, ends = state.newest_published(), state.schema.variables, snapshot.temporary
    servers = {name for name in (wake.server_of(process.kind) for process in processes) if name}
    followed, watchtype = state.follows_store, state.watching.watchtype
    checked = round(now - notes.checked_at / 1e9, 3) if followed and notes.checked_at else None
    return {
        "revision": snapshot.revision,
        "newest": newest.revision,
        "updates": notes.updates if followed else None,
        "store": state.store.name,
        "store_error": notes.error if followed else "",
        "store_checked": checked,
        "error": state.served.error,
        # Another release may have other names for them.
        "temporary": {name: ends[name].isoformat() for name in ends if name in known},
        "misfits": dict(state.served.misfits),
        "pinned": {name: pin.source for name, pin in state.schema.pins.items()},
        "watcher_file": str(host.watch_file) if isinstance(host, HostFiles) else None,
        "alone": why_alone(state),
        "pid": os.getpid(),
        "servers": sorted(servers),
        "processes": [_process(process, now, newest.id.hex()) for process in processes],
        "kind": wake.process_name(),
        "woken_by": state.woken_by,
        "watchtype": watchtype,
        **dict.fromkeys(wake.CHANNELS),  # one of them may have the next
        **({} if state.listener is None else {watchtype: state.listener.status()}),
        **asked,
    }


def _ask_hosts(state: WaffleState) -> dict[str, Any]:
    if state.listener is None:
        raise WaffleError(NO_CHANNEL)
    call = state.listener.ask_hosts()
    found = [
        {
            "name": host.name,
            "revision": host.revision,
            "processes": host.processes,
            "oldest": host.oldest,
            "behind": list(host.behind),
            "errors": list(host.errors),
        }
        for host in call.hosts
    ]
    return {"hosts": found, "hosts_subscribed": call.subscribed, "hosts_error": call.error}


def _process(process: ProcessInfo, now: float, newest: str) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "kind": process.kind,
        "revision": process.revision,
        "age": round(now - process.applied_at, 3),
        "behind": process.snapshot != newest,
        "error": process.error,
    }


def problems(state: WaffleState) -> list[str]:
    """Return what keeps this process from serving what the store holds.

    If a comparison with the store is due, this makes it. Anybody may read the texts: no path,
    address or value is in them.
    """
    host, interval = state.host, state.reconcile_interval
    if not state.follows_store:
        return []
    # So that nothing is wrong only because nobody has looked. A tick that finds news compares not.
    state.sync.latest()
    state.sync.tick(interval)
    found: list[str] = []
    try:
        notes, words = host.notes(), host.words()
    except OSError:
        return ["the host's files can't be used"]
    if notes.error:
        found.append("the store can't be used")
    # In a new header nothing is noted yet: its first reader is at it.
    elif notes.checked_at and monotonic() - notes.checked_at / 1e9 > interval + GRACE:
        found.append(f"the store was not compared within {interval:g} s")
    mine = state.sync.latest().id
    # Not if it was published only just now.
    if is_current(words) and mine != snapshot_id_in(words) and words == host.words():
        found.append("this process doesn't serve the newest revision of its host")
    return found
