"""The channels that ``WAFFLE_WATCHTYPE`` can name. A new one is a few lines here and a module."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import missing_library
from .channel import Channel

__all__ = ["CHANNELS", "ChannelType", "open_channel"]


@dataclass(frozen=True, slots=True)
class ChannelType:
    """One way in which hosts tell each other of changes.

    Attributes:
        server: what people call its server.
        setting: names the URL of the server.
        driver: the library that it needs.
        module: what is imported of it.
        extra: what installs that: ``uwsgi_waffle[extra]``.
    """

    server: str
    setting: str
    driver: str
    module: str
    extra: str

    def missing(self) -> tuple[str, str]:
        """Return why the driver can't be imported, and what to do."""
        return missing_library(self.driver, self.module, self.extra)


CHANNELS = {
    "redis": ChannelType("Redis", "WAFFLE_REDIS_URL", "redis-py", "redis", "redis"),
    "postgres": ChannelType("PostgreSQL", "WAFFLE_LISTEN_URL", "psycopg", "psycopg", "postgres"),
}


def open_channel(watchtype: str, url: str, name: str) -> Channel:
    """Return the channel that the settings name; nothing is connected yet.

    Raises:
        SchemaError: the URL can't be used.
        ImportError: the driver isn't installed.
    """
    if watchtype == "redis":
        from .redis import RedisChannel

        return RedisChannel(url, name)
    from .postgres import PostgresChannel

    return PostgresChannel(url, name)
