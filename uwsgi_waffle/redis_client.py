"""A client for the Redis that a URL names, with time limits that the URL can't change."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from .errors import SchemaError
from .redis_sentinel import read_url

__all__ = ["connect", "error_message", "import_redis"]

CONNECT_TIMEOUT = 2.0  # seconds
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

    Args:
        url: as redis-py reads it, ``redis://``, ``rediss://`` or ``unix://``, or as `read_url`.
        setting: where the URL comes from, for the error.
        timeout: seconds to send and to wait for an answer; connecting takes at most 2.

    Raises:
        SchemaError: the URL can't be used; the text doesn't quote it, as it may hold a password.
        ImportError: redis-py isn't installed.
    """
    redis = import_redis()
    hint = (
        f"{setting} can't be used. Write it as redis://user:password@host:6379/0, with special "
        "characters percent-encoded"
    )
    ours = _limits(redis, timeout)
    try:
        url, sentinels = read_url(url)
        parts = urlsplit(url)
        if problem := _problem(parts):
            raise SchemaError(f"{hint}: {problem}.")
        options = urlencode([pair for pair in parse_qsl(parts.query) if pair[0] not in ours])
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
    if sentinels is not None:
        return sentinels.client(redis, pool)
    return redis.Redis.from_pool(pool)  # closing the client closes its connections


def error_message(error: Exception) -> str:
    """Return the text of redis-py's error, with sentinels by their addresses."""
    return SENTINEL.sub(r"\1:\2", str(error)).rstrip(".")


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
