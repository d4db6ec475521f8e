"""The Redis channel over which hosts tell each other that the store may have changed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from ..redis_client import connect, error_message, import_redis
from .channel import PING_AFTER, RESPONSE_TIMEOUT, ChannelDown, hosts_channel_name

__all__ = ["RedisChannel", "sender_of"]

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

    @contextmanager
    def open(self, *, listen: bool) -> Iterator[_OpenChannel]:
        """Open it; see `Channel.open`."""
        names = (self.name, self._hosts_channel) if listen else (self._hosts_channel,)
        with (
            self._map_errors("can't listen to" if listen else "can't ask"),
            self._connect() as client,
            client.pubsub() as pubsub,
        ):
            opened = _OpenChannel(pubsub, self._connect, self.name, names)
            opened.subscribe()
            yield opened

    @contextmanager
    def _map_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            text = f"{what} Redis: {error_message(error)}"
            if isinstance(error, self._denied):
                text += f" (it needs {self.name} and {self._hosts_channel})"
            raise ChannelDown(text) from error

    def _connect(self) -> Any:
        return connect(self._url, setting="WAFFLE_REDIS_URL", timeout=RESPONSE_TIMEOUT)


class _OpenChannel:
    """See `OpenChannel`.

    Args:
        pubsub: of redis-py.
        connect: returns a client for whatever else is to be sent.
        name: the channel's.
        names: what to subscribe to.
    """

    def __init__(
        self, pubsub: Any, connect: Callable[[], Any], name: str, names: tuple[str, ...]
    ) -> None:
        self._pubsub, self._connect, self._name, self._names = pubsub, connect, name, names
        self._heard_at = self._pinged_at = 0.0
        self._size = 0  # bytes received over this connection

    def subscribe(self) -> None:
        """Connect anew, and wait until the server confirms each subscription."""
        self._pubsub.reset()
        self._pubsub.subscribe(*self._names)
        for _ in self._names:
            if self._pubsub.get_message(timeout=RESPONSE_TIMEOUT) is None:
                raise ChannelDown(f"Redis has not responded for {RESPONSE_TIMEOUT:g} s")
        self._heard_at, self._pinged_at, self._size = monotonic(), 0.0, 0

    def receive(self, seconds: float) -> list[tuple[str, str]]:
        if self._size > MAX_BUFFERED:
            self.subscribe()
            return [(self._name, "")]  # what came meanwhile is lost
        found = self._messages(seconds)
        self._check_responds(heard=bool(found))
        # "subscribe" comes where redis-py has connected anew by itself.
        return [self._read(m) for m in found if m["type"] in ("message", "subscribe")]

    def _read(self, message: dict[str, Any]) -> tuple[str, str]:
        channel = message["channel"].decode(errors="replace")
        if message["type"] == "subscribe":
            return channel, ""
        data = message["data"]
        return channel, sender_of(data) if channel == self._name else data.decode(errors="replace")

    def _messages(self, seconds: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        message = self._pubsub.get_message(timeout=seconds)
        while message is not None:
            found.append(message)
            self._size += len(message["data"]) if message["type"] == "message" else 0
            if len(found) == MOST_MESSAGES or self._size > MAX_BUFFERED:
                break
            # A message that has begun to come may need a while.
            more = self._pubsub.connection.can_read(timeout=0)
            message = self._pubsub.get_message(timeout=RESPONSE_TIMEOUT) if more else None
        return found

    def _check_responds(self, *, heard: bool) -> None:
        now = monotonic()
        if heard:
            self._heard_at, self._pinged_at = now, 0.0
        elif self._pinged_at:
            if now - self._pinged_at > RESPONSE_TIMEOUT:
                raise ChannelDown(f"Redis has not responded for {now - self._heard_at:.0f} s")
        elif now - self._heard_at > PING_AFTER:
            self._pubsub.ping()
            self._pinged_at = now

    def send(self, text: str) -> None:
        # Over another connection, as this one is busy; one that is kept may be dead without a sign.
        with self._connect() as client:
            client.publish(hosts_channel_name(self._name), text)

    def count_listeners(self) -> int:
        with self._connect() as client:
            ((_, count),) = client.pubsub_numsub(self._name)
        return int(count)


def sender_of(message: bytes) -> str:
    """Return the id of the host that has published a message, ``""`` if none has."""
    match = MESSAGE.fullmatch(message) if len(message) < 64 else None
    return str(int(match[1])) if match else ""
