"""The checks of an installation: each yields what it has found."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator

from ..changes import changes_for_update, undeclared
from ..errors import SchemaError, WaffleError
from ..host import HostFiles
from ..report import misfits, server_processes, why_no_server
from ..state import WaffleState
from ..wake import CHANNELS, ChannelDown, open_channel, server_of
from .finding import Finding, Processes, named, reported
from .folder import check_folder
from .servers import check_pins, check_servers

__all__ = ["examine"]

PAUSE = 0.05  # seconds between two looks at what may be under way


def examine(state: WaffleState, patience: float) -> Iterator[Finding]:
    """Yield what all checks find.

    Args:
        state: what the application has of the extension.
        patience: seconds for which something may be under way before it counts as late.
    """
    yield from check_store(state)
    yield from check_logging()
    host = state.host
    if not isinstance(host, HostFiles):
        change = (
            "Unless one process is all there is: unset WAFFLE_MULTIPROC, set WAFFLE_STORE_URL, and "
            "give WaffleConf no MemoryStore()."
        )
        if state.follows_store:
            change = "Develop like this; let servers run on Linux or macOS, or in WSL."
        yield Finding("warning", "server", why_no_server(state), change)
        return
    own = host.processes.token
    processes = [process for process in server_processes(state) if process.token != own]
    yield from check_servers(state, host, processes)
    yield from check_pins(state, processes)
    yield from check_folder(state, host, processes)
    yield from check_channel(state, host, processes, patience)
    yield from check_processes(state, host, processes, patience)


def check_store(state: WaffleState) -> Iterator[Finding]:
    """The store must respond, hold values that fit, and take writes.

    An update that changes nothing does all but the last step.
    """
    found = [
        Finding("error", "store", f"{misfit.name or 'values'}: {misfit}", f"Run {misfit.commands}")
        for misfit in misfits(state)
    ]
    names: list[str] = []
    try:
        if not found:
            state.update(changes_for_update(state.schema, {}))
        state.store.probe()
        names = undeclared(state.schema, state.store.load().values)
    except WaffleError as error:
        change = "Do what it says, or correct WAFFLE_STORE_URL."
        found.append(Finding("error", "store", str(error), change))
    yield from found
    if names:
        text = f"{len(names)} stored, and not declared: {', '.join(names)}"
        change = "Unless another release or application reads them, run flask waffle prune."
        yield Finding("warning", "store", text, change)
    if not found:
        revision = state.newest_published().revision
        text = f"{state.store.name}, revision {revision}, can be read and written"
        yield Finding("ok", "store", text)


def check_logging() -> Iterator[Finding]:
    """Loading the application must not have switched the package's log lines off."""
    names = ("uwsgi_waffle", "uwsgi_waffle.audit")
    if disabled := [name for name in names if logging.getLogger(name).disabled]:
        text = f"logging.config has disabled {' and '.join(disabled)}: no line is logged there"
        change = (
            'Write "disable_existing_loggers": False into the dictionary of dictConfig, or '
            "fileConfig(..., disable_existing_loggers=False), for example in migrations/env.py."
        )
        yield Finding("warning", "log", text, change)


def check_channel(
    state: WaffleState, host: HostFiles, processes: Processes, patience: float
) -> Iterator[Finding]:
    """Its server must respond, and if processes of the application run one must listen."""
    watching = state.watching
    used = (watching.watchtype, *reported(processes, "watchtype"))
    watchtype = next((name for name in used if name in CHANNELS), None)
    if watchtype is None:
        return
    needs, name = CHANNELS[watchtype], watching.channel_name
    start = f"Start {needs.server}, or correct {needs.setting}."

    def listens() -> bool:
        listener = host.listener()
        return listener.get("pid", os.getpid()) != os.getpid() and not listener.get("error")

    well = not processes or _eventually(listens, patience)
    if error_text := str(host.listener().get("error", "")):
        yield Finding("error", watchtype, error_text, start)
        return
    if watchtype != watching.watchtype:  # only the server has it, as `check_servers` has said
        return
    try:
        channel = open_channel(watchtype, watching.channel_url, name)
        with channel.open(listen=False) as opened:
            count = opened.count_listeners()
    except ImportError:
        why, change = needs.missing()
        yield Finding("error", watchtype, f"WAFFLE_WATCHTYPE is {watchtype!r} and {why}", change)
    except (ChannelDown, SchemaError) as error:
        yield Finding("error", watchtype, str(error), start)
    else:
        if well and (count or not processes):
            yield Finding("ok", watchtype, f"responds; {count} listening to the channel {name!r}")
        else:
            text = f"responds, and no process of this host listens to the channel {name!r}"
            change = "Look into the server's log; check that it has the same settings."
            yield Finding("error", watchtype, text, change)


def check_processes(
    state: WaffleState, host: HostFiles, processes: Processes, patience: float
) -> Iterator[Finding]:
    """All other processes must be on the newest revision before the patience is over."""

    def others() -> Processes:
        return [process for process in host.processes if process.token != host.processes.token]

    def late() -> Processes:
        newest = state.newest_published()
        return [
            process
            for process in others()
            if process.snapshot != newest.id.hex() and process.revision != newest.revision
        ]

    _eventually(lambda: not late(), patience)
    newest, behind, found = state.newest_published().revision, late(), []
    for revision in sorted({process.revision for process in behind}):
        group = [process for process in behind if process.revision == revision]
        serves = any(server_of(process.kind) for process in group)
        verb = "is" if len(group) == 1 else "are"
        text = f"{named(group)} {verb} on revision {revision}, and the host on {newest}"
        change = (
            "It is in a long request, hangs, or was stopped. If it stays so, see what it does, or "
            "end it."
        )
        found.append(Finding("error" if serves else "warning", "processes", text, change))
    for error in sorted({process.error for process in others()} - {""}):
        group = [process for process in others() if process.error == error]
        change = "Do what it says; a restart isn't needed."
        found.append(Finding("error", "processes", f"{named(group)}: {error}", change))
    yield from found
    if not found:
        text = f"{len(processes)} on this host, all on revision {newest}"
        yield Finding("ok", "processes", text if processes else "none on this host")


def _eventually(check: Callable[[], bool], patience: float) -> bool:
    """Check until it is so, or until the patience is over."""
    end = time.monotonic() + patience
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE)
    return True
