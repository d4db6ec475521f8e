from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from ..redis_server import RedisServer
from ..sql_servers import PostgreSQL
from .hosts import Hosts, InPostgreSQL, InRedis
from .servers import Servers

CHROMIUM = Path("/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers that share ``tmp_path``; stops them after the test."""
    running = Servers(tmp_path)
    yield running
    running.stop_all()


@pytest.fixture
def hosts(servers: Servers, redis_server: RedisServer) -> Iterator[Hosts]:
    """Starts servers on hosts of their own; stops them before Redis is stopped."""
    yield Hosts(servers, InRedis(redis_server, servers.folder))
    servers.stop_all()


@pytest.fixture
def postgres_hosts(servers: Servers, postgresql_server: PostgreSQL) -> Iterator[Hosts]:
    """The same for hosts that meet in PostgreSQL."""
    yield Hosts(servers, InPostgreSQL(postgresql_server))
    servers.stop_all()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; where there is none the test is skipped, under CI it fails."""
    if not CHROMIUM.exists():
        missing = f"{CHROMIUM} is missing: apt-get install chromium"
        if "CI" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()
