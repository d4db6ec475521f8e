"""The connection of an application whose SQLite database is in memory, as in its tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

__all__ = ["BorrowedConnection"]

SAVEPOINT = "uwsgi_waffle"


class BorrowedConnection:
    """Uses the only connection that there is, without ending what the application does on it.

    Args:
        engine: the application's, whose pool has just one connection, as Flask-SQLAlchemy makes it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._app_engine, self._lock = engine, threading.RLock()
        self._raw: Any = None
        self._engine: sa.Engine | None = None

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Begin a transaction, or a part of the one that the application has begun."""
        with self._lock:
            engine = self._connect()
            with engine.connect() as connection:
                self._raw.execute(f"SAVEPOINT {SAVEPOINT}")
                try:
                    yield connection
                except BaseException:
                    self._raw.execute(f"ROLLBACK TO {SAVEPOINT}")
                    raise
                finally:
                    self._raw.execute(f"RELEASE {SAVEPOINT}")

    def _connect(self) -> sa.Engine:
        if self._engine is None or not self._is_open():
            # Once only: SQLAlchemy rolls a connection back that is returned to its pool.
            with self._app_engine.connect() as connection:
                self._raw = connection.connection.dbapi_connection
            options = dict(self._app_engine.get_execution_options())
            options.pop("isolation_level", None)  # SQLAlchemy would set it on the connection anew
            self._engine = sa.create_engine(
                self._app_engine.url,
                creator=lambda: self._raw,
                poolclass=NullPool,
                hide_parameters=True,
                execution_options=options,
            )
            for name in ("do_rollback", "do_close"):  # these are the application's
                setattr(self._engine.dialect, name, lambda raw: None)
        return self._engine

    def _is_open(self) -> bool:
        try:
            self._raw.execute("SELECT 1").close()
        except self._app_engine.dialect.loaded_dbapi.ProgrammingError:
            return False
        return True
