"""A client for the Redis that a URL names; whatever the URL says, it waits no longer than it is
told here.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from .errors import SchemaError

__all__ = ["connect", "shown"]


def connect(url: str, *, setting: str, timeout: float) -> Any:
    """Return a `redis.Redis` that is not connected yet, and tries nothing twice by itself.

    Args:
        url: as redis-py reads it: ``redis://``, ``rediss://`` or ``unix://``, with user, password
            and database.
        setting: where the URL comes from, for the error.
        timeout: seconds to connect, to send, and to wait for an answer.

    Raises:
        SchemaError: the URL can't be used; the text holds nothing of it, for it may be the
            password.
        ImportError: redis-py isn't installed.
    """
    import redis

    hint = f"{setting} can't be used. Write it as redis://user:password@host:6379/0, with special characters percent-encoded"
    ours: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "decode_responses": False,
        "protocol": 2,
    }
    try:
        parts = urlsplit(url)
        if parts.fragment or "@" in parts.path + parts.query:
            raise SchemaError(f"{hint}: there is an '@' or '#' where none can be.")
        theirs = urlencode(
            [(key, value) for key, value in parse_qsl(parts.query) if key not in ours]
        )
        pool = redis.ConnectionPool.from_url(_with_query(url, theirs), **ours)
        pool.connection_class(**pool.connection_kwargs)  # knows which options there are
    except TypeError as error:
        raise SchemaError(f"{hint}: {error}.") from None
    except ValueError:
        raise SchemaError(f"{hint}; rediss:// and unix:// are possible, too.") from None
    return redis.Redis(connection_pool=pool)


def shown(url: str) -> str:
    """Return a URL that `connect` has taken as a person may see it."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    login = user.partition(":")[0] + ":***" if ":" in user else user
    query = urlencode(
        [
            (key, "***" if "passw" in key.lower() else value)
            for key, value in parse_qsl(parts.query)
        ],
        safe="*/",
    )
    return _with_query(f"{parts.scheme}://{login}{at}{place}{parts.path}", query)


def _with_query(url: str, query: str) -> str:
    return url.partition("?")[0] + (f"?{query}" if query else "")
