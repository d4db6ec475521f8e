"""What a whole request costs with the extension, beside Flask alone: a page that says hello, under
uWSGI, asked by wrk.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from ..live.servers import ALWAYS, ROOT, Server
from .lab import SITES, Lab
from .processes import spent
from .table import Row, Table

RATE = 100  # updates a second
SECONDS = 2
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


@contextmanager
def updating(folder: Path) -> Iterator[None]:
    """Have a process of its own update what the pages with the extension show."""
    environ = {**os.environ, **ALWAYS, "SITE_FOLDER": str(folder), "BENCH_WITH": "1"}
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
    tables = []
    for title, context in (
        ("no updates", nullcontext()),
        (f"{RATE} updates a second", updating(folder)),
    ):
        sites = [
            Site("Flask", lab.servers.uwsgi(*options, workers=1, folder=lab.place())),
            Site(
                "Flask and uwsgi_waffle",
                lab.servers.uwsgi(*options, workers=1, folder=folder, BENCH_WITH="1"),
            ),
        ]
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
