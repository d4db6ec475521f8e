"""Values on their way: `export`, `import`, `import-legacy`."""

from __future__ import annotations

import json
import os
from typing import TextIO

import click

from .. import transfer, unix
from ..changes import changes_for_update
from ..errors import InvalidValue
from ..report import misfits
from ..state import WaffleState
from ..stores import Commit, Stored
from ..text import to_json
from .command import app_state, as_json, as_text, command, json_value, login
from .output import after_update, print_error, print_json, print_line

__all__ = ["export", "import_", "import_legacy"]

STDOUT = ("-", "/dev/stdout")


@command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option(
    "--reveal",
    is_flag=True,
    help="Write the values of secret variables, too. Nobody but you may read FILE then.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="FILE holds JSON anyway; with FILE, print as JSON what was written.",
)
def export(file: str, reveal: bool, as_json: bool) -> None:
    """Write all values in force to FILE as JSON.

    The document also has their revision, which of them are set, and the declarations. Without FILE
    it goes to the standard output.
    """
    state = app_state()
    state.update_conf()  # not the last good values of a store that is gone
    snapshot = state.current()
    document = transfer.document(state.schema, snapshot, secrets=reveal)
    if file in STDOUT:
        print_json(document, indent=2)
    else:
        _write(file, to_json(document, indent=2) + "\n", private=reveal)
    for misfit in misfits(state):
        print_error(f"{misfit.name}: its default was written: {misfit}")
    left_out = [] if reveal else sorted(state.schema.secrets)
    if as_json and file not in STDOUT:
        print_json({"revision": snapshot.revision, "file": file, "left_out": left_out})
    elif left_out:
        names = ", ".join(left_out)
        print_error(f"left out because they are secret: {names} (--reveal writes them)")


def _write(path: str, text: str, *, private: bool) -> None:
    """Write a file all at once; write to a pipe or a device as it is."""
    replace = os.path.isfile(path) or not os.path.exists(path)
    try:
        with click.open_file(path, "w", encoding="utf-8", atomic=replace) as file:
            if private and replace:
                unix.fchmod(file.fileno(), 0o600)
            file.write(text)
    except OSError as error:
        raise click.FileError(path, error.strerror) from None


@command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help="Show the differences, and change nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--note", help="Why, for the history.")
@as_json
def import_(file: TextIO, dry_run: bool, yes: bool, note: str | None, as_json: bool) -> None:
    """Take the values in FILE, which `flask waffle export` has written, in one update.

    It shows the differences and asks. What was set in the source is set here, even if it is the
    default here. What was only the default there is set here only if another value is in force.
    Variables that FILE doesn't name stay as they are. With `-` it reads the standard input.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json can't ask: add --yes or --dry-run.")
    state = app_state()
    seen = state.current()
    found = transfer.differences(state.schema, seen, _document_in(file))
    if not as_json:
        _print_differences(state, found)
    question = f"Change {len(found)} of {len(state.schema.variables)} variables?"
    revision, changes = seen.revision, bool(found) and not dry_run
    if changes and (yes or click.confirm(question, abort=True)):
        variables = state.schema.variables
        values = {one.name: variables[one.name].load(json.loads(one.new)) for one in found}
        revision = state.update(
            changes_for_update(state.schema, values),
            expect_revision=seen.revision,  # what was shown is what is done
            actor=login(),
            note=note or "import",
        ).revision
    with after_update(revision if changes else None):
        if as_json:
            changed = {
                one.name: [json_value(state, one.name, text) for text in (one.old, one.new)]
                for one in found
            }
            print_json({"revision": revision, "dry_run": dry_run, "changed": changed}, indent=2)
        else:
            print_line(f"revision {revision}" + ("" if changes else " (nothing was changed)"))


def _print_differences(state: WaffleState, found: list[transfer.Difference]) -> None:
    for one in found:
        by_default = " by default" if one.old == one.new else ""
        old, new = as_text(state, one.name, one.old), as_text(state, one.name, one.new)
        print_line(f"{one.name}: {old}{by_default} -> {new}")


def _document_in(file: TextIO) -> transfer.Document:
    try:
        return transfer.read(file.read())
    except ValueError as error:
        raise InvalidValue({file.name: str(error)}) from None


@command("import-legacy")
@click.option("--dry-run", is_flag=True, help="Show what would happen, and write nothing.")
@as_json
@click.pass_context
def import_legacy(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Write the values of Flask-WaffleConf as JSON, in one update.

    The application reads such values as they are; this converts all at once. They are pickles, and
    nothing of them is executed. What can't be converted, or isn't declared, is named and left
    alone, and the exit code is 1.
    """
    state = app_state()
    converted, problems = transfer.convert_legacy(state.schema, state.store.rows())

    def build_commit(stored: Stored) -> Commit | None:
        # Read from the store as JSON: the same values in another notation.
        changes = {name: stored.values[name] for name in converted if name in stored.values}
        return Commit(changes, login(), "import-legacy") if changes else None

    revision = None if dry_run else state.writer.commit(build_commit).revision
    with after_update(revision):
        if as_json:
            values = {name: json_value(state, name, text) for name, text in converted.items()}
            document = {"revision": revision, "dry_run": dry_run, "converted": values}
            print_json({**document, "left": problems}, indent=2)
        else:
            _print_converted(state, converted, problems, revision)
    if problems:
        ctx.exit(1)


def _print_converted(
    state: WaffleState, converted: dict[str, str], problems: dict[str, str], revision: int | None
) -> None:
    for name, text in converted.items():
        print_line(f"{name}: {as_text(state, name, text)}")
    for name, problem in problems.items():
        print_error(f"{name}: left alone, {problem}")
    done = f"converted, revision {revision}"
    if revision is None:
        done = "would be converted; nothing was written"
    print_line(f"{len(converted)} {done}" if converted else "nothing to convert")
