"""How long after a commit the last idle worker's ``on_change`` runs, beside a bare ``uwsgi.signal``
in the same run.
"""

from __future__ import annotations

from ..live.servers import Server
from .lab import SITES, Lab
from .table import Row, Table

WRITER = 0  # the socket of the worker that updates


def slowest(server: Server, since: list[int]) -> float | None:
    """Return the seconds until the last idle worker was told, ``None`` if one hasn't been yet."""
    begun, _, *idle = server.get("/times", socket=WRITER)
    if any(now == before for now, before in zip(idle, since, strict=True)):
        return None
    return (max(idle) - begun) / 1e9


def measure(lab: Lab) -> list[Table]:
    """Alternate updates and bare signals."""
    tables = []
    for idle in lab.sizes(4, 16, 63):
        server = lab.servers.uwsgi(
            "--module", f"{SITES}.waffle", workers=idle + 1, addressed=True, folder=lab.place()
        )
        taken: dict[str, list[float]] = {"bare": [], "update": []}
        for number in range(1, lab.rounds + 1):
            for what, path in (("bare", "/bare"), ("update", f"/update?n={number}")):
                since = server.get("/times", socket=WRITER)[2:]
                server.post(path, socket=WRITER)
                told = server.eventually(
                    lambda old=since, at=server: slowest(at, old),
                    until=lambda seconds: seconds is not None,
                )
                taken[what].append(told or 0.0)
        rows = [
            Row("bare uwsgi.signal: sent, the handler runs", taken["bare"]),
            Row("uwsgi_waffle: update committed, on_change runs", taken["update"], taken["bare"]),
        ]
        tables.append(
            Table(f"Until the last of {idle} idle workers is told", rows, charted=idle == 4)
        )
        lab.end(server)
    return tables
