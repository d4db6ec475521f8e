"""A store over a model of the application's own, on peewee."""

from __future__ import annotations

import copy
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import SchemaError, StoreUnavailable, missing_library
from ..identity import database_identity, file_identity, sqlite_path
from ..privileges import as_owner_of
from ..urls import redact_url
from . import drivers
from .rows import MYSQL_TEXT, REVISION, Found, RowStore
from .translation import TableMissing, map_errors

__all__ = ["PeeweeWaffleStore"]


class PeeweeWaffleStore(RowStore):
    """Keeps values in the rows of a peewee model that has a unique ``key`` and a ``value``.

    It adds the rows ``WAFFLE_REVISION``, ``WAFFLE_HISTORY`` with the newest 100 changes, and
    ``WAFFLE_NAMES``. Rows are inserted without the model's ``__init__`` and ``save``; defaults of
    the fields are filled in.

    Each call has a connection of its own, made as the model's database makes them, with one short
    transaction. The connection that this thread may have open, and a transaction on it, are neither
    used nor changed. If that has written and not yet committed, it can make an update fail after
    seconds; on SQLite it always does. Only where the database is in memory, as in tests, is it this
    thread's own connection: then an update is a part of the transaction that it has begun, and the
    store is of this process alone.

    A call waits for a silent server for 5 s with psycopg, PyMySQL and mysqlclient. With psycopg2 it
    notices a machine that is gone, but not a server process that hangs. With other drivers only the
    time limits count that the database is given.

    Args:
        model: the model; its database may be a proxy or deferred until the first call.
        db: not needed; Flask-WaffleConf's argument.

    Raises:
        SchemaError: peewee isn't installed, or the model has no such fields.

    Example:
        >>> from peewee import CharField, Model, SqliteDatabase, TextField
        >>> class Conf(Model):
        ...     key = CharField(unique=True)
        ...     value = TextField()
        ...     class Meta:
        ...         database = SqliteDatabase("/var/lib/site/site.db")
        >>> PeeweeWaffleStore(model=Conf).name
        'SqliteDatabase /var/lib/site/site.db (conf)'
    """

    def __init__(self, db: Any = None, model: Any = None) -> None:
        try:
            import peewee

            self._errors = (peewee.PeeweeException, OSError)
        except (ImportError, AttributeError):  # a folder of the project's may have its name
            why = ". ".join(missing_library("peewee", "peewee", "peewee"))
            raise SchemaError(f"PeeweeWaffleStore can't be used: {why}") from None
        self._peewee: Any = peewee
        if not {"key", "value"} <= getattr(getattr(model, "_meta", None), "fields", {}).keys():
            raise SchemaError(
                "PeeweeWaffleStore needs model=, a model with the fields key and value, "
                f"not {model!r}."
            )
        self.db, self.model = db, model
        for name in ("key", "value"):
            field = model._meta.fields[name]
            if not isinstance(field, (peewee.CharField, peewee.TextField)):
                raise SchemaError(
                    f"PeeweeWaffleStore can't keep variables in {model.__name__}: the field "
                    f"{name!r} is a {type(field).__name__}, and not one for text. "
                    "Give it a model of their own."
                )

    @property
    def name(self) -> str:
        database = self._app_database()
        place, parameters = str(database.database), database.connect_params
        if self._has_server:  # it may be a URL
            place = redact_url(place)
        elif not place.startswith("file:"):
            place = os.path.realpath(place)
        server = parameters.get("host") or parameters.get("unix_socket")
        place = f"{server}/{place}" if server else place
        return f"{type(database).__name__} {place} ({self._table()})"

    @property
    def identity(self) -> str:
        database, backend = self._app_database(), self._backend
        parameters, place = database.connect_params, str(database.database)
        if backend == "sqlite":
            return file_identity("sqlite://", sqlite_path(place), f" {self._table()}")
        arguments = {**parameters, "dbname": redact_url(place)}
        return database_identity(backend, arguments, self._table())

    @property
    def file(self) -> Path | None:
        if self._has_server or self._in_memory:
            return None
        return Path(sqlite_path(str(self._app_database().database)))

    def _table(self) -> str:
        meta = self.model._meta
        return f"{meta.schema}.{meta.table_name}" if meta.schema else str(meta.table_name)

    def _app_database(self) -> Any:
        database = self.model._meta.database
        return getattr(database, "obj", database)  # what a proxy stands for

    @property
    def _backend(self) -> str:
        database = self._app_database()
        if isinstance(database, self._peewee.PostgresqlDatabase):
            return "postgresql"
        if isinstance(database, self._peewee.MySQLDatabase):
            return "mysql"
        return "sqlite" if isinstance(database, self._peewee.SqliteDatabase) else "other"

    def _column_lengths(self) -> tuple[int | None, int | None]:
        fields = self.model._meta.fields
        key, value = (getattr(fields[name], "max_length", None) for name in ("key", "value"))
        is_text = self._backend == "mysql" and fields["value"].field_type == "TEXT"
        return key, MYSQL_TEXT if value is None and is_text else value

    @property
    def _in_memory(self) -> bool:
        database = self._app_database()
        deferred = database is None or database.deferred
        return not (deferred or self._has_server) and drivers.in_memory(str(database.database))

    @contextmanager
    def _open(self, *, lock: bool) -> Iterator[Any]:
        conflict, data = (self._peewee.IntegrityError,), (self._peewee.DataError,)
        with map_errors(
            self, self._errors, conflict_errors=conflict, data_errors=data, writing=lock
        ):
            if self._in_memory:  # another connection would have a database of its own
                database = self._app_database()
                if database.is_closed():
                    raise TableMissing(
                        f"{self.name}: this thread has no connection to its database in memory, so "
                        "it has no table. Call connect() and create_tables() first."
                    )
                with database.atomic():
                    yield database
                return
            database = self._own_database()
            with as_owner_of(self.file), database.connection_context():
                drivers.limit_answers(database.connection(), drivers.TIMEOUT)
                backend = self._backend
                level = f"TRANSACTION ISOLATION LEVEL {drivers.ISOLATION.get(backend)}"
                limits = drivers.transaction_limits(backend, drivers.TIMEOUT)
                if backend == "mysql":
                    database.execute_sql(f"SET SESSION {level}")
                with database.atomic():
                    if backend == "postgresql":
                        database.execute_sql(f"SET {level}")
                    for statement in limits:
                        database.execute_sql(statement)
                    if lock:
                        self._lock(database)
                    yield database

    def _read_rows(self, connection: Any) -> Found:
        rows = self.model.select(self.model.key, self.model.value).tuples().execute(connection)
        return {key: text for key, text in rows if key is not None}

    def _write_row(self, connection: Any, key: str, text: str | None, *, exists: bool) -> None:
        model, row = self.model, {self.model.value: text}
        if text is None:
            query = model.delete().where(model.key == key)
        elif exists:
            query = model.update(row).where(model.key == key)
        else:
            query = model.insert({model.key: key, **row})
        query.execute(connection)

    def _lock(self, database: Any) -> None:
        model = self.model
        query: Any = model.update({model.value: model.value})
        if self._has_server:
            query = model.select(model.key).for_update()
        # As text: as a query it would have a cursor of the server's if the database has them.
        database.execute_sql(*query.where(model.key == REVISION).sql())

    def _connect_limits(self, database: Any) -> dict[str, Any]:
        """Return the limits for a connection that neither its parameters nor its URL set."""
        if "Connector" in type(database).__name__:  # another driver, of playhouse's
            return {}
        driver = {"postgresql": "psycopg2", "mysql": "pymysql"}.get(self._backend, "")
        if "3" in type(getattr(database, "_adapter", None)).__name__:
            driver = "psycopg"
        return {
            name: limit
            for name, limit in drivers.connect_limits(driver, drivers.TIMEOUT).items()
            if name not in database.connect_params and name not in str(database.database)
        }

    def _own_database(self) -> Any:
        """Return a database like the model's, with a connection of its own."""
        database = self._app_database()
        if database is None or database.deferred:
            raise StoreUnavailable(
                "PeeweeWaffleStore: the model's database isn't initialized yet. Do that before "
                "WaffleConf is made."
            )
        own = copy.copy(database)  # with all that was set or registered
        own._state, own._lock = type(database._state)(), threading.Lock()
        own.connect_params = {**database.connect_params, **self._connect_limits(own)}
        # Where nobody has imported a class, there is no object of it.
        queue = getattr(sys.modules.get("playhouse.sqliteq"), "SqliteQueueDatabase", ())
        if isinstance(own, queue):  # it knows no transactions
            own.__class__ = self._peewee.SqliteDatabase
        pooled: Any = getattr(sys.modules.get("playhouse.pool"), "PooledDatabase", ())
        if isinstance(own, pooled):  # connections outside the pool
            unpooled: Any = super(pooled, own)
            own._connect, own._close = unpooled._connect, unpooled._close
        return own
