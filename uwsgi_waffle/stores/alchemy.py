"""A store over a model of the application's own, on Flask-SQLAlchemy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ..errors import SchemaError, StoreUnavailable
from ..identity import sqlite_path
from ..privileges import as_owner_of
from . import drivers
from .borrowed import BorrowedConnection
from .engines import connect, identity_of, libpq_url, notify, shown
from .rows import MYSQL, MYSQL_TEXT, REVISION, Found, RowStore
from .translation import map_errors

__all__ = ["AlchemyWaffleStore"]


class AlchemyWaffleStore(RowStore):
    """Keeps values in a Flask-SQLAlchemy model that has a unique ``key`` and a ``value``.

    It adds the rows ``WAFFLE_REVISION``, ``WAFFLE_HISTORY`` with the newest 100 changes, and
    ``WAFFLE_NAMES``. Rows are inserted without the model's ``__init__`` and events; defaults of the
    columns are filled in.

    Each call has a connection of its own, made as the application's engine makes them, with one
    short transaction. Sessions of the application are neither used nor changed. A session that has
    written and not yet committed can make an update fail after seconds; on SQLite it always does.
    Only where the database is in memory, as in tests, is it the application's own connection: then
    an update is a part of the transaction that a session has begun, and the store is of this
    process alone.

    A call waits for a silent server for 5 s with psycopg, PyMySQL and mysqlclient. With psycopg2 it
    notices a machine that is gone, but not a server process that hangs. With other drivers, or if
    the engine has a ``creator``, only the time limits of the application's engine count.

    Args:
        db: the application's ``SQLAlchemy``. Its engine is looked up at the first call, in a
            context of the application that `WaffleConf` gave the store to, else in the active one.
        model: the model.

    Raises:
        SchemaError: the model has no such columns, or inheritance.

    Example:
        >>> from flask_sqlalchemy import SQLAlchemy
        >>> db = SQLAlchemy()
        >>> class Conf(db.Model):
        ...     id = db.Column(db.Integer, primary_key=True)
        ...     key = db.Column(db.String(255), unique=True)
        ...     value = db.Column(db.Text)
        >>> store = AlchemyWaffleStore(db=db, model=Conf)
    """

    def __init__(self, db: Any = None, model: Any = None) -> None:
        try:
            mapper = sa.inspect(model)
            self._key, self._value = _column(mapper, "key"), _column(mapper, "value")
        except (exc.NoInspectionAvailable, AttributeError, KeyError):
            raise SchemaError(
                "AlchemyWaffleStore needs db= and model=, a model with the columns key and value, "
                f"not {model!r}."
            ) from None
        self.db, self.model = db, model
        self._table: sa.Table = self._key.table
        problem = _problem(mapper, self._key, self._value)
        if problem:
            raise SchemaError(
                f"AlchemyWaffleStore can't keep variables in {model.__name__}: {problem}. "
                "Give it a model of their own."
            )
        self._found_engine: sa.Engine | None = None
        self._borrowed: BorrowedConnection | None = None
        self._engine: sa.Engine | None = None
        self._pid = 0

    @property
    def name(self) -> str:
        return f"{shown(self._app_engine().url)} ({self._table.name})"

    @property
    def identity(self) -> str:
        return identity_of(self._app_engine().url, self._table.fullname)

    @property
    def file(self) -> Path | None:
        if self._has_server or self._in_memory:
            return None
        return Path(sqlite_path(str(self._app_engine().url.database)))

    @property
    def libpq_url(self) -> str:
        return libpq_url(self._app_engine().url)

    @property
    def _backend(self) -> str:
        return self._app_engine().dialect.name

    def _column_lengths(self) -> tuple[int | None, int | None]:
        key, value = (getattr(column.type, "length", None) for column in (self._key, self._value))
        if value is None and self._backend in MYSQL:
            from sqlalchemy.dialects import mysql  # only here: its many modules take memory

            column_type = self._value.type.dialect_impl(self._app_engine().dialect)
            column_type = getattr(column_type, "impl", column_type)
            if not isinstance(column_type, (mysql.LONGTEXT, mysql.MEDIUMTEXT)):
                value = MYSQL_TEXT
        return key, value

    @property
    def _in_memory(self) -> bool:
        self._app_engine()
        return self._borrowed is not None

    @contextmanager
    def _open(self, *, lock: bool) -> Iterator[sa.Connection]:
        with map_errors(
            self,
            (exc.SQLAlchemyError, OSError),
            conflict_errors=(exc.IntegrityError,),
            data_errors=(exc.DataError,),
            writing=lock,
        ):
            self._app_engine()
            transaction = (
                self._transaction if self._borrowed is None else self._borrowed.transaction
            )
            with transaction() as connection:
                if lock:
                    self._lock(connection)
                yield connection

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with as_owner_of(self.file):
            engine, token = self._own_engine(), _limit_connection.set(True)
            try:
                connection = engine.connect()
            finally:
                _limit_connection.reset(token)
            with connection:
                backend = connection.dialect.name
                # Whatever the application's connections are set to: a transaction that sees what
                # the lock has waited for.
                level = drivers.ISOLATION.get(backend, "SERIALIZABLE")
                connection.execution_options(isolation_level=level)
                connection.detach()  # closed with this block, whatever the pool
                with connection.begin():
                    for statement in drivers.transaction_limits(backend, drivers.TIMEOUT):
                        connection.exec_driver_sql(statement)
                    yield connection

    def _read_rows(self, connection: sa.Connection) -> Found:
        rows = connection.execute(sa.select(self._key, self._value))
        return {key: text for key, text in rows if key is not None}

    def _write_row(
        self, connection: sa.Connection, key: str, text: str | None, *, exists: bool
    ) -> None:
        table, row = self._table, {self._value: text}
        if text is None:
            connection.execute(table.delete().where(self._key == key))
        elif exists:
            connection.execute(table.update().where(self._key == key).values(row))
        else:
            connection.execute(table.insert().values({self._key: key, **row}))
        if key == REVISION:
            notify(connection, self.notification)

    def _lock(self, connection: sa.Connection) -> None:
        row = self._key == REVISION
        if self._has_server:
            connection.execute(sa.select(self._key).where(row).with_for_update())
        else:
            connection.execute(self._table.update().where(row).values({self._value: self._value}))

    def _own_engine(self) -> sa.Engine:
        """Return this process's engine: it makes connections like the application's."""
        if self._engine is None or self._pid != os.getpid():
            engine = self._app_engine()
            # Without asking `contains`: it may take it for an earlier engine with the same `id`.
            sa.event.listen(engine, "do_connect", _connect_with_limits)
            places = engine.get_execution_options().get("schema_translate_map")
            self._engine = sa.create_engine(
                engine.url,
                pool=engine.pool.recreate(),
                hide_parameters=True,
                execution_options={"schema_translate_map": places},
            )
            self._pid = os.getpid()
        return self._engine

    def _app_engine(self) -> sa.Engine:
        if self._found_engine is None:
            try:
                with self._context():
                    engine: sa.Engine = self.db.engines[self._table.metadata.info.get("bind_key")]
            except (RuntimeError, KeyError) as error:
                raise StoreUnavailable(
                    "AlchemyWaffleStore can't reach its database outside an application: give "
                    "the store to WaffleConf, or enter app.app_context(), after db.init_app(app). "
                    f"({error})"
                ) from error
            if "@" in (engine.url.host or ""):
                raise SchemaError(
                    "AlchemyWaffleStore: write an '@' in the password of SQLALCHEMY_DATABASE_URI "
                    "as %40."
                )
            url, is_sqlite = engine.url, engine.dialect.name == "sqlite"
            if is_sqlite and drivers.in_memory(url.database, url.query.get("mode")):
                self._borrowed = BorrowedConnection(engine)
            self._found_engine = engine
        return self._found_engine


def _column(mapper: Any, name: str) -> sa.Column[Any]:
    name = mapper.synonyms[name].name if name in mapper.synonyms else name
    column: sa.Column[Any] = mapper.columns[name]
    return column


def _problem(mapper: Any, key: sa.Column[Any], value: sa.Column[Any]) -> str:
    """Return why the model's table isn't one of keys and values only; empty if it is."""
    table = key.table
    if mapper.inherits is not None or mapper.polymorphic_on is not None:
        return "its table holds the rows of more than one model"
    if not isinstance(table, sa.Table) or value.table is not table:
        return "key and value aren't columns of one table"
    for column in (key, value):
        if not _holds_text(column.type):
            return f"the column {column.name!r} has the type {column.type!r}, and not one for text"
    return ""


def _holds_text(column_type: Any) -> bool:
    if isinstance(column_type, (sa.types.TypeDecorator, sa.types.UserDefinedType)):
        return True  # a type of the application's own may hold text
    return issubclass(column_type.python_type, str) and not isinstance(column_type, sa.Enum)


_limit_connection: ContextVar[bool] = ContextVar("uwsgi_waffle_limit_connection", default=False)


def _connect_with_limits(dialect: sa.Dialect, record: object, args: Any, options: Any) -> Any:
    """Make a connection for a store; leave all others to the engine by returning ``None``."""
    if not _limit_connection.get():
        return None
    return connect(dialect, args, options, drivers.TIMEOUT)
