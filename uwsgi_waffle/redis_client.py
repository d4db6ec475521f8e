"""A client for the Redis that a URL names, with time limits that the URL can't change.

It reads URLs that redis-py doesn't: those of Sentinel, and Valkey's names for the same.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from .errors import SchemaError

__all__ = ["connect", "disconnect", "error_message", "import_redis"]

CONNECT_TIMEOUT = 2.0  # seconds
SENTINEL_PORT = 26379
SENTINEL_LOGIN = {"sentinel_username", "sentinel_password"}
WRITE_IT_AS = (
    "Write it as redis://user:password@host:6379/0, with special characters percent-encoded"
)
# What redis-py says of a sentinel is long, and no two processes say the same.
SENTINEL = re.compile(r"<redis\.client\.Redis\(.*?host=([^,]*),port=(\d+).*?\)>\)>\)>")


def import_redis() -> Any:
    """Import redis-py.

    Raises:
        ImportError: it isn't installed; a folder of the application's may have its name.
    """
    import redis

    if not hasattr(redis, "RedisError"):
        raise ImportError(f"{redis} isn't redis-py")
    return redis


def connect(url: str, *, setting: str, timeout: float) -> Any:
    """Return a `redis.Redis` that isn't connected yet, and doesn't retry by itself.

    ``redis+sentinel://user:password@a,b:26380,c/mymaster/0`` names three sentinels, and the
    database 0 of their ``mymaster``, whichever Redis that is when the client connects; user and
    password are those of Redis; ``?sentinel_username=&sentinel_password=`` are the sentinels'.

    Args:
        url: so, or as redis-py reads it: ``redis://``, ``rediss://`` or ``unix://``.
        setting: where the URL comes from, for the error.
        timeout: seconds to send and to wait for an answer; connecting takes at most 2.

    Raises:
        SchemaError: the URL can't be used; the text doesn't quote it, as it may hold a password.
        ImportError: redis-py isn't installed.
    """
    redis = import_redis()
    hint, ours = f"{setting} can't be used. {WRITE_IT_AS}", _limits(redis, timeout)
    try:
        url, service, sentinels = _read_url(url)
        parts = urlsplit(url)
        if problem := _problem(parts):
            raise SchemaError(f"{hint}: {problem}.")
        query = dict(parse_qsl(parts.query))
        login = {name: query.pop(name) for name in SENTINEL_LOGIN & query.keys() if service}
        options = urlencode({name: text for name, text in query.items() if name not in ours})
        pool = redis.ConnectionPool.from_url(_with_query(url, options), **ours)
        pool.connection_class(**pool.connection_kwargs)  # rejects unknown options
    except TypeError as error:
        raise SchemaError(f"{hint}: {error}.") from None
    except SchemaError:  # a ValueError, too
        raise
    except ValueError:
        raise SchemaError(
            f"{hint}; rediss://, unix://, valkey:// and redis+sentinel://host,host/service work, "
            "too."
        ) from None
    if service:
        return _master(redis, service, sentinels, login, pool)
    return redis.Redis.from_pool(pool)  # closing the client closes its connections


def disconnect(client: Any) -> None:
    """Close those connections of a client's, also to its sentinels, that nobody uses just now."""
    _disconnect(_pools_of(client))


def error_message(error: Exception) -> str:
    """Return the text of redis-py's error, with sentinels by their addresses."""
    return SENTINEL.sub(r"\1:\2", str(error)).rstrip(".")


def _read_url(url: str) -> tuple[str, str, list[tuple[str, int]]]:
    """Return a URL for redis-py, and the service and the sentinels if it names some.

    Raises:
        ValueError: it can't be used.
    """
    url = re.sub(r"^valkey(s?)(?=[:+])", r"redis\1", url)
    scheme, mark, rest = url.partition("+sentinel://")
    if not mark:
        return url, "", []
    place, _, path = rest.partition("/")
    login, at, servers = place.rpartition("@")
    service = re.split("[/?#]", path, maxsplit=1)[0]
    if not service or "@" in service:
        raise ValueError("it names no service")
    addresses = [_address(server) for server in servers.split(",")]
    # Several servers aren't what `urlsplit` and redis-py read as one, but the rest is.
    database = path.removeprefix(service).lstrip("/")
    return f"{scheme}://{login}{at}sentinel/{database}", unquote(service), addresses


def _address(server: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[^]]+\]|[^:?#]+)(?::(\d+))?", server)
    if match is None:
        raise ValueError("it names a sentinel that can't be read")
    return match[1].strip("[]"), int(match[2] or SENTINEL_PORT)


def _master(
    redis: Any, service: str, addresses: list[tuple[str, int]], login: Mapping[str, str], pool: Any
) -> Any:
    """Return a client of the sentinels' master, with the options of a pool's connections."""
    options = pool.connection_kwargs
    limits = ("socket_timeout", "socket_connect_timeout", "retry", "protocol")
    asking = {name: options[name] for name in limits}
    asking |= {name.removeprefix("sentinel_"): text for name, text in login.items()}
    sentinel = redis.sentinel.Sentinel(addresses, sentinel_kwargs=asking)
    own = {key: value for key, value in options.items() if key not in ("host", "port")}
    ssl = issubclass(pool.connection_class, redis.SSLConnection)
    client = sentinel.master_for(service, ssl=ssl, **own)
    # They refer to each other, so that they would stay open until a garbage collection.
    weakref.finalize(client, _disconnect, _pools_of(client)).atexit = False
    return client


def _pools_of(client: Any) -> list[Any]:
    pool = client.connection_pool
    sentinels = getattr(getattr(pool, "sentinel_manager", None), "sentinels", ())
    return [pool, *(sentinel.connection_pool for sentinel in sentinels)]


def _disconnect(pools: Iterable[Any]) -> None:
    for pool in pools:
        pool.disconnect(inuse_connections=False)


def _problem(parts: SplitResult) -> str:
    """Return what redis-py would read as something else, or not at all; empty if nothing."""
    if parts.fragment or "@" in parts.path + parts.query:
        return "it has an '@' or '#' in the wrong place"
    if parts.scheme == "unix" and parts.hostname:
        return "a socket's path is absolute: unix:///run/redis.sock"
    if parts.scheme != "unix" and not re.fullmatch(r"/?\d*/?", parts.path):
        return "what follows the server is the number of a database"
    return ""


def _limits(redis: Any, timeout: float) -> dict[str, Any]:
    """Return the options of a connection that a URL can't change."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": min(timeout, CONNECT_TIMEOUT),
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "decode_responses": False,
        "protocol": 2,
    }


def _with_query(url: str, query: str) -> str:
    return url.partition("?")[0] + (f"?{query}" if query else "")
