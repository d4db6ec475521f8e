"""A store over a model of the application's own, on Flask-SQLAlchemy."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import mysql

from ..errors import SchemaError, StoreUnavailable
from . import drivers
from .contract import Stored
from .rows import ADVICE, HISTORY, LIMITS, MYSQL_TEXT, REVISION, RowStore, in_memory
from .sql import shown_url
from .translation import translated

__all__ = ["AlchemyWaffleStore"]

log = logging.getLogger("uwsgi_waffle")


class AlchemyWaffleStore(RowStore):
    """Keeps values in the rows of a Flask-SQLAlchemy model that has a unique ``key`` and a
    ``value``.

    There are three more rows: ``WAFFLE_REVISION``, ``WAFFLE_HISTORY`` with the newest 100 changes,
    and ``WAFFLE_NAMES``.

    Each call has a connection of its own, made as the application's engine makes its connections,
    with one short
    transaction: sessions of the application's are neither used nor touched. A session that has
        written and not yet
    committed can hold an update off; on SQLite it always does, until that gives up. A server that
    is silent is given up
    after 8 s, with psycopg, psycopg2, PyMySQL and mysqlclient; with other drivers, or if the engine
    has a ``creator`` of its own,
    the time limits are those that the application's engine sets: without them a call may wait for
    ever.

    Args:
        db: the application's ``SQLAlchemy``. Its engine is looked up at the first call, in a
            context of the application
            that the store was given to by `WaffleConf`; without that, in the context that is
            active.
        model: the model.

    Raises:
        SchemaError: the model has no such columns, or its rows are more than a key and a value: a
            column of another kind,
            a required one that nothing fills, or inheritance. A row of ours is inserted into the
            table, without the model's
            ``__init__`` and events; defaults of the columns are filled in.

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
                f"AlchemyWaffleStore needs db= and model=, a model with the columns key and value, not {model!r}."
            ) from None
        self.db, self.model = db, model
        self._table: sa.Table = self._key.table
        problem = _problem(mapper, self._key, self._value)
        if problem:
            raise SchemaError(
                f"AlchemyWaffleStore can't keep variables in {model.__name__}: {problem}. Give it a model of their own."
            )
        self._theirs: sa.Engine | None = None
        self._engine: sa.Engine | None = None
        self._pid = 0
        self._warned = False

    @property
    def name(self) -> str:
        return f"{shown_url(self._application_engine().url)} ({self._table.name})"

    def load_behind_writers(self) -> Stored:
        # Without a server, what a writer does dies with it; and the lock may be held by the request
        # that asks.
        return (
            self.load()
            if self._application_engine().dialect.name == "sqlite"
            else super().load_behind_writers()
        )

    def _room(self) -> tuple[int | None, int | None]:
        key, value = (getattr(column.type, "length", None) for column in (self._key, self._value))
        if value is None and self._application_engine().dialect.name in ("mysql", "mariadb"):
            kind = self._value.type.dialect_impl(self._application_engine().dialect)
            kind = getattr(kind, "impl", kind)
            value = None if isinstance(kind, (mysql.LONGTEXT, mysql.MEDIUMTEXT)) else MYSQL_TEXT
        return key, value

    @contextmanager
    def _open(self, *, lock: bool) -> Iterator[AlchemyRows]:
        with self._translated(), ExitStack() as limits, self._connection(limits) as connection:
            connection.detach()  # closed with this block, whatever the pool
            # Whatever the application's connections are set to: a transaction, that sees what the
            # lock has waited for.
            level = drivers.ISOLATION.get(connection.dialect.name, "SERIALIZABLE")
            # it is there
            connection.dialect.set_isolation_level(connection.connection.dbapi_connection, level)  # type: ignore[arg-type]
            with connection.begin():
                for limit in LIMITS.get(connection.dialect.name, ()):
                    connection.exec_driver_sql(limit)
                if lock:
                    connection.execute(
                        self._table.update()
                        .where(self._key == REVISION)
                        .values({self._value: self._value})
                    )
                yield AlchemyRows(connection, self._key, self._value)

    def _connection(self, limits: ExitStack) -> sa.Connection:
        """Return a connection as the application's engine makes them, but for the time that it
        waits.
        """
        engine, made = self._connect(), Made(limits)
        token = _connecting.set(made)
        try:
            return engine.connect()
        finally:
            _connecting.reset(token)
            if not (made.limited or self._warned or engine.dialect.name == "sqlite"):
                self._warned = True
                log.warning(
                    "uwsgi_waffle: %s: nothing is known to limit how long a call waits for a "
                    "server that is silent. Give the engine the "
                    "time-outs that its driver %r has for connecting and reading "
                    "(connect_args), or those of its creator",
                    self.name,
                    engine.dialect.driver,
                )

    def _connect(self) -> sa.Engine:
        """Return this process's engine."""
        if self._engine is None or self._pid != os.getpid():
            theirs = self._application_engine()
            sa.event.listen(
                theirs, "do_connect", _make
            )  # once; `contains` may take it for a former engine with the same `id`
            options = {
                "schema_translate_map": theirs.get_execution_options().get("schema_translate_map")
            }
            pool = theirs.pool.recreate()
            self._engine = sa.create_engine(
                theirs.url, pool=pool, hide_parameters=True, execution_options=options
            )
            self._pid = os.getpid()
        return self._engine

    def _application_engine(self) -> sa.Engine:
        if self._theirs is None:
            try:
                with self._context():
                    engine: sa.Engine = self.db.engines[self._table.metadata.info.get("bind_key")]
            except (RuntimeError, KeyError) as error:
                raise StoreUnavailable(
                    "AlchemyWaffleStore can't reach its database outside an application: give "
                    "the store to WaffleConf, or enter "
                    f"app.app_context(), after db.init_app(app). ({error})"
                ) from error
            if engine.dialect.name == "sqlite" and in_memory(
                engine.url.database, engine.url.query.get("mode")
            ):
                raise StoreUnavailable(
                    "A SQLite database in memory can't be shared by processes: name a file, or "
                    "give WaffleConf a MemoryStore() in a test."
                )
            self._theirs = engine
        return self._theirs

    def _translated(self) -> AbstractContextManager[None]:
        failed = (exc.SQLAlchemyError, OSError, ImportError)
        return translated(
            self, failed, lambda: ADVICE, refused=(exc.IntegrityError,), unfit=(exc.DataError,)
        )


def _column(mapper: Any, name: str) -> sa.Column[Any]:
    column: sa.Column[Any] = mapper.columns[
        mapper.synonyms[name].name if name in mapper.synonyms else name
    ]
    return column


def _problem(mapper: Any, key: sa.Column[Any], value: sa.Column[Any]) -> str:
    """Return why rows of a model can't be written as those of a table with keys and values."""
    table = key.table
    if mapper.inherits is not None or mapper.polymorphic_on is not None:
        return "its table holds the rows of more than one model"
    if not isinstance(table, sa.Table) or value.table is not table:
        return "key and value aren't columns of one table"
    for column in (key, value):
        if not _holds_text(column.type):
            return f"the column {column.name!r} has the type {column.type!r}, and not one for text"
    for column in table.columns:
        filled = (
            column.nullable,
            column.default is not None,
            column.server_default is not None,
            column is table.autoincrement_column,
        )
        if column not in (key, value) and not any(filled):
            return f"its column {column.name!r} is required and has no default"
    return ""


def _holds_text(kind: Any) -> bool:
    if isinstance(
        kind, (sa.types.TypeDecorator, sa.types.UserDefinedType)
    ):  # one of the application's own, that may well do
        return True
    return issubclass(kind.python_type, str) and not isinstance(kind, sa.Enum)


class Made:
    """What becomes of a connection that is being made for a store."""

    def __init__(self, limits: ExitStack) -> None:
        self.limits, self.limited = limits, False


_connecting: ContextVar[Made | None] = ContextVar("uwsgi_waffle_connecting", default=None)


def _make(dialect: sa.Dialect, record: object, args: Any, options: Any) -> Any:
    """Make a connection for a store, with time limits where the application has set none; leave all
    others to the engine.
    """
    made = _connecting.get()
    if made is None:
        return None
    limits = drivers.time_limits(dialect.driver, drivers.SILENCE)
    made.limited = bool(limits) or any("timeout" in name for name in options)
    connection = dialect.connect(*args, **{**limits, **options})
    if dialect.driver in ("psycopg", "psycopg2"):
        made.limits.enter_context(drivers.cut_off(connection, drivers.SILENCE))
    return connection


class AlchemyRows:
    """The rows, within one transaction."""

    def __init__(
        self, connection: sa.Connection, key: sa.Column[Any], value: sa.Column[Any]
    ) -> None:
        self._connection, self._key, self._value, self._table = connection, key, value, key.table

    def exist(self) -> bool:
        places = self._connection.get_execution_options()["schema_translate_map"] or {}
        return sa.inspect(self._connection).has_table(
            self._table.name, schema=places.get(self._table.schema, self._table.schema)
        )

    def read(self, *, history: bool = False) -> Mapping[str, str | None]:
        query = sa.select(self._key, self._value)
        if not history:
            query = query.where(self._key != HISTORY)
        return {key: text for key, text in self._connection.execute(query) if key is not None}

    def insert(self, key: str, text: str) -> None:
        self._connection.execute(self._table.insert().values({self._key: key, self._value: text}))

    def update(self, key: str, text: str) -> None:
        self._connection.execute(
            self._table.update().where(self._key == key).values({self._value: text})
        )

    def delete(self, key: str) -> None:
        self._connection.execute(self._table.delete().where(self._key == key))
