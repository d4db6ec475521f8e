"""A store in a SQL database, on SQLAlchemy Core."""

from __future__ import annotations

import copy
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ..errors import InvalidValue, SchemaError, StoreUnavailable
from ..privileges import as_owner_of, resolve
from .contract import Commit, CommitBuilder, HistoryRow, Store, Stored
from .drivers import TIMEOUT, check_packets
from .engines import check_url, create_engine, identity_of, libpq_url, notify, shown
from .sqlite_file import SQLiteFile, absolute
from .tables import DECLARED, NEWEST, TABLES_VERSION, as_text, tables_of
from .translation import map_errors, retry

__all__ = ["SQLStore"]

CREATE_ATTEMPTS, CREATE_PAUSE = 8, 0.01  # the first pause in seconds, each is twice as long


class SQLStore(Store):
    """Keeps values, revision and history in three tables of a SQL database.

    A connection lives for one call, so that none crosses a fork and none stays open in an idle
    worker.

    Args:
        url: an SQLAlchemy URL: ``sqlite:////var/lib/site/waffle.db``, ``postgresql+psycopg://…``,
            ``mysql+pymysql://…``. A relative path of SQLite is in the application's instance
            folder, or in the working folder as long as no application has the store.
        timeout: seconds to wait for an answer or another writer.
        namespace: what the names of the tables begin with, as ``WAFFLE_NAMESPACE``.

    Raises:
        SchemaError: it isn't a URL.
        StoreUnavailable: it names a database in memory.

    Example:
        >>> store = SQLStore("sqlite:////var/lib/site/waffle.db")
        >>> store.name
        'sqlite:////var/lib/site/waffle.db'
    """

    def __init__(self, url: str | sa.URL, *, timeout: float = TIMEOUT, namespace: str = "") -> None:
        try:
            self._url = self._given = sa.make_url(url)
        except (exc.ArgumentError, ValueError):  # the text may quote a password
            raise SchemaError(
                "The store's URL (WAFFLE_STORE_URL) isn't one that SQLAlchemy can read. Write it "
                "as sqlite:///waffle.db or postgresql://user@host/database."
            ) from None
        if "@" in (self._url.host or ""):
            raise SchemaError("WAFFLE_STORE_URL: write an '@' in its password as %40.")
        check_url(self._url)
        self._timeout, self._namespace = timeout, namespace
        backend = self._url.get_backend_name()
        self._tables = tables_of(namespace, mysql=backend in ("mysql", "mariadb"))
        self._engine: sa.Engine | None = None
        self._pid = 0
        self._file: SQLiteFile | None = None
        if backend == "sqlite":
            self._url = absolute(self._given, os.getcwd())
            self._file = SQLiteFile(self._url, timeout)

    @property
    def name(self) -> str:
        return shown(self._url) + (f" ({self._namespace})" if self._namespace else "")

    @property
    def identity(self) -> str:
        return identity_of(self._url, self._namespace)

    def within(self, namespace: str) -> SQLStore:
        if self._namespace not in ("", namespace):
            raise SchemaError(
                f"WAFFLE_NAMESPACE is {namespace!r}, and SQLStore was given "
                f"namespace={self._namespace!r}. Leave one of them out."
            )
        return SQLStore(self._url, timeout=self._timeout, namespace=namespace)

    def beside(self, folder: Path) -> SQLStore:
        if self._file is None:
            return self
        url = absolute(self._given, str(folder))
        path = resolve(Path(str(url.database)))
        if path == self._file.path:
            return self
        bound = copy.copy(self)
        bound._given = bound._url = url.set(database=str(path))
        bound._file, bound._engine = SQLiteFile(bound._url, self._timeout), None
        return bound

    @property
    def file(self) -> Path | None:
        return None if self._file is None else self._file.path

    @property
    def libpq_url(self) -> str:
        return libpq_url(self._url)

    def prepare(self) -> None:
        with self._mapped(writing=True), as_owner_of(self.file):
            if self._file is not None:
                self._file.create()
            for attempt in range(CREATE_ATTEMPTS):
                try:
                    return self._create_tables()
                except (exc.IntegrityError, exc.ProgrammingError, exc.OperationalError) as error:
                    lost = error.statement is None or error.connection_invalidated
                    if lost or attempt == CREATE_ATTEMPTS - 1:
                        raise
                    time.sleep(CREATE_PAUSE * 2**attempt)  # another host is creating them just now

    def load(self) -> Stored:
        with self._open() as connection:
            return self._read(connection)

    def load_after_pending_writes(self) -> Stored:
        with self._open(writing=True) as connection:
            if self._file is None:  # in SQLite a write ends with its writer
                connection.execute(self._tables.lock)
            return self._read(connection)

    def transact(self, build_commit: CommitBuilder) -> Stored:
        return retry(lambda: self._transact(build_commit))

    def _transact(self, build_commit: CommitBuilder) -> Stored:
        with self._open(writing=True) as connection, connection.begin() as transaction:
            connection.execute(self._tables.next_revision)
            found = self._read(connection)
            stored = replace(found, revision=found.revision - 1)
            commit = build_commit(stored)
            if commit is None:
                transaction.rollback()
                return stored
            self._write(connection, stored, commit)
            notify(connection, self.notification)
            return stored.with_commit(commit)

    def history(
        self, limit: int, key: str | None = None, *, max_length: int | None = None
    ) -> list[HistoryRow]:
        history = self._tables.history
        columns = [
            sa.func.substr(c, 1, max_length).label(c.name)
            if max_length is not None and c.name in ("old", "new")
            else c
            for c in history.c
            if c.name != "id"
        ]
        query = sa.select(*columns).order_by(history.c.id.desc()).limit(max(0, limit))
        if key is not None:
            query = query.where(history.c.key == key)
        with self._open() as connection:
            self._check(connection.scalar(self._tables.version))
            return self._history_rows(connection, query)

    def values_at(self, revision: int) -> Mapping[str, str]:
        with self._open() as connection:
            self._read(connection).check_revision(revision)
            rows = connection.execute(self._tables.until(revision)).all()
        for row in rows:
            self._sound(self._tables.history.c.revision, row.revision)
        texts = {as_text(row.key): as_text(row.new) for row in rows}
        return {key: text for key, text in texts.items() if text is not None}

    def _create_tables(self) -> None:
        with self._connect().begin() as connection:
            self._tables.meta.create(connection, checkfirst=True)
            version = connection.scalar(self._tables.version)
            if version is not None:
                self._check(version)
            self._tables.metadata.create_all(connection)
            if version is None:
                connection.execute(
                    self._tables.meta.insert().values(id=1, version=TABLES_VERSION, revision=0)
                )

    def _check(self, version: int | None) -> None:
        """Refuse tables of another version of the package."""
        if version is None:
            raise StoreUnavailable(
                f"{self.name}: the table {self._tables.meta.name} has lost its row. Restore the "
                "database from its backup."
            )
        if version != TABLES_VERSION:
            raise StoreUnavailable(
                f"{self.name} was written by a newer uwsgi_waffle; upgrade this one (it knows "
                f"tables {TABLES_VERSION}, not {version})."
            )

    def _read(self, connection: sa.Connection) -> Stored:
        rows = connection.execute(self._tables.snapshot).all()
        self._check(rows[0].version if rows else None)
        revision = self._sound(self._tables.meta.c.revision, rows[0].revision)
        keys, found = self._tables.values.c.key, [row for row in rows if row.key is not None]
        values = {self._sound(keys, row.key): as_text(row.value) for row in found}
        declared = values.pop(DECLARED, None)
        return Stored(revision, values, declared)

    def _sound(self, column: sa.Column[Any], value: Any) -> Any:
        """Return a key or a revision if it is one: SQLite takes any value.

        An update of a key in bytes would find no row.
        """
        is_number = isinstance(value, int) and 0 <= value <= NEWEST
        if isinstance(value, str) if column.name == "key" else is_number:
            return value
        raise StoreUnavailable(
            f"{self.name}: a {column.name} in {column.table.name} is damaged: {value!r}. "
            "Repair that row, or restore the database from its backup."
        )

    def _write(self, connection: sa.Connection, stored: Stored, commit: Commit) -> None:
        at = datetime.now(timezone.utc).replace(tzinfo=None)
        rows = [asdict(row) for row in commit.rows(stored, at)]
        check_packets(connection, self.name, rows)
        texts, known = dict(commit.changes), set(stored.values)
        if commit.declared is not None:
            texts[DECLARED] = commit.declared
        if stored.declared is not None:
            known.add(DECLARED)
        for key, text in texts.items():
            with self._invalid_value(key):
                if text is None:
                    connection.execute(self._tables.delete, {"key_is": key})
                elif key in known:
                    connection.execute(self._tables.update, {"key_is": key, "value": text})
                else:
                    connection.execute(self._tables.insert, {"key": key, "value": text})
        if rows:
            with self._invalid_value("actor, note"):
                connection.execute(self._tables.insert_history, rows)

    def _history_rows(self, connection: sa.Connection, query: sa.Select[Any]) -> list[HistoryRow]:
        table = self._tables.history
        try:
            rows = connection.execute(query).all()
        except (TypeError, ValueError) as error:  # SQLite takes any time
            raise StoreUnavailable(
                f"{self.name}: a row of {table.name} is damaged: {error}. Repair or delete it."
            ) from error
        for row in rows:
            self._sound(table.c.revision, row.revision)
        found = [{name: as_text(value) for name, value in row._mapping.items()} for row in rows]
        return [HistoryRow(**{**f, "at": f["at"].replace(tzinfo=timezone.utc)}) for f in found]

    @contextmanager
    def _invalid_value(self, name: str) -> Iterator[None]:
        try:
            yield
        except (exc.DataError, ValueError) as error:  # psycopg2's for NUL is Python's own
            message = f"{self.name} can't hold the text: {getattr(error, 'orig', error)}"
            raise InvalidValue({name: message}) from error

    @contextmanager
    def _open(self, *, writing: bool = False) -> Iterator[sa.Connection]:
        """Open a connection for one call; what isn't committed is rolled back."""
        with (
            self._mapped(writing=writing),
            as_owner_of(self.file),
            self._connect().connect() as connection,
        ):
            yield connection

    def _connect(self) -> sa.Engine:
        """Return this process's engine."""
        if self._engine is None or self._pid != os.getpid():
            options = {} if self._file is None else {"creator": self._file.connect}
            self._engine = create_engine(self._url, self._timeout, **options)
            self._pid = os.getpid()
        return self._engine

    @contextmanager
    def _mapped(self, *, writing: bool) -> Iterator[None]:
        errors = (exc.SQLAlchemyError, sqlite3.Error, OSError)
        try:
            with map_errors(self, errors, writing=writing):
                yield
        except StoreUnavailable as error:
            if self._file is None or not (text := self._file.explain(error)):
                raise
            raise type(error)(f"{self.name}: {text}") from error
