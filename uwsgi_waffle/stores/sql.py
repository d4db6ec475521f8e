"""A store in a SQL database, on SQLAlchemy Core."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import mysql

from ..errors import InvalidValue, SchemaError, StoreUnavailable, UnknownRevision
from .contract import Commit, Decide, HistoryRow, Store, Stored
from .drivers import create_engine
from .translation import translated

__all__ = ["SQLStore", "shown_url"]

TABLES_VERSION = 1
#: What makes the tables of one version those of the next, by the version that they have. Each is
#: run once, in a transaction and under
#: the lock; but MySQL commits at each change of a table, so there it must bear being run again
#: after it broke off.
UPGRADES: dict[int, Callable[[sa.Connection], object]] = {}
CREATE_ATTEMPTS = 10

# MySQL and MariaDB would else take the server's defaults, which may mix up cases, lose characters
# or know no transactions.
KEY = sa.String(255).with_variant(
    mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), "mysql", "mariadb")
UTC_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TRANSACTIONAL: dict[str, Any] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}

metadata = sa.MetaData()
meta = sa.Table(
    "waffle_meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    **TRANSACTIONAL,
)
values = sa.Table(
    "waffle_values",
    metadata,
    sa.Column("key", KEY, primary_key=True),
    sa.Column("value", LONG_TEXT, nullable=False),
    **TRANSACTIONAL,
)
history = sa.Table(
    "waffle_history",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
    sa.Column("key", KEY, nullable=False, index=True),
    sa.Column("old", LONG_TEXT),
    sa.Column("new", LONG_TEXT),
    sa.Column("actor", LONG_TEXT),
    sa.Column("note", LONG_TEXT),
    sa.Column("at", UTC_TIME, nullable=False),
    **TRANSACTIONAL,
)

# Built once, for SQLAlchemy takes longer to build and to recognise a statement than SQLite to carry
# it out.
# The first of a transaction: it writes, so it is the lock that orders the writers of all hosts.
NEXT_REVISION = meta.update().values(revision=meta.c.revision + 1)
OF_KEY = values.c.key == sa.bindparam("of")
INSERT, UPDATE, DELETE = (
    values.insert(),
    values.update().where(OF_KEY),
    values.delete().where(OF_KEY),
)
REMEMBER = history.insert()
REMEMBERED = tuple(column.name for column in history.c if column.name != "id")
# One statement, so that no isolation level can show a revision beside the values of another.
SNAPSHOT = sa.select(meta.c.version, meta.c.revision, values.c.key, values.c.value).select_from(
    meta.outerjoin(values, sa.true())
)


class SQLStore(Store):
    """Keeps values, revision and history in three tables of a SQL database.

    Args:
        url: an SQLAlchemy URL: ``sqlite:////var/lib/site/waffle.db``, ``postgresql+psycopg://…``,
            ``mysql+pymysql://…``
        timeout: seconds to wait for a connection, an answer or another writer.

    Raises:
        SchemaError: it isn't a URL.

    A connection lives for one call, so that none crosses a fork and none stays open in an idle
    worker.

    Example:
        >>> store = SQLStore("sqlite:////var/lib/site/waffle.db")
        >>> store.name
        'sqlite:////var/lib/site/waffle.db'
    """

    def __init__(self, url: str | sa.URL, *, timeout: float = 5.0) -> None:
        try:
            self._url = sa.make_url(url)
        except exc.ArgumentError as error:
            raise SchemaError(f"WAFFLE_STORE_URL: {error}") from None
        self._timeout = timeout
        self._engine: sa.Engine | None = None
        self._pid = 0
        self._known = False  # whether the tables are of this version, as far as was seen
        self._sqlite = self._url.get_backend_name() == "sqlite"
        if self._sqlite and (
            self._url.database in (None, "", ":memory:", "file::memory:")
            or self._url.query.get("mode") == "memory"
        ):
            raise StoreUnavailable(
                "A SQLite database in memory can't be shared by processes: name a file, or use "
                "MemoryStore() in a test."
            )

    @property
    def name(self) -> str:
        return shown_url(self._url)

    def prepare(self) -> None:
        with self._translated():
            if self._sqlite:
                self._create_file()
            for attempt in range(CREATE_ATTEMPTS):
                try:
                    self._create_tables()
                    return self._upgrade()
                except (exc.IntegrityError, exc.ProgrammingError, exc.OperationalError) as error:
                    if (
                        error.statement is None
                        or error.connection_invalidated
                        or attempt == CREATE_ATTEMPTS - 1
                    ):
                        raise
                    time.sleep(0.01)  # another host is creating them at this moment

    def load(self) -> Stored:
        with self._open() as connection:
            return self._read(connection)

    def load_behind_writers(self) -> Stored:
        return (
            self.load() if self._sqlite else super().load_behind_writers()
        )  # no server there: what a writer does dies with it

    def transact(self, decide: Decide) -> Stored:
        with self._open() as connection, connection.begin() as transaction:
            connection.execute(NEXT_REVISION)
            seen = self._read(connection)
            stored = Stored(seen.revision - 1, seen.values)
            commit = decide(stored)
            if commit is None:
                transaction.rollback()
                return stored
            self._write(connection, stored, commit)
            return stored.after(commit)

    def history(self, limit: int, key: str | None = None) -> list[HistoryRow]:
        query = sa.select(history).order_by(history.c.id.desc()).limit(max(0, limit))
        if key is not None:
            query = query.where(history.c.key == key)
        with self._open() as connection:
            return [_history_row(row) for row in connection.execute(query)]

    def values_at(self, revision: int) -> Mapping[str, str]:
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
            meta.create(connection, checkfirst=True)
            version = connection.scalar(sa.select(meta.c.version))
            if version in (None, TABLES_VERSION):
                metadata.create_all(connection)
            if version is None:
                connection.execute(meta.insert().values(id=1, version=TABLES_VERSION, revision=0))

    def _upgrade(self) -> None:
        """Bring tables of an earlier version up to date.

        Raises:
            StoreUnavailable: they are of a later one.
        """
        with self._connect().connect() as connection:
            version = connection.scalar(sa.select(meta.c.version))
        if version is not None and version != TABLES_VERSION:
            if version > TABLES_VERSION:
                self._check(version)
            with self._connect().begin() as connection:
                self._lock_tables(connection)
                for number in range(
                    connection.scalar(sa.select(meta.c.version)) or version, TABLES_VERSION
                ):  # maybe none by now
                    UPGRADES[number](connection)
                    connection.execute(meta.update().values(version=number + 1))
        self._known = True

    def _lock_tables(self, connection: sa.Connection) -> None:
        # MySQL's row locks don't outlast the first change of a table.
        mysql = connection.dialect.name in ("mysql", "mariadb")
        if (
            mysql
            and not connection.exec_driver_sql(
                f"SELECT GET_LOCK('uwsgi_waffle', {self._timeout:g})"
            ).scalar()
        ):
            raise StoreUnavailable(
                f"{self.name}: another host upgrades the tables and isn't done yet; it is tried again."
            )
        connection.execute(meta.update().values(revision=meta.c.revision))

    def _check(self, version: int) -> None:
        """Refuse tables of another version of the package; every call that reads or writes values
        comes here.
        """
        if version == TABLES_VERSION:
            return
        self._known = False
        if version < TABLES_VERSION:  # a backup was restored
            raise StoreUnavailable(
                f"{self.name} has tables of an earlier version again. They are upgraded at the next call."
            )
        raise StoreUnavailable(
            f"{self.name} was written by a newer uwsgi_waffle; upgrade this one (it knows tables {TABLES_VERSION}, not {version})."
        )

    def _read(self, connection: sa.Connection) -> Stored:
        rows = connection.execute(SNAPSHOT).all()
        if not rows:
            raise StoreUnavailable(
                f"{self.name}: the table waffle_meta has lost its row. Restore the database from its backup."
            )
        self._check(rows[0].version)
        return Stored(
            rows[0].revision, {key: value for _, _, key, value in rows if key is not None}
        )

    def _write(self, connection: sa.Connection, stored: Stored, commit: Commit) -> None:
        for key, text in commit.changes.items():
            with self._holding(key):
                if text is None:
                    connection.execute(DELETE, {"of": key})
                elif key in stored.values:
                    connection.execute(UPDATE, {"of": key, "value": text})
                else:
                    connection.execute(INSERT, {"key": key, "value": text})
        rows = [
            {name: getattr(row, name) for name in REMEMBERED}
            for row in commit.rows(stored, datetime.now(timezone.utc).replace(tzinfo=None))
        ]
        if rows:
            with self._holding("actor, note"):
                connection.execute(REMEMBER, rows)

    @contextmanager
    def _holding(self, what: str) -> Iterator[None]:
        try:
            yield
        except (exc.DataError, UnicodeEncodeError) as error:
            raise InvalidValue(
                {what: f"{self.name} can't hold the text: {getattr(error, 'orig', error)}"}
            ) from error

    @contextmanager
    def _open(self) -> Iterator[sa.Connection]:
        """Open a connection for one call, to tables of this version."""
        with self._translated():
            try:
                if not self._known:
                    self._upgrade()
                with self._connect().connect() as connection:
                    yield connection
            except exc.SQLAlchemyError:  # the tables may be those of a backup now
                self._known = False
                raise

    def _connect(self) -> sa.Engine:
        """Return this process's engine."""
        if self._engine is None or self._pid != os.getpid():
            options = {"creator": self._open_sqlite} if self._sqlite else {}
            self._engine, self._pid = (
                create_engine(self._url, self._timeout, **options),
                os.getpid(),
            )
        return self._engine

    def _open_sqlite(self) -> sqlite3.Connection:
        # mode=rw: a database that has vanished is an error, not a new empty one.
        path = str(self._url.database)
        if path.startswith("file:"):  # the URL says for itself how to open it
            path += "?" + urlencode(
                {key: value for key, value in self._url.query.items() if key != "uri"}
            )
        else:
            path = f"file:{quote(os.path.abspath(path))}?mode=rw"
        return sqlite3.connect(path, uri=True, timeout=self._timeout, check_same_thread=False)

    def _create_file(self) -> None:
        path = Path(str(self._url.database))
        if str(path).startswith("file:"):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        root = (
            os.geteuid() == 0
        )  # a shell of root's creates it for the server's user, and it is never root's
        fresh = path.with_name(f"{path.name}.{os.urandom(4).hex()}") if root else path
        try:
            os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.chmod(fresh, 0o600)  # whatever the umask
            if root:
                os.chown(fresh, path.parent.stat().st_uid, -1)
                os.link(fresh, path)
        except FileExistsError:  # whatever it is, it isn't ours to set up
            return
        finally:
            if root:
                fresh.unlink(missing_ok=True)
        connection = sqlite3.connect(path, timeout=self._timeout)
        try:
            # WAL: readers go on while somebody writes; the setting stays in the file.
            connection.execute("PRAGMA journal_mode = WAL").close()
        finally:
            connection.close()

    def _translated(self) -> AbstractContextManager[None]:
        return translated(
            self, (exc.SQLAlchemyError, sqlite3.Error, OSError, ImportError), self._advice
        )

    def _advice(self) -> str:
        if (
            self._sqlite
            and not str(self._url.database).startswith("file:")
            and not Path(str(self._url.database)).exists()
        ):
            return "The file has vanished: restore it or, to start afresh, delete the folder beside the watch file, too."
        return "Look whether the database answers; it is tried again without a restart."


def shown_url(url: sa.URL) -> str:
    """Return a URL as a person may see it."""
    hidden = {key: "***" for key in url.query if "passw" in key.lower() or key.lower() == "pwd"}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _history_row(row: Any) -> HistoryRow:
    return HistoryRow(
        row.revision,
        row.key,
        row.old,
        row.new,
        row.actor,
        row.note,
        row.at.replace(tzinfo=timezone.utc),
    )
