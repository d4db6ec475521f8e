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

from .redis_server import RedisServer
from .sql_servers import MariaDB, PostgreSQL, SQLServer

AnyServer = TypeVar("AnyServer", bound=SQLServer)

collect_ignore_glob = [
    "live/site.py",
    "live/mule.py",
    "live/plain.py",
    "live/monitored.py",
    "benchmarks/*.py",
    "benchmarks/sites/*.py",
    "campaign/site.py",
    "campaign/__main__.py",
]


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that is empty, in a folder whose path is short enough for a Unix socket."""
    server = RedisServer(tmp_path_factory.mktemp("r"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """A PostgreSQL server; each test takes a `fresh` place in it."""
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
    missing = MariaDB.missing()
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    yield from running(MariaDB, tmp_path_factory.mktemp("m"))


def running(kind: type[AnyServer], folder: Path) -> Iterator[AnyServer]:
    server = kind(folder)
    yield server
    server.stop()
