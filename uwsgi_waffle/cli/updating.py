"""What the commands that change something have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..changes import Changeset
from ..errors import InvalidValue, WaffleError
from ..history import visible
from ..report import why_no_server
from ..snapshot import Committed
from ..state import WaffleState
from ..stores import Stored
from ..update import UpdateResult
from .actor import actor as default_actor
from .command import as_json, as_text, seconds
from .output import after_update, print_error, print_json, print_line
from .sources import as_utf8, has_terminal

__all__ = [
    "DIFFERENT",
    "Options",
    "actor_option",
    "carry_out",
    "confirm_changes",
    "dry_run_option",
    "preview",
    "update_options",
]

# The exit code of an update that was made, but that not all processes of the host have applied in
# time, or that no server process was there to apply.
PENDING = 3
# The exit code of ``--dry-run`` where there is something to do.
DIFFERENT = 4

F = TypeVar("F", bound=Callable[..., Any])


#: The options of all commands that change something, by name: those of `update_options`, and
#: ``expires`` of `set`.
Options = dict[str, Any]


def _person(value: str) -> str:
    if not value.strip():
        raise click.BadParameter("it names nobody.")
    return as_utf8(value)


actor_option = click.option(
    "--actor",
    type=_person,
    metavar="NAME",
    default=default_actor,
    help="Who, for the history; else who runs this.",
)
dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would change, and write nothing. If something would, the exit code is 4.",
)


def update_options(function: F) -> F:
    """Give a command the options of all commands that change something."""
    for option in (
        as_json,
        dry_run_option,
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
        actor_option,
        click.option("--note", type=as_utf8, metavar="TEXT", help="Why, for the history."),
    ):
        function = option(function)
    return function


def preview(state: WaffleState, changeset: Changeset, options: Options) -> Committed:
    """Return what a change set would change now."""
    return state.writer.preview(
        _repairing(state, changeset),
        expect_revision=options["expect"],
        expires=options.get("expires"),
    )


def _repairing(state: WaffleState, changeset: Changeset) -> Changeset:
    """Let what repairs one value leave others that don't fit as they are."""

    def changes(stored: Stored) -> Mapping[str, str | None]:
        try:
            return changeset(stored)
        except InvalidValue:
            misfits = state.served.misfits.keys()
            left = {old for old, name in state.schema.former_names.items() if name in misfits}
            left |= misfits
            rows = {name: text for name, text in stored.values.items() if name not in left}
            texts = changeset(Stored(stored.revision, rows))
            if not texts.keys() & misfits:
                raise
            return texts

    return changes


def confirm_changes(state: WaffleState, made: Committed, question: str, options: Options) -> None:
    """Ask before something is changed; what was shown is what is done then.

    Anything but yes ends the command, and so does nobody to ask.
    """
    if not options["as_json"]:
        _show(state, made)
    if options["as_json"] or not has_terminal():
        raise WaffleError(
            "Nothing was changed: there is no terminal to ask on. Add --yes; with --dry-run it "
            "shows what would change."
        )
    click.confirm(question, abort=True, err=True)
    options["expect"] = made.revision


def carry_out(state: WaffleState, changeset: Changeset, **options: Any) -> None:
    """Make an update, and print what it did; with ``--dry-run`` print what it would do."""
    if options["dry_run"]:
        made = preview(state, changeset, options)
        _print(state, made, UpdateResult(made.revision, made.changed), options)
        sys.exit(DIFFERENT if made.new or made.retimed else 0)
    if options["hosts"] and options["wait"] is None:
        raise click.UsageError("--hosts needs --wait SECONDS.")
    state.barrier.check(options["wait"], hosts=options["hosts"])
    repairing = _repairing(state, changeset)
    try:
        made = state.write(
            repairing,
            expect_revision=options["expect"],
            actor=options["actor"],
            note=options["note"],
            expires=options.get("expires"),
        )
    except KeyboardInterrupt:
        left = state.writer.preview(repairing)
        if left.new:
            raise
        print_error(f"revision {left.revision} is stored; not all hooks may have run to their end")
        sys.exit(PENDING)
    result, is_over = UpdateResult(made.revision, made.changed), True
    try:
        if options["wait"] is not None:
            result = state.barrier.wait_for(result, options["wait"], hosts=options["hosts"])
    except KeyboardInterrupt:
        is_over = False
        print_error(f"revision {result.revision} is stored; not all processes may have it yet")
    with after_update(result.revision):
        _print(state, made, result, options)
    pending = _report_pending(state, result)
    if not is_over or (options["wait"] is not None and pending):
        sys.exit(PENDING)


def _report_pending(state: WaffleState, result: UpdateResult) -> bool:
    """Say what hasn't applied an update, and return whether that is something."""
    found = [
        f"not yet applied by {process.kind} (pid {process.pid})"
        + (f": {process.error}" if process.error else "")
        for process in result.pending
    ]
    found += [f"not yet applied by {text}" for text in result.pending_hosts]
    if not result.hosts:
        found += filter(None, [why_no_server(state)])
    for text in found:
        print_error(text)
    return bool(found)


def _print(state: WaffleState, made: Committed, result: UpdateResult, options: Options) -> None:
    if not options["as_json"]:
        _show(state, made)
        hint = "" if made.new else " (nothing to change)"
        if made.retimed and not made.new:
            end = "until when they count changes" if options.get("expires") else "now for good"
            hint = f" (the values stay; {end})"
        if options["dry_run"] and made.new:
            hint = " (nothing was changed)"
        print_line(f"revision {result.revision}{hint}")
        return
    document: dict[str, Any] = {"revision": result.revision, "changed": list(result.changed)}
    for key, texts in (("old", made.old), ("new", made.new)):
        document[key] = {name: visible(state.schema, name, texts[name]) for name in made.changed}
    if options["dry_run"]:
        document["dry_run"] = True
    if options["wait"] is not None:
        document["applied"] = [process.pid for process in result.applied]
        document["pending"] = [process.pid for process in result.pending]
    if options["hosts"]:
        document["hosts"] = [
            {"name": host.name, "revision": host.revision} for host in result.hosts
        ]
        document["pending_hosts"] = list(result.pending_hosts)
    print_json(document)


def _show(state: WaffleState, made: Committed) -> None:
    """Print a line for each variable that changes."""
    for name in made.changed:
        print_line(f"{name}: {_change(state, name, made.old[name], made.new[name])}")


def _change(state: WaffleState, name: str, old: str | None, new: str | None) -> str:
    if new is None and name not in state.schema.variables:
        return "removed"
    texts = [as_text(state, name, text) for text in (old, new)]
    if old == new:
        return f"{texts[0]} (moved from its former name)"
    if {old, new} == {None, state.schema.text_of(state.schema.defaults, name)}:
        texts[old is not None] += " by default"
    return " -> ".join(texts)
