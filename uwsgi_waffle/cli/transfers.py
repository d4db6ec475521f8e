"""Values on their way: `export`, `apply`, `import-legacy`."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from secrets import token_hex
from typing import Any

import click

from .. import documents, unix
from ..errors import InvalidValue, WaffleError
from ..history import visible
from ..report import misfits
from ..stores import Commit, Stored
from .command import app_state, as_json, as_text, waffle
from .output import after_update, print_document, print_error, print_json, print_line
from .sources import read_text
from .updating import (
    DIFFERENT,
    actor_option,
    carry_out,
    confirm_changes,
    dry_run_option,
    preview,
    update_options,
)

STDOUT = ("-", "/dev/stdout")
MAX_FILE = 2**26  # bytes that are read
# Errors of a file that can't be replaced, such as a mounted one, and perhaps can be written.
KEPT = (errno.EACCES, errno.EBUSY, errno.EPERM)


@waffle.command("export")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(documents.FORMATS),
    help="What to write; by default what FILE's name ends with, else JSON.",
)
@click.option("--only-set", is_flag=True, help="Leave out what is only the default.")
@click.option(
    "--reveal",
    is_flag=True,
    help="Write the values of secret variables, too. Nobody but you may read FILE then.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="With FILE, print as JSON what was written; without it, the same as --format json.",
)
def export(file: str, wanted: str | None, only_set: bool, reveal: bool, as_json: bool) -> None:
    """Write the values in force to FILE, for `flask waffle apply` and for people.

    As JSON the document also has their revision, which of them are set, and the declarations; as
    TOML and .env the declarations are comments. Without FILE it goes to the standard output.
    """
    state, to_stdout = app_state(), file in STDOUT
    wanted = wanted or ("json" if as_json and to_stdout else documents.format_of(file) or "json")
    if as_json and to_stdout and wanted != "json":
        raise click.UsageError("--json needs a FILE beside it if FILE isn't JSON.")
    state.update_conf()  # not the last good values of a store that is gone
    snapshot, unusable = state.current(), misfits(state)
    for misfit in unusable:
        if not misfit.name:  # then all variables have their defaults here
            raise WaffleError(f"Nothing was written: {misfit}. Run {misfit.commands}")
    secret = [] if reveal else sorted(state.schema.secrets)
    pinned = sorted(state.schema.pins)  # they are this host's, and what is stored isn't known here
    left_out = sorted({*secret, *pinned, *(misfit.name for misfit in unusable)})
    text = documents.written(state.schema, snapshot, wanted, left_out=left_out, only_set=only_set)
    if to_stdout:
        print_document(text)
    else:
        _write(file, text + "\n", private=reveal)
    for misfit in unusable:
        print_error(f"{misfit.name}: left out, {misfit}. Run {misfit.commands}")
    if as_json and not to_stdout:
        print_json({"revision": snapshot.revision, "file": file, "left_out": left_out})
        return
    if secret:
        names = ", ".join(secret)
        print_error(f"left out because they are secret: {names} (--reveal writes them)")
    if pinned:
        print_error(f"left out because the environment pins them: {', '.join(pinned)}")


def _write(path: str, text: str, *, private: bool) -> None:
    """Write a file all at once; a pipe, a device and what can't be replaced as it is."""
    data, is_file = text.encode(), os.path.isfile(path)
    is_open = path.startswith(("/dev/fd/", "/dev/std", "/proc/"))
    try:
        if not is_open and (is_file or not os.path.exists(path)):
            try:
                _replace(os.path.realpath(path), data, private=private)
                return
            except OSError as error:
                # One that others have open would show them what is private.
                if private or not is_file or error.errno not in KEPT:
                    raise
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise WaffleError(f"{path} can't be written: {error.strerror}.") from None


def _replace(path: str, data: bytes, *, private: bool) -> None:
    """Put a new file in the place of an old one; with its owner and mode, unless private."""
    new = f"{os.path.dirname(path)}/.waffle-export-{token_hex(4)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with open(fd, "wb") as file:
            if os.path.exists(path) and not private:
                old = os.stat(path)
                with suppress(PermissionError):  # only root may give files away
                    unix.fchown(fd, old.st_uid, old.st_gid)
                unix.fchmod(fd, old.st_mode & 0o777)
            file.write(data)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


@waffle.command("apply")
@click.argument("file", type=click.Path(allow_dash=True))
@click.option(
    "--reset-others",
    is_flag=True,
    help="Give variables that FILE doesn't name their defaults. It asks first.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@update_options
def apply(file: str, reset_others: bool, yes: bool, **options: Any) -> None:
    """Set what FILE says, in one update; if all of it is so already, change nothing.

    FILE is TOML or JSON with values by name, a .env file, or what `flask waffle export` has
    written. Variables that it doesn't name stay as they are. With `-` it is the standard input.
    """
    state = app_state()
    document = _document_in(file)
    changeset = documents.changes_for(state.schema, document, reset_others=reset_others)
    options["note"] = "apply" if options["note"] is None else options["note"]
    if reset_others and not (yes or options["dry_run"]):
        made = preview(state, changeset, options)
        resets = [name for name in made.changed if made.new[name] is None]
        if resets:
            confirm_changes(state, made, f"Reset {', '.join(resets)}?", options)
    carry_out(state, changeset, **options)


def _document_in(path: str) -> documents.Document:
    try:
        return documents.read(read_text(path, MAX_FILE), documents.format_of(path))
    except InvalidValue:
        raise
    except ValueError as error:
        raise InvalidValue({"the standard input" if path == "-" else path: str(error)}) from None


@waffle.command("import-legacy")
@dry_run_option
@actor_option
@as_json
@click.pass_context
def import_legacy(ctx: click.Context, dry_run: bool, actor: str, as_json: bool) -> None:
    """Write the values of Flask-WaffleConf as JSON, in one update.

    The application reads such values as they are; this converts all at once. They are pickles, and
    nothing of them is executed. What can't be converted, or isn't declared, is named and left
    alone, and the exit code is 1.
    """
    state = app_state()
    size = state.settings.max_value_size
    converted, problems = documents.convert_legacy(state.schema, state.store.rows(), max_size=size)

    def build_commit(stored: Stored) -> Commit | None:
        # Read from the store as JSON: the same values in another notation.
        changes = {name: stored.values[name] for name in converted if name in stored.values}
        return Commit(changes, actor, "import-legacy") if changes else None

    revision = None if dry_run else state.writer.commit(build_commit).revision
    with after_update(revision):
        if as_json:
            values = {name: visible(state.schema, name, text) for name, text in converted.items()}
            document = {"revision": revision, "dry_run": dry_run, "converted": values}
            print_json({**document, "left": problems}, indent=2)
        else:
            for name, text in converted.items():
                print_line(f"{name}: {as_text(state, name, text)}")
            for name, problem in problems.items():
                print_error(f"{name}: left alone, {problem}")
            done = "would be converted; nothing was written"
            if revision is not None:
                done = f"converted, revision {revision}"
            print_line(f"{len(converted)} {done}" if converted else "nothing to convert")
    if problems:
        ctx.exit(1)
    if dry_run and converted:
        ctx.exit(DIFFERENT)
