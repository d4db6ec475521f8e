"""Ports for servers that can't be told to take any free one."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import ExitStack

#: Systems hand out higher ones to clients, and to servers that ask for any.
NEVER_HANDED_OUT = range(10_000, 22_000)
BUS = 10_000  # a Redis Cluster's nodes talk to each other so far above their ports


def free_ports(count: int) -> list[int]:
    """Return different ports that nobody uses, nor takes before the servers have started."""
    with ExitStack() as probes:
        found: list[int] = []
        while len(found) < count:
            port = random.choice(NEVER_HANDED_OUT)
            try:
                for number in (port, port + BUS):
                    probe = probes.enter_context(socket.socket())
                    probe.bind(("127.0.0.1", number))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            found.append(port)
    return found
