"""How long after a commit the last idle worker's ``on_change`` runs, beside a bare ``uwsgi.signal`` in the same run."""

from __future__ import annotations

from ..live.servers import Server, Servers
from .table import Row, milliseconds

IDLE_WORKERS = 4
WRITER = 0  # the socket of the worker that updates


def slowest(server: Server, since: list[int]) -> float | None:
    """Return the seconds until the last idle worker was told, ``None`` if one hasn't been yet."""
    begun, _, *idle = server.get("/times", socket=WRITER)
    if any(now == before for now, before in zip(idle, since, strict=True)):
        return None
    return (max(idle) - begun) / 1e9


def measure(servers: Servers, rounds: int) -> list[Row]:
    """Alternate updates and bare signals."""
    server = servers.uwsgi("--module", "tests.benchmarks.site", workers=IDLE_WORKERS + 1, addressed=True)
    taken: dict[str, list[float]] = {"bare": [], "update": []}
    for number in range(1, rounds + 1):
        for what, path in (("bare", "/bare"), ("update", f"/update?n={number}")):
            since = server.get("/times", socket=WRITER)[2:]
            server.post(path, socket=WRITER)
            told = server.eventually(lambda old=since: slowest(server, old), until=lambda seconds: seconds is not None)
            taken[what].append(told or 0.0)
    return [
        Row("propagation: bare uwsgi.signal, last of 4 idle workers", taken["bare"], milliseconds),
        Row("propagation: update committed, on_change in the last of 4 idle workers", taken["update"], milliseconds, taken["bare"]),
    ]
