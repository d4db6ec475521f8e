"""Where values come from: an argument, a file, the standard input, or a prompt without echo."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

import click

from ..errors import InvalidValue
from ..schema import Schema

__all__ = ["as_utf8", "assigned", "has_terminal", "read_text"]


def has_terminal() -> bool:
    """Return whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_text(path: str, limit: int, name: str = "") -> str:
    """Read UTF-8 text from a file, a pipe or a device; ``-`` is the standard input.

    Args:
        name: the variable that it is for, if it is for one.

    Raises:
        click.UsageError: it can't be read.
        InvalidValue: it isn't UTF-8, or has more than ``limit`` bytes.
    """
    source = _source_name(path)
    try:
        with click.open_file(path, "rb") as file:
            data: bytes = file.read(limit + 1)
    # A path with a null character; a closed standard input.
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        text = f"{name}: " * bool(name) + f"{source} can't be read: {reason}."
        if name and path != "-":
            text += f" If {name} is to begin with @, write {name}=@@{path}."
        raise click.UsageError(text) from None
    if len(data) > limit:
        raise InvalidValue({name: f"{source} has more than {limit:,} bytes"})
    try:
        return data.decode("utf-8-sig")  # as Windows begins a file
    except UnicodeDecodeError as error:
        problem = f"{source} isn't UTF-8 text: see its byte {error.start + 1:,}"
        raise InvalidValue({name: problem}) from None


def assigned(assignments: Iterable[str], schema: Schema, limit: int) -> dict[str, str]:
    """Return the text of each assignment by name.

    ``NAME=-`` reads the standard input, ``NAME=@FILE`` a file; one line end after the text isn't
    part of it. ``NAME=@@x`` is the text ``@x``. A secret ``NAME`` alone is asked for.

    Raises:
        click.UsageError: one is no assignment, or can't be read.
        InvalidValue: what a file holds is no text, or too long.
        UnknownVariable: there is nothing to ask for.
    """
    texts: dict[str, str] = {}
    is_read = False
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not name:
            raise click.UsageError(f"{assignment!r} is no assignment; write NAME=VALUE.")
        if name in texts:
            raise click.UsageError(f"{name} is assigned twice.")
        if not equals:
            text = _ask(name, schema)
        elif text == "-":
            if is_read:
                raise click.UsageError("Only one variable can have the standard input.")
            is_read, text = True, _read_value(name, "-", limit)
        elif text.startswith("@@"):
            text = text[1:]
        elif text.startswith("@"):
            text = _read_value(name, text[1:], limit)
        try:
            texts[name] = as_utf8(text)
        except click.BadParameter as error:
            raise InvalidValue({name: error.message}) from None
    return texts


def as_utf8(text: str) -> str:
    """Read an argument as UTF-8, also under the locale C, in which Python reads ASCII."""
    try:
        return text.encode(errors="surrogateescape").decode()
    except UnicodeError:
        raise click.BadParameter("it isn't UTF-8 text") from None


def _source_name(path: str) -> str:
    return "the standard input" if path == "-" else path or "''"


def _read_value(name: str, path: str, limit: int) -> str:
    text = re.sub(r"\r?\n\Z", "", read_text(path, limit, name))
    if not text:  # most often the command before the pipe has failed
        problem = f"{_source_name(path)} is empty; write {name}= for an empty text"
        raise InvalidValue({name: problem})
    return text


def _ask(name: str, schema: Schema) -> str:
    if not schema.variable(name).secret:
        raise click.UsageError(f"{name!r} is no assignment; write NAME=VALUE.")
    if not has_terminal():
        raise click.UsageError(
            f"There is no terminal to ask for {name} on; write {name}=- and give it to the "
            f"standard input, or {name}=@FILE."
        )
    text: str = click.prompt(name, hide_input=True, confirmation_prompt=True, err=True)
    return text
