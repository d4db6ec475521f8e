"""Values: `list`, `get`, `set`, `unset`, `rollback`, `history`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from ..changes import changes_for_reset, changes_for_rollback, changes_for_update
from ..errors import InvalidValue
from ..report import Misfit, history, misfits
from ..schema import MASK
from ..stores import Stored
from ..text import to_json
from .command import app_state, as_json, as_text, command, complete_names, json_value
from .output import print_error, print_json, print_line, print_value
from .updating import carry_out, update_options

__all__ = ["get", "history_", "list_", "rollback", "set_", "unset"]


@command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the variables with their values; secrets are masked."""
    state = app_state()
    snapshot = state.current()
    variables = state.schema.variables
    texts = {
        name: variable.dump(getattr(snapshot.values, name)) for name, variable in variables.items()
    }
    marked = {misfit.name: misfit for misfit in misfits(state)}
    if as_json:
        document: dict[str, Any] = {
            "revision": snapshot.revision,
            "values": {name: json_value(state, name, text) for name, text in texts.items()},
        }
        if state.schema.pins:
            document["pinned"] = {name: pin.source for name, pin in state.schema.pins.items()}
        if marked:
            document["misfits"] = {name: _marks(misfit) for name, misfit in marked.items()}
        print_json(document, indent=2)
        return
    width = max(map(len, texts), default=0)
    for name, text in texts.items():
        desc = variables[name].desc
        print_line(
            f"{name:{width}}  {as_text(state, name, text)}" + (f"  # {desc}" if desc else "")
        )
        if name in state.schema.pins:
            print_line(f"{'':{width}}  pinned by {state.schema.pins[name].source}")
        if name in marked:
            _print_misfit(width, marked[name])
    for name in marked.keys() - texts.keys():
        print_line(name or "values")
        _print_misfit(width, marked[name])


def _print_misfit(width: int, misfit: Misfit) -> None:
    print_line(f"{'':{width}}  ! {misfit}. Run {misfit.commands}")


@command("get")
@click.argument("name", shell_complete=complete_names)
@click.option("--reveal", is_flag=True, help="Print it even if it is secret.")
@as_json
def get(name: str, reveal: bool, as_json: bool) -> None:
    """Print the value of one variable; a secret is masked.

    If what is stored doesn't fit the variable's type, this is its default. The standard error says
    so; with --json there is an object with the value and what is wrong.
    """
    state = app_state()
    variable = state.schema.variable(name)
    text = variable.dump(getattr(state.current().values, name))
    value = json.loads(text) if reveal or not variable.secret else MASK
    misfit = next((misfit for misfit in misfits(state) if misfit.name == name), None)
    if as_json:
        print_json(value if misfit is None else {"value": value, **_marks(misfit)})
    elif isinstance(value, str):
        print_value(value)
    else:
        print_value(to_json(value, compact=True))
    if misfit is not None:
        print_error(f"{name}: {misfit}. Run {misfit.commands}")


def _marks(misfit: Misfit) -> dict[str, Any]:
    known = misfit.stored not in (None, MASK)
    stored = json.loads(str(misfit.stored)) if known else misfit.stored
    return {"problem": misfit.problem, "stored": stored}


@command("set")
@click.argument(
    "assignments", metavar="NAME=VALUE...", nargs=-1, required=True, shell_complete=complete_names
)
@update_options
def set_(assignments: tuple[str, ...], **options: Any) -> None:
    """Change variables: all of them in one update, or none."""
    state, texts = app_state(), _assigned(assignments)
    problems: dict[str, str] = {}
    values: dict[str, object] = {}
    for name, text in texts.items():
        try:
            values[name] = state.schema.variable(name).parse(text)
        except ValueError as error:
            problems[name] = str(error)
    if problems:
        raise InvalidValue(problems)
    carry_out(state, changes_for_update(state.schema, values), **options)


@command("unset")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_names)
@update_options
def unset(names: tuple[str, ...], **options: Any) -> None:
    """Give variables their defaults back, all of them in one update."""
    state = app_state()
    undeclared = {n for n in names if n in state.served.misfits.keys() - state.schema.variables}
    declared = tuple(name for name in names if name not in undeclared)
    changeset = changes_for_reset(state.schema, declared)

    def changes(stored: Stored) -> Mapping[str, str | None]:
        rows = {name: text for name, text in stored.values.items() if name not in undeclared}
        return {**changeset(Stored(stored.revision, rows)), **dict.fromkeys(undeclared)}

    carry_out(state, changes, **options)


@command("rollback")
@click.argument("revision", type=int)
@update_options
def rollback(revision: int, note: str | None, **options: Any) -> None:
    """Make the values of a former REVISION a new one."""
    state = app_state()
    changeset = changes_for_rollback(state.schema, state.store, revision)
    note = f"rollback to revision {revision}" if note is None else note
    carry_out(state, changeset, note=note, **options)


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


@command("history")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Show so many changes at most.",
)
@as_json
def history_(name: str | None, limit: int, as_json: bool) -> None:
    """Show the newest changes, newest first; of one variable if NAME is given.

    Secrets are masked.
    """
    state = app_state()
    entries = history(state, limit, name)
    if as_json:
        print_json([{**asdict(entry), "at": entry.at.isoformat()} for entry in entries], indent=2)
        return
    for entry in entries:
        old, new = (MASK if value == MASK else to_json(value) for value in (entry.old, entry.new))
        note = f"  # {entry.note}" if entry.note else ""
        when, who = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC", entry.actor or "-"
        print_line(f"{entry.revision}  {when}  {who}  {entry.key}: {old} -> {new}{note}")
