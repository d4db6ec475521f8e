"""What a whole request costs with the extension, beside Flask alone: a page that says hello, under
uWSGI, asked by wrk; and what its worker's processor time is, in many short rounds.
"""

from __future__ import annotations

import http.client
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..live.servers import ALWAYS, ROOT, Server
from .lab import SITES, Lab
from .processes import spent
from .table import Row, Table

RATE = 100  # updates a second
SECONDS = 2
SHORT_ROUNDS, REQUESTS = 20, 100  # short rounds for each of the others, and requests in one
SCALES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass
class Site:
    """A page's server, and what was measured of it."""

    name: str
    server: Server
    taken: dict[str, list[float]] = field(
        default_factory=lambda: {"rate": [], "50%": [], "99%": [], "cpu": []}
    )

    @property
    def pid(self) -> int:
        return int(self.server.get("/read")["pid"])

    def ask(self, seconds: int) -> None:
        """Ask with wrk over 4 connections."""
        pid = self.pid
        before = spent(pid)
        url = f"http://127.0.0.1:{self.server.ports[0]}/"
        command = ["wrk", "--latency", "-t1", "-c4", f"-d{seconds}s", url]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        requests, took = re.findall(r"(\d+) requests in ([\d.]+)s", told)[0]
        self.taken["rate"].append(int(requests) / float(took))
        self.taken["cpu"].append((spent(pid) - before) / int(requests))
        for share in ("50%", "99%"):
            value, scale = re.findall(rf"{share}\s+([\d.]+)(us|ms|s)", told)[0]
            self.taken[share].append(float(value) * SCALES[scale])


def short_rounds(lab: Lab, sites: list[Site], path: str, title: str) -> Table:
    """Let the sites take turns; compare the processor time of their workers in each round."""
    pids = [site.pid for site in sites]
    taken: list[list[float]] = [[] for _ in sites]
    order = list(range(len(sites)))
    for _ in range(SHORT_ROUNDS * lab.rounds):
        for at in order:
            before = spent(pids[at])
            for _ in range(REQUESTS):
                port = sites[at].server.ports[0]
                with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                    connection.request("GET", path)
                    connection.getresponse().read()
            taken[at].append((spent(pids[at]) - before) / REQUESTS)
        order.reverse()
    row = Row(sites[1].name, taken[1], taken[0])
    low, high = confidence(row.ratios)
    note = f"95 % confidence of the median ratio: {low:.3f} to {high:.3f}"
    return Table(title, [Row(sites[0].name, taken[0]), replace(row, note=note)])


def confidence(samples: list[float]) -> tuple[float, float]:
    """Return the interval that holds the median of what was sampled, at 95 %, by ranks."""
    found, half, last = sorted(samples), 0.98 * math.sqrt(len(samples)), len(samples) - 1
    low, high = math.floor(last / 2 - half), math.ceil(last / 2 + half)
    return found[max(0, low)], found[min(last, high)]


@contextmanager
def updating(folder: Path) -> Iterator[None]:
    """Have a process of its own update what the pages with the extension show."""
    environ = {**os.environ, **ALWAYS, "SITE_FOLDER": str(folder), "BENCH_WITH": "sqlite"}
    process = subprocess.Popen(
        [sys.executable, "-m", f"{SITES}.hello", str(RATE)], cwd=ROOT, env=environ
    )
    try:
        yield
        assert process.poll() is None, "the updating process has ended"
    finally:
        process.kill()
        process.wait()


def measure(lab: Lab) -> list[Table]:
    """Let the two pages take turns, in both orders, without updates and with them."""
    if shutil.which("wrk") is None:
        print("A hello-world request: left out, for wrk is missing; apt-get install wrk")
        return []
    folder = lab.place()
    options = ("--disable-logging", "--module", f"{SITES}.hello")
    tables, updates = [], updating(folder)
    for title, context in (
        ("no updates", nullcontext()),
        (f"{RATE} updates a second", updates),
    ):
        sites = [
            Site("Flask", lab.servers.uwsgi(*options, workers=1, folder=lab.place())),
            Site(
                "Flask and uwsgi_waffle",
                lab.servers.uwsgi(*options, workers=1, folder=folder, BENCH_WITH="sqlite"),
            ),
        ]
        if context is not updates:
            for path, says in (("/", "reads nothing"), ("/three", "reads three variables")):
                what = f"A hello-world request that {says}: processor time"
                tables.append(short_rounds(lab, sites, path, what))
        with context:
            for number in range(lab.rounds):
                for site in sites if number % 2 else reversed(sites):
                    site.ask(1 if lab.small else SECONDS)
        for what, kind, unit in (
            ("50%", "median latency", "time"),
            ("99%", "p99 latency", "time"),
            ("rate", "requests per second", "number"),
            ("cpu", "processor time of a request", "time"),
        ):
            rows = [
                Row(site.name, site.taken[what], None if site is sites[0] else sites[0].taken[what])
                for site in sites
            ]
            tables.append(Table(f"A hello-world request, {title}: {kind}", rows, unit))
        lab.end(*(site.server for site in sites))
    return tables
