"""``flask waffle``: read and change variables from a shell."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TextIO, TypeVar

import click
from flask import current_app
from flask.cli import AppGroup, ScriptInfo

from . import legacy, transfer
from .errors import WaffleError
from .extension import Binding, binding_of
from .plans import Plan, plan_reset, plan_rollback, plan_update
from .reading import difference
from .report import history
from .schema import MASK

__all__ = ["waffle"]

waffle = AppGroup("waffle", help="Read and change the variables of WAFFLE_CONFS.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

F = TypeVar("F", bound=Callable[..., Any])


def changes(command: F) -> F:
    """Give a command the options that all have which change something."""
    for option in (
        as_json,
        click.option("--wait", type=float, metavar="SECONDS", help="Wait until all processes of this host have it."),
        click.option("--expect", type=int, metavar="REVISION", help="Refuse if the store has another revision."),
        click.option("--note", help="Why, for the history."),
    ):
        command = option(command)
    return command


@contextmanager
def _told() -> Iterator[None]:
    """Tell an error of the package's as a command does, in one line with exit code 1."""
    try:
        yield
    except WaffleError as error:
        raise click.ClickException(str(error)) from None


def _login() -> str:
    """Return who runs the command; in a container the user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _binding() -> Binding:
    with _told():
        return binding_of(current_app._get_current_object())  # type: ignore[attr-defined]  # LocalProxy's public way


def _shown(binding: Binding, name: str, text: str) -> str:
    return MASK if name in binding.schema.secrets else text


def _texts(binding: Binding) -> dict[str, str]:
    """Return all values as JSON texts."""
    values = binding.current().values
    return {name: variable.dump(getattr(values, name)) for name, variable in binding.schema.variables.items()}


@waffle.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the variables with their values; secrets are masked."""
    binding = _binding()
    texts = {name: _shown(binding, name, text) for name, text in _texts(binding).items()}
    if as_json:
        plain = {name: MASK if name in binding.schema.secrets else json.loads(text) for name, text in texts.items()}
        click.echo(json.dumps({"revision": binding.current().revision, "values": plain}, indent=2))
        return
    width = max(map(len, texts), default=0)
    for name, text in texts.items():
        desc = binding.schema.variables[name].desc
        click.echo(f"{name:{width}}  {text}" + (f"  # {desc}" if desc else ""))


@waffle.command("get")
@click.argument("name")
@click.option("--reveal", is_flag=True, help="Print it even if it is secret.")
@as_json
def get(name: str, reveal: bool, as_json: bool) -> None:
    """Print the value of one variable; a secret is masked."""
    binding = _binding()
    with _told():
        variable = binding.schema.variable(name)
    value = MASK if variable.secret and not reveal else getattr(binding.current().values, name)
    text = json.dumps(value) if value is MASK else variable.dump(value)
    click.echo(value if isinstance(value, str) and not as_json else text)


@waffle.command("set")
@click.argument("assignments", metavar="NAME=VALUE...", nargs=-1, required=True)
@changes
def set_(assignments: tuple[str, ...], **options: Any) -> None:
    """Change variables, all of them in one update, or none."""
    binding = _binding()
    with _told():
        plan = plan_update(binding.schema, _parsed(binding, assignments))
    _change(binding, plan, **options)


@waffle.command("unset")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@changes
def unset(names: tuple[str, ...], **options: Any) -> None:
    """Give variables their defaults back, all of them in one update."""
    binding = _binding()
    with _told():
        plan = plan_reset(binding.schema, names)
    _change(binding, plan, **options)


@waffle.command("rollback")
@click.argument("revision", type=int)
@changes
def rollback(revision: int, note: str | None, **options: Any) -> None:
    """Make the values of a former REVISION a new one."""
    binding = _binding()
    with _told():
        plan = plan_rollback(binding.schema, binding.state.store, revision)
    _change(binding, plan, note=f"rollback to revision {revision}" if note is None else note, **options)


def _change(binding: Binding, plan: Plan, *, note: str | None, expect: int | None, wait: float | None, as_json: bool) -> None:
    """Carry out a plan and tell what it did."""
    before = _texts(binding)
    with _told():
        result = binding.update(plan, expect, _login(), note, wait)
    if as_json:
        told: dict[str, Any] = {"revision": result.revision, "changed": list(result.changed)}
        if wait is not None:
            told |= {"applied": [p.pid for p in result.applied], "pending": [p.pid for p in result.pending]}
        click.echo(json.dumps(told))
        return
    after = _texts(binding)
    for name in result.changed:
        if name in after:  # not what an older version of the application declared
            click.echo(f"{name}: {_shown(binding, name, before[name])} -> {_shown(binding, name, after[name])}")
    click.echo(f"revision {result.revision}" + ("" if result.changed else " (nothing to change)"))
    for process in result.pending:
        click.echo(f"not yet applied by {process.kind} (pid {process.pid})", err=True)


@waffle.command("history")
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many changes at most.")
@as_json
def history_(name: str | None, limit: int, as_json: bool) -> None:
    """Tell the newest changes, newest first; of one variable if NAME is given. Secrets are masked."""
    binding = _binding()
    with _told():
        entries = history(binding.state, limit, name)
    if as_json:
        click.echo(json.dumps([{**asdict(entry), "at": entry.at.isoformat()} for entry in entries], indent=2))
        return
    for entry in entries:
        old, new = (MASK if entry.key in binding.schema.secrets else json.dumps(value) for value in (entry.old, entry.new))
        why = f"  # {entry.note}" if entry.note else ""
        click.echo(f"{entry.revision}  {entry.at:%Y-%m-%d %H:%M:%S} UTC  {entry.actor or '-'}  {entry.key}: {old} -> {new}{why}")


@waffle.command("status")
@as_json
def status_(as_json: bool) -> None:
    """Tell how the store and the processes of this host are; the exit code is 1 if something is wrong."""
    binding = _binding()
    told = binding.status()
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _tell_status(told)
    redis = told["redis"] or {"error": ""}
    sys.exit(1 if told["store_error"] or told["error"] or redis["error"] or any(p["error"] for p in told["processes"]) else 0)


def _tell_status(told: Mapping[str, Any]) -> None:
    checked = told["store_checked"]
    lines = {
        "revision": told["revision"],
        "store": told["store"] + ("" if checked is None else f", compared {checked:.0f} s ago"),
        "store's error": told["store_error"],
        "watch file": told["watcher_file"] or "none: nothing is shared with other processes",
        "error": told["error"],
    }
    if told["redis"]:
        lines["Redis"] = f"channel {told['redis']['channel']}, listener {told['redis']['listener'] or 'none'}"
        lines["Redis's error"] = told["redis"]["error"]
    for name, text in lines.items():
        if text != "":
            click.echo(f"{name + ':':<15}{text}")
    for process in sorted(told["processes"], key=lambda process: str(process["kind"])):
        state = f"revision {process['revision']}, for {process['age']:.0f} s"
        click.echo(f"{process['kind']:<14} pid {process['pid']}, {state}" + (f": {process['error']}" if process["error"] else ""))


@waffle.command("watch")
@click.option("--interval", type=click.FloatRange(min=0.01), default=0.2, show_default=True, help="Seconds between two looks.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many revisions; else Ctrl-C ends it.")
@as_json
def watch(interval: float, count: int | None, as_json: bool) -> None:
    """Print changes as they happen, a line each. Revisions that follow each other within a look are told as one."""
    binding = _binding()
    seen = binding.state.look()
    while count != 0:
        time.sleep(interval)
        before, seen = seen, binding.state.look()
        change = difference(seen, before)
        if change is None:
            continue
        count = None if count is None else count - 1
        for name, value in change.new.items():
            variable = binding.schema.variables[name]
            old, new = (_masked(binding, name, variable.dump(text)) for text in (change.old[name], value))
            if as_json:
                click.echo(json.dumps({"revision": seen.revision, "key": name, "old": json.loads(old), "new": json.loads(new)}))
            else:
                click.echo(f"{seen.revision}  {name}: {old} -> {new}")


@waffle.command("export")
@click.argument("file", type=click.File("w", atomic=True), default="-")
@click.option("--reveal", is_flag=True, help="Write the values of secret variables, too; then FILE is the user's alone.")
def export(file: TextIO, reveal: bool) -> None:
    """Write all values in force to FILE as JSON, with their revision and what is declared; to the terminal without FILE."""
    if reveal:
        os.umask(0o077)
    binding = _binding()
    with _told():
        binding.update_conf()  # not the last good values of a store that is gone
    json.dump(transfer.document(binding.schema, binding.current(), secrets=reveal), file, indent=2)
    file.write("\n")
    if binding.schema.secrets and not reveal:
        click.echo(f"left out, for they are secret: {', '.join(sorted(binding.schema.secrets))} (--reveal writes them)", err=True)


@waffle.command("import")
@click.argument("file", type=click.File("r"))
@click.option("--dry-run", is_flag=True, help="Show the differences, and change nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--note", help="Why, for the history.")
@as_json
def import_(file: TextIO, dry_run: bool, yes: bool, note: str | None, as_json: bool) -> None:
    """Take the values in FILE, that `flask waffle export` has written, in one update.

    It shows what differs and asks. Variables that FILE doesn't name stay as they are; `-` reads the standard input.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json can't ask: add --yes or --dry-run.")
    binding = _binding()
    seen = binding.current()
    try:
        found = transfer.differences(binding.schema, seen, _values_in(file))
        if not as_json:
            _tell(binding, found)
        if dry_run or not found:
            revision = seen.revision
        elif yes or click.confirm(f"Change {len(found)} of {len(binding.schema.variables)} variables?", abort=True):
            values = {d.name: binding.schema.variables[d.name].load(json.loads(d.new)) for d in found}
            # What was shown is what is done.
            revision = binding.update(plan_update(binding.schema, values), seen.revision, _login(), note or "import", None).revision
    except WaffleError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        plain = {d.name: [json.loads(_masked(binding, d.name, text)) for text in (d.old, d.new)] for d in found}
        click.echo(json.dumps({"revision": revision, "dry_run": dry_run, "changed": plain}, indent=2))
    else:
        click.echo(f"revision {revision}" + (" (nothing was changed)" if dry_run or not found else ""))


def _values_in(file: TextIO) -> Mapping[str, Any]:
    try:
        return transfer.values_in(file.read())
    except ValueError as error:
        raise click.ClickException(f"{file.name}: {error}. Nothing was changed.") from None


def _tell(binding: Binding, found: list[transfer.Difference]) -> None:
    for found_one in found:
        old, new = (_shown(binding, found_one.name, text) for text in (found_one.old, found_one.new))
        click.echo(f"{found_one.name}: {old} -> {new}")


def _masked(binding: Binding, name: str, text: str) -> str:
    return json.dumps(MASK) if name in binding.schema.secrets else text


@waffle.command("import-legacy", with_appcontext=False)
@click.option("--dry-run", is_flag=True, help="Show what would happen, and write nothing.")
@as_json
@click.pass_context
def import_legacy(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Make JSON of the values that Flask-WaffleConf wrote, in one update.

    They are pickles; they are read without executing anything. What can't be read so, or isn't declared, is named and left alone,
    and the exit code is 1.
    """
    try:
        with legacy.previewing():  # with the store as it is the application may refuse to start
            app = ctx.ensure_object(ScriptInfo).load_app()
        with app.app_context():
            binding = binding_of(app)
            store = binding.state.store
            store = store.store if isinstance(store, legacy.Preview) else store
            findings = legacy.examine(binding.schema, store.rows())
            decide = legacy.convert(binding.schema, _login())
            if dry_run:
                decide(store.load())
                revision = None
            else:
                revision = store.transact(decide).revision
                binding.ring()
    except WaffleError as error:
        raise click.ClickException(str(error)) from None
    _tell_findings(binding, findings, revision, as_json)
    if any(finding.text is None for finding in findings):
        ctx.exit(1)


def _tell_findings(binding: Binding, findings: list[legacy.Finding], revision: int | None, as_json: bool) -> None:
    converted = {finding.name: finding.text for finding in findings if finding.text is not None}
    left = {finding.name: finding.problem for finding in findings if finding.text is None}
    if as_json:
        plain = {name: MASK if name in binding.schema.secrets else json.loads(text) for name, text in converted.items()}
        click.echo(json.dumps({"revision": revision, "dry_run": revision is None, "converted": plain, "left": left}, indent=2))
        return
    for name, text in converted.items():
        click.echo(f"{name}: {_shown(binding, name, text)}")
    for name, problem in left.items():
        click.echo(f"{name}: left alone, {problem}", err=True)
    done = "would be converted; nothing was written" if revision is None else f"converted, revision {revision}"
    click.echo(f"{len(converted)} {done}" if converted else "nothing to convert")


def _parsed(binding: Binding, assignments: tuple[str, ...]) -> dict[str, object]:
    values: dict[str, object] = {}
    problems: list[str] = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"{assignment!r} is no assignment; write NAME=VALUE.")
        try:
            values[name] = binding.schema.variable(name).parse(text)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise click.ClickException("Nothing was changed: " + "; ".join(problems))
    return values
