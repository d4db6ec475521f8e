"""What goes on: `status` and `watch`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from ..reading import difference
from .command import as_json, as_text, binding, command, line, plain, seconds

__all__ = ["status_", "watch"]


@command("status")
@as_json
def status_(as_json: bool) -> None:
    """Tell how the store and the processes of this host are; the exit code is 1 if something is
    wrong.
    """
    told = binding().status()
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _tell(told)
    sys.exit(1 if any(_errors(told).values()) or any(p["error"] for p in told["processes"]) else 0)


def _errors(told: Mapping[str, Any]) -> dict[str, str]:
    redis = told["redis"] or {"error": ""}
    return {
        "store's error": told["store_error"],
        "error": told["error"],
        "Redis's error": redis["error"],
    }


def _tell(told: Mapping[str, Any]) -> None:
    checked, errors = (
        told["store_checked"],
        {name: text for name, text in _errors(told).items() if text},
    )
    lines = {
        "revision": told["revision"],
        "store": told["store"] + ("" if checked is None else f", compared {checked:.0f} s ago"),
        "server": ", ".join(told["servers"]) or "none runs on this host",
        "watch type": told["watchtype"],
        "watch file": told["watcher_file"] or "none: nothing is shared with other processes",
    }
    if told["redis"]:
        lines["Redis"] = (
            f"channel {told['redis']['channel']}, listener {told['redis']['listener'] or 'none'}"
        )
    elif told["watchtype"] == "redis" and told["watcher_file"]:
        lines["Redis"] = (
            "not used: redis-py isn't installed; run: pip install 'uwsgi_waffle[redis]'"
        )
    for name, text in {**lines, **(errors or {"errors": "none"})}.items():
        click.echo(f"{name + ':':<15}{line(str(text))}")
    for process in sorted(told["processes"], key=lambda process: str(process["kind"])):
        state = f"revision {process['revision']}, for {process['age']:.0f} s"
        who = f"{process['kind']:<14} pid {process['pid']}" + (
            " (this command)" if process["pid"] == told["pid"] else ""
        )
        click.echo(f"{who}, {state}" + (f": {line(process['error'])}" if process["error"] else ""))


@command("watch")
@click.option(
    "--interval",
    type=seconds,
    metavar="SECONDS",
    default=0.2,
    show_default=True,
    help="The time between two looks.",
)
@click.option(
    "--count", type=click.IntRange(min=1), help="End after so many revisions; else Ctrl-C ends it."
)
@as_json
def watch(interval: float, count: int | None, as_json: bool) -> None:
    """Print changes as they happen, a line each. Revisions that follow each other within a look are
    told as one.
    """
    try:
        _watch(interval, count, as_json=as_json)
    except KeyboardInterrupt:  # as it is meant to end
        return


def _watch(interval: float, count: int | None, *, as_json: bool) -> None:
    bound = binding()
    seen = bound.state.look()
    while count != 0:
        time.sleep(max(interval, 0.01))
        before, seen = seen, bound.state.look()
        change = difference(seen, before)
        if change is None:
            continue
        count = None if count is None else count - 1
        for name, value in change.new.items():
            variable = bound.schema.variables[name]
            old, new = variable.dump(change.old[name]), variable.dump(value)
            if as_json:
                told = {
                    "revision": seen.revision,
                    "key": name,
                    "old": plain(bound, name, old),
                    "new": plain(bound, name, new),
                }
                click.echo(json.dumps(told))
            else:
                click.echo(
                    f"{seen.revision}  {name}: {as_text(bound, name, old)} -> {as_text(bound, name, new)}"
                )
