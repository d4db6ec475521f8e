"""docs/requirements.md names the extras and the lowest versions that setup.cfg allows."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "requirements.md").read_text()
FOR_CONTRIBUTORS = {"test", "neighbours", "fuzz", "bench", "docs", "dev"}

SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
EXTRAS = {
    name: text.split()
    for name, text in SETUP["options.extras_require"].items()
    if name not in FOR_CONTRIBUTORS
}


def row(start: str) -> str:
    found = re.search(rf"^\| {re.escape(start)}.*$", PAGE, re.MULTILINE)
    assert found is not None, f"docs/requirements.md has no row {start!r}"
    return found[0]


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_with_its_versions(extra: str) -> None:
    for requirement in EXTRAS[extra]:
        _, _, version = requirement.partition(">=")
        assert version in row(f"`{extra}`"), requirement


@pytest.mark.parametrize("name", ["Flask", "pydantic", "SQLAlchemy", "typing_extensions", "tomli"])
def test_what_is_always_needed(name: str) -> None:
    lines = SETUP["options"]["install_requires"].strip().lower().splitlines()
    required = dict(line.partition(";")[0].split(">=") for line in lines)
    assert required[name.lower()] in row(name)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/quickstart.md", "docs/coming-from-flask-waffleconf.md"]
)
def test_where_somebody_types_pip_install(page: str) -> None:
    """An old environment gets other versions, and pip may not say so."""
    text = " ".join((ROOT / page).read_text().split())
    needed = dict(line.split(">=") for line in SETUP["options"]["install_requires"].split()[:3])
    sentence = "needs Flask {flask}, SQLAlchemy {SQLAlchemy} and pydantic {pydantic}"
    assert sentence.format(**needed) in text


def test_python() -> None:
    assert SETUP["options"]["python_requires"].removeprefix(">=") in row("Python")
