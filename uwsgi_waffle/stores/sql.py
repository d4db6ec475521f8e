"""A store in a SQL database, on SQLAlchemy Core."""

from __future__ import annotations

import copy
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import sqlalchemy as sa
from sqlalchemy import exc

from ..errors import InvalidValue, SchemaError, StoreUnavailable, UnknownRevision
from ..privileges import acting_as, is_root, owner_of_new
from . import tables
from .contract import Commit, CommitBuilder, HistoryRow, Store, Stored
from .drivers import TIMEOUT, in_memory
from .engines import Notification, create_engine, identity_of, libpq_url, redact_url
from .translation import map_errors

__all__ = ["SQLStore"]

log = logging.getLogger("uwsgi_waffle")

CREATE_ATTEMPTS = 10


class SQLStore(Store):
    """Keeps values, revision and history in three tables of a SQL database.

    A connection lives for one call, so that none crosses a fork and none stays open in an idle
    worker.

    Args:
        url: an SQLAlchemy URL: ``sqlite:////var/lib/site/waffle.db``, ``postgresql+psycopg://…``,
            ``mysql+pymysql://…``
        timeout: seconds to wait for an answer or another writer.

    Raises:
        SchemaError: it isn't a URL.
        StoreUnavailable: it names a database in memory.

    Example:
        >>> store = SQLStore("sqlite:////var/lib/site/waffle.db")
        >>> store.name
        'sqlite:////var/lib/site/waffle.db'
    """

    def __init__(self, url: str | sa.URL, *, timeout: float = TIMEOUT) -> None:
        try:
            self._url = sa.make_url(url)
        except (exc.ArgumentError, ValueError):  # the text may quote a password
            raise SchemaError("WAFFLE_STORE_URL isn't a URL that SQLAlchemy can read.") from None
        if "@" in (self._url.host or ""):
            raise SchemaError("WAFFLE_STORE_URL: write an '@' in its password as %40.")
        self._timeout = timeout
        self._engine: sa.Engine | None = None
        self._notification: Notification | None = None
        self._pid = 0
        self._sqlite = self._url.get_backend_name() == "sqlite"
        if self._sqlite and in_memory(self._url.database, self._url.query.get("mode")):
            raise StoreUnavailable(
                "A SQLite database in memory can't be shared by processes: name a file, or use "
                "MemoryStore() in a test."
            )

    @property
    def name(self) -> str:
        return redact_url(self._url)

    @property
    def identity(self) -> str:
        return identity_of(self._url)

    @property
    def libpq_url(self) -> str:
        return libpq_url(self._url)

    def notifying(self, channel: str, message: Callable[[], str]) -> Store:
        if not self.libpq_url:
            return super().notifying(channel, message)
        bound = copy.copy(self)
        bound._notification = Notification(channel, message)
        return bound

    def prepare(self) -> None:
        with self._mapped(), self._as_owner():
            if self._sqlite:
                self._create_file()
            for attempt in range(CREATE_ATTEMPTS):
                try:
                    return self._create_tables()
                except (exc.IntegrityError, exc.ProgrammingError, exc.OperationalError) as error:
                    lost = error.statement is None or error.connection_invalidated
                    if lost or attempt == CREATE_ATTEMPTS - 1:
                        raise
                    time.sleep(0.01)  # another host is creating them at this moment

    def load(self) -> Stored:
        with self._open() as connection:
            return self._read(connection)

    def load_after_pending_writes(self) -> Stored:
        with self._open() as connection:
            if not self._sqlite:  # there a write ends with its writer
                connection.execute(tables.LOCK)
            return self._read(connection)

    def transact(self, build_commit: CommitBuilder) -> Stored:
        with self._open() as connection, connection.begin() as transaction:
            connection.execute(tables.NEXT_REVISION)
            found = self._read(connection)
            stored = Stored(found.revision - 1, found.values)
            commit = build_commit(stored)
            if commit is None:
                transaction.rollback()
                return stored
            self._write(connection, stored, commit)
            if self._notification is not None:
                self._notification.send(connection)
            return stored.with_commit(commit)

    def history(self, limit: int, key: str | None = None) -> list[HistoryRow]:
        history = tables.history
        query = sa.select(history).order_by(history.c.id.desc()).limit(max(0, limit))
        if key is not None:
            query = query.where(history.c.key == key)
        with self._open() as connection:
            self._check(connection.scalar(tables.VERSION))
            return [_history_row(row) for row in connection.execute(query)]

    def values_at(self, revision: int) -> Mapping[str, str]:
        history = tables.history
        query = (
            sa.select(history.c.key, history.c.new)
            .where(history.c.revision <= revision)
            .order_by(history.c.id)
        )
        with self._open() as connection:
            newest = self._read(connection).revision
            if not 0 <= revision <= newest:
                raise UnknownRevision(f"There is no revision {revision}: the store is at {newest}.")
            texts = {row.key: row.new for row in connection.execute(query)}
        return {key: text for key, text in texts.items() if text is not None}

    def _create_tables(self) -> None:
        with self._connect().begin() as connection:
            tables.meta.create(connection, checkfirst=True)
            version = connection.scalar(tables.VERSION)
            if version is not None:
                self._check(version)
            tables.metadata.create_all(connection)
            if version is None:
                connection.execute(
                    tables.meta.insert().values(id=1, version=tables.TABLES_VERSION, revision=0)
                )

    def _check(self, version: int | None) -> None:
        """Refuse tables of another version of the package."""
        if version is None:
            raise StoreUnavailable(
                f"{self.name}: the table waffle_meta has lost its row. Restore the database from "
                "its backup."
            )
        if version != tables.TABLES_VERSION:
            raise StoreUnavailable(
                f"{self.name} was written by a newer uwsgi_waffle; upgrade this one (it knows "
                f"tables {tables.TABLES_VERSION}, not {version})."
            )

    def _read(self, connection: sa.Connection) -> Stored:
        rows = connection.execute(tables.SNAPSHOT).all()
        self._check(rows[0].version if rows else None)
        return Stored(
            rows[0].revision, {key: value for _, _, key, value in rows if key is not None}
        )

    def _write(self, connection: sa.Connection, stored: Stored, commit: Commit) -> None:
        for key, text in commit.changes.items():
            with self._invalid_value(key):
                if text is None:
                    connection.execute(tables.DELETE, {"key_is": key})
                elif key in stored.values:
                    connection.execute(tables.UPDATE, {"key_is": key, "value": text})
                else:
                    connection.execute(tables.INSERT, {"key": key, "value": text})
        at = datetime.now(timezone.utc).replace(tzinfo=None)
        rows = [
            {name: getattr(row, name) for name in tables.HISTORY_COLUMNS}
            for row in commit.rows(stored, at)
        ]
        if rows:
            with self._invalid_value("actor, note"):
                connection.execute(tables.INSERT_HISTORY, rows)

    @contextmanager
    def _invalid_value(self, name: str) -> Iterator[None]:
        try:
            yield
        except (exc.DataError, UnicodeEncodeError) as error:
            message = f"{self.name} can't hold the text: {getattr(error, 'orig', error)}"
            raise InvalidValue({name: message}) from error

    @contextmanager
    def _open(self) -> Iterator[sa.Connection]:
        """Open a connection for one call; what isn't committed is rolled back."""
        with self._mapped(), self._as_owner(), self._connect().connect() as connection:
            yield connection

    def _connect(self) -> sa.Engine:
        """Return this process's engine."""
        if self._engine is None or self._pid != os.getpid():
            options = {"creator": self._open_sqlite} if self._sqlite else {}
            self._engine = create_engine(self._url, self._timeout, **options)
            self._pid = os.getpid()
        return self._engine

    def _open_sqlite(self) -> sqlite3.Connection:
        # mode=rw: a database that has vanished is an error, not a new empty one.
        path = str(self._url.database)
        if path.startswith("file:"):  # the URL itself says how to open it
            query = {key: value for key, value in self._url.query.items() if key != "uri"}
            path += "?" + urlencode(query)
        else:
            path = f"file:{quote(os.path.abspath(path))}?mode=rw"
        return sqlite3.connect(path, uri=True, timeout=self._timeout, check_same_thread=False)

    @property
    def _file(self) -> Path | None:
        path = str(self._url.database)
        return Path(path) if self._sqlite and not path.startswith("file:") else None

    def _as_owner(self) -> AbstractContextManager[None]:
        """Act as the owner of a SQLite file if this is a command of root's."""
        if self._file is None or not is_root():
            return nullcontext()
        self._connect()  # SQLAlchemy imports the dialect now: the owner may not be able to read it
        return acting_as(owner_of_new(self._file))

    def _create_file(self) -> None:
        if self._file is None:
            return
        path = self._file
        for folder in reversed(path.parents):
            with suppress(FileExistsError):
                folder.mkdir(0o700 if folder == path.parent else 0o755)
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:  # somebody else has set it up
            return self._warn_if_exposed(path)
        os.fchmod(fd, 0o600)  # whatever the umask
        os.close(fd)
        connection = sqlite3.connect(path, timeout=self._timeout)
        try:
            # WAL: readers go on while somebody writes; the setting stays in the file.
            connection.execute("PRAGMA journal_mode = WAL").close()
        finally:
            connection.close()

    def _warn_if_exposed(self, path: Path) -> None:
        for place in (path, path.parent):
            mode = place.stat().st_mode
            if mode & 0o002 and not mode & 0o1000:  # in a sticky folder nobody can replace files
                log.warning(
                    "uwsgi_waffle: every user may write %s. Run: chmod o-w %s", place, place
                )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            with map_errors(self, (exc.SQLAlchemyError, sqlite3.Error, OSError)):
                yield
        except StoreUnavailable as error:
            path = self._file
            if path is None or os.path.exists(path) or not os.access(path.parent, os.X_OK):
                raise
            raise StoreUnavailable(
                f"{self.name}: the file is gone. Restore it. To start afresh instead, stop the"
                " server and delete the folder beside the watch file (WAFFLE_WATCHER_FILE + '.d')."
            ) from error


def _history_row(row: Any) -> HistoryRow:
    fields = {name: getattr(row, name) for name in tables.HISTORY_COLUMNS}
    return HistoryRow(**{**fields, "at": row.at.replace(tzinfo=timezone.utc)})
