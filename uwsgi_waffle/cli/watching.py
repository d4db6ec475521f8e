"""What goes on: `status`, `watch` and `doctor`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import click

from ..doctor import Finding, examine
from ..errors import WaffleError
from ..history import visible
from ..report import misfits, status
from ..snapshot import difference
from ..state import WaffleState, state_of
from ..wake import CHANNELS
from .command import Command, app_state, as_json, as_text, load_app, seconds, waffle
from .output import print_json, print_line


@waffle.command("status")
@click.option("--hosts", is_flag=True, help="Ask all hosts that listen, too.")
@as_json
def status_(hosts: bool, as_json: bool) -> None:
    """Show the state of the store and of the processes of this host.

    The exit code is 1 if something is wrong.
    """
    state = app_state()
    found = status(state, hosts=hosts)
    errors = _errors(state, found)
    if as_json:
        print_json(found, indent=2)
    else:
        _print(found, errors)
    sys.exit(1 if errors or any(process["error"] for process in found["processes"]) else 0)


def _errors(state: WaffleState, found: Mapping[str, Any]) -> dict[str, str]:
    errors = {"store's error": found["store_error"], "error": found["error"]}
    if channel := found.get(found["watchtype"]):
        errors[f"{CHANNELS[found['watchtype']].server}'s error"] = channel["error"]
    if "hosts" in found:
        errors |= _hosts_errors(found)
    errors |= {
        misfit.name or "values": f"{misfit}. Run {misfit.commands}" for misfit in misfits(state)
    }
    return {name: text for name, text in errors.items() if text}


def _hosts_errors(found: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong with other hosts, by a title for each."""
    errors = {f"{host['name']}'s error": "; ".join(host["errors"]) for host in found["hosts"]}
    errors["hosts' error"] = found["hosts_error"]
    if (silent := found["hosts_subscribed"] - len(found["hosts"])) > 0:
        errors["silent hosts"] = f"{silent} of {found['hosts_subscribed']} gave no answer"
    return errors


def _print(found: Mapping[str, Any], errors: Mapping[str, str]) -> None:
    checked = found["store_checked"]
    lines = {
        "revision": found["revision"],
        "store": found["store"] + ("" if checked is None else f", compared {checked:.0f} s ago"),
        "server": ", ".join(found["servers"]) or "none runs on this host",
        "watch type": found["watchtype"],
        "watch file": found["watcher_file"] or f"none. {found['alone']}",
    }
    if found["pinned"]:
        pinned = (f"{name} by {source}" for name, source in found["pinned"].items())
        lines["pinned"] = ", ".join(pinned)
    needs, channel = CHANNELS.get(found["watchtype"]), found.get(found["watchtype"])
    if needs and channel:
        listener = channel["listener"] or "none"
        lines[needs.server] = f"channel {channel['channel']}, listener {listener}"
    elif needs and found["watcher_file"]:
        missing = f"not used: {'. '.join(needs.missing())}"
        lines[needs.server] = missing
    for name, text in {**lines, **(errors or {"errors": "none"})}.items():
        print_line(f"{name + ':':<14} {text}")
    for process in sorted(found["processes"], key=lambda process: str(process["kind"])):
        ours = " (this command)" if process["pid"] == found["pid"] else ""
        error = f": {process['error']}" if process["error"] else ""
        behind = " (behind)" if process["behind"] else ""
        print_line(
            f"{process['kind']:<14} pid {process['pid']}{ours}, "
            f"revision {process['revision']}{behind}, for {process['age']:.0f} s{error}"
        )
    if "hosts" in found:
        _print_hosts(found)


def _print_hosts(found: Mapping[str, Any]) -> None:
    """Print a line for each host that has answered."""
    answered = f"{len(found['hosts'])} of {found['hosts_subscribed']} answered"
    print_line(f"hosts: {'unknown' if found['hosts_error'] else answered}")
    for host in found["hosts"]:
        behind = f", behind: {', '.join(host['behind'])}" if host["behind"] else ""
        print_line(
            f"{host['name']:<14} revision {host['revision']}, {host['processes']} processes{behind}"
        )


@waffle.command("watch")
@click.option(
    "--interval",
    type=seconds,
    metavar="SECONDS",
    default=0.2,
    show_default=True,
    help="Look so often.",
)
@click.option(
    "--count", type=click.IntRange(min=1), help="End after so many revisions; else Ctrl-C ends it."
)
@as_json
def watch(interval: float, count: int | None, as_json: bool) -> None:
    """Print changes as they happen, one per line.

    Revisions that follow each other between two looks are shown as one.
    """
    state = app_state()
    current = state.sync.latest()
    with suppress(KeyboardInterrupt):  # as it is meant to end
        while count != 0:
            time.sleep(max(interval, 0.01))
            before, current = current, state.sync.latest()
            change = difference(current, before)
            if change is None:
                continue
            count = None if count is None else count - 1
            for name in change.new:
                dump = state.schema.variables[name].dump
                old, new = dump(change.old[name]), dump(change.new[name])
                if as_json:
                    shown = {"old": visible(state.schema, name, old)}
                    shown["new"] = visible(state.schema, name, new)
                    print_json({"revision": current.revision, "key": name, **shown})
                else:
                    old, new = as_text(state, name, old), as_text(state, name, new)
                    print_line(f"{current.revision}  {name}: {old} -> {new}")


@waffle.command("doctor", cls=Command)
@click.option(
    "--patience",
    type=seconds,
    metavar="SECONDS",
    default=3.0,
    show_default=True,
    help="How long a process may lag.",
)
@as_json
@click.pass_context
def doctor(ctx: click.Context, patience: float, as_json: bool) -> None:
    """Check the installation, and say what to change.

    It checks how the running server was configured, the store, the rights in folders, the channel
    between hosts, and that no process lags. The exit code is 1 if something is an error. A warning
    is for what works, but not in the best way. No variable is changed.
    """
    findings: list[Finding] = []
    try:
        app = load_app(ctx)
        state = state_of(app)
    except WaffleError as error:
        text = f"it can't start: {error}"
        change = "Do what it says; then more can be checked."
        findings.append(Finding("error", "application", text, change))
    else:
        with app.app_context():
            findings += examine(state, patience)
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]}, indent=2)
    else:
        for finding in findings:
            print_line(f"{finding.level:<9}{finding.check + ':':<14}{finding.text}")
            if finding.change:
                print_line(f"{'':<9}{'change:':<14}{finding.change}")
    ctx.exit(1 if any(finding.level == "error" for finding in findings) else 0)
