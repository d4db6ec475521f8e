"""How the cost of an update grows with workers, variables, instances and updates a second."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from ..live.servers import Server
from .lab import SITES, Lab
from .processes import memory, spent
from .table import Row, Table

BURSTS = 3
CALM = 20  # updates a second, so that each is taken before the next


@dataclass(frozen=True)
class Size:
    workers: int = 4
    variables: int = 10
    instances: int = 1
    rate: int = CALM


def start(lab: Lab, size: Size) -> list[Server]:
    """Start instances that are one host: one store, one watch file."""
    folder = lab.place()
    options = ("--disable-logging", "--module", f"{SITES}.waffle")
    watched = str(folder / "waffle.watch")
    started = []
    for _ in range(size.instances):
        environ = {
            "SITE_DATABASE": str(folder),
            "WAFFLE_WATCHER_FILE": watched,
            "SITE_VARIABLES": str(size.variables),
        }
        started.append(
            lab.servers.uwsgi(*options, workers=size.workers, folder=lab.place(), **environ)
        )
    started[0].post("/fill")
    return started


def burst(servers: list[Server], updates: int, size: Size) -> tuple[float, dict[str, float]]:
    """Return the processor time per update of all processes, and what was counted per update."""
    pids = [pid for server in servers for pid in (server.process.pid, *server.children())]
    before, counted = sum(map(spent, pids)), counters(servers)
    begun = time.monotonic()
    servers[0].post(f"/burst?n={updates}&rate={size.rate}", timeout=300)
    took = time.monotonic() - begun
    time.sleep(0.2)  # what the last one has set off
    taken = (sum(map(spent, pids)) - before) / updates
    now = counters(servers)
    return taken, {
        **{name: (now[name] - counted[name]) / updates for name in now},
        "rate": updates / took,
    }


def counters(servers: list[Server]) -> dict[str, int]:
    told = [server.get("/counters") for server in servers]
    return {name: sum(one[name] for one in told) for name in told[0]}


def of(lab: Lab, size: Size, name: str, beside: list[float] | None) -> Row:
    servers = start(lab, size)
    updates = max(2, min(lab.rounds, 3 * size.rate))
    bursts = 1 if lab.small else BURSTS
    taken, counted = zip(*(burst(servers, updates, size) for _ in range(bursts)), strict=True)
    mean = {key: sum(one[key] for one in counted) / bursts for key in counted[0]}
    workers = size.workers * size.instances
    private = (
        statistics.median(memory(pid, "Private_Dirty") for pid in servers[0].children()) / 2**20
    )
    lab.end(*servers)
    note = (
        f"{mean['loads']:.2f} store reads, {mean['ticks'] / workers:.2f} signals a worker, "
        f"a worker's own memory {private:.1f} MiB"
    )
    if size.rate != CALM:
        note += f", {mean['rate']:.0f} a second reached"
    return Row(name, list(taken), beside, note)


def measure(lab: Lab) -> list[Table]:
    """Let one thing grow at a time."""
    grown = {
        "workers": [Size(workers=n) for n in lab.sizes(1, 4, 16, 64)],
        "variables": [Size(variables=n) for n in lab.sizes(10, 100, 1_000, 10_000)],
        "instances": [Size(workers=2, instances=n) for n in lab.sizes(1, 5, 20)],
        "rate": [Size(rate=n) for n in lab.sizes(1, 10, 100, 1_000)],
    }
    if lab.small:
        del grown["variables"], grown["instances"], grown["rate"]
    tables = []
    for what, sizes in grown.items():
        rows: list[Row] = []
        for size in sizes:
            beside = list(rows[0].samples) if rows else None
            rows.append(of(lab, size, f"{what} {getattr(size, what)}", beside))
        tables.append(Table(f"Processor time of one update in all processes, by {what}", rows))
    return tables
