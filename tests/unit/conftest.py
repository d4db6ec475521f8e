"""One host for one test; see `tests.host`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from uwsgi_waffle import SQLStore, fetch
from uwsgi_waffle.host import HostFiles
from uwsgi_waffle.wake import thread

from ..host import ALWAYS, CONFS, NEVER, FaultyStore, Host, Process, report_process
from .users import USER

__all__ = ["ALWAYS", "CONFS", "NEVER", "FaultyStore", "Host", "Process", "report_process"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose processes start no thread, and whose ticks try a failed store at once."""
    monkeypatch.setattr(thread, "ensure_running", lambda watcher: None)
    monkeypatch.setattr(fetch, "FIRST_RETRY", 0.0)
    monkeypatch.setattr(fetch, "RETRY_FACTOR", 0)
    return Host(tmp_path)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables in it; making them takes longer than most tests."""
    path = tmp_path_factory.mktemp("empty") / "waffle.db"
    SQLStore(f"sqlite:///{path}").prepare()
    return path


@pytest.fixture
def site(host: Host, empty_database: Path) -> Process:
    """A process of the host."""
    host.instance.mkdir()
    shutil.copy(empty_database, host.database)
    return host.start()


@pytest.fixture
def other(host: Host, site: Process) -> Process:
    """A second process of the host."""
    return host.start()


@pytest.fixture
def shared(host: Host) -> HostFiles:
    """The files of a host as one process has them; no application uses them."""
    return host.open_files()


@pytest.fixture
def others(host: Host, shared: HostFiles) -> HostFiles:
    """The same files as another process has them."""
    return host.open_files()


@pytest.fixture
def idle_process() -> Iterator[int]:
    """The pid of another living process, that does nothing."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        yield process.pid


@pytest.fixture
def neighbour(site: Process, idle_process: int) -> Iterator[int]:
    """The pid of a process of the host that is worker 9 and stays at revision 0."""
    keep = report_process(site.files, idle_process, "worker 9")
    yield idle_process
    keep.processes.leave()


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder of root's that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def home(root: Path) -> Path:
    """A folder of an ordinary user's."""
    folder = root / "ann's home"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder
