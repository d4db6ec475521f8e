"""Whichever worker is scraped tells of the whole host."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from .servers import Server, Servers, kill

WORKERS = 4


def scrape(server: Server, socket: int) -> dict[str, float]:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{server.ports[socket]}/metrics", timeout=30
    ) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {sample.name: sample.value for family in families for sample in family.samples}


def of_the_host(
    server: Server, sockets: range | tuple[int, ...] = range(WORKERS)
) -> dict[str, float]:
    """Return what the answers of all workers agree on, and only that."""
    told = [set(scrape(server, socket).items()) for socket in sockets]
    return {
        name: value for name, value in set.intersection(*told) if name.startswith("uwsgi_waffle_")
    }


@pytest.mark.parametrize("multiprocess", [False, True])
def test_any_worker_tells_of_all(servers: Servers, tmp_path: Path, multiprocess: bool) -> None:
    """Revisions, a worker that doesn't run, one that was killed, a store that is away: the same in
    four workers' answers.
    """
    environ = {"WAFFLE_RECONCILE_INTERVAL": "1"}
    if multiprocess:
        (tmp_path / "prometheus").mkdir()
        environ["PROMETHEUS_MULTIPROC_DIR"] = str(tmp_path / "prometheus")
    server = servers.uwsgi(
        "--module", "tests.live.monitored", workers=WORKERS, addressed=True, **environ
    )
    before = of_the_host(server)["uwsgi_waffle_updates_total"]
    for number in range(1, 4):
        server.update(number, socket=number, wait=20.0)
    expected = {
        "uwsgi_waffle_revision": 3,
        "uwsgi_waffle_store_revision": 3,
        "uwsgi_waffle_processes": WORKERS,
        "uwsgi_waffle_processes_behind": 0,
        "uwsgi_waffle_store_error": 0,
        "uwsgi_waffle_updates_total": before + 3,
    }

    def told(*sockets: int) -> dict[str, float]:
        found = of_the_host(server, sockets or range(WORKERS))
        found.pop("uwsgi_waffle_store_check_age_seconds", None)  # by chance the same in all answers
        return found

    assert told() == expected
    assert all(
        scrape(server, socket)["uwsgi_waffle_store_check_age_seconds"] >= 0
        for socket in range(WORKERS)
    )
    own = [scrape(server, socket)["site_scrapes_total"] for socket in range(WORKERS)]
    assert (
        own == sorted(set(own))
    ) == multiprocess  # the application's counter: one for all workers, or one for each

    asleep = psutil.Process(server.read(socket=3)["pid"])
    asleep.suspend()
    try:
        server.update(4)
        behind = {
            **expected,
            "uwsgi_waffle_revision": 4,
            "uwsgi_waffle_store_revision": 4,
            "uwsgi_waffle_updates_total": before + 4,
        }
        server.eventually(
            lambda: told(0, 1, 2), until={**behind, "uwsgi_waffle_processes_behind": 1}.__eq__
        )
    finally:
        asleep.send_signal(signal.SIGCONT)
    server.eventually(told, until=behind.__eq__)

    kill(asleep.pid)
    server.eventually(told, until=behind.__eq__)

    database = servers.folder / "waffle.db"
    database.rename(servers.folder / "away")
    server.eventually(told, until={**behind, "uwsgi_waffle_store_error": 1}.__eq__)
    (servers.folder / "away").rename(database)
    server.eventually(told, until=behind.__eq__)


def stats(path: Path) -> dict[str, int]:
    """Return the package's metrics as uWSGI's stats server tells them, without asking a worker."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        told = b"".join(iter(lambda: connection.recv(65536), b""))
    return {
        name: metric["value"]
        for name, metric in json.loads(told)["metrics"].items()
        if name.startswith("waffle.")
    }


@pytest.mark.parametrize(
    "options", [(), ("--lazy-apps", "--shared-import", "uwsgi_waffle"), ("--mules", "1")]
)
def test_uwsgis_own_metrics(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, options: tuple[str, ...]
) -> None:
    """Declared by two lines they follow, with no request; what isn't declared is no error."""
    path = tmp_path_factory.mktemp("s") / "stats"
    names = ("revision", "store_error")
    declared = [word for name in names for word in ("--metric", f"name=waffle.{name},type=gauge")]
    server = servers.uwsgi(
        *options, *declared, "--stats", str(path), addressed=True, WAFFLE_RECONCILE_INTERVAL="1"
    )
    server.eventually(
        lambda: stats(path), until={"waffle.revision": 0, "waffle.store_error": 0}.__eq__
    )
    for number in range(1, 4):
        server.update(number)
        server.eventually(
            lambda: stats(path), until=lambda told, n=number: told["waffle.revision"] == n
        )
    database = servers.folder / "waffle.db"
    database.rename(servers.folder / "away")
    server.eventually(
        lambda: stats(path), until={"waffle.revision": 3, "waffle.store_error": 1}.__eq__
    )
    (servers.folder / "away").rename(database)
    server.eventually(
        lambda: stats(path), until={"waffle.revision": 3, "waffle.store_error": 0}.__eq__
    )


@pytest.mark.parametrize(
    "declared", [("--enable-metrics",), ("--metric", "name=waffle.revision,type=gauge")]
)
def test_what_is_not_declared_is_left_out(
    servers: Servers, tmp_path_factory: pytest.TempPathFactory, declared: tuple[str, ...]
) -> None:
    path = tmp_path_factory.mktemp("s") / "stats"
    server = servers.uwsgi(*declared, "--stats", str(path), workers=2, addressed=True)
    assert server.update(1, wait=20.0)["pending"] == []
    expected = {"waffle.revision": 1} if "--metric" in declared else {}
    server.eventually(lambda: stats(path), until=expected.__eq__)
    assert "uwsgi_waffle:" not in server.log
