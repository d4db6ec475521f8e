from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .servers import Servers


@pytest.fixture
def servers(xprocess: Any, tmp_path: Path) -> Iterator[Servers]:
    """Starts servers that share ``tmp_path``; stops them after the test."""
    running = Servers(xprocess, tmp_path)
    yield running
    running.stop_all()
