"""docs/declaring.md: what becomes of values when declarations change, and which values are JSON."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from uwsgi_waffle import InvalidValue

from ..host import Host, Process

FORMER: dict[str, Any] = {"NAME": {"default": "Waffle"}, "COUNT": {"default": 1}}


class Colour(enum.Enum):
    RED, BLUE = "red", "blue"


class Point(BaseModel):
    x: int = 0


VALUES = {
    "DATETIME": datetime.datetime(2026, 11, 27, 18, tzinfo=datetime.timezone.utc),
    "TIMEDELTA": datetime.timedelta(days=1, microseconds=1),
    "DECIMAL": decimal.Decimal("1.10"),
    "UUID": uuid.UUID(int=5),
    "BYTES": "é".encode(),
    "ENUMERATION": Colour.BLUE,
    "TUPLE": (1, "a"),
    "SET": {1, 2},
    "MODEL": Point(x=1),
}
DEFAULTS = {
    "DATETIME": datetime.datetime.min,
    "TIMEDELTA": datetime.timedelta(),
    "DECIMAL": decimal.Decimal(0),
    "UUID": uuid.UUID(int=0),
    "BYTES": b"",
    "ENUMERATION": Colour.RED,
    "TUPLE": (0, ""),
    "SET": {0},
    "MODEL": Point(),
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def former(host: Host) -> Process:
    """The release before, in which somebody has set one of two variables."""
    process = host.start(confs=FORMER)
    process.waffle.update({"NAME": "Gent"})
    return process


@pytest.mark.usefixtures("former")
class TestChangedDeclarations:
    def test_added_and_removed(self, host: Host) -> None:
        """A new one has its default; a removed one its value again when it is declared again."""
        between = host.start(confs={"ADDED": {"default": 5}, "COUNT": {"default": 1}})
        assert between.waffle.values.ADDED == 5
        between.waffle.update({"ADDED": 6})
        assert host.start(confs=FORMER).waffle.values.NAME == "Gent"

    def test_a_new_default(self, host: Host, former: Process) -> None:
        """It takes effect where nothing is set; setting the present default is setting it."""
        present = {"NAME": {"default": "Site"}, "COUNT": {"default": 2}}
        values = host.start(confs=present).waffle.values
        assert (values.NAME, values.COUNT) == ("Gent", 2)
        former.waffle.update({"COUNT": 1})
        assert host.start(confs=present).waffle.values.COUNT == 1
        former.waffle.reset("COUNT", "NAME")
        values = host.start(confs=present).waffle.values
        assert (values.NAME, values.COUNT) == ("Site", 2)

    def test_a_new_type(self, host: Host, former: Process) -> None:
        """A value that fits stays; one that doesn't keeps the server from starting."""
        former.waffle.update({"COUNT": 7})
        assert host.start(confs={"COUNT": {"default": 0.5}}).waffle.values.COUNT == 7.0
        with pytest.raises(InvalidValue, match="NAME"):
            host.start(confs={"NAME": {"default": 1}})


def test_values_are_the_same_after_a_restart(host: Host) -> None:
    """Each type that the page names, in its list of types that work."""
    confs = {name: {"default": value, "type": type(value)} for name, value in DEFAULTS.items()}
    confs["TUPLE"]["type"], confs["SET"]["type"] = tuple[int, str], set[int]
    host.start(confs=confs).waffle.update(VALUES)
    values = host.start(confs=confs).waffle.values
    assert {name: values[name] for name in VALUES} == VALUES
