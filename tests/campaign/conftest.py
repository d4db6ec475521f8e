"""What the parts share, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle import RedisStore, SQLStore, server
from uwsgi_waffle.hostfiles import header as header_module

from ..live.conftest import servers  # noqa: F401  # a fixture
from . import tally
from .sites import SLOW, OpenStore, sqlite

STORES: dict[str, Callable[[pytest.FixtureRequest, Path], OpenStore]] = {
    "sqlite": lambda request, folder: sqlite(folder),
    "postgresql": lambda request, folder: partial(
        SQLStore, request.getfixturevalue("postgresql_server").fresh(), timeout=SLOW
    ),
    "redis": lambda request, folder: partial(
        RedisStore, request.getfixturevalue("redis_server").url, timeout=SLOW
    ),
}


@pytest.fixture
def quiet_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes look when they are told to, try a failed store again at once, and sleep as little
    as can be.
    """
    monkeypatch.setattr(server.thread, "ensure_running", lambda member: None)
    monkeypatch.setattr(header_module, "FIRST_RETRY", 0.0)


@pytest.fixture(params=list(STORES))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    return STORES[request.param](request, tmp_path)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if tally.parts:
        terminalreporter.section("the fault campaign")
        terminalreporter.write_line(tally.HEADING)
        for part in tally.parts.values():
            terminalreporter.write_line(str(part))
