"""What all commands share: the application, errors as a script reads them, masks, and names that
the shell completes.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem
from flask import current_app
from flask.cli import ScriptInfo

from ..errors import InvalidValue, RevisionConflict, WaffleError
from ..extension import Binding, binding_of
from ..schema import MASK

__all__ = [
    "ApplicationCommand",
    "Command",
    "as_json",
    "as_text",
    "binding",
    "command",
    "complete_names",
    "line",
    "login",
    "plain",
    "seconds",
]

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Refusal(click.ClickException):
    """An error of the package's: a line on the standard error, with ``--json`` an object on the
    standard output, too. Exit code 1.
    """

    def __init__(self, error: WaffleError, *, as_json: bool) -> None:
        super().__init__(str(error))
        self._told: dict[str, Any] | None = (
            {"error": type(error).__name__, "message": str(error)} if as_json else None
        )
        if self._told and isinstance(error, InvalidValue):
            self._told["problems"] = error.problems
        if self._told and isinstance(error, RevisionConflict):
            self._told["revision"] = error.actual

    def show(self, file: Any = None) -> None:
        super().show(file)
        if self._told is not None:
            click.echo(json.dumps(self._told))


class Command(click.Command):
    """A command that tells the package's errors as a `Refusal`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WaffleError as error:
            raise Refusal(error, as_json=bool(ctx.params.get("as_json"))) from None


class ApplicationCommand(Command):
    """A command that runs in the application's context, and tells likewise why the application
    refuses to start.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            app = ctx.ensure_object(ScriptInfo).load_app()
        except WaffleError as error:
            raise Refusal(error, as_json=bool(ctx.params.get("as_json"))) from None
        with app.app_context():
            return super().invoke(ctx)


def command(name: str, cls: type[Command] = ApplicationCommand) -> Callable[[F], Command]:
    """Make a command of a function."""
    return click.command(name, cls=cls)


def seconds(value: str) -> float:
    """Read a number of seconds: neither negative nor infinite, nor no number at all, which `float`
    takes, too.
    """
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < 10**9:
        raise click.BadParameter(f"{value!r} is no number of seconds.")
    return number


def binding() -> Binding:
    """Return what the application has of the extension."""
    # LocalProxy's public way
    return binding_of(current_app._get_current_object())  # type: ignore[attr-defined]


def login() -> str:
    """Return who runs the command; in a container the user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def as_text(binding: Binding, name: str, text: str) -> str:
    """Return a value's JSON text as a person may see it."""
    return MASK if name in binding.schema.secrets else text


def plain(binding: Binding, name: str, text: str) -> Any:
    """Return the value of a JSON text as a program may see it."""
    return MASK if name in binding.schema.secrets else json.loads(text)


def line(text: str) -> str:
    """Return a text that somebody has written, such as a note, as one line that can't move the
    terminal's cursor.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def complete_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the variables whose names begin so and aren't given yet; none if the application can't
    be loaded.
    """
    try:
        with _silence():
            variables = binding_of(ctx.ensure_object(ScriptInfo).load_app()).schema.variables
    except (
        Exception,
        SystemExit,
    ):  # whatever an application raises while it is loaded: the terminal isn't the place to say it
        return []
    given = ctx.params.get(str(param.name)) or ()
    words = (given,) if isinstance(given, str) else tuple(given)
    end = ""
    if param.name == "assignments":
        end = "="
        # bash takes the sign for a word of its own, click then hides it: a value stands behind it
        # or behind a bare name.
        *_, before, last = ("", "", *words)
        if "=" in incomplete or last == "=" or (last in variables and before != "="):
            return []
    used = {word.partition("=")[0] for word in words}
    return [
        CompletionItem(name + end, help=v.desc)
        for name, v in variables.items()
        if name.startswith(incomplete) and name not in used
    ]


@contextmanager
def _silence() -> Iterator[None]:
    """Send all that this process writes nowhere, also what libraries in C and handlers of the log
    write.
    """
    kept = {number: os.dup(number) for number in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        _redirect(dict.fromkeys(kept, nowhere))
        yield
    finally:
        _redirect(kept)
        for fd in (nowhere, *kept.values()):
            os.close(fd)


def _redirect(targets: dict[int, int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number, fd in targets.items():
        os.dup2(fd, number)
