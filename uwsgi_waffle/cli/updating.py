"""What the commands that change something have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..changes import Changeset
from ..report import why_no_server
from ..state import WaffleState
from ..stores import Stored
from ..update import UpdateResult
from .command import as_json, as_text, json_value, login, seconds
from .output import after_update, print_error, print_json, print_line

__all__ = ["carry_out", "update_options"]

# The exit code of an update that was made, but that not all processes of the host have applied in
# time, or that no server process was there to apply.
PENDING = 3

F = TypeVar("F", bound=Callable[..., Any])
Texts = Mapping[str, str]


def update_options(function: F) -> F:
    """Give a command the options of all commands that change something."""
    for option in (
        as_json,
        click.option(
            "--wait",
            type=seconds,
            metavar="SECONDS",
            help="Wait until all processes of this host have it. If they don't, or if no server "
            "runs here, the exit code is 3.",
        ),
        click.option(
            "--hosts",
            is_flag=True,
            help="With --wait: wait for all processes of all hosts that listen.",
        ),
        click.option(
            "--expect",
            type=int,
            metavar="REVISION",
            help="Refuse if the store has another revision.",
        ),
        click.option("--note", help="Why, for the history."),
    ):
        function = option(function)
    return function


def carry_out(
    state: WaffleState,
    changeset: Changeset,
    *,
    note: str | None,
    expect: int | None,
    wait: float | None,
    hosts: bool,
    as_json: bool,
) -> None:
    """Make an update, and print what it did."""
    if hosts and wait is None:
        raise click.UsageError("--hosts needs --wait SECONDS.")
    old: dict[str, str] = {}
    new: dict[str, str] = {}

    def observed(stored: Stored) -> Mapping[str, str | None]:
        texts = changeset(stored)
        for name, text in texts.items():
            old[name] = _text(state, name, stored.values.get(name))
            new[name] = _text(state, name, text)
        return texts

    result = state.update(
        observed, expect_revision=expect, actor=login(), note=note, wait=wait, hosts=hosts
    )
    with after_update(result.revision):
        if as_json:
            _print_json(state, result, old, new, waited=wait is not None, hosts=hosts)
        else:
            _print(state, result, old, new)
    for process in result.pending:
        print_error(f"not yet applied by {process.kind} (pid {process.pid})")
    for text in result.pending_hosts:
        print_error(f"not yet applied by {text}")
    nobody = "" if hosts and result.hosts else why_no_server(state)
    if nobody:
        print_error(nobody)
    if wait is not None and (result.pending or result.pending_hosts or nobody):
        sys.exit(PENDING)


def _print(state: WaffleState, result: UpdateResult, old: Texts, new: Texts) -> None:
    for name in result.changed:
        before, after = as_text(state, name, old[name]), as_text(state, name, new[name])
        print_line(f"{name}: {before} -> {after}")
    print_line(f"revision {result.revision}" + ("" if result.changed else " (nothing to change)"))


def _print_json(
    state: WaffleState, result: UpdateResult, old: Texts, new: Texts, *, waited: bool, hosts: bool
) -> None:
    document: dict[str, Any] = {"revision": result.revision, "changed": list(result.changed)}
    for key, texts in (("old", old), ("new", new)):
        document[key] = {name: json_value(state, name, texts[name]) for name in result.changed}
    if waited:
        document["applied"] = [process.pid for process in result.applied]
        document["pending"] = [process.pid for process in result.pending]
    if hosts:
        document["hosts"] = [
            {"name": host.name, "revision": host.revision} for host in result.hosts
        ]
        document["pending_hosts"] = list(result.pending_hosts)
    print_json(document)


def _text(state: WaffleState, name: str, stored: str | None) -> str:
    """Return a stored text, or that of the default if none is stored."""
    if stored is not None:
        return stored
    variable = state.schema.variables.get(name)
    return "null" if variable is None else variable.dump(variable.default)
