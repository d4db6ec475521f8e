"""Hosts that meet in their PostgreSQL: an update is told if and only if it is committed."""

from __future__ import annotations

import http.client
import random
import signal
import threading
import time
from contextlib import suppress

import pytest

from .hosts import (
    GEVENT,
    LAZY,
    MULE,
    Hosts,
    InPostgreSQL,
    listener,
    mule,
    update_and_count,
    wait_until_told,
)
from .servers import Server, kill

#: Nothing but a message makes a host look.
ONLY_BY_MESSAGE = {"WAFFLE_RECONCILE_INTERVAL": "3600"}


def server_of(hosts: Hosts) -> InPostgreSQL:
    assert isinstance(hosts.meeting, InPostgreSQL)
    return hosts.meeting


@pytest.mark.parametrize("options", [(MULE,), (MULE, *LAZY), (), (MULE, *GEVENT)], ids=" ".join)
def test_one_connection_and_one_store_read_for_each_host(
    postgres_hosts: Hosts, options: tuple[str, ...]
) -> None:
    """An update reaches the idle workers of the other host, whoever listens there."""
    pair = postgres_hosts.pair(*options, **ONLY_BY_MESSAGE)
    for number in range(1, 8):
        update_and_count(pair, number)
    assert postgres_hosts.subscribers() == 2
    for server in pair:
        assert (listener(server) == mule(server)) if MULE in options else listener(server)


def test_a_writer_that_is_killed_at_any_moment_has_told_what_it_committed(
    postgres_hosts: Hosts, thorough: bool
) -> None:
    """After its commit, before it could do anything else; and whenever."""
    left, right = postgres_hosts.pair(MULE, **ONLY_BY_MESSAGE)
    (left.folder / "die-after-commit").touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        left.update(1)
    wait_until_told(right, 1)
    for number in range(2, 22 if thorough else 7):
        (worker,) = left.eventually(lambda: pids_of("worker 1", left))
        victim = threading.Thread(target=_try_to_update, args=(left, number))
        victim.start()
        time.sleep(random.uniform(0.0, 0.02))
        kill(worker)
        victim.join()
        newest = left.eventually(lambda: left.get("/read")["all"][0])
        for socket in range(2):
            right.eventually(
                lambda at=socket, n=newest: set(right.get("/values", socket=at).values()) >= {n}
            )


def pids_of(kind: str, server: Server) -> list[int]:
    """Return the pids of such processes; none is asked, for it would be idle then."""
    return [pid for pid, found in server.table().items() if found == kind]


def _try_to_update(server: Server, number: int) -> None:
    with suppress(OSError, http.client.HTTPException):
        server.post(f"/update?n={number}", socket=0)


def test_a_server_that_is_killed_and_comes_back(postgres_hosts: Hosts) -> None:
    pair = postgres_hosts.pair(MULE)
    pair[0].update(1)
    wait_until_told(pair[1], 1)
    server = server_of(postgres_hosts).server
    server.kill()
    try:
        for host in pair:
            host.eventually(lambda h=host: h.get("/status")["postgres"]["error"])
            assert host.read()["all"] == [1] * 6
    finally:
        server.start()
    postgres_hosts.wait_for_listeners(pair)
    for number in (2, 3):
        pair[number % 2].update(number)
        wait_until_told(pair[1 - number % 2], number)
    for host in pair:
        host.eventually(lambda h=host: not h.get("/status")["postgres"]["error"])
        host.eventually(lambda h=host: h.log.count("PostgreSQL is back"), until={1}.__contains__)


def test_a_server_that_is_silent_for_a_while(postgres_hosts: Hosts) -> None:
    """A ping finds out; afterwards every listener connects anew, and looks."""
    pair = postgres_hosts.pair(MULE)
    server = server_of(postgres_hosts).server
    server.send_signal(signal.SIGSTOP)
    try:
        for host in pair:
            host.eventually(lambda h=host: h.get("/status")["postgres"]["error"])
            assert host.read()["revision"] == 0
    finally:
        server.send_signal(signal.SIGCONT)
    for host in pair:
        host.eventually(lambda h=host: not h.get("/status")["postgres"]["error"])
    pair[0].update(1)
    wait_until_told(pair[1], 1)
