"""Values on their way: `export`, `import`, `import-legacy`."""

from __future__ import annotations

import json
import os
from typing import TextIO

import click
from flask.cli import ScriptInfo

from .. import legacy, transfer
from ..errors import InvalidValue
from ..extension import Binding, binding_of
from ..plans import plan_update
from .command import Command, as_json, as_text, binding, command, login, plain

__all__ = ["export", "import_", "import_legacy"]


@command("export")
@click.argument("file", type=click.File("w", atomic=True), default="-")
@click.option(
    "--reveal",
    is_flag=True,
    help="Write the values of secret variables, too; then FILE is the user's alone.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="What FILE holds is JSON anyway; with FILE, print as JSON what was written.",
)
def export(file: TextIO, reveal: bool, as_json: bool) -> None:
    """Write all values in force to FILE as JSON, with their revision, which are set, and what is
    declared.

    Without FILE it goes to the terminal.
    """
    bound = binding()
    bound.update_conf()  # not the last good values of a store that is gone
    snapshot = bound.current()
    if reveal and file.name != "<stdout>":
        os.fchmod(file.fileno(), 0o600)
    json.dump(transfer.document(bound.schema, snapshot, secrets=reveal), file, indent=2)
    file.write("\n")
    left_out = [] if reveal else sorted(bound.schema.secrets)
    if as_json and file.name != "<stdout>":
        click.echo(
            json.dumps({"revision": snapshot.revision, "file": file.name, "left_out": left_out})
        )
    elif left_out:
        click.echo(
            f"left out, for they are secret: {', '.join(left_out)} (--reveal writes them)", err=True
        )


@command("import")
@click.argument("file", type=click.File("r"))
@click.option("--dry-run", is_flag=True, help="Show the differences, and change nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--note", help="Why, for the history.")
@as_json
def import_(file: TextIO, dry_run: bool, yes: bool, note: str | None, as_json: bool) -> None:
    """Take the values in FILE, that `flask waffle export` has written, in one update.

    It shows what differs and asks. What was set where FILE comes from is set here, even to what is
    the default here at present;
    what was the default there is set here only if another value is in force. Variables that FILE
    doesn't name stay as they
    are; `-` reads the standard input.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json can't ask: add --yes or --dry-run.")
    bound = binding()
    seen = bound.current()
    found = transfer.differences(bound.schema, seen, _document_in(file))
    if not as_json:
        for one in found:
            by_default = " by default" if one.old == one.new else ""
            click.echo(
                f"{one.name}: {as_text(bound, one.name, one.old)}{by_default} -> {as_text(bound, one.name, one.new)}"
            )
    if dry_run or not found:
        revision = seen.revision
    elif yes or click.confirm(
        f"Change {len(found)} of {len(bound.schema.variables)} variables?", abort=True
    ):
        values = {
            one.name: bound.schema.variables[one.name].load(json.loads(one.new)) for one in found
        }
        # What was shown is what is done.
        revision = bound.update(
            plan_update(bound.schema, values), seen.revision, login(), note or "import", None
        ).revision
    if as_json:
        told = {
            one.name: [plain(bound, one.name, text) for text in (one.old, one.new)] for one in found
        }
        click.echo(
            json.dumps({"revision": revision, "dry_run": dry_run, "changed": told}, indent=2)
        )
    else:
        click.echo(
            f"revision {revision}" + (" (nothing was changed)" if dry_run or not found else "")
        )


def _document_in(file: TextIO) -> transfer.Document:
    try:
        return transfer.read(file.read())
    except ValueError as error:
        raise InvalidValue({file.name: str(error)}) from None


@command("import-legacy", cls=Command)
@click.option("--dry-run", is_flag=True, help="Show what would happen, and write nothing.")
@as_json
@click.pass_context
def import_legacy(ctx: click.Context, dry_run: bool, as_json: bool) -> None:
    """Make JSON of the values that Flask-WaffleConf wrote, in one update.

    They are pickles; they are read without executing anything. What can't be read so, or isn't
    declared, is named and left alone,
    and the exit code is 1.
    """
    with legacy.previewing():  # with the store as it is the application may refuse to start
        app = ctx.ensure_object(ScriptInfo).load_app()
    with app.app_context():
        bound = binding_of(app)
        store = bound.state.store
        store = store.store if isinstance(store, legacy.Preview) else store
        findings = legacy.examine(bound.schema, store.rows())
        decide = legacy.convert(bound.schema, login())
        if dry_run:
            decide(store.load())
            revision = None
        else:
            revision = bound.convert(decide).revision
    _tell_findings(bound, findings, revision, as_json)
    if any(finding.text is None for finding in findings):
        ctx.exit(1)


def _tell_findings(
    bound: Binding, findings: list[legacy.Finding], revision: int | None, as_json: bool
) -> None:
    converted = {finding.name: finding.text for finding in findings if finding.text is not None}
    left = {finding.name: finding.problem for finding in findings if finding.text is None}
    if as_json:
        told = {name: plain(bound, name, text) for name, text in converted.items()}
        click.echo(
            json.dumps(
                {
                    "revision": revision,
                    "dry_run": revision is None,
                    "converted": told,
                    "left": left,
                },
                indent=2,
            )
        )
        return
    for name, text in converted.items():
        click.echo(f"{name}: {as_text(bound, name, text)}")
    for name, problem in left.items():
        click.echo(f"{name}: left alone, {problem}", err=True)
    done = (
        "would be converted; nothing was written"
        if revision is None
        else f"converted, revision {revision}"
    )
    click.echo(f"{len(converted)} {done}" if converted else "nothing to convert")
