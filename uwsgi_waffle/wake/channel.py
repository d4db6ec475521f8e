"""What a server must do for the hosts that tell each other of changes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

__all__ = ["Channel", "ChannelDown"]


class ChannelDown(Exception):
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
        self, *, own_id: Callable[[], int], should_continue: Callable[[], bool]
    ) -> Iterator[None]:
        """Yield when subscribed, and when other hosts have sent something since.

        Ends when ``should_continue`` says so; it is called at least once a second.

        Raises:
            ChannelDown: the connection is lost, or the server doesn't respond any more.
        """

    def listeners(self) -> int:
        """Return how many hosts listen.

        Raises:
            ChannelDown: the server doesn't respond.
        """
