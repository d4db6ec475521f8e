"""What a server must do for the hosts that tell each other of changes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ..errors import WaffleError

__all__ = [
    "ASK",
    "CHECK_INTERVAL",
    "GAP",
    "PING_AFTER",
    "RESPONSE_TIMEOUT",
    "Channel",
    "ChannelDown",
    "HostsChannel",
    "hosts_channel_name",
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

    def listen(
        self,
        *,
        own_id: Callable[[], int],
        should_continue: Callable[[], bool],
        answer: Callable[[], str],
    ) -> Iterator[None]:
        """Yield when subscribed, and when other hosts have sent something since.

        Ends when ``should_continue`` says so; it is called at least once a second. When somebody
        asks who is there, send what ``answer`` returns to the hosts' channel.

        Raises:
            ChannelDown: the connection is lost, or the server doesn't respond any more.
        """

    def open_hosts_channel(self) -> AbstractContextManager[HostsChannel]:
        """Open the channel on which listeners describe their hosts.

        Raises:
            ChannelDown: the server doesn't respond, or the connection is lost meanwhile.
        """


class HostsChannel(Protocol):
    """The open channel `hosts_channel_name`."""

    def listeners(self) -> int:
        """Return how many hosts listen."""

    def send(self, text: str) -> None:
        """Send a text to all who listen."""

    def receive(self, seconds: float) -> list[str]:
        """Return the texts that have come; wait for the first of them."""
