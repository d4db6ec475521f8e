"""Values: `list`, `get`, `set`, `unset`, `prune`, `rollback`, `history`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from .. import changes, documents
from ..changes import changes_for_rollback, changes_for_update
from ..errors import WaffleError
from ..history import BEGINNING, Beginning, history, history_since, visible
from ..report import Misfit, misfits
from ..schema import MASK, Variable
from ..state import WaffleState
from ..stores import Stored
from ..text import to_json
from .command import app_state, as_json, as_text, complete_names, duration, waffle
from .output import (
    MAX_SHOWN,
    is_terminal,
    print_error,
    print_json,
    print_line,
    print_value,
    shorten,
)
from .sources import assigned
from .updating import carry_out, confirm_changes, preview, update_options


@waffle.command("list")
@click.option("--group", metavar="GROUP", help="List only the variables of this group.")
@click.option(
    "--undeclared", is_flag=True, help="List instead what is stored and no longer declared."
)
@as_json
def list_(group: str | None, undeclared: bool, as_json: bool) -> None:
    """List the variables with their values; secrets are masked.

    A value that nobody has set is marked as the default.
    """
    state = app_state()
    if undeclared:
        _list_undeclared(state, group, as_json=as_json)
        return
    snapshot, variables = state.current(), _variables(state, group)
    texts = {name: state.schema.text_of(snapshot.values, name) for name in variables}
    is_set = snapshot.values.model_fields_set & texts.keys()
    until = {name: end for name, end in snapshot.temporary.items() if name in texts}
    pinned = {name: pin.source for name, pin in state.schema.pins.items()}
    marked = {one.name: one for one in misfits(state) if group is None or one.name in texts}
    if as_json:
        values = {name: visible(state.schema, name, text) for name, text in texts.items()}
        more = {
            "temporary": {name: end.isoformat() for name, end in until.items()},
            "pinned": pinned,
            "misfits": {name: _marks(misfit) for name, misfit in marked.items()},
        }
        document = {"revision": snapshot.revision, "values": values, "set": sorted(is_set)}
        print_json({**document, **{key: part for key, part in more.items() if part}}, indent=2)
        return
    indent = " " * max(map(len, texts), default=0)
    for name in (*texts, *(name for name in marked if name not in texts)):
        if name in texts:
            desc = f"  # {variables[name].desc}" if variables[name].desc else ""
            mark = "" if name in is_set else " (default)"
            text = as_text(state, name, texts[name])
            print_line(f"{name:{len(indent)}}  {text}{mark}{desc}")
        else:
            print_line(name or "values")
        if name in until:
            print_line(f"{indent}  until {until[name]:%Y-%m-%d %H:%M:%S} UTC")
        if name in pinned:
            print_line(f"{indent}  pinned by {pinned[name]}")
        if name in marked:
            print_line(f"{indent}  ! {marked[name]}. Run {marked[name].commands}")


def _variables(state: WaffleState, group: str | None) -> dict[str, Variable]:
    variables = state.schema.variables
    if group is None:
        return variables
    found = {name: variable for name, variable in variables.items() if variable.group == group}
    if not found:
        known = sorted({repr(variable.group) for variable in variables.values() if variable.group})
        groups = ", ".join(known) or "none"
        raise WaffleError(f"No variable has the group {group!r} (groups: {groups}).")
    return found


def _list_undeclared(state: WaffleState, group: str | None, *, as_json: bool) -> None:
    if group is not None:
        raise click.UsageError("What isn't declared has no group: leave out --group.")
    stored = state.store.load()
    names = changes.undeclared(state.schema, stored.values)
    if as_json:
        print_json({"revision": stored.revision, "undeclared": names}, indent=2)
        return
    for name in names:
        print_line(name)


@waffle.command("get")
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
    text = state.schema.text_of(state.current().values, name)
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
    return {"problem": misfit.problem, "stored": misfit.stored}


@waffle.command("set")
@click.argument(
    "assignments", metavar="NAME=VALUE...", nargs=-1, required=True, shell_complete=complete_names
)
@click.option(
    "--for",
    "expires",
    type=duration,
    metavar="TIME",
    help="For so long only, such as 30m or 1h30m; then the values before come back.",
)
@update_options
def set_(assignments: tuple[str, ...], **options: Any) -> None:
    """Change variables: all of them in one update, or none.

    NAME=- reads the value from the standard input, NAME=@FILE from a file; one line end after it is
    dropped. NAME=@@x is the text @x. NAME alone, if it is secret, asks for it without echo.
    """
    state = app_state()
    texts = assigned(assignments, state.schema, 4 * state.settings.max_value_size)
    document = documents.of_texts(texts)
    changeset = documents.changes_for(state.schema, document, reset_others=False)
    carry_out(state, changeset, **options)


@waffle.command("unset")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_names)
@update_options
def unset(names: tuple[str, ...], **options: Any) -> None:
    """Give variables their defaults back, all of them in one update."""
    state = app_state()
    undeclared = {n for n in names if n in state.served.misfits.keys() - state.schema.variables}
    declared = tuple(name for name in names if name not in undeclared)
    changeset = changes_for_update(state.schema, {}, reset=declared)

    def build_changes(stored: Stored) -> Mapping[str, str | None]:
        rows = {name: text for name, text in stored.values.items() if name not in undeclared}
        return {**changeset(Stored(stored.revision, rows)), **dict.fromkeys(undeclared)}

    carry_out(state, build_changes, **options)


@waffle.command("prune")
@click.option("--yes", is_flag=True, help="Don't ask.")
@update_options
def prune(yes: bool, **options: Any) -> None:
    """Remove the values of variables that are no longer declared. It asks first.

    `flask waffle list --undeclared` names them. While another release of the application runs,
    what only that one declares is among them. `rollback` doesn't bring them back.
    """
    state = app_state()

    def build_changes(stored: Stored) -> Mapping[str, str | None]:
        return dict.fromkeys(changes.undeclared(state.schema, stored.values))

    options["note"] = "prune" if options["note"] is None else options["note"]
    if not (yes or options["dry_run"]):
        made = preview(state, build_changes, options)
        if made.new:
            confirm_changes(state, made, f"Remove {len(made.new)} of them?", options)
    carry_out(state, build_changes, **options)


@waffle.command("rollback")
@click.argument("revision", type=int)
@update_options
def rollback(revision: int, note: str | None, **options: Any) -> None:
    """Make the values of a former REVISION a new one."""
    state = app_state()
    changeset = changes_for_rollback(state.schema, state.store, revision)
    note = f"rollback to revision {revision}" if note is None else note
    carry_out(state, changeset, note=note, **options)


@waffle.command("history")
@click.argument("name", required=False, shell_complete=complete_names)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    show_default="20, with --since all",
    help="Show so many changes at most.",
)
@click.option("--since", type=int, metavar="REVISION", help="Show what was changed after REVISION.")
@as_json
def history_(name: str | None, limit: int | None, since: int | None, as_json: bool) -> None:
    """Show the newest changes, newest first; of one variable if NAME is given.

    Secrets are masked.
    """
    state = app_state()
    beginnings = is_terminal() and not as_json
    if since is None:
        entries = history(state, limit or 20, name, beginnings=beginnings)
    else:
        entries = history_since(state, since, name, beginnings=beginnings)[:limit]
    if as_json:
        print_json([{**asdict(entry), "at": entry.at.isoformat()} for entry in entries], indent=2)
        return
    for entry in entries:
        old, new = _history_text(entry.old), _history_text(entry.new)
        note = f"  # {entry.note}" if entry.note else ""
        when, who = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC", entry.actor or "-"
        print_line(f"{entry.revision}  {when}  {who}  {entry.key}: {old} -> {new}{note}")


def _history_text(value: object) -> str:
    if isinstance(value, Beginning):
        return f"{value.text[:MAX_SHOWN]}... (more than {BEGINNING:,} characters)"
    return MASK if value == MASK else shorten(to_json(value))
