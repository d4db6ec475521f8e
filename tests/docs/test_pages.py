"""Each page does what it says; CONTRIBUTING.md tells how."""

from __future__ import annotations

from pathlib import Path

import pytest

from .page import DOCS, ROOT, steps
from .runner import Runner, real_servers

PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.live
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_page(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its Python runs, its consoles print what it shows."""
    name = str(page.relative_to(ROOT))
    Runner(name, tmp_path, real_servers(request)).run(steps(page.read_text()))
