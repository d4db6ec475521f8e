"""What the drivers of SQL databases raise, told in the errors of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InvalidValue, StoreReadOnly, StoreUnavailable, WaffleError
from .contract import Store

__all__ = ["Collision", "translated"]

# The database has undone the whole transaction, for another one that it got in the way of: by the
# standard, and by MySQL's number.
UNDONE_STATES = ("40001", "40P01")
UNDONE_NUMBER = 1213

Kinds = tuple[type[Exception], ...]


class Collision(StoreUnavailable):
    """Somebody else was faster; nothing was changed, and it can be tried again at once."""


@contextmanager
def translated(
    store: Store,
    failed: Kinds,
    advice: Callable[[], str],
    *,
    refused: Kinds = (),
    unfit: Kinds = (),
) -> Iterator[None]:
    """Tell what is raised in this block as the store's errors; those of the package's own come out
    as they are.

    Args:
        failed: the exceptions that say that the database can't be used.
        advice: returns what a person can do then.
        refused: those that say that a row like this one is there already.
        unfit: those that say that a column can't hold the text.
    """
    try:
        yield
    except WaffleError:  # raised by decide, or by ourselves
        raise
    except refused as error:
        raise Collision(
            f"{store.name} refuses the row: {_told(error)}. Look at the table's constraints."
        ) from error
    except unfit as error:
        raise InvalidValue({"": f"{store.name} can't hold the value: {_told(error)}"}) from error
    except failed as error:
        told = _told(error)
        if _is_undone(error):
            raise Collision(f"{store.name}: {told}. {advice()}") from error
        if "read-only" in told.lower() or "readonly" in told.lower():
            raise StoreReadOnly(
                f"{store.name} refuses to be written: {told}. Nothing was changed."
            ) from error
        raise StoreUnavailable(f"{store.name}: {told}. {advice()}") from error


def _cause(error: Exception) -> Any:
    return getattr(error, "orig", None) or error


def _told(error: Exception) -> str:
    """Return what the driver says, without the lines behind the first, in which a database may
    quote the row.
    """
    return str(_cause(error)).partition("\n")[0]


def _is_undone(error: Exception) -> bool:
    cause = _cause(error)
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg, psycopg2
    return state in UNDONE_STATES or getattr(cause, "args", ())[:1] == (UNDONE_NUMBER,)
