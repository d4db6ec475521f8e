"""What all tests share: a real redis-server; and which of the tests' own files hold no doctests, for they run in servers only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .redis_server import RedisServer

collect_ignore_glob = ["live/site.py", "live/mule.py", "live/plain.py", "benchmarks/*.py"]


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that is empty, in a folder whose path is short enough for a Unix socket."""
    server = RedisServer(tmp_path_factory.mktemp("r"))
    yield server
    server.kill()
