"""A store that the application writes itself, as in the manual of Flask-WaffleConf."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import StoreUnavailable, WaffleError
from .rows import HISTORY, NAMES, REVISION, Found, RowStore, names_in
from .translation import retry_advice

__all__ = ["WaffleMixin", "WaffleStore"]

log = logging.getLogger("uwsgi_waffle")


class WaffleMixin:
    """What a model for a `WaffleStore` has; override both methods for other attribute names."""

    def get_key(self) -> str:
        """Return the variable's name."""
        return str(self.key)  # type: ignore[attr-defined]  # the model has it

    def get_value(self) -> str:
        """Return the text that is stored for it."""
        return str(self.value)  # type: ignore[attr-defined]  # the model has it


class WaffleStore(RowStore):
    """The base of a store of your own: write `get`, `put`, `delete` and `commit`.

    Each call enters an application context of its own. So a session that belongs to the context
    isn't the one that a request is using, and isn't committed with it. The application's teardown
    functions run when that context ends, because they give such a session back. What they raise
    after `commit` is logged: the update is made.

    Some promises depend on your methods: without transactions an update that fails half-way is half
    carried out, and without a lock only the writers of one host are ordered.

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
        """Remove a record and return it, or ``None`` if there is none."""
        raise NotImplementedError

    def get(self, key: str) -> Any:
        """Return a record, which has ``get_value()``, or ``None`` if there is none."""
        raise NotImplementedError

    def put(self, key: str, value: str) -> Any:
        """Insert or change a record and return it, or ``None`` if that failed."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @property
    def identity(self) -> str:
        return self.name

    @contextmanager
    def _open(self, *, lock: bool) -> Iterator[list[str]]:
        written: list[str] = []
        first = None
        try:
            with self._context():
                try:
                    yield written
                    if written:
                        with _mapped(self, "commit()"):
                            self.commit()
                except Exception as error:
                    first = error
                    raise
        except Exception:
            if first is not None:  # not what a teardown function makes of it
                raise first  # noqa: B904  # it has a cause of its own
            if not written:
                with _mapped(self, "the application's context"):
                    raise
            log.exception("uwsgi_waffle: a teardown function failed after an update was stored")

    def _read_rows(self, connection: list[str]) -> Found:
        found = {NAMES: _text(self, NAMES)}  # there is no way to list rows
        wanted = {*(self._names or ()), *names_in(found), REVISION, HISTORY}
        found |= {key: _text(self, key) for key in sorted(wanted)}
        return {key: text for key, text in found.items() if text is not None}

    def _write_row(
        self, connection: list[str], key: str, text: str | None, *, exists: bool
    ) -> None:
        connection.append(key)
        if text is None:
            with _mapped(self, "delete()"):
                self.delete(key)
            return
        with _mapped(self, "put()"):
            record = self.put(key, text)
        if record is None and _text(self, key) != text:
            raise StoreUnavailable(
                f"{self.name}: put({key!r}) returned None, so it failed. Check this method."
            )


def _text(store: WaffleStore, key: str) -> str | None:
    with _mapped(store, "get()"):
        record = store.get(key)
    if record is None:
        return None
    with _mapped(store, "get_value()"):
        return str(record.get_value())


@contextmanager
def _mapped(store: WaffleStore, what: str) -> Iterator[None]:
    try:
        yield
    except WaffleError:
        raise
    except Exception as error:
        failed = f"failed with {type(error).__name__}"  # its text may hold the values
        raise StoreUnavailable(f"{store.name}: {what} {failed}. {retry_advice(failed)}") from error
