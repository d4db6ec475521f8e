"""What an update of one variable costs each idle worker, with few variables and with many: time on a processor, by the kernel."""

from __future__ import annotations

from pathlib import Path

from ..live.servers import Server, Servers
from .table import Row, milliseconds

WORKERS = 4
FEW, MANY = 10, 10_000


def spent(pid: int) -> float:
    """Return the seconds that a process has been on a processor, see proc(5) on ``schedstat``."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def told(server: Server, since: list[int]) -> bool:
    return all(now != before for now, before in zip(server.get("/times")[2:], since, strict=True))


def of(servers: Servers, variables: int, rounds: int) -> list[float]:
    """Return the seconds for each update and idle worker."""
    folder = servers.folder / f"variables-{variables}"
    folder.mkdir()
    server = servers.uwsgi(
        "--module", "tests.benchmarks.site", workers=WORKERS + 1, addressed=True, folder=folder, SITE_VARIABLES=str(variables)
    )
    server.post("/fill")
    idle = [server.get("/pid", socket=socket) for socket in range(1, WORKERS + 1)]
    taken: list[float] = []
    for number in range(2, rounds + 2):
        since, before = server.get("/times")[2:], [spent(pid) for pid in idle]
        server.post(f"/update?n={number}")
        server.eventually(lambda old=since: told(server, old))
        taken += [spent(pid) - earlier for pid, earlier in zip(idle, before, strict=True)]
    return taken


def measure(servers: Servers, rounds: int) -> list[Row]:
    """Measure few and many variables, each under a server of its own."""
    few = of(servers, FEW, rounds)
    many = of(servers, MANY, rounds)
    return [
        Row(f"an update of one of {FEW} variables: processor time of an idle worker", few, milliseconds),
        Row(f"an update of one of {MANY} variables: processor time of an idle worker", many, milliseconds, few),
    ]
