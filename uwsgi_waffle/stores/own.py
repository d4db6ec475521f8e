"""A store that the application writes itself, as Flask-WaffleConf's manual shows; and its mixin for
models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import StoreUnavailable, WaffleError
from .contract import Stored
from .rows import HISTORY, NAMES, REVISION, Rows, RowStore, names_in

__all__ = ["WaffleMixin", "WaffleStore"]


class WaffleMixin:
    """What a model for a `WaffleStore` has; override the two methods if its attributes have other
    names.
    """

    def get_key(self) -> str:
        """Return the variable's name."""
        return str(self.key)  # type: ignore[attr-defined]  # the model has it

    def get_value(self) -> str:
        """Return the text that is stored for it."""
        return str(self.value)  # type: ignore[attr-defined]  # the model has it


class WaffleStore(RowStore):
    """The base of a store of your own: give it `get`, `put`, `delete` and `commit`.

    Each call enters an application context of its own, so that a session which belongs to the
    context isn't the one that
    a request is using, and isn't committed with it. The application's teardown functions run when
    it ends, for it is they that
    give such a session back: one that closes what belongs to the thread closes it for the request,
    too. Some promises rest on
    your methods: without transactions an update that fails half-way is half carried out; and only
    the writers of one host
    are ordered, for there is no lock among these methods.

    Args:
        db: yours to use.
        model: likewise.
    """

    def __init__(self, db: Any = None, model: Any = None) -> None:
        self.db, self.model = db, model

    def commit(self) -> None:
        """Commit what was put and deleted."""
        raise NotImplementedError

    def delete(self, key: str) -> Any:
        """Remove a record and return it, ``None`` if there is none."""
        raise NotImplementedError

    def get(self, key: str) -> Any:
        """Return a record, which has ``get_value()`` as a `WaffleMixin` has, or ``None`` if there
        is none.
        """
        raise NotImplementedError

    def put(self, key: str, value: str) -> Any:
        """Insert or change a record and return it, ``None`` if that failed."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def load_behind_writers(self) -> Stored:
        return self.load()  # there is no lock among the methods

    def _room(self) -> tuple[int | None, int | None]:
        return None, None

    @contextmanager
    def _open(self, *, lock: bool) -> Iterator[Rows]:
        with self._context():
            rows = OwnRows(self, self._names or frozenset())
            yield rows
            if rows.written:
                self._call(self.commit)

    def _call(self, method: Callable[..., Any], *args: str) -> Any:
        try:
            return method(*args)
        except WaffleError:
            raise
        except Exception as error:  # its text may hold the values
            raise StoreUnavailable(
                f"{self.name}.{method.__name__} failed with {type(error).__name__}. It is tried again without a restart."
            ) from error


class OwnRows:
    """The rows that a `WaffleStore` can be asked for."""

    def __init__(self, store: WaffleStore, names: frozenset[str]) -> None:
        self._store, self._names = store, names
        self.written = False

    def exist(self) -> bool:
        return True

    def read(self, *, history: bool = False) -> Mapping[str, str | None]:
        found = {NAMES: self._get(NAMES)}  # there is no way to list rows
        wanted = {*self._names, *names_in(found), REVISION, *((HISTORY,) if history else ())}
        found |= {key: self._get(key) for key in sorted(wanted)}
        return {key: text for key, text in found.items() if text is not None}

    def insert(self, key: str, text: str) -> None:
        self.written = True
        if self._store._call(self._store.put, key, text) is None and self._get(key) != text:
            raise StoreUnavailable(
                f"{self._store.name}: put({key!r}) returned None, which says that it failed. Look why."
            )

    def update(self, key: str, text: str) -> None:
        self.insert(key, text)

    def delete(self, key: str) -> None:
        self.written = True
        self._store._call(self._store.delete, key)

    def _get(self, key: str) -> str | None:
        record = self._store._call(self._store.get, key)
        return None if record is None else str(record.get_value())
