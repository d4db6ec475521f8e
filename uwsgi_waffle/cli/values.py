"""Values: `list`, `get`, `set`, `unset`, `rollback`, `history`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import click

from ..errors import InvalidValue
from ..extension import Binding
from ..plans import Plan, plan_reset, plan_rollback, plan_update
from ..report import history
from ..schema import MASK
from ..stores import Stored
from .command import as_json, as_text, binding, command, complete_names, line, login, plain, seconds

__all__ = ["get", "history_", "list_", "rollback", "set_", "unset"]

# the exit code of an update that was made, and that not all processes of the host had applied in
# time
PENDING = 3

F = TypeVar("F", bound=Callable[..., Any])


def changes(function: F) -> F:
    """Give a command the options that all have which change something."""
    for option in (
        as_json,
        click.option(
            "--wait",
            type=seconds,
            metavar="SECONDS",
            help="Wait until all processes of this host have it; if not, exit code 3.",
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


@command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the variables with their values; secrets are masked."""
    bound = binding()
    snapshot = bound.current()
    variables = bound.schema.variables
    texts = {
        name: variable.dump(getattr(snapshot.values, name)) for name, variable in variables.items()
    }
    if as_json:
        told = {name: plain(bound, name, text) for name, text in texts.items()}
        click.echo(json.dumps({"revision": snapshot.revision, "values": told}, indent=2))
        return
    width = max(map(len, texts), default=0)
    for name, text in texts.items():
        desc = line(variables[name].desc)
        click.echo(
            f"{name:{width}}  {as_text(bound, name, text)}" + (f"  # {desc}" if desc else "")
        )


@command("get")
@click.argument("name", shell_complete=complete_names)
@click.option("--reveal", is_flag=True, help="Print it even if it is secret.")
@as_json
def get(name: str, reveal: bool, as_json: bool) -> None:
    """Print the value of one variable; a secret is masked."""
    bound = binding()
    variable = bound.schema.variable(name)
    value = MASK if variable.secret and not reveal else getattr(bound.current().values, name)
    text = json.dumps(value) if value is MASK else variable.dump(value)
    click.echo(value if isinstance(value, str) and not as_json else text)


@command("set")
@click.argument(
    "assignments", metavar="NAME=VALUE...", nargs=-1, required=True, shell_complete=complete_names
)
@changes
def set_(assignments: tuple[str, ...], **options: Any) -> None:
    """Change variables, all of them in one update, or none."""
    bound, texts = binding(), _assigned(assignments)
    problems: dict[str, str] = {}
    values: dict[str, object] = {}
    for name, text in texts.items():
        try:
            values[name] = bound.schema.variable(name).parse(text)
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        raise InvalidValue(problems)
    _change(bound, plan_update(bound.schema, values), **options)


@command("unset")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_names)
@changes
def unset(names: tuple[str, ...], **options: Any) -> None:
    """Give variables their defaults back, all of them in one update."""
    bound = binding()
    _change(bound, plan_reset(bound.schema, names), **options)


@command("rollback")
@click.argument("revision", type=int)
@changes
def rollback(revision: int, note: str | None, **options: Any) -> None:
    """Make the values of a former REVISION a new one."""
    bound = binding()
    plan = plan_rollback(bound.schema, bound.state.store, revision)
    _change(
        bound, plan, note=f"rollback to revision {revision}" if note is None else note, **options
    )


def _assigned(assignments: tuple[str, ...]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not name or not equals:
            raise click.UsageError(f"{assignment!r} is no assignment; write NAME=VALUE.")
        if name in texts:
            raise click.UsageError(f"{name} is assigned twice.")
        texts[name] = text
    return texts


def _change(
    bound: Binding,
    plan: Plan,
    *,
    note: str | None,
    expect: int | None,
    wait: float | None,
    as_json: bool,
) -> None:
    """Carry out a plan and tell what it did."""
    old: dict[str, str] = {}
    new: dict[str, str] = {}

    def seen(stored: Stored) -> Mapping[str, str | None]:
        texts = plan(stored)
        for name, text in texts.items():
            old[name], new[name] = (
                _text(bound, name, found) for found in (stored.values.get(name), text)
            )
        return texts

    result = bound.update(seen, expect, login(), note, wait)
    if as_json:
        told: dict[str, Any] = {"revision": result.revision, "changed": list(result.changed)}
        told |= {
            key: {name: plain(bound, name, texts[name]) for name in result.changed}
            for key, texts in (("old", old), ("new", new))
        }
        if wait is not None:
            told |= {
                "applied": [p.pid for p in result.applied],
                "pending": [p.pid for p in result.pending],
            }
        click.echo(json.dumps(told))
    else:
        for name in result.changed:
            click.echo(
                f"{name}: {as_text(bound, name, old[name])} -> {as_text(bound, name, new[name])}"
            )
        click.echo(
            f"revision {result.revision}" + ("" if result.changed else " (nothing to change)")
        )
    for process in result.pending:
        click.echo(f"not yet applied by {process.kind} (pid {process.pid})", err=True)
    if result.pending:
        sys.exit(PENDING)


def _text(bound: Binding, name: str, stored: str | None) -> str:
    """Return a stored text, or the default's where none is stored."""
    variable = bound.schema.variables[name]
    return variable.dump(variable.default) if stored is None else stored


@command("history")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="So many changes at most.",
)
@as_json
def history_(name: str | None, limit: int, as_json: bool) -> None:
    """Tell the newest changes, newest first; of one variable if NAME is given. Secrets are masked."""
    bound = binding()
    entries = history(bound.state, limit, name)
    if as_json:
        click.echo(
            json.dumps(
                [{**asdict(entry), "at": entry.at.isoformat()} for entry in entries], indent=2
            )
        )
        return
    for entry in entries:
        old, new = (
            MASK if value == MASK else json.dumps(value) for value in (entry.old, entry.new)
        )
        why = f"  # {line(entry.note)}" if entry.note else ""
        when, who = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC", line(entry.actor or "-")
        click.echo(f"{entry.revision}  {when}  {who}  {line(entry.key)}: {old} -> {new}{why}")
