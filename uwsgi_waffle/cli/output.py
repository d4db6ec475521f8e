"""What the commands print: one line at a time, and nothing that moves the terminal's cursor."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import click

from ..text import escape_line, to_json

__all__ = [
    "MAX_SHOWN",
    "OutputError",
    "after_update",
    "is_terminal",
    "print_document",
    "print_error",
    "print_json",
    "print_line",
    "print_value",
    "shorten",
]

MAX_SHOWN = 200  # characters of a value on a terminal
FAILURES = (OSError, ValueError)  # the second if the application has closed the stream


class OutputError(Exception):
    """The standard output can't be written."""

    def __init__(self, error: OSError | ValueError) -> None:
        why = getattr(error, "strerror", None) or error
        super().__init__(f"the output can't be written: {why}")
        #: Whether nobody reads it any more, as behind ``| head``; then there is nothing to say.
        self.is_closed_pipe = isinstance(error, BrokenPipeError)


def print_line(text: str) -> None:
    """Print one line.

    Raises:
        OutputError: it can't be written.
    """
    _print(escape_line(text))


def print_json(document: Any, *, indent: int | None = None) -> None:
    """Print a JSON document; errors as in `print_line`."""
    print_document(to_json(document, indent=indent))


def print_document(text: str) -> None:
    """Print what a program reads: into files and pipes always UTF-8; errors as in `print_line`."""
    is_binary = hasattr(sys.stdout, "buffer") and not is_terminal()
    _print(text.encode() if is_binary else text)


def print_value(text: str) -> None:
    """Print a text as it is; on a terminal, escape all but its line ends. Errors as above."""
    if is_terminal():
        text = "\n".join(map(escape_line, text.split("\n")))
    _print(text)


def shorten(text: str) -> str:
    """Return what a terminal shows of a value; all of it goes to files and pipes."""
    if len(text) <= MAX_SHOWN or not is_terminal():
        return text
    return f"{text[:MAX_SHOWN]}... ({len(text):,} characters)"


def is_terminal() -> bool:
    """Return whether a person reads the standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def print_error(text: str) -> None:
    """Print one line on the standard error, if that can be written."""
    try:
        click.echo(escape_line(text), err=True)
    except FAILURES:
        _discard(sys.stderr)


@contextmanager
def after_update(revision: int | None) -> Iterator[None]:
    """Print in this block what an update did: if that fails, the update was made all the same.

    Args:
        revision: what the update has made, ``None`` if there was none after all.
    """
    try:
        yield
    except OutputError as error:
        if revision is None:
            raise
        if not error.is_closed_pipe:
            print_error(f"revision {revision} is stored; {error}")


def _print(text: str | bytes) -> None:
    if isinstance(text, str):  # letters that the terminal can't spell are escaped
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.echo(text, color=True)  # a value keeps the escape sequences that it has
    except FAILURES as error:
        _discard(sys.stdout)
        raise OutputError(error) from None


def _discard(stream: TextIO) -> None:
    """Send what is still to come nowhere: Python flushes the stream once more when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(*FAILURES):  # it may not be a file
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
