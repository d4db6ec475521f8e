"""The channels that ``WAFFLE_WATCHTYPE`` can name. A new one is one line here and one module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import missing_library
from .channel import Channel
from .postgres import PostgresChannel
from .redis import RedisChannel

__all__ = ["CHANNELS", "ChannelType", "open_channel"]


@dataclass(frozen=True, slots=True)
class ChannelType:
    """One way in which hosts tell each other of changes.

    Attributes:
        open: makes the channel of a URL and a name. It raises `SchemaError` if the URL can't be
            used, and `ImportError` if the driver isn't installed.
        server: what people call its server.
        setting: names the URL of the server.
        driver: the library that it needs.
        module: what is imported of it.
        extra: what installs that: ``uwsgi_waffle[extra]``.
    """

    open: Callable[[str, str], Channel]
    server: str
    setting: str
    driver: str
    module: str
    extra: str

    def missing(self) -> tuple[str, str]:
        """Return why the driver can't be imported, and what to do."""
        return missing_library(self.driver, self.module, self.extra)


CHANNELS = {
    "redis": ChannelType(RedisChannel, "Redis", "WAFFLE_REDIS_URL", "redis-py", "redis", "redis"),
    "postgres": ChannelType(
        PostgresChannel, "PostgreSQL", "WAFFLE_LISTEN_URL", "psycopg", "psycopg", "postgres"
    ),
}


def open_channel(watchtype: str, url: str, name: str) -> Channel:
    """Return the channel that the settings name; nothing is connected yet.

    Raises:
        SchemaError: the URL can't be used.
        ImportError: the driver isn't installed.
    """
    return CHANNELS[watchtype].open(url, name)
