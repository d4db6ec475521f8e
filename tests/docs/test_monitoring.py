"""docs/monitoring.md names each metric and each key of the status, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from uwsgi_waffle import wake
from uwsgi_waffle.health import health_blueprint
from uwsgi_waffle.metrics import WaffleCollector

from ..host import Host, Process, eventually
from ..redis_server import RedisServer
from .page import DOCS

PAGE = (DOCS / "monitoring.md").read_text()
FIRST_CELLS = re.findall(r"^\| (`[^|]+) \|", PAGE, re.MULTILINE)
NAMES = [name for cell in FIRST_CELLS for name in re.findall(r"`(\w+)`", cell)]


def with_redis(folder: Path, url: str) -> Process:
    """Start a process, and make an update that it tells or fails to tell other hosts."""
    process = Host(folder).start(WATCHTYPE="redis", REDIS_URL=url)
    process.waffle.update({"LIMIT": 20})
    return process


def test_metrics(tmp_path: Path, redis_server: RedisServer) -> None:
    collector = WaffleCollector(with_redis(tmp_path, redis_server.url).waffle, hosts=True)
    metrics = [m.name + ("_total" if m.type == "counter" else "") for m in collector.collect()]
    assert [name for name in NAMES if name.startswith("uwsgi_waffle_")] == metrics


def test_status(tmp_path: Path, redis_server: RedisServer) -> None:
    keys = [name for name in NAMES if not name.startswith("uwsgi_waffle_")]
    assert sorted(keys) == sorted(with_redis(tmp_path, redis_server.url).waffle.status(hosts=True))


def test_the_channel_plays_no_part_in_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = with_redis(tmp_path, "redis://127.0.0.1:1")
    process.tick()
    eventually(lambda: process.waffle.status()["redis"]["error"])
    process.app.register_blueprint(health_blueprint(process.waffle))
    assert process.app.test_client().get("/health").status_code == 200
    monkeypatch.setattr(wake, "can_subscribe", lambda **_: False)  # so that its listener ends
