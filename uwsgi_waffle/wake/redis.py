"""The Redis channel over which hosts tell each other that the store may have changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from ..redis_client import connect, import_redis
from .channel import ChannelDown

__all__ = ["RedisChannel"]

RESPONSE_TIMEOUT = 1.0  # seconds for connecting, sending, and for the answer to a ping
PING_AFTER = 5.0  # seconds of silence after which the listener asks whether Redis still responds
CHECK_INTERVAL = 0.5  # seconds between two checks whether to go on
GAP = 0.02  # seconds between two answers to messages, however many come
# Bytes of messages after which the listener connects anew: redis-py frees its buffer only when it
# has read all of it.
MAX_BUFFERED = 2**24

# Flask-WaffleConf reads a message as a time. So ours is a number, too, and the digits behind its
# microseconds are the id of the host that sent it.
MESSAGE = re.compile(rb"\d+\.\d{6}(\d{20})")


class RedisChannel:
    """One channel of one Redis: see `Channel`, and what `ChannelType.open` raises."""

    server = "Redis"

    def __init__(self, url: str, name: str) -> None:
        redis = import_redis()
        self.name, self._url = name, url
        self._errors = (redis.RedisError, OSError, UnicodeError)
        self._lost = redis.ConnectionError
        self._connect()
        self._publisher: Any = None
        self._pid = 0

    def publish(self, host_id: int) -> None:
        """Send within `RESPONSE_TIMEOUT`, not counting name lookup; else see `Channel.publish`."""
        kept = self._publisher if self._pid == os.getpid() else None
        self._pid, self._publisher = os.getpid(), kept or self._connect()
        message = f"{time.time():.6f}{host_id:020d}"
        with self._map_errors("can't publish to Redis"):
            try:
                self._publisher.publish(self.name, message)
            except self._lost:
                if kept is None:
                    raise
                # A connection that was kept may have been closed meanwhile.
                self._publisher.publish(self.name, message)

    def listeners(self) -> int:
        with self._map_errors("can't ask Redis"), self._connect() as client:
            ((_, count),) = client.pubsub_numsub(self.name)
            return int(count)

    def listen(
        self, *, own_id: Callable[[], int], should_continue: Callable[[], bool]
    ) -> Iterator[None]:
        """Yield at most once in a `GAP`, whatever messages come; else see `Channel.listen`.

        Ask now and then whether Redis still responds.
        """
        news, size, yielded_at = False, 0, 0.0
        heard_at, pinged_at, checked_at = monotonic(), 0.0, monotonic()
        with self._connect() as client, client.pubsub() as subscription:
            with self._map_errors("can't listen to Redis"):
                subscription.subscribe(self.name)
            while size <= MAX_BUFFERED:
                left = max(0.0, yielded_at + GAP - monotonic()) if news else CHECK_INTERVAL
                with self._map_errors("can't listen to Redis"):
                    message = subscription.get_message(timeout=left)
                    if not pinged_at and monotonic() - heard_at > PING_AFTER:
                        subscription.ping()
                        pinged_at = monotonic()
                now = monotonic()
                if message is not None:
                    heard_at, pinged_at = now, 0.0
                    size += len(message["data"]) if message["type"] == "message" else 0
                    news = news or _is_news(message, own_id)
                elif pinged_at and now - pinged_at > RESPONSE_TIMEOUT:
                    raise ChannelDown(f"Redis has not responded for {now - heard_at:.0f} s")
                if news and now - yielded_at >= GAP:
                    news, yielded_at = False, now
                    yield
                if now - checked_at > CHECK_INTERVAL:
                    checked_at = now
                    if not should_continue():
                        return

    @contextmanager
    def _map_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise ChannelDown(f"{what}: {str(error).rstrip('.')}") from error

    def _connect(self) -> Any:
        return connect(self._url, setting="WAFFLE_REDIS_URL", timeout=RESPONSE_TIMEOUT)


def _is_news(message: dict[str, Any], own_id: Callable[[], int]) -> bool:
    if message["type"] != "message":
        return bool(message["type"] == "subscribe")
    data = message["data"]
    match = MESSAGE.fullmatch(data) if len(data) < 64 else None
    return match is None or int(match[1]) != own_id()
