"""The servers in which hosts meet, for the tests of what every channel keeps."""

from __future__ import annotations

import time

import psycopg
import sqlalchemy as sa

from uwsgi_waffle import SQLStore
from uwsgi_waffle.stores.engines import libpq_url
from uwsgi_waffle.wake import open_channel
from uwsgi_waffle.wake.postgres import PREFIX

from ..redis_server import RedisServer
from ..sql_servers import PostgreSQL
from .conftest import put

__all__ = ["FOREIGN", "OWN", "Meeting", "OverPostgreSQL", "OverRedis"]

OWN, FOREIGN = 7, 8  # ids of hosts


class OverRedis:
    """Hosts that meet in Redis."""

    watchtype = "redis"

    def __init__(self, server: RedisServer) -> None:
        self.server, self.url = server, server.url
        self.channel = open_channel("redis", server.url, "waffleconf")

    def tell(self, host_id: int) -> None:
        """Do what makes other hosts look."""
        self.channel.publish(host_id)

    def send(self, text: str, channel: str = "waffleconf") -> None:
        """Send a text as somebody else."""
        with self.server.client() as client:
            client.publish(channel, text)

    def cut(self) -> None:
        """Cut the listeners' connections."""
        with self.server.client() as client:
            client.client_kill_filter(_type="pubsub")

    def end(self) -> None:
        """Close what was opened."""


class OverPostgreSQL:
    """Hosts that meet in the PostgreSQL that holds the values."""

    watchtype = "postgres"

    def __init__(self, server: PostgreSQL) -> None:
        self.server, self.url = server, server.fresh()
        self.channel = open_channel("postgres", self.url, "waffleconf")
        self.store = SQLStore(self.url)
        self.store.prepare()
        self._sender = psycopg.connect(libpq_url(sa.make_url(self.url)), autocommit=True)

    def tell(self, host_id: int) -> None:
        put(self.store.notifying("waffleconf", lambda: str(host_id)), A=str(time.monotonic_ns()))

    def send(self, text: str, channel: str = "waffleconf") -> None:
        self._sender.execute("SELECT pg_notify(%s, %s)", (channel, text))

    def cut(self) -> None:
        self.server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE application_name = '{PREFIX}waffleconf'"
        )

    def end(self) -> None:
        self._sender.close()


Meeting = OverRedis | OverPostgreSQL
