"""Map what the drivers of SQL databases raise to the errors of a store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import (
    InvalidValue,
    StoreReadOnly,
    StoreUnavailable,
    WaffleError,
    open_files_advice,
    taken_by,
)
from .contract import Store

__all__ = [
    "CANT_OPEN",
    "TableMissing",
    "TransactionConflict",
    "map_errors",
    "retry",
    "retry_advice",
]

CANT_OPEN = "unable to open database file"  # SQLite's words
# What drivers say of a server that couldn't be reached, so that nothing was sent.
NOT_CONNECTED = re.compile(
    "connection refused|connection failed|connection timeout|can't connect to|connecting to"
    "|could not translate host",
    re.IGNORECASE,
)

# SQLSTATEs of PostgreSQL and numbers of MySQL and MariaDB.
CONFLICT = {"40001", "40P01", 1213}  # the database has undone the whole transaction
NO_TABLE = {"42P01", 1146}
NO_RIGHT = {"42501", 1044, 1142, 1143, 1227, 1370}
TOO_LARGE = {1153}
GONE = {2006, 2013}

NO_DRIVER = (
    "Install this driver, or name another in the URL: uwsgi_waffle[postgres] brings psycopg, "
    "uwsgi_waffle[mysql] brings PyMySQL for mysql+pymysql://."
)
NEEDS_PACKAGE = "package is required"  # PyMySQL's words, for some ways to log in

# What a message says, as a regular expression, and what to do.
CAUSES = {
    "can't load plugin": "Name an installed driver in the URL.",
    "password authentication failed|no password supplied|password has expired|account is locked"
    "|access denied for user|no pg_hba.conf entry|is not permitted to log in"
    "|is not allowed to connect": "Correct user and password in the URL, or let this user in.",
    "permission denied for database": "Grant the database user the right to connect.",
    "violates check constraint|constraint failed|constraint `|violates not-null": (
        "Nothing was changed. Check the constraints and triggers of the table."
    ),
    r"no such column|has no column named|unknown column|column \S+ .*does not exist": (
        "The table has lost a column: restore the database from its backup."
    ),
    "invalid connection option|bad value for|invalid command-line argument": (
        "Correct the options in the URL."
    ),
    'unknown database|no schema has been selected|(role|database) ".*" does not exist': (
        "Create it, or correct the URL."
    ),
    "statement pooling mode": (
        "Set pool_mode = transaction in PgBouncer, or name the server itself in the URL."
    ),
    "too many connections|too many clients|connection slots are reserved": (
        "Close some, or raise the server's limit of connections."
    ),
    "disk is full|no space left|is full": "Make room on the disk of the database.",
    "disk i/o error": "Check the disk of the database: it may be full.",
    "database is locked|database table is locked": (
        "Another connection has written there and not yet committed; end it."
    ),
    rf"{CANT_OPEN}|\[errno 13\]": (
        "Check that the server's user may write the file and its folder."
    ),
    "not a database|malformed": "Restore the database from its backup.",
}

ATTEMPTS = 5

T = TypeVar("T")
ErrorTypes = tuple[type[Exception], ...]


class TransactionConflict(StoreUnavailable):
    """Another writer was faster; nothing was changed, and it can be tried again at once."""


class TableMissing(StoreUnavailable):
    """The table does not exist."""


def retry(call: Callable[[], T]) -> T:
    """Call something again if another writer was faster."""
    for _ in range(ATTEMPTS - 1):
        try:
            return call()
        except TransactionConflict:
            continue
    return call()


@contextmanager
def map_errors(
    store: Store,
    errors: ErrorTypes,
    *,
    conflict_errors: ErrorTypes = (),
    data_errors: ErrorTypes = (),
    writing: bool = True,
) -> Iterator[None]:
    """Raise the errors of this block as those of a store; the package's own pass unchanged.

    Args:
        errors: those of the driver.
        conflict_errors: those for a row that the table already has.
        data_errors: those for a text that a column can't hold.
        writing: whether the block needs more than the right to read.
    """
    try:
        yield
    except WaffleError:
        raise
    except conflict_errors as error:
        raise TransactionConflict(
            f"{store.name} refuses the row: {_driver_message(error)}. "
            "Check the constraints of the table."
        ) from error
    except data_errors as error:
        message = f"{store.name} can't hold the value: {_driver_message(error)}"
        raise InvalidValue({"": message}) from error
    except ImportError as error:
        place = taken_by((error.name or "").partition(".")[0])
        advice = f"Rename {place}, which has its name." if place else NO_DRIVER
        raise StoreUnavailable(f"{store.name}: {error}. {advice}") from error
    except RuntimeError as error:
        if NEEDS_PACKAGE not in str(error):
            raise
        raise StoreUnavailable(f"{store.name}: {error}. Install that package.") from error
    except errors as error:
        raise _store_error(store.name, error, writing=writing) from error


def _store_error(name: str, error: Exception, *, writing: bool) -> WaffleError:
    message, codes = _driver_message(error), _codes(error)
    if codes & CONFLICT:
        return TransactionConflict(f"{name}: {message}. Nothing was changed. Try again.")
    if codes & TOO_LARGE:
        return InvalidValue({"": f"{name} can't hold the value: {message}"})
    if codes & NO_TABLE or message.startswith("no such table"):
        return TableMissing(f"{name}: {message}. Check that this database has the table.")
    if codes & NO_RIGHT:
        error_type = StoreReadOnly if writing else StoreUnavailable
        return error_type(
            f"{name}: {message}. Grant the database user this right, or correct the URL."
        )
    if "read-only" in message.lower() or "readonly" in message.lower():
        return StoreReadOnly(
            f"{name} refuses to be written: {message}. Nothing was changed. Let this process "
            "write there, or correct the URL."
        )
    return StoreUnavailable(f"{name}: {message}. {_advice(message, codes)}")


def retry_advice(message: str) -> str:
    """Say that servers try again, and what to do if an update may be stored all the same."""
    again = "Servers try again by themselves."
    if NOT_CONNECTED.search(message):
        return again
    return f"{again} If this was an update, look at the history before you repeat it."


def _advice(message: str, codes: set[object]) -> str:
    if advice := open_files_advice(message):
        return advice
    for cause, advice in CAUSES.items():
        if re.search(cause, message, re.IGNORECASE):
            return advice
    advice = f"Check that the database answers. {retry_advice(message)}"
    if codes & GONE:
        advice += " If a value is large, raise the server's max_allowed_packet."
    return advice


def _cause(error: Exception) -> Any:
    return getattr(error, "orig", None) or error


def _driver_message(error: Exception) -> str:
    """Return the first line of the driver's message; the others may quote the row."""
    message = str(_cause(error)).partition("\n")[0].rstrip(".")
    return f"{message}{_why_no_file()}" if message == CANT_OPEN else message


def _why_no_file() -> str:
    """Say whether too many files are open, which SQLite hides; it needs as many as two pipes."""
    opened: list[int] = []
    try:
        for _ in range(2):
            opened.extend(os.pipe())
    except OSError as error:
        return f": {error.strerror}"
    finally:
        for fd in opened:
            os.close(fd)
    return ""


def _codes(error: Exception) -> set[object]:
    cause = _cause(error)
    codes = {getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None)}  # psycopg, psycopg2
    return codes | {code for code in getattr(cause, "args", ())[:1] if isinstance(code, int)}
