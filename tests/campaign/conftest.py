"""What the parts share, and the table at the end."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle import fetch, sync
from uwsgi_waffle.wake import thread

from ..live.conftest import servers  # noqa: F401  # a fixture
from . import tally
from .sites import StoreKind, in_redis, sql, sqlite

STORES: dict[str, Callable[[pytest.FixtureRequest, Path], StoreKind]] = {
    "sqlite": lambda request, folder: sqlite(folder),
    "postgresql": lambda request, _: sql(request.getfixturevalue("postgresql_server").fresh()),
    "redis": lambda request, _: in_redis(request.getfixturevalue("redis_server").url),
}


def make_quiet(patches: pytest.MonkeyPatch) -> None:
    """Let processes look closer only when they are told to, and try a failed store at each tick."""
    patches.setattr(thread, "ensure_running", lambda watcher: None)
    patches.setattr(sync, "CHECK_INTERVAL", math.inf)
    patches.setattr(fetch, "FIRST_RETRY", 0.0)
    patches.setattr(fetch, "RETRY_FACTOR", 0.0)


@pytest.fixture(scope="session")
def deep() -> bool:
    """Whether to try what is most likely tried already: ``python -m tests.campaign`` does."""
    return "CAMPAIGN_DEEP" in os.environ


@pytest.fixture
def common_folder() -> Iterator[Path]:
    """A folder that all users reach; pytest's own isn't one."""
    folder = Path(tempfile.mkdtemp(prefix="waffle-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def quiet_host(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quiet(monkeypatch)


@pytest.fixture(params=list(STORES))
def store_kind(request: pytest.FixtureRequest, tmp_path: Path) -> StoreKind:
    return STORES[request.param](request, tmp_path)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if tally.parts:
        terminalreporter.section("the fault campaign")
        terminalreporter.write_line(tally.HEADING)
        for part in tally.parts.values():
            terminalreporter.write_line(str(part))
