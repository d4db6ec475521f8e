"""SQLAlchemy's engines and URLs, as the stores use them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from .. import urls
from ..errors import SchemaError
from ..identity import database_identity, file_identity, sqlite_path
from .contract import Notification
from .drivers import ISOLATION, connect_limits, limit_answers, transaction_limits

__all__ = [
    "check_url",
    "connect",
    "create_engine",
    "identity_of",
    "libpq_url",
    "notify",
    "shown",
]


def check_url(url: sa.URL) -> None:
    """Check what SQLAlchemy reads in a URL without an error, and what can't work.

    Raises:
        SchemaError: it can't; the text says what to write.
    """
    if url.get_backend_name() == "sqlite" and url.host:
        raise SchemaError(
            f"WAFFLE_STORE_URL: {url.host!r} would be a server, and SQLite has none. Write three "
            "slashes before a relative path, and four before an absolute one: sqlite:///waffle.db"
        )
    if url.get_backend_name() == "sqlite" and url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise SchemaError(
            f"WAFFLE_STORE_URL: SQLite is opened by Python's own driver, so {url.drivername} would "
            "have no effect: nothing would be encrypted, for instance. Write sqlite:///waffle.db"
        )
    if url.get_backend_name() in ("mysql", "mariadb") and not (url.database or url.query):
        raise SchemaError(
            "WAFFLE_STORE_URL names no database. Write mysql+pymysql://user:password@host/database."
        )
    try:
        is_async = url.get_dialect().is_async
    except sa.exc.ArgumentError:  # an unknown driver: whoever connects says so
        return
    if is_async:
        raise SchemaError(
            f"WAFFLE_STORE_URL: {url.drivername} is an asynchronous driver, which can't be used "
            "here. Name another, or none."
        )


def create_engine(url: sa.URL, timeout: float, **options: Any) -> sa.Engine:
    """Return an engine that keeps no connection, and whose calls fail ``timeout`` seconds at most.

    Time limits in the URL take precedence. Errors don't quote parameters, which may be secrets.
    """
    backend = url.get_backend_name()
    driver = url.get_dialect().import_dbapi()
    if not hasattr(driver, "paramstyle"):  # which PEP 249 asks of each
        raise ImportError(f"the module {driver.__name__} is no driver", name=driver.__name__)
    if backend in ISOLATION:
        options["isolation_level"] = ISOLATION[backend]
    engine = sa.create_engine(
        url, poolclass=NullPool, pool_reset_on_return=None, hide_parameters=True, **options
    )

    @sa.event.listens_for(engine, "do_connect")
    def do_connect(dialect: sa.Dialect, record: object, args: Any, options: Any) -> Any:
        if dialect.driver in ("psycopg", "psycopg2"):  # a database may name no encoding, or a small
            options.setdefault("client_encoding", "utf8")
        return connect(dialect, args, options, timeout)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        for statement in transaction_limits(backend, timeout):
            connection.exec_driver_sql(statement)

    return engine


def connect(dialect: sa.Dialect, args: Any, options: dict[str, Any], timeout: float) -> Any:
    """Make a driver's connection with time limits; those in ``options`` take precedence."""
    limits = connect_limits(dialect.driver, timeout)
    if dialect.driver == "pymysql" and "unix_socket" in options and "ssl" not in options:
        limits["ssl_disabled"] = True  # reading all certificates would take most of a call
    try:
        connection = dialect.connect(*args, **{**limits, **options})
    except TypeError as error:
        raise SchemaError(
            f"The driver {dialect.driver} can't be called: {error}. Correct the options in the "
            "database's URL."
        ) from error
    limit_answers(connection, timeout)
    return connection


def shown(url: sa.URL) -> str:
    """Return a URL for people, without a password."""
    return urls.redact_url(url.render_as_string(hide_password=False))


NOTIFY = sa.text("SELECT pg_notify(:channel, :message)")


def notify(connection: sa.Connection, notification: Notification | None) -> None:
    """Send it to other hosts when, and only if, the present transaction is committed."""
    if notification is not None:
        channel, message = notification
        connection.execute(NOTIFY, {"channel": channel, "message": message()})


def libpq_url(url: sa.URL) -> str:
    """Return a URL as libpq reads it, with its password; empty if it isn't of PostgreSQL."""
    is_known = url.get_backend_name() == "postgresql"
    return urls.libpq_url(url.render_as_string(hide_password=False)) if is_known else ""


def identity_of(url: sa.URL, table: str) -> str:
    """Return the identity of a table in a URL's database, see `Store.identity`."""
    backend = url.get_backend_name().replace("mariadb", "mysql")
    if backend == "sqlite":
        path = sqlite_path(str(url.database))
        return file_identity("sqlite://", path, f" {table}" if table else "")
    arguments: dict[str, object] = {**url.translate_connect_args(username="user"), **url.query}
    return database_identity(backend, arguments, table)
