"""What the drivers of SQL databases must be told: to give up on a server that is silent, and how to
isolate transactions.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterator
from selectors import DefaultSelector
from time import monotonic
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

__all__ = ["ISOLATION", "SILENCE", "create_engine", "cut_off", "time_limits"]

SILENCE = (
    8.0  # seconds without an answer, over connections that are made as the application makes them
)

# PostgreSQL's repeatable reads would refuse a writer that has waited for another; MySQL's are the
# ones that its replication allows.
# Neither shows what isn't committed, as a server's own default may.
ISOLATION = {
    "postgresql": "READ COMMITTED",
    "mysql": "REPEATABLE READ",
    "mariadb": "REPEATABLE READ",
}


def create_engine(url: sa.URL, timeout: float, **options: Any) -> sa.Engine:
    """Return an engine that keeps no connection, and whose calls fail after ``timeout`` seconds
    without an answer.

    What the URL says for itself holds instead. Errors are told without their parameters, which may
    be secrets.
    """
    driver = url.get_driver_name()
    told = time_limits(driver, timeout)
    if (
        driver == "pymysql"
        and "unix_socket" in url.query
        and not any(key.startswith("ssl") for key in url.query)
    ):
        told["ssl_disabled"] = (
            True  # reading the certificates of all authorities costs more than the rest of a call
        )
    isolation = ISOLATION.get(url.get_backend_name())
    if isolation is not None:
        options["isolation_level"] = isolation
    told = {key: value for key, value in told.items() if key not in url.query}
    engine = sa.create_engine(
        url,
        poolclass=NullPool,
        pool_reset_on_return=None,
        hide_parameters=True,
        connect_args=told,
        **options,
    )
    if driver == "psycopg":
        kind = _impatient(timeout)
        sa.event.listen(
            engine,
            "do_connect",
            lambda dialect, record, args, options: kind.connect(*args, **options),
        )
    return engine


def time_limits(driver: str, timeout: float) -> dict[str, Any]:
    """Return what a driver is told when it connects; nothing if it is none of those that are known
    here.
    """
    seconds = max(1, round(timeout))
    if driver in ("psycopg", "psycopg2"):  # of these an answer needs to be limited apart
        return {"connect_timeout": seconds, "tcp_user_timeout": 1000 * seconds}
    if driver in ("pymysql", "mysqldb"):
        return dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), seconds)
    return {}


@contextlib.contextmanager
def cut_off(connection: Any, seconds: float) -> Iterator[None]:
    """Cut a driver's connection off if this block takes longer, whatever the driver is waiting in.

    Args:
        connection: one that has a `fileno`, and ends with this block.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        timer = threading.Timer(seconds, _shut, [line])
        timer.daemon = True
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, signal.valid_signals()
        )  # they are the application's threads' to handle
        try:
            timer.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has just been closed
        line.shutdown(socket.SHUT_RDWR)


def _impatient(timeout: float) -> Any:
    """Return psycopg's connection with a limit on each answer; by itself it has one on connecting
    only.
    """
    import psycopg

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Generator[int, int, Any], *args: Any, **options: Any) -> Any:
            end = monotonic() + timeout
            try:
                wanted = next(gen)  # readable or writable, as `selectors` numbers them
                with DefaultSelector() as selector:
                    while True:
                        selector.register(self.pgconn.socket, wanted)
                        found = selector.select(max(0, end - monotonic()))
                        selector.unregister(self.pgconn.socket)
                        if not found:
                            break
                        wanted = gen.send(found[0][1])
            except StopIteration as done:
                return done.value
            self.pgconn.finish()  # nothing more can be said on it, not even a rollback
            raise psycopg.OperationalError(f"no answer within {timeout:g} seconds")

    return Impatient
