"""The PostgreSQL channel: a commit notifies the other hosts in its own transaction."""

from __future__ import annotations

import re
import secrets
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from ..errors import SchemaError
from ..stores.drivers import connect_limits, limit_answers
from .channel import PING_AFTER, RESPONSE_TIMEOUT, ChannelDown, hosts_channel_name

__all__ = ["PostgresChannel"]

# The connections of listeners are counted by their application's name. PostgreSQL cuts that, like
# the name of a channel, after 63 bytes.
PREFIX = "waffle:"
LONGEST_NAME = 63 - len(PREFIX)
COUNT = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name = %s AND datname = current_database()"
)
NOT_DELIVERED = (
    "a NOTIFY of this channel doesn't arrive. Behind a pooler in transaction mode, such as "
    "PgBouncer, nothing does: set WAFFLE_LISTEN_URL to the server itself"
)


class PostgresChannel:
    """One channel of one PostgreSQL database; see `Channel`.

    Args:
        url: as libpq or SQLAlchemy reads it.
        name: the channel's name.

    Raises:
        SchemaError: the URL or the name can't be used.
        ImportError: psycopg isn't installed.
    """

    server = "PostgreSQL"

    def __init__(self, url: str, name: str) -> None:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        self.name, self._hosts_channel = name, hosts_channel_name(name)
        self._listener = f"{PREFIX}{name}"
        if not name or len(name.encode()) > LONGEST_NAME:
            raise SchemaError(
                f"The channel's name must have 1 to {LONGEST_NAME} bytes in PostgreSQL, not "
                f"{name!r}: shorten WAFFLE_REDIS_CHANNEL."
            )
        self._psycopg = psycopg
        self._url = re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", url)
        try:
            conninfo_to_dict(self._url)
        except psycopg.Error:  # the text may quote a password
            raise SchemaError(
                "WAFFLE_LISTEN_URL can't be used. Write it as "
                "postgresql://user:password@host:5432/database, with special characters "
                "percent-encoded; without it the store's URL is used."
            ) from None

    def publish(self, host_id: int) -> None:
        """Do nothing: each commit has sent its message already, see `Store.notifying`."""

    @contextmanager
    def open(self, *, listen: bool) -> Iterator[_OpenChannel]:
        """Open it; see `Channel.open`."""
        what = "can't listen to" if listen else "can't ask"
        with self._map_errors(what), self._connect() as opened:
            opened.subscribe(self._hosts_channel)
            if listen:
                opened.subscribe(self.name)
                self._check_delivery(opened)
                opened.take_name(self._listener)  # from now on it is counted
            yield opened

    def _check_delivery(self, opened: _OpenChannel) -> None:
        """Send a message over a second connection, while the first is idle."""
        probe = f"probe {secrets.token_hex(8)}"
        with self._connect() as second:
            second.send(probe)
        deadline = monotonic() + RESPONSE_TIMEOUT
        while (self._hosts_channel, probe) not in opened.receive(max(0.0, deadline - monotonic())):
            if monotonic() > deadline:
                raise ChannelDown(f"{NOT_DELIVERED}.")

    @contextmanager
    def _connect(self) -> Iterator[_OpenChannel]:
        options = {**connect_limits("psycopg", RESPONSE_TIMEOUT), "autocommit": True}
        with self._psycopg.connect(self._url, **options) as connection:
            limit_answers(connection, RESPONSE_TIMEOUT)
            with selectors.DefaultSelector() as selector:
                selector.register(connection, selectors.EVENT_READ)
                yield _OpenChannel(connection, selector, self._hosts_channel, self._listener)

    @contextmanager
    def _map_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (self._psycopg.Error, OSError, UnicodeError) as error:
            message = str(error).partition("\n")[0].rstrip(".")
            raise ChannelDown(f"{what} PostgreSQL: {message}") from error


class _OpenChannel:
    """See `OpenChannel`.

    Args:
        connection: of psycopg, with autocommit.
        selector: waits until it can be read.
        hosts_channel: the channel on which hosts describe themselves.
        listener: what the connections of listeners are called.
    """

    def __init__(
        self,
        connection: Any,
        selector: selectors.BaseSelector,
        hosts_channel: str,
        listener: str,
    ) -> None:
        self._connection, self._selector = connection, selector
        self._hosts_channel, self._listener = hosts_channel, listener
        self._messages: list[tuple[str, str]] = []
        self._heard_at = monotonic()
        # Called for what arrives while a statement is under way.
        connection.add_notify_handler(
            lambda notify: self._messages.append((notify.channel, notify.payload))
        )

    def subscribe(self, channel: str) -> None:
        """Receive what is sent to ``channel`` from now on."""
        from psycopg import sql

        self._connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def take_name(self, application_name: str) -> None:
        """Call this connection so where the server lists connections."""
        self._connection.execute(
            "SELECT set_config('application_name', %s, false)", (application_name,)
        )

    def receive(self, seconds: float) -> list[tuple[str, str]]:
        if self._messages or self._selector.select(seconds):
            self._read()
        elif monotonic() - self._heard_at > PING_AFTER:
            self._connection.execute("SELECT 1")
            self._read()
        found, self._messages = self._messages, []
        return found

    def _read(self) -> None:
        pgconn = self._connection.pgconn
        pgconn.consume_input()
        while (notify := pgconn.notifies()) is not None:
            self._messages.append((notify.relname.decode(), notify.extra.decode(errors="replace")))
        self._heard_at = monotonic()

    def send(self, text: str) -> None:
        self._connection.execute("SELECT pg_notify(%s, %s)", (self._hosts_channel, text))

    def count_listeners(self) -> int:
        (count,) = self._connection.execute(COUNT, (self._listener,)).fetchone()
        return int(count)
