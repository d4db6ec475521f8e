"""Settings for the drivers of SQL databases: time limits, and the isolation of transactions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from time import monotonic
from typing import Any

from ..errors import InvalidValue

__all__ = [
    "ISOLATION",
    "TIMEOUT",
    "check_packets",
    "connect_limits",
    "in_memory",
    "limit_answers",
    "transaction_limits",
]

TIMEOUT = 5.0  # seconds to wait for an answer
CONNECT_TIMEOUT = 2  # seconds
# Seconds to wait for what PyMySQL reads while it connects, such as the server's greeting. Its limit
# on connecting doesn't count there; mysqlclient's does.
GREETING_TIMEOUT = float(CONNECT_TIMEOUT)
PACKET = 2**18  # bytes that every server takes

# PostgreSQL's repeatable reads would refuse a writer that has waited for another; MySQL's are those
# that its replication allows. Neither shows uncommitted rows, as a server's own default may.
ISOLATION = {
    "postgresql": "READ COMMITTED",
    "mysql": "REPEATABLE READ",
    "mariadb": "REPEATABLE READ",
}


def connect_limits(driver: str, timeout: float) -> dict[str, Any]:
    """Return the arguments that limit how long a driver waits; empty for an unknown driver."""
    seconds = max(1, round(timeout))
    connect_timeout = min(CONNECT_TIMEOUT, seconds)
    if driver in ("psycopg", "psycopg2"):
        limits = {
            "connect_timeout": connect_timeout,
            "tcp_user_timeout": 1000 * seconds,
            "keepalives": 1,
            "keepalives_idle": 1,
            "keepalives_interval": 1,
            "keepalives_count": seconds,
        }
        # Prepared statements don't work behind PgBouncer, and a connection lives for one call.
        return limits if driver == "psycopg2" else {**limits, "prepare_threshold": None}
    if driver in ("pymysql", "mysqldb"):
        first = seconds if driver == "mysqldb" else min(GREETING_TIMEOUT, seconds)
        return {
            "connect_timeout": connect_timeout,
            "read_timeout": first,
            "write_timeout": seconds,
        }
    return {}


def transaction_limits(backend: str, timeout: float) -> tuple[str, ...]:
    """Return the first statements of a transaction; with them the server ends what waits too long.

    It gives up before its client does, so that no session is left waiting. It ends an idle
    transaction too, because it may be one of a host that has vanished.
    """
    if backend == "postgresql":
        wait, idle = round(800 * timeout), round(1000 * timeout)
        return (
            f"SET LOCAL lock_timeout = {wait}",
            f"SET LOCAL statement_timeout = {wait}",
            f"SET LOCAL idle_in_transaction_session_timeout = {idle}",
        )
    if backend in ("mysql", "mariadb"):
        wait, idle = max(1, int(0.8 * timeout)), max(1, round(timeout))
        return (
            f"SET innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait},"
            f" wait_timeout = {idle}",
        )
    return ()


def check_packets(connection: Any, name: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Refuse rows that MySQL or MariaDB would answer by closing the connection.

    Args:
        connection: an SQLAlchemy connection.
        name: the store's.
        rows: those of the history, which are the largest.

    Raises:
        InvalidValue: a row is larger than the server's ``max_allowed_packet``.
    """
    sizes = {str(row["key"]): _packet_size(row) for row in rows}
    if (
        connection.dialect.name not in ("mysql", "mariadb")
        or max(sizes.values(), default=0) < PACKET
    ):
        return
    limit = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
    problems = {
        key: f"{name} can't hold the value: it and the former one have {size} bytes, and the "
        f"server takes {limit}. Raise its max_allowed_packet"
        for key, size in sizes.items()
        if size > limit
    }
    if problems:
        raise InvalidValue(problems)


def _packet_size(row: Mapping[str, object]) -> int:
    texts = [text for text in row.values() if isinstance(text, str)]
    escaped = sum(text.count(mark) for text in texts for mark in ('"', "\\", "'"))
    return 1000 + escaped + sum(len(text.encode(errors="replace")) for text in texts)


def limit_answers(connection: Any, timeout: float) -> None:
    """Make a connection give up when a server is silent for ``timeout`` seconds.

    For psycopg no setting of libpq does that while the server's machine still acknowledges packets,
    as it does for a process that hangs. PyMySQL had less time while it connected. Connections of
    other drivers stay as they are.
    """
    driver = type(connection).__module__.partition(".")[0]
    # Nothing public sets it later. What isn't our object was set by the user.
    if driver == "pymysql" and connection._read_timeout is GREETING_TIMEOUT:
        connection._read_timeout = max(1, round(timeout))
    if driver != "psycopg":
        return
    import psycopg

    wait: Callable[..., Any] = connection.wait

    def limited(gen: Generator[Any, Any, Any], end: float) -> Generator[Any, Any, Any]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and monotonic() > end:
                    connection.close()
                    raise psycopg.OperationalError(f"no answer within {timeout:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value

    def wait_limited(gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        return wait(limited(gen, monotonic() + timeout), *args, **options)

    connection.wait = wait_limited  # it resumes its generator ten times a second


def in_memory(database: str | None, mode: object = None) -> bool:
    """Return whether a SQLite database is in no file, by its name and the URL's ``mode``."""
    return not database or ":memory:" in database or "mode=memory" in database or mode == "memory"
