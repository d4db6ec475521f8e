from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import Servers


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers that share ``tmp_path``; stops them after the test."""
    running = Servers(tmp_path)
    yield running
    running.stop_all()
