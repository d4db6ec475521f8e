"""docs/how-it-works.md, "The floors": the table has every room, in the order of the imports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ..unit.test_imports import FILES, FLOORS, PACKAGE, room, rooms_of
from .page import DOCS

PAGE = (DOCS / "how-it-works.md").read_text()
TABLE = re.findall(
    r"^\|[^|]*\| (`[^|]*) \|", PAGE.partition("## The floors")[2].partition("## ")[0], re.MULTILINE
)
ROOMS = [name for row in TABLE for name in re.findall(r"`(\w+)/?`", row)]


def test_every_room_stands_in_it_once() -> None:
    assert sorted(ROOMS) == sorted(set.union(*FLOORS) - {"__init__"})


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if room(path) != "__init__"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_a_room_imports_only_what_stands_before_it(path: Path) -> None:
    """In a row above, or to its left."""
    before = set(ROOMS[: ROOMS.index(room(path))])
    assert rooms_of(path) <= before
