"""What the commands that change something have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypedDict, TypeVar

import click
from typing_extensions import NotRequired, Unpack

from .. import expiry
from ..changes import Changeset
from ..errors import InvalidValue
from ..report import why_no_server
from ..state import WaffleState
from ..stores import Stored
from ..update import UpdateResult
from .actor import actor as default_actor
from .command import as_json, as_text, json_value, seconds
from .output import after_update, print_error, print_json, print_line
from .sources import as_utf8, confirm

__all__ = [
    "DIFFERENT",
    "Options",
    "Preview",
    "actor_option",
    "carry_out",
    "confirm_changes",
    "dry_run_option",
    "update_options",
]

# The exit code of an update that was made, but that not all processes of the host have applied in
# time, or that no server process was there to apply.
PENDING = 3
# The exit code of ``--dry-run`` where there is something to do.
DIFFERENT = 4

F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict):
    """The options of all commands that change something."""

    note: str | None
    actor: str | None
    expect: int | None
    wait: float | None
    hosts: bool
    expires: NotRequired[timedelta | None]
    dry_run: bool
    as_json: bool


def _person(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    if value is None:
        return default_actor()
    if not value.strip():
        raise click.BadParameter("it names nobody.")
    return as_utf8(value)


actor_option = click.option(
    "--actor", metavar="NAME", callback=_person, help="Who, for the history; else who runs this."
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


@dataclass
class Preview:
    """What an update changes, as its change set works it out on what the store holds.

    Attributes:
        expires: how long the new values count; ``None`` is for good.
        revision: what the store was at.
        retimed: whether it changes until when values count.
        old: the stored texts before, by name; ``None`` if no value was stored.
        new: likewise, after.
    """

    state: WaffleState
    changeset: Changeset
    expires: timedelta | None = None
    revision: int = 0
    retimed: bool = False
    old: dict[str, str | None] = field(default_factory=dict)
    new: dict[str, str | None] = field(default_factory=dict)

    def observed(self, stored: Stored) -> Mapping[str, str | None]:
        """Work it out, and note it; a change set."""
        texts, schema = self._repairing(stored), self.state.schema
        moved = {
            name: stored.values[schema.source(name, stored.values)]
            for name in schema.former_rows(stored.values)
        }
        old = {name: stored.values.get(name) for name in texts} | moved
        self.revision, self.old, self.new = stored.revision, old, {**moved, **texts}
        until = None if self.expires is None else expiry.end_of(self.expires)
        families = schema.families(stored.values)
        set_now = {name: old[name] for name in texts}
        self.retimed = bool(expiry.with_expiry(stored, {}, set_now, until, families))
        return texts

    def _repairing(self, stored: Stored) -> Mapping[str, str | None]:
        """Work it out; what repairs one value may leave others that don't fit as they are."""
        schema, misfits = self.state.schema, self.state.served.misfits.keys()
        try:
            return self.changeset(stored)
        except InvalidValue as error:
            left = error.problems.keys() & misfits
            left |= {former for former, name in schema.former_names.items() if name in left}
            rows = {name: text for name, text in stored.values.items() if name not in left}
            texts = self.changeset(Stored(stored.revision, rows))
            if not texts.keys() & misfits:
                raise
            return texts

    def look(self, expect: int | None) -> tuple[str, ...]:
        """Return the names of what would change now."""
        changed = self.state.writer.preview(self.observed, expect_revision=expect)
        return tuple(name for name in changed if name in self.new)

    def show(self, changed: Iterable[str]) -> None:
        """Print a line for each variable that changes."""
        for name in changed:
            print_line(self._line(name))

    def _line(self, name: str) -> str:
        if self.new[name] is None and name not in self.state.schema.variables:
            return f"{name}: removed"
        before, after = self._text(name, self.old[name]), self._text(name, self.new[name])
        texts = [as_text(self.state, name, text) for text in (before, after)]
        if self.old[name] == self.new[name]:
            return f"{name}: {texts[0]} (moved from its former name)"
        if before == after:  # one of them is the default
            texts[self.old[name] is not None] += " by default"
        return f"{name}: {' -> '.join(texts)}"

    def document(self, changed: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the values before and after, for JSON."""
        return {
            key: {
                name: json_value(self.state, name, self._text(name, of[name])) for name in changed
            }
            for key, of in (("old", self.old), ("new", self.new))
        }

    def _text(self, name: str, stored: str | None) -> str:
        """Return a stored text, or that of the default if none is stored."""
        if stored is not None:
            return stored
        variable = self.state.schema.variables.get(name)
        return "null" if variable is None else variable.dump(variable.default)


def confirm_changes(
    preview: Preview, changed: Iterable[str], question: str, options: Options
) -> None:
    """Ask before ``changed`` is changed; what was shown is what is done then."""
    if not options["as_json"]:
        preview.show(changed)
    confirm(question, as_json=options["as_json"])
    options["expect"] = preview.revision


def carry_out(state: WaffleState, changeset: Changeset, **options: Unpack[Options]) -> None:
    """Make an update, and print what it did; with ``--dry-run`` print what it would do."""
    preview = Preview(state, changeset, options.get("expires"))
    if options["dry_run"]:
        changed = preview.look(options["expect"])
        _print(preview, UpdateResult(preview.revision, changed), options)
        sys.exit(DIFFERENT if changed or preview.retimed else 0)
    if options["hosts"]:
        if options["wait"] is None:
            raise click.UsageError("--hosts needs --wait SECONDS.")
        state.writer.check_barrier(options["wait"])
    result = state.update(
        preview.observed,
        expect_revision=options["expect"],
        actor=options["actor"],
        note=options["note"],
        expires=options.get("expires"),
    )
    result, is_over = _wait(state, result, options)
    with after_update(result.revision):
        _print(preview, result, options)
    for process in result.pending:
        cause = f": {process.error}" if process.error else ""
        print_error(f"not yet applied by {process.kind} (pid {process.pid}){cause}")
    for text in result.pending_hosts:
        print_error(f"not yet applied by {text}")
    nobody = "" if result.hosts else why_no_server(state)
    if nobody:
        print_error(nobody)
    pending = result.pending or result.pending_hosts or nobody
    if not is_over or (options["wait"] is not None and pending):
        sys.exit(PENDING)


def _wait(state: WaffleState, result: UpdateResult, options: Options) -> tuple[UpdateResult, bool]:
    """Wait for the others. Return also whether that ended by itself and not by Ctrl-C."""
    if options["wait"] is None:
        return result, True
    try:
        return state.writer.wait_for(result, options["wait"], hosts=options["hosts"]), True
    except KeyboardInterrupt:
        print_error(f"revision {result.revision} is stored; not all processes may have it yet")
        return result, False


def _print(preview: Preview, result: UpdateResult, options: Options) -> None:
    if not options["as_json"]:
        preview.show(result.changed)
        hint = "" if result.changed else " (nothing to change)"
        if preview.retimed and not result.changed:
            hint = " (the values stay; until when they count changes)"
        if options["dry_run"] and result.changed:
            hint = " (nothing was changed)"
        print_line(f"revision {result.revision}{hint}")
        return
    document: dict[str, Any] = {"revision": result.revision, "changed": list(result.changed)}
    document |= preview.document(result.changed)
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
