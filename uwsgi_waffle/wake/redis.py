"""The Redis channel over which hosts tell each other that the store may have changed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from ..redis_client import connect, import_redis
from .channel import (
    ASK,
    CHECK_INTERVAL,
    GAP,
    PING_AFTER,
    RESPONSE_TIMEOUT,
    ChannelDown,
    hosts_channel_name,
)

__all__ = ["RedisChannel"]

# Bytes of messages after which the listener connects anew: redis-py frees its buffer only when it
# has read all of it.
MAX_BUFFERED = 2**24
MOST_MESSAGES = 100  # that are read before they are answered

# Flask-WaffleConf reads a message as a time. So ours is a number, too, and the digits behind its
# microseconds are the id of the host that sent it.
MESSAGE = re.compile(rb"\d+\.\d{6}(\d{20})")


class RedisChannel:
    """One channel of one Redis: see `Channel`, and what `open_channel` raises."""

    server = "Redis"

    def __init__(self, url: str, name: str) -> None:
        redis = import_redis()
        self.name, self._url, self._hosts_channel = name, url, hosts_channel_name(name)
        self._errors = (redis.RedisError, OSError, UnicodeError)
        self._denied = redis.exceptions.NoPermissionError
        self._connect()

    def publish(self, host_id: int) -> None:
        """Send within `RESPONSE_TIMEOUT`, not counting name lookup; else see `Channel.publish`."""
        message = f"{time.time():.6f}{host_id:020d}"
        with (
            self._map_errors("can't publish to"),
            self._connect() as client,  # one that is kept may be dead without a sign
            client.pipeline(transaction=False) as pipeline,
        ):
            # What is it? A replica tells no other server.
            pipeline.execute_command("HELLO").publish(self.name, message)
            hello, published = pipeline.execute(raise_on_error=False)
        if isinstance(published, Exception):
            raise published
        if isinstance(hello, list) and b"replica" in hello:  # versions before 6 refuse to say it
            raise ChannelDown(
                "can't publish to Redis: it is a replica, whose messages reach no other server. "
                "Set WAFFLE_REDIS_URL to its master"
            )

    def listen(
        self,
        *,
        own_id: Callable[[], int],
        should_continue: Callable[[], bool],
        answer: Callable[[], str],
    ) -> Iterator[None]:
        """Yield at most once in a `GAP`, whatever messages come; else see `Channel.listen`.

        Ask now and then whether Redis still responds.
        """
        with (
            self._map_errors("can't listen to"),
            self._connect() as client,
            client.pubsub() as pubsub,
        ):
            pubsub.subscribe(self.name, self._hosts_channel)
            subscription = _Subscription(pubsub)
            while should_continue() and subscription.size <= MAX_BUFFERED:
                messages = subscription.receive(CHECK_INTERVAL)
                own = own_id()
                asked = any(map(self._is_question, messages))
                news = any(self._is_news(message, own) for message in messages)
                if asked:
                    self._answer(answer())
                if news:
                    yield
                if asked or news:
                    time.sleep(GAP)  # more may come meanwhile, and are answered together

    @contextmanager
    def open_hosts_channel(self) -> Iterator[_HostsChannel]:
        with (
            self._map_errors("can't ask"),
            self._connect() as client,
            client.pubsub(ignore_subscribe_messages=True) as pubsub,
        ):
            pubsub.subscribe(self._hosts_channel)
            pubsub.get_message(timeout=RESPONSE_TIMEOUT)  # it is confirmed
            yield _HostsChannel(client, pubsub, self.name, self._hosts_channel)

    def _answer(self, text: str) -> None:
        with self._connect() as client:  # that of the listener is busy with listening
            client.publish(self._hosts_channel, text)

    def _is_news(self, message: dict[str, Any], own_id: int) -> bool:
        if message["channel"] != self.name.encode():
            return False
        if message["type"] != "message":
            return bool(message["type"] == "subscribe")
        data = message["data"]
        match = MESSAGE.fullmatch(data) if len(data) < 64 else None
        return match is None or int(match[1]) != own_id

    def _is_question(self, message: dict[str, Any]) -> bool:
        question = (self._hosts_channel.encode(), ASK.encode())
        return (message["channel"], message["data"]) == question

    @contextmanager
    def _map_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            text = f"{what} Redis: {str(error).rstrip('.')}"
            if isinstance(error, self._denied):
                text += f" (it needs {self.name} and {self._hosts_channel})"
            raise ChannelDown(text) from error

    def _connect(self) -> Any:
        return connect(self._url, setting="WAFFLE_REDIS_URL", timeout=RESPONSE_TIMEOUT)


class _Subscription:
    """What the listener receives, and whether Redis still responds."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub
        self._heard_at, self._pinged_at = monotonic(), 0.0
        self.size = 0  # bytes received

    def receive(self, seconds: float) -> list[dict[str, Any]]:
        """Return the messages that have come; wait for the first of them."""
        found: list[dict[str, Any]] = []
        message = self._pubsub.get_message(timeout=seconds)
        while message is not None:
            found.append(message)
            self.size += len(message["data"]) if message["type"] == "message" else 0
            if len(found) == MOST_MESSAGES or self.size > MAX_BUFFERED:
                break
            # A message that has begun to come may need a while.
            more = self._pubsub.connection.can_read(timeout=0)
            message = self._pubsub.get_message(timeout=RESPONSE_TIMEOUT) if more else None
        now = monotonic()
        if found:
            self._heard_at, self._pinged_at = now, 0.0
        elif self._pinged_at:
            if now - self._pinged_at > RESPONSE_TIMEOUT:
                raise ChannelDown(f"Redis has not responded for {now - self._heard_at:.0f} s")
        elif now - self._heard_at > PING_AFTER:
            self._pubsub.ping()
            self._pinged_at = now
        return found


class _HostsChannel:
    def __init__(self, client: Any, pubsub: Any, listeners: str, name: str) -> None:
        self._client, self._pubsub, self._listeners, self._name = client, pubsub, listeners, name

    def listeners(self) -> int:
        ((_, count),) = self._client.pubsub_numsub(self._listeners)
        return int(count)

    def send(self, text: str) -> None:
        self._client.publish(self._name, text)

    def receive(self, seconds: float) -> list[str]:
        message = self._pubsub.get_message(timeout=seconds)
        return [] if message is None else [message["data"].decode(errors="replace")]
