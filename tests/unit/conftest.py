"""One host for one test: every `Host.start` is one more process of it, in this process but with
nothing shared but files.
"""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from annotated_types import Gt
from flask import Flask

from uwsgi_waffle import SQLStore, StoreUnavailable, WaffleConf, server
from uwsgi_waffle.extension import Binding
from uwsgi_waffle.hostfiles import HostFiles
from uwsgi_waffle.hostfiles import header as header_module
from uwsgi_waffle.hostfiles.slots import SLOT, SLOT_COUNT, started
from uwsgi_waffle.snapshot import DIGEST_SIZE
from uwsgi_waffle.state import State
from uwsgi_waffle.stores import Store, Stored

CONFS: dict[str, Any] = {
    "SITENAME": {"desc": "Name in the page header", "default": "Waffle"},
    "LIMIT": {"desc": "Upload limit in bytes", "default": 10, "type": Annotated[int, Gt(0)]},
    "TOKEN": {"desc": "Token of the payment API", "default": "", "secret": True},
}
ALWAYS: Container[int] = range(1, 10**9)
NEVER: Container[int] = ()


class FaultyStore(SQLStore):
    """Fails on those of its calls, counted from 1, that ``failing`` names."""

    failing: Container[int] = NEVER
    calls = 0

    def load(self) -> Stored:
        self._count()
        return super().load()

    def transact(self, decide: Any) -> Stored:
        self._count()
        return super().transact(decide)

    def _count(self) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise StoreUnavailable("the store is down")


class Process:
    """What one process of the host has."""

    def __init__(self, app: Flask, waffle: WaffleConf) -> None:
        self.app, self.waffle = app, waffle
        self.binding: Binding = app.extensions["waffleconf"]
        self.state: State = self.binding.state

    @property
    def files(self) -> HostFiles:
        assert self.state.host is not None
        return self.state.host

    def tick(self) -> None:
        """Do what a signal or the thread does, when it has been a while since the last look."""
        self.state._lease = 0.0
        self.binding.tick()

    def trust_header(self) -> None:
        """Look at nothing but the header's words from now on, as within a lease."""
        self.tick()
        self.state._lease = float("inf")


class Host:
    """The files of one host and the database."""

    def __init__(self, folder: Path) -> None:
        self.instance = folder / "instance"
        self.database = self.instance / "waffle.db"
        self.watch_file = self.instance / "waffle.watch"
        self.header = self.instance / "waffle.watch.d" / "header"
        self.snapshots = self.instance / "waffle.watch.d" / "snapshots"

    def store(self, failing: Container[int] = NEVER) -> FaultyStore:
        store = FaultyStore(f"sqlite:///{self.database}")
        store.failing = failing
        return store

    def start(
        self,
        store: Store | None = None,
        *,
        waffle: WaffleConf | None = None,
        confs: object = CONFS,
        **settings: Any,
    ) -> Process:
        """Start one more process; settings are those of the application without ``WAFFLE_``."""
        app = Flask("site", instance_path=str(self.instance))
        app.config["WAFFLE_CONFS"] = confs
        app.config.update({f"WAFFLE_{name}": value for name, value in settings.items()})
        waffle = waffle or WaffleConf()
        waffle.init_app(app, store)
        return Process(app, waffle)

    def sql(self, statement: str, *parameters: object) -> None:
        """Change the database by hand."""
        connection = sqlite3.connect(self.database)
        try:
            with connection:
                connection.execute(statement, parameters)
        finally:
            connection.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose processes look when they are told to, and try a failed store again at once."""
    monkeypatch.setattr(server.thread, "ensure_running", lambda member: None)
    monkeypatch.setattr(header_module, "FIRST_RETRY", 0.0)
    return Host(tmp_path)


@pytest.fixture
def site(host: Host) -> Process:
    """A process of the host."""
    return host.start()


@pytest.fixture
def other(host: Host, site: Process) -> Process:
    """A second process of the host."""
    return host.start()


@pytest.fixture
def idle_process() -> Iterator[int]:
    """The pid of another living process, that does nothing."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process.pid


@pytest.fixture
def neighbour(site: Process, idle_process: int) -> int:
    """The pid of a process that stands in the host's table as worker 9 and stays at revision 0."""
    note_process(site, idle_process, "worker 9")
    return idle_process


def note_process(
    site: Process, pid: int, kind: str, *, digest: bytes = bytes(DIGEST_SIZE), error: str = ""
) -> None:
    """Put a process, that stays at revision 0, into the host's table."""
    line = SLOT.pack(pid, started(pid), 0, 1, digest, kind.encode(), error.encode())
    site.files._write_slots(pid % SLOT_COUNT * SLOT.size, line)
