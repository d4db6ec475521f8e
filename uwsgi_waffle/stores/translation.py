"""Map what the drivers of SQL databases raise to the errors of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
    "ADVICE",
    "CANT_OPEN",
    "TRIED_AGAIN",
    "TableMissing",
    "TransactionConflict",
    "map_errors",
]

CANT_OPEN = "unable to open database file"  # SQLite's words
TRIED_AGAIN = (
    "Reads are tried again without a restart; look at the history before you repeat an update."
)
ADVICE = f"Mend that in the database, or correct the URL. {TRIED_AGAIN}"

# SQLSTATEs of PostgreSQL and numbers of MySQL and MariaDB.
CONFLICT = {"40001", "40P01", 1213}  # the database has undone the whole transaction
NO_TABLE = {"42P01", 1146}
NO_RIGHT = {"42501", 1044, 1142, 1143, 1227, 1370}
TOO_LARGE = {1153}
GONE = {2006, 2013}

# Parts of a message, and what to do where the message itself doesn't say it.
CAUSES = {
    "Can't load plugin": "Name an installed driver in the URL.",
    "is locked": "Another connection has written there and not yet committed; end it.",
    CANT_OPEN: "Check that the server's user may write the file and its folder.",
    "[Errno 13]": "Check that the server's user may write the file and its folder.",
}

ErrorTypes = tuple[type[Exception], ...]


class TransactionConflict(StoreUnavailable):
    """Another writer was faster; nothing was changed, and it can be tried again at once."""


class TableMissing(StoreUnavailable):
    """The table does not exist."""


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
        advice = f"Rename {place}, which has its name." if place else "Install this driver."
        raise StoreUnavailable(f"{store.name}: {error}. {advice}") from error
    except errors as error:
        raise _store_error(store.name, error, writing=writing) from error


def _store_error(name: str, error: Exception, *, writing: bool) -> WaffleError:
    message, codes = _driver_message(error), _codes(error)
    if codes & CONFLICT:
        return TransactionConflict(f"{name}: {message}. {ADVICE}")
    if codes & TOO_LARGE:
        return InvalidValue({"": f"{name} can't hold the value: {message}"})
    if codes & NO_TABLE or message.startswith("no such table"):
        return TableMissing(f"{name}: {message}. Check that this database has the table.")
    if codes & NO_RIGHT:
        error_type = StoreReadOnly if writing else StoreUnavailable
        return error_type(f"{name}: {message}. Grant the database user this right.")
    if "read-only" in message.lower() or "readonly" in message.lower():
        return StoreReadOnly(f"{name} refuses to be written: {message}. Nothing was changed.")
    return StoreUnavailable(f"{name}: {message}. {_advice(message, codes)}")


def _advice(message: str, codes: set[object]) -> str:
    if advice := open_files_advice(message):
        return advice
    if codes & GONE:
        return f"{ADVICE} If a value is large, raise the server's max_allowed_packet."
    return next((advice for part, advice in CAUSES.items() if part in message), ADVICE)


def _cause(error: Exception) -> Any:
    return getattr(error, "orig", None) or error


def _driver_message(error: Exception) -> str:
    """Return the first line of the driver's message; the others may quote the row."""
    return str(_cause(error)).partition("\n")[0].rstrip(".")


def _codes(error: Exception) -> set[object]:
    cause = _cause(error)
    codes = {getattr(cause, "sqlstate", None), getattr(cause, "pgcode", None)}  # psycopg, psycopg2
    return codes | {code for code in getattr(cause, "args", ())[:1] if isinstance(code, int)}
