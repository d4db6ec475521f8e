"""What all tests share: real servers; and which of the tests' own files hold no doctests, for they
run in servers only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from . import platforms  # noqa: F401  # before all else of ours
from .redis_server import RedisServer
from .sql_servers import MariaDB, PostgreSQL, SQLServer

AnyServer = TypeVar("AnyServer", bound=SQLServer)

HERE = Path(__file__).parent
#: The markers that every test in these folders has, and which of their modules aren't slow.
FOLDERS = {
    "live": ["live", "slow"],
    "campaign": ["campaign", "slow"],
    "platforms": ["slow"],
}
QUICK = {"test_fresh.py", "test_cheap.py"}

collect_ignore_glob = [
    "live/site.py",
    "live/mule.py",
    "live/plain.py",
    "live/writer.py",
    "live/monitored.py",
    "benchmarks/*.py",
    "benchmarks/sites/*.py",
    "campaign/counting_site.py",
    "campaign/site.py",
    "campaign/__main__.py",
    "platforms/*/sitecustomize.py",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough", action="store_true", help="run every test, with all of its repetitions"
    )
    parser.addoption(
        "--like-macos", action="store_true", help="without what Linux has and macOS lacks"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder; leave out the slow ones unless they are wanted."""
    for item in items:
        for folder, markers in FOLDERS.items():
            if item.path.is_relative_to(HERE / folder):
                for marker in markers:
                    if marker != "slow" or item.path.name not in QUICK:
                        item.add_marker(marker)
    if not config.getoption("--thorough"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Whether this run is to take its time."""
    return bool(pytestconfig.getoption("--thorough"))


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that is empty, in a folder whose path is short enough for a Unix socket."""
    server = RedisServer(tmp_path_factory.mktemp("r"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL server; each test takes a `fresh` place in it."""
    needed(PostgreSQL.missing())
    # Root can't run it, and in root's temporary folder nobody else can.
    folder = (
        tmp_path_factory.mktemp("p") if os.geteuid() else Path(tempfile.mkdtemp(prefix="waffle-"))
    )
    try:
        yield from running(PostgreSQL, folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A MariaDB server; each test takes a `fresh` place in it."""
    needed(MariaDB.missing())
    yield from running(MariaDB, tmp_path_factory.mktemp("m"))


def needed(missing: str | None) -> None:
    """Skip the test if something is missing here; in CI, fail it."""
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)


def running(kind: type[AnyServer], folder: Path) -> Iterator[AnyServer]:
    server = kind(folder)
    yield server
    server.stop()
