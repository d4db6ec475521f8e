"""What the package writes to terminals and logs: characters that can be printed, nothing else."""

from __future__ import annotations

import json
import logging
import traceback

__all__ = ["escape_line", "escape_record", "guard", "to_json"]


def escape_line(text: str) -> str:
    r"""Return a text as one line that can be printed.

    Whatever isn't a printable character, such as a line end or what moves a terminal's cursor, is
    written as in Python's source: ``\n``, ``\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape_record(record: logging.LogRecord) -> bool:
    """Escape what a log record says, so that no text of a stranger makes a line of its own.

    A filter of the package's logger. It indents the lines of a traceback, which errors take part
    in, too.
    """
    text = record.getMessage()
    if not text.isprintable():
        record.msg, record.args = escape_line(text), None
    if record.exc_info and record.exc_info[0]:
        lines = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n").split("\n")
        record.exc_text = "\n".join(f"  {escape_line(line)}" for line in lines)
    return True


def guard(logger: logging.Logger) -> None:
    """Let no error of an application's log handlers and filters reach who logs.

    It is printed, as `logging` prints those of a handler that can't write. An update that is stored
    would fail otherwise, and the thread that follows the host would end.
    """

    own = logger.handle

    def handle(record: logging.LogRecord) -> None:
        try:
            own(record)
        except Exception:
            logging.Handler().handleError(record)

    logger.handle = handle  # type: ignore[method-assign]  # of this logger alone


def to_json(value: object, *, indent: int | None = None, compact: bool = False) -> str:
    r"""Return a value as JSON that can be printed; letters that aren't ASCII stay as they are."""
    separators = (",", ":") if compact else None
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    if text.isprintable():
        return text
    # Between the values there are only line ends and blanks: all else is in a string.
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)
