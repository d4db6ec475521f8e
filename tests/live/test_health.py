"""What a probe is answered by real workers while the store goes away and comes back."""

from __future__ import annotations

import http.client
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ..sql_servers import PostgreSQL
from .servers import Server, Servers

MONITORED = ("--module", "tests.live.monitored")
INTERVAL = {"WAFFLE_RECONCILE_INTERVAL": "1"}
DOWN = (503, {"healthy": False, "problems": ["the store can't be used"]})
WELL = (200, {"healthy": True, "problems": []})


def probe(server: Server, path: str = "/health", *, socket: int = 0) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[socket], timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("options", [(), ("--lazy-apps",)], ids=["signal", "thread"])
def test_an_idle_host_is_well(servers: Servers, options: tuple[str, ...]) -> None:
    """It compares with the store though nobody asks; and a probe never finds it unwell, however
    often it comes.
    """
    server = servers.uwsgi(*MONITORED, *options, workers=2, addressed=True, **INTERVAL)

    def comparisons() -> int:
        return len(server.records("store"))

    before = comparisons()
    server.eventually(comparisons, until=lambda now: now >= before + 3)
    before = comparisons()
    while comparisons() < before + 3:
        assert [probe(server, socket=socket) for socket in range(2)] == [WELL, WELL]


def test_a_database_that_stops_answering(servers: Servers, postgresql_server: PostgreSQL) -> None:
    """Each worker says so, serves on, and is well again by itself."""
    # A store that fails is tried again after ten times as long as the attempt took.
    environ = {"SITE_SQL": postgresql_server.fresh(), "SITE_TIMEOUT": "0.5", **INTERVAL}
    server = servers.uwsgi(*MONITORED, workers=2, addressed=True, **environ)
    server.update(1)
    for stop, start in (
        (
            lambda: postgresql_server.send_signal(signal.SIGSTOP),
            lambda: postgresql_server.send_signal(signal.SIGCONT),
        ),
        (postgresql_server.kill, postgresql_server.start),
    ):
        for socket in range(2):
            assert probe(server, socket=socket) == WELL
        stop()
        try:
            for socket in range(2):
                server.eventually(
                    lambda at=socket: probe(server, socket=at), until=lambda told: told == DOWN
                )
                assert set(server.read(socket=socket)["all"]) == {1}
        finally:
            start()
        for socket in range(2):
            server.eventually(
                lambda at=socket: probe(server, socket=at),
                until=lambda told: told == WELL,
                deadline=90.0,
            )


def test_a_file_that_vanishes(servers: Servers) -> None:
    """The details say what the short answer doesn't."""
    server = servers.uwsgi(*MONITORED, workers=2, addressed=True, **INTERVAL)
    server.update(1)
    database = Path(servers.folder / "waffle.db")
    database.rename(database.with_name("away"))
    server.eventually(lambda: probe(server, socket=1), until=lambda told: told == DOWN)
    status, told = probe(server, "/health?details")
    assert (status, told["healthy"]) == (503, False)
    assert str(database) in told["status"]["store_error"]
    assert str(servers.folder) not in json.dumps(probe(server))
    database.with_name("away").rename(database)
    server.eventually(lambda: probe(server, socket=1), until=lambda told: told == WELL)
    assert probe(server) == WELL
