"""The group of the commands, and what they share: the application, errors, masks, completion."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from io import BytesIO, TextIOWrapper
from typing import Any

import click
from click.shell_completion import CompletionItem
from flask import Flask, current_app
from flask.cli import ScriptInfo

from .. import expiry
from ..errors import InvalidValue, RevisionConflict, WaffleError
from ..history import visible
from ..schema import MASK
from ..served import repairing
from ..state import WaffleState, state_of
from ..text import escape_line, to_json
from .output import OutputError, print_error, print_json, shorten

__all__ = [
    "Command",
    "app_state",
    "as_json",
    "as_text",
    "complete_names",
    "duration",
    "load_app",
    "seconds",
    "waffle",
]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Command(click.Command):
    """A command that shows an error of the package in one line, and ends with exit code 1.

    With ``--json`` there is an object on the standard output, too.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self.run(ctx)
        except WaffleError as error:
            print_error(f"Error: {error}")
            if ctx.params.get("as_json"):
                with suppress(OutputError):
                    print_json(_document(error))
            ctx.exit(1)
        except OutputError as error:
            if not error.is_closed_pipe:
                print_error(f"Error: {error}")
            ctx.exit(1)

    def run(self, ctx: click.Context) -> Any:
        """Run the command itself."""
        return super().invoke(ctx)


class ApplicationCommand(Command):
    """A command that runs in the application's context.

    The application starts even if stored values don't fit, so that the command can repair them.
    """

    def run(self, ctx: click.Context) -> Any:
        context = load_app(ctx).app_context()
        context.push()
        try:
            return super().run(ctx)
        finally:
            try:
                context.pop(sys.exc_info()[1])
            except Exception as error:  # what is done stays done
                print_error(f"a teardown function failed: {type(error).__name__}: {error}")


waffle = click.Group(
    "waffle",
    help="Read and change the variables of WAFFLE_CONFS.",
    epilog="Exit codes: 0 done; 1 refused; 2 not understood; 3 made, but not all processes had it "
    "in time, or no server runs here; 4 --dry-run found something to change.",
)
waffle.command_class = ApplicationCommand


def _document(error: WaffleError) -> dict[str, Any]:
    document: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    if isinstance(error, InvalidValue):
        document["problems"] = error.problems
    if isinstance(error, RevisionConflict):
        document["revision"] = error.actual
    return document


def load_app(ctx: click.Context) -> Flask:
    """Load the application, so that it starts even if stored values don't fit."""
    with repairing():
        return ctx.ensure_object(ScriptInfo).load_app()


def seconds(value: str) -> float:
    """Read a number of seconds. Reject negative, infinite and NaN values."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 10**9:
        raise click.BadParameter(f"{value!r} is no number of seconds.")
    return number


def duration(value: str) -> timedelta:
    """Read a time such as ``30m`` or ``1d12h``."""
    try:
        return expiry.duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def app_state() -> WaffleState:
    """Return what the application has of the extension."""
    return state_of(current_app)


def as_text(state: WaffleState, name: str, text: str | None) -> str:
    """Return a stored value as a terminal shows it; its default if none is stored."""
    value = visible(state.schema, name, text)
    return MASK if value is MASK else shorten(to_json(value, compact=True))


def complete_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the variables that begin so and aren't given yet; none if there is no application."""
    given = ctx.params.get(str(param.name)) or ()
    if given[-1:] == ("=",):  # bash splits words there, and this is the value
        return []
    nowhere = TextIOWrapper(BytesIO(), encoding="utf-8")
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            variables = state_of(load_app(ctx)).schema.variables
    except (Exception, SystemExit):  # an application may raise anything; don't print it here
        return []
    end = "=" if param.name == "assignments" else ""
    return [
        CompletionItem(name + end, help=escape_line(v.desc))
        for name, v in variables.items()
        if name.startswith(incomplete) and name not in {word.partition("=")[0] for word in given}
    ]
