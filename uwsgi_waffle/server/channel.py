"""The Redis channel over which hosts tell each other that the store may have changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from ..redis_client import connect

__all__ = ["Channel", "ChannelDown"]

TIMEOUT = 1.0  # seconds for connecting, sending, and for the answer to a ping
PING_AFTER = 5.0  # seconds of silence after which the listener asks whether Redis is still there
TURN = 0.5  # seconds between two looks whether to go on
ENOUGH = (
    2**24
    # bytes of messages after which the listener connects anew: redis-py frees its buffer only when all
    # is read
)
FIRST_GAP, LAST_GAP = 0.001, 0.1  # seconds between two bells while messages keep coming
BURST = 250  # bells in a short time; then there is one after each `LAST_GAP` at most

# Flask-WaffleConf reads a message as a time, so ours is a number, too: behind its microseconds
# stands who sent it.
MESSAGE = re.compile(rb"\d+\.\d{6}(\d{20})")


class ChannelDown(Exception):
    """Redis can't be reached, or doesn't answer."""


class Pace:
    """When the bell is rung for messages, however many come, and however they are spread: a token
    bucket.

    Messages that come one by one are answered at once, those that come together with growing gaps.
    In any ``t`` seconds there are at
    most ``BURST + t / LAST_GAP + 1`` bells.

    Attributes:
        gap: seconds from the last bell to the next.
    """

    def __init__(self) -> None:
        self.gap, self._rung_at, self._tokens = FIRST_GAP, 0.0, float(BURST)

    def left(self, now: float) -> float:
        """Return how many seconds there are until the next bell may be rung."""
        return max(0.0, self._rung_at + self.gap - now)

    def rings(self, now: float) -> bool:
        """Tell whether it is time, and if so count the bell; ``now`` in seconds of the monotonic
        clock.
        """
        passed = now - self._rung_at
        if passed < self.gap:
            return False
        self._tokens = min(BURST, self._tokens + passed / LAST_GAP) - 1
        together = passed < 2 * self.gap
        self._rung_at = now
        if self._tokens < 1:
            self.gap = LAST_GAP
        else:
            self.gap = min(2 * self.gap, LAST_GAP) if together else FIRST_GAP
        return True


class Channel:
    """One channel of one Redis.

    Args:
        url: as redis-py reads it.
        name: the channel's name.

    Raises:
        SchemaError: the URL can't be used.
        ImportError: redis-py isn't installed.
    """

    def __init__(self, url: str, name: str) -> None:
        import redis

        self.name, self._url = name, url
        self._errors = (redis.RedisError, OSError, UnicodeError)
        self._lost = redis.ConnectionError
        self._connect()
        self._publisher: Any = None
        self._pace = Pace()
        self._pid = 0

    def publish(self, sender: int) -> None:
        """Tell the other hosts; by ``sender``, a number, a host knows its own messages.

        Raises:
            ChannelDown: it couldn't be sent within `TIMEOUT`, the search for the address not
                counted.
        """
        kept = self._publisher if self._pid == os.getpid() else None
        self._pid, self._publisher = os.getpid(), kept or self._connect()
        message = f"{time.time():.6f}{sender:020d}"
        with self._told("can't publish to Redis"):
            try:
                self._publisher.publish(self.name, message)
            except self._lost:
                if kept is None:
                    raise
                self._publisher.publish(
                    self.name, message
                )  # a connection that is kept may have been closed meanwhile

    def listeners(self) -> int:
        """Ask Redis how many listen to this channel, on all hosts.

        Raises:
            ChannelDown: it doesn't answer.
        """
        with self._told("can't ask Redis"), self._connect() as client:
            ((_, count),) = client.pubsub_numsub(self.name)
            return int(count)

    def listen(
        self, ring: Callable[[], None], *, sender: Callable[[], int], go_on: Callable[[], bool]
    ) -> None:
        """Call ``ring`` when subscribed, and whenever other hosts have sent something, until
        ``go_on`` says no, or it was very much.

        However many messages come, whatever is in them, it is called at the `Pace` only.

        Raises:
            ChannelDown: the connection is lost, or Redis has not answered a ping within `TIMEOUT`.
        """
        client = self._connect()
        subscription = client.pubsub()
        try:
            with self._told("can't listen to Redis"):
                subscription.subscribe(self.name)
            self._hear(subscription, ring, sender, go_on)
        finally:
            subscription.close()
            client.close()

    def _hear(
        self,
        subscription: Any,
        ring: Callable[[], None],
        sender: Callable[[], int],
        go_on: Callable[[], bool],
    ) -> None:
        news, size = False, 0
        heard_at, asked_at, turned_at = monotonic(), 0.0, 0.0
        while True:
            with self._told("can't listen to Redis"):
                message = subscription.get_message(
                    timeout=self._pace.left(monotonic()) if news else TURN
                )
                if not asked_at and monotonic() - heard_at > PING_AFTER:
                    subscription.ping()
                    asked_at = monotonic()
            now = monotonic()
            if message is not None:
                heard_at, asked_at = now, 0.0
                size += len(message["data"]) if message["type"] == "message" else 0
                news = (
                    news
                    or message["type"] == "subscribe"
                    or (message["type"] == "message" and not _is_from(message["data"], sender))
                )
            elif asked_at and now - asked_at > TIMEOUT:
                raise ChannelDown(f"Redis has not answered for {now - heard_at:.0f} s")
            if news and self._pace.rings(now):
                news = False
                ring()
            if now - turned_at > TURN:
                turned_at = now
                if not go_on():
                    return
            if size > ENOUGH:
                return

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            raise ChannelDown(f"{what}: {str(error).rstrip('.')}") from error

    def _connect(self) -> Any:
        return connect(self._url, setting="WAFFLE_REDIS_URL", timeout=TIMEOUT)


def _is_from(data: bytes, sender: Callable[[], int]) -> bool:
    match = MESSAGE.fullmatch(data) if len(data) < 64 else None
    return match is not None and int(match[1]) == sender()
