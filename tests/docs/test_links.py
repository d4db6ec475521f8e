"""Links inside the repository lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from .page import ROOT, anchors, links, pages

PAGES = [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]
IN_THE_REPOSITORY = re.compile(r"`((?:docs|examples|tests|uwsgi_waffle)/[\w./-]*|test_\w+)[`,]")


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links(page: Path) -> None:
    """Each file is there, and each heading that a link names."""
    broken = [link for link in links(page.read_text()) if not leads_somewhere(page, link)]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_files_and_tests(page: Path) -> None:
    """Each file of the repository, and each test, that a page names is there."""
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    names = IN_THE_REPOSITORY.findall(page.read_text())
    assert [n for n in names if not (ROOT / n).exists() and f"def {n}(" not in tests] == []


def leads_somewhere(page: Path, link: str) -> bool:
    if link.startswith(("http://", "https://", "mailto:")):
        return True
    path, anchor = urldefrag(unquote(link))
    target = (page.parent / path) if path else page
    if not target.exists() or ROOT not in [target.resolve(), *target.resolve().parents]:
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target.read_text()))
