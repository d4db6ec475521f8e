"""URLs of Redis that redis-py doesn't read: those of Sentinel, and Valkey's names for the same."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

__all__ = ["Sentinels", "read_url"]

PORT = 26379


@dataclass(frozen=True)
class Sentinels:
    """The servers that know which Redis is the master.

    Attributes:
        addresses: their hosts and ports.
        service: the name that they have for the master and its replicas.
    """

    addresses: tuple[tuple[str, int], ...]
    service: str

    def client(self, redis: Any, pool: Any) -> Any:
        """Return a client of the master, whichever that is when it connects.

        Args:
            redis: the library.
            pool: makes connections with the options that are wanted; the sentinels are asked with
                the same time limits.
        """
        options = pool.connection_kwargs
        limits = ("socket_timeout", "socket_connect_timeout", "retry", "protocol")
        sentinel = redis.sentinel.Sentinel(
            list(self.addresses), sentinel_kwargs={name: options[name] for name in limits}
        )
        own = {key: value for key, value in options.items() if key not in ("host", "port")}
        ssl = issubclass(pool.connection_class, redis.SSLConnection)
        client = sentinel.master_for(self.service, ssl=ssl, **own)
        # They refer to each other, so that they would stay open until a garbage collection.
        opened = (client.connection_pool, *(one.connection_pool for one in sentinel.sentinels))
        weakref.finalize(client, _disconnect, opened).atexit = False
        return client


def read_url(url: str) -> tuple[str, Sentinels | None]:
    """Return a URL for redis-py, and the sentinels if it names some instead of a server.

    ``redis+sentinel://user:password@a,b:26380,c/mymaster/0`` names three of them, and the database
    0 of their ``mymaster``; user and password are those of Redis.

    Raises:
        ValueError: it can't be used.
    """
    url = re.sub(r"^valkey(s?)(?=[:+])", r"redis\1", url)
    scheme, mark, rest = url.partition("+sentinel://")
    if not mark:
        return url, None
    place, _, path = rest.partition("/")
    login, at, servers = place.rpartition("@")
    service = re.split("[/?#]", path, maxsplit=1)[0]
    if not service or "@" in service:
        raise ValueError("it names no service")
    addresses = tuple(_address(server) for server in servers.split(","))
    # Several servers aren't what `urlsplit` and redis-py read as one, but the rest is.
    database = path.removeprefix(service).lstrip("/")
    return f"{scheme}://{login}{at}sentinel/{database}", Sentinels(addresses, unquote(service))


def _disconnect(pools: Iterable[Any]) -> None:
    for pool in pools:
        pool.disconnect()


def _address(server: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[^]]+\]|[^:?#]+)(?::(\d+))?", server)
    if match is None:
        raise ValueError("it names a sentinel that can't be read")
    return match[1].strip("[]"), int(match[2] or PORT)
