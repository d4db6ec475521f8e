"""The channels through which hosts tell each other of changes, and what each must do.

A new one is a few lines of `CHANNELS` and `open_channel` here, and a module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ..errors import WaffleError, missing_library

__all__ = [
    "ASK",
    "CHANNELS",
    "CHECK_INTERVAL",
    "GAP",
    "PING_AFTER",
    "RESPONSE_TIMEOUT",
    "Channel",
    "ChannelDown",
    "OpenChannel",
    "hosts_channel_name",
    "listen",
    "open_channel",
]

RESPONSE_TIMEOUT = 1.0  # seconds for connecting, sending, and for the answer to a ping
PING_AFTER = 5.0  # seconds of silence after which the listener asks whether the server responds
CHECK_INTERVAL = 0.5  # seconds between two checks whether to go on
GAP = 0.02  # seconds between two answers to messages, however many come
ASK = "who is there?"  # asks every listener to describe its host, see `roll_call`


def hosts_channel_name(channel: str) -> str:
    """Return the name of the channel on which the listeners of ``channel`` describe their hosts."""
    return f"{channel}:hosts"


class ChannelDown(WaffleError):
    """The server can't be reached, or doesn't respond."""


class Channel(Protocol):
    """One channel of one server. A message on it says "the store may have changed", no more.

    Attributes:
        server: what people call the server.
        name: the channel's name.
    """

    server: str
    name: str

    def publish(self, host_id: int) -> None:
        """Send a message to the other hosts; they know ours by its id.

        Raises:
            ChannelDown: it couldn't be sent.
        """

    def open(self, *, listen: bool) -> AbstractContextManager[OpenChannel]:
        """Connect to the server.

        Args:
            listen: whether to be one of the channel's listeners, and receive its messages, too, not
                only what is said on `hosts_channel_name`.

        Raises:
            ChannelDown: the server doesn't respond, or the connection is lost within the block.
        """


class OpenChannel(Protocol):
    """A connection to the server."""

    def receive(self, seconds: float) -> list[tuple[str, str]]:
        """Return what has come, as pairs of channel and text; wait for the first of them.

        A message's text is the id of the host that has sent it, if one of ours has. After some
        silence, ask whether the server still responds.
        """

    def send(self, text: str) -> None:
        """Say something on `hosts_channel_name`."""

    def count_listeners(self) -> int:
        """Return how many hosts listen."""


def listen(
    channel: Channel,
    *,
    own_id: Callable[[], int],
    should_continue: Callable[[], bool],
    answer: Callable[[], str],
) -> Iterator[None]:
    """Yield when connected, and when other hosts have sent something since.

    At most once in a `GAP`, whatever comes.

    Args:
        own_id: returns this host's id, whose messages don't count.
        should_continue: says when to end; called at least once a second.
        answer: returns what to say when somebody asks who is there.

    Raises:
        ChannelDown: the connection is lost, or the server doesn't respond any more.
    """
    question = (hosts_channel_name(channel.name), ASK)
    with channel.open(listen=True) as opened:
        yield
        while should_continue():
            messages, own = opened.receive(CHECK_INTERVAL), (channel.name, str(own_id()))
            if question in messages:
                opened.send(answer())
            if any(message[0] == channel.name and message != own for message in messages):
                yield
            if messages:
                time.sleep(GAP)  # more may come meanwhile, and are answered together


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
