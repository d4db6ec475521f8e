"""What a worker has and weighs because of it, beside Flask alone and Flask-WaffleConf."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from ..live.servers import ALWAYS, ROOT
from .lab import SITES, Lab, missing
from .processes import memory, opened, threads
from .propagation import LEGACY
from .table import Row, Table

WORKERS = 4
REDIS = {"WAFFLE_WATCHTYPE": "redis", "SITE_WATCHTYPE": "redis"}
LOOKS: dict[str, tuple[str, Callable[[int], float]]] = {
    "threads": ("number", threads),
    "sockets": ("number", lambda pid: opened(pid, "^socket:")),
    "open files of databases": ("number", lambda pid: opened(pid, r"\.db(-wal|-shm)?$")),
    "resident memory": ("bytes", lambda pid: memory(pid, "Rss")),
    "its share of the memory (Pss)": ("bytes", lambda pid: memory(pid, "Pss")),
}
BESIDE = "Flask with pydantic"
MODULES = ("flask, pydantic, pydantic.main", "uwsgi_waffle", "flask_waffleconf, flask_sqlalchemy")


def pids_of(lab: Lab, site: str, options: tuple[str, ...], environ: dict[str, str]) -> list[int]:
    """Return the workers of a site, each of which has answered and been told of an update."""
    environ = {**environ, "WAFFLE_REDIS_URL": lab.redis.url, "BENCH_REDIS": lab.redis.url}
    server = lab.servers.uwsgi(
        "--module",
        f"{SITES}.{site}",
        *options,
        workers=WORKERS,
        addressed=True,
        folder=lab.place(),
        **environ,
    )
    server.post("/update?n=1")
    for socket in range(WORKERS):
        server.eventually(lambda at=socket: server.get("/read", socket=at)["V0"] == 1)
    return [server.get("/read", socket=socket)["pid"] for socket in range(WORKERS)]


def imported(modules: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    return time.perf_counter() - begun


def commanded(lab: Lab) -> Table:
    """Let a command that reads a variable and one that does nothing take turns."""
    folder = str(lab.place())
    site = {"FLASK_APP": f"{SITES}.hello", "BENCH_WITH": "sqlite", "SITE_FOLDER": folder}
    taken: dict[str, list[float]] = {"--version": [], "waffle get V0": []}
    for _ in range(lab.rounds):
        for command, seconds in taken.items():
            begun = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "flask", *command.split()],
                cwd=ROOT,
                env={**os.environ, **ALWAYS, **site},
                check=True,
                stdout=subprocess.DEVNULL,
            )
            seconds.append(time.perf_counter() - begun)
    beside = taken["--version"]
    rows = [
        Row(f"flask {command}", seconds, None if seconds is beside else beside)
        for command, seconds in taken.items()
    ]
    return Table("A command, from its start to its end", rows)


def measure(lab: Lab) -> list[Table]:
    """Look at the workers of each site; then import each package in turn."""
    sites: dict[str, tuple[str, tuple[str, ...], dict[str, str]]] = {
        "Flask": ("hello", (), {}),
        "Flask with pydantic": ("hello", (), {"BENCH_WITH": "pydantic"}),
        "uwsgi_waffle, RedisStore": ("hello", (), {"BENCH_WITH": "redis"}),
        "uwsgi_waffle, SQLStore": ("hello", (), {"BENCH_WITH": "sqlite"}),
        "uwsgi_waffle, file": ("waffle", (), {}),
        "Flask, uWSGI with a mule of its own": ("hello", ("--mule",), {}),
        "uwsgi_waffle, Redis": ("waffle", ("--mule=uwsgi_waffle.mule",), REDIS),
    }
    left_out: list[str] = []
    modules: tuple[str, ...] = MODULES
    if missing("flask_waffleconf"):
        left_out.append("Flask-WaffleConf")
        modules = MODULES[:2]
    else:
        sites["Flask-WaffleConf, file"] = ("flask_waffleconf_site", LEGACY[:2], {})
        sites["Flask-WaffleConf, Redis"] = ("flask_waffleconf_site", LEGACY[:2], REDIS)
    if lab.small:
        sites, modules = dict(list(sites.items())[:4]), MODULES[:2]
    pids = {name: pids_of(lab, *site) for name, site in sites.items()}
    tables = []
    for what, (unit, look) in LOOKS.items():
        found = {name: [look(pid) for pid in of] for name, of in pids.items()}
        rows = [
            Row(name, samples, None if name == BESIDE else found[BESIDE])
            for name, samples in found.items()
        ]
        tables.append(Table(f"What a worker has: {what}", rows, unit, left_out))
    taken: dict[str, list[float]] = {name: [] for name in modules}
    for _ in range(lab.rounds):
        for name in modules:
            taken[name].append(imported(name))
    rows = [
        Row(f"import {name}", samples, None if name == MODULES[0] else taken[MODULES[0]])
        for name, samples in taken.items()
    ]
    imports = Table("A Python that imports and ends", rows, left_out=left_out)
    return [*tables, imports, commanded(lab)]
