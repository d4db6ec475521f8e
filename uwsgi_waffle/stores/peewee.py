"""A store over a model of the application's own, on peewee."""

from __future__ import annotations

import copy
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ..errors import SchemaError, StoreUnavailable
from . import drivers
from .contract import Stored
from .rows import ADVICE, HISTORY, LIMITS, MYSQL_TEXT, REVISION, RowStore, in_memory
from .translation import translated

__all__ = ["PeeweeWaffleStore"]

log = logging.getLogger("uwsgi_waffle")


class PeeweeWaffleStore(RowStore):
    """Keeps values in the rows of a peewee model that has a unique ``key`` and a ``value``.

    There are three more rows: ``WAFFLE_REVISION``, ``WAFFLE_HISTORY`` with the newest 100 changes,
    and ``WAFFLE_NAMES``.

    Each call has a connection of its own, made as the model's database makes its connections, with
    one short transaction:
    the connection that this thread may have open, and a transaction on it, are neither used nor
    touched. If that has
    written and not yet committed it can hold an update off; on SQLite it always does, until that
    gives up. A server that is
    silent is given up after 8 s, with psycopg, psycopg2, PyMySQL and mysqlclient; with other
    drivers the time limits are those
    that the database is given: without them a call may wait for ever.

    Args:
        model: the model; its database may be a proxy or deferred, if it is there at the first call.
        db: not needed; Flask-WaffleConf's argument.

    Raises:
        SchemaError: peewee isn't installed, the model has no such fields, or its rows are more than
            a key and a value: a
            field of another kind, or a required one that nothing fills. A row of ours is inserted
            into the table, without
            the model's ``__init__`` and ``save``; defaults of the fields are filled in.

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
            from playhouse import pool
        except ImportError:
            raise SchemaError(
                "PeeweeWaffleStore needs peewee: pip install 'uwsgi_waffle[peewee]'."
            ) from None
        self._peewee: Any = peewee
        self._pooled: Any = pool.PooledDatabase
        if not {"key", "value"} <= getattr(getattr(model, "_meta", None), "fields", {}).keys():
            raise SchemaError(
                f"PeeweeWaffleStore needs model=, a model with the fields key and value, not {model!r}."
            )
        self.db, self.model = db, model
        self._warned = False
        problem = self._problem()
        if problem:
            raise SchemaError(
                f"PeeweeWaffleStore can't keep variables in {model.__name__}: {problem}. Give it a model of their own."
            )

    def _problem(self) -> str:
        """Return why rows of the model can't be written as those of a table with keys and values."""
        fields = self.model._meta.fields
        for name in ("key", "value"):
            if not isinstance(fields[name], (self._peewee.CharField, self._peewee.TextField)):
                return (
                    f"the field {name!r} is a {type(fields[name]).__name__}, and not one for text"
                )
        for name, field in fields.items():
            by_database = field.auto_increment or any(
                "default" in str(getattr(part, "sql", "")).lower()
                for part in field.constraints or ()
            )
            if name not in ("key", "value") and not (
                field.null or field.default is not None or by_database
            ):
                return f"its field {name!r} is required and has no default"
        return ""

    @property
    def name(self) -> str:
        database = self.model._meta.database
        place = str(database.database)
        if not self._is_sqlite(database):
            place = re.sub(
                r"//.*@", "//***@", re.sub(r"(passw\w*=)[^&\s]*", r"\1***", place)
            )  # it may be a URL
        elif not place.startswith("file:"):
            place = os.path.abspath(place)
        host = database.connect_params.get("host")
        return f"{type(getattr(database, 'obj', database)).__name__} {f'{host}/' if host else ''}{place} ({self.model._meta.table_name})"

    def _is_sqlite(self, database: Any) -> bool:
        return isinstance(getattr(database, "obj", database), self._peewee.SqliteDatabase)

    def load_behind_writers(self) -> Stored:
        # Without a server, what a writer does dies with it; and the lock may be held by the request
        # that asks.
        return (
            self.load()
            if self._is_sqlite(self.model._meta.database)
            else super().load_behind_writers()
        )

    def _room(self) -> tuple[int | None, int | None]:
        fields = self.model._meta.fields
        key, value = (getattr(fields[name], "max_length", None) for name in ("key", "value"))
        database = self.model._meta.database
        if value is None and isinstance(
            getattr(database, "obj", database), self._peewee.MySQLDatabase
        ):
            value = MYSQL_TEXT if fields["value"].field_type == "TEXT" else None
        return key, value

    @contextmanager
    def _open(self, *, lock: bool) -> Iterator[PeeweeRows]:
        with self._translated():
            database = self._database()
            with database.connection_context(), self._limited(database):
                before, within = self._settings(database)
                for statement in before:
                    database.execute_sql(statement)
                with database.atomic():
                    for statement in within:
                        database.execute_sql(statement)
                    if lock:
                        model = self.model
                        model.update({model.value: model.value}).where(
                            model.key == REVISION
                        ).execute(database)
                    yield PeeweeRows(database, self.model)

    def _settings(self, database: Any) -> tuple[list[str], list[str]]:
        """Return what a connection is told before its transaction and at its beginning, whatever
        the server's own settings are.
        """
        if isinstance(database, self._peewee.PostgresqlDatabase):
            return [], [
                f"SET TRANSACTION ISOLATION LEVEL {drivers.ISOLATION['postgresql']}",
                *LIMITS["postgresql"],
            ]
        if isinstance(database, self._peewee.MySQLDatabase):
            return [
                f"SET SESSION TRANSACTION ISOLATION LEVEL {drivers.ISOLATION['mysql']}",
                *LIMITS["mysql"],
            ], []
        return [], []

    def _limited(self, database: Any) -> AbstractContextManager[None]:
        """Limit the time that the open connection waits, where only that can be limited by now."""
        if isinstance(database, self._peewee.PostgresqlDatabase):
            return drivers.cut_off(database.connection(), drivers.SILENCE)
        return nullcontext()

    def _limits(self, database: Any) -> dict[str, Any]:
        """Return how long a connection may take, as the driver wants to be told."""
        if self._is_sqlite(database):
            return {}
        known = isinstance(database, (self._peewee.PostgresqlDatabase, self._peewee.MySQLDatabase))
        driver = "psycopg" if isinstance(database, self._peewee.PostgresqlDatabase) else "pymysql"
        limits = (
            drivers.time_limits(driver, drivers.SILENCE)
            if known and "Connector" not in type(database).__name__
            else {}
        )
        told = database.connect_params
        if not self._warned and not limits and not any("timeout" in name for name in told):
            self._warned = True
            log.warning(
                "uwsgi_waffle: %s: nothing is known to limit how long a call waits for a server"
                " that is silent. Give the database "
                "the time-outs that its driver has for connecting and reading",
                self.name,
            )
        return {
            name: limit
            for name, limit in limits.items()
            if name not in told and name not in str(database.database)
        }

    def _database(self) -> Any:
        """Return a database like the model's, whose connection is its own and ends with it."""
        theirs = self.model._meta.database
        theirs = getattr(theirs, "obj", theirs)  # what a proxy stands for
        if theirs is None or theirs.deferred:
            raise StoreUnavailable(
                "PeeweeWaffleStore: the model's database isn't initialized yet. Do that before "
                "WaffleConf is made."
            )
        if self._is_sqlite(theirs) and in_memory(str(theirs.database)):
            raise StoreUnavailable(
                "A SQLite database in memory can't be shared by processes: name a file, or give"
                " WaffleConf a MemoryStore() in a test."
            )
        own = copy.copy(theirs)  # with all that was set or registered
        own._state, own._lock = type(theirs._state)(), threading.Lock()
        own.connect_params = {**theirs.connect_params, **self._limits(own)}
        if isinstance(
            own, getattr(sys.modules.get("playhouse.sqliteq"), "SqliteQueueDatabase", ())
        ):
            own.__class__ = (
                self._peewee.SqliteDatabase
            )  # past the queue, for that knows no transactions
        if isinstance(own, self._pooled):  # past the pool, to the real ones
            beyond: Any = super(self._pooled, own)
            own._connect, own._close = beyond._connect, beyond._close
        return own

    def _translated(self) -> AbstractContextManager[None]:
        failed = (self._peewee.PeeweeException, OSError)
        refused, unfit = (self._peewee.IntegrityError,), (self._peewee.DataError,)
        return translated(self, failed, lambda: ADVICE, refused=refused, unfit=unfit)


class PeeweeRows:
    """The rows, within one transaction."""

    def __init__(self, database: Any, model: Any) -> None:
        self._database, self._model = database, model

    def exist(self) -> bool:
        return bool(
            self._database.table_exists(
                self._model._meta.table_name, schema=self._model._meta.schema
            )
        )

    def read(self, *, history: bool = False) -> Mapping[str, str | None]:
        query = self._model.select(self._model.key, self._model.value)
        if not history:
            query = query.where(self._model.key != HISTORY)
        return {
            key: text for key, text in query.tuples().execute(self._database) if key is not None
        }

    def insert(self, key: str, text: str) -> None:
        self._model.insert({self._model.key: key, self._model.value: text}).execute(self._database)

    def update(self, key: str, text: str) -> None:
        self._model.update({self._model.value: text}).where(self._model.key == key).execute(
            self._database
        )

    def delete(self, key: str) -> None:
        self._model.delete().where(self._model.key == key).execute(self._database)
