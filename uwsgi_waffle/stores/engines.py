"""SQLAlchemy's engines and URLs, as the stores use them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from .drivers import ISOLATION, connect_limits, limit_answers, transaction_limits

__all__ = [
    "Notification",
    "connect",
    "create_engine",
    "identity_of",
    "libpq_url",
    "redact_url",
]

PORTS = {"postgresql": 5432, "mysql": 3306}
# The parts of a URL's query that name another place.
PLACE = ("host", "port", "dbname", "database", "db", "unix_socket", "service", "options")


def create_engine(url: sa.URL, timeout: float, **options: Any) -> sa.Engine:
    """Return an engine that keeps no connection, and whose calls fail ``timeout`` seconds at most.

    Time limits in the URL take precedence. Errors don't quote parameters, which may be secrets.
    """
    backend = url.get_backend_name()
    if backend in ISOLATION:
        options["isolation_level"] = ISOLATION[backend]
    engine = sa.create_engine(
        url, poolclass=NullPool, pool_reset_on_return=None, hide_parameters=True, **options
    )

    @sa.event.listens_for(engine, "do_connect")
    def do_connect(dialect: sa.Dialect, record: object, args: Any, options: Any) -> Any:
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
    connection = dialect.connect(*args, **{**limits, **options})
    limit_answers(connection, timeout)
    return connection


def redact_url(url: sa.URL) -> str:
    """Return a URL for people, without a password."""
    hidden = {key: "***" for key in url.query if "passw" in key.lower() or key.lower() == "pwd"}
    if "@" in (url.host or ""):  # the end of a password with an '@' in it
        url = url.set(host=str(url.host).rpartition("@")[2])
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


NOTIFY = sa.text("SELECT pg_notify(:channel, :message)")


@dataclass(frozen=True, slots=True)
class Notification:
    """What a commit sends to other hosts, see `Store.notifying`."""

    channel: str
    message: Callable[[], str]

    def send(self, connection: sa.Connection) -> None:
        """Send it when, and only if, the present transaction is committed."""
        connection.execute(NOTIFY, {"channel": self.channel, "message": self.message()})


def libpq_url(url: sa.URL) -> str:
    """Return a URL as libpq reads it, with its password; empty if it isn't of PostgreSQL."""
    if url.get_backend_name() != "postgresql":
        return ""
    text = url.set(drivername="postgresql").render_as_string(hide_password=False)
    start, mark, query = text.partition("?")
    return start + mark + query.replace("+", "%20")  # libpq takes a plus for a plus


def identity_of(url: sa.URL) -> str:
    """Return the identity of a URL's database, see `Store.identity`."""
    backend = url.get_backend_name().replace("mariadb", "mysql")
    if backend == "sqlite":
        path = str(url.database).removeprefix("file:")
        return f"sqlite:///{os.path.realpath(path)}"
    place = "&".join(f"{key}={url.query[key]}" for key in PLACE if key in url.query)
    # Without a database it is the one that is called like the user.
    database = url.database or url.username or ""
    return f"{backend}://{url.host or ''}:{url.port or PORTS.get(backend)}/{database}?{place}"
