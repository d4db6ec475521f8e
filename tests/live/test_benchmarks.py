"""The benchmarks run; what they measure is for people to judge, on a machine that does nothing
else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ..benchmarks.__main__ import PARTS
from ..benchmarks.chart import drawn
from ..benchmarks.table import Row, Table
from .servers import ROOT


@pytest.mark.parametrize("part", PARTS)
def test_each_part_runs(tmp_path: Path, part: str) -> None:
    """Each part prints a table with what it has measured of this package, or says what it needs."""
    chart = tmp_path / "chart.svg"
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks",
        part,
        "--small",
        "--rounds",
        "1",
        "--chart",
        str(chart),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "uwsgi_waffle" in done.stdout or "workers 1" in done.stdout or "left out" in done.stdout
    ), done.stdout
    ElementTree.parse(chart)


def test_a_row_tells_median_quartiles_and_the_ratio_round_by_round() -> None:
    """A round in which the machine was slow doesn't count against one of two: their ratio is taken
    in each round.
    """
    row = Row("mine", [2.0, 20.0, 4.0], beside=[1.0, 10.0, 2.0], note="noted")
    assert (row.median, row.ratios) == (4.0, [2.0, 2.0, 2.0])
    shown = str(Table("Title", [row], left_out=["theirs"]))
    assert "4.00 s" in shown
    assert "3.00 s to 12.0 s" in shown
    assert "2.00 (2.00 to 2.00)" in shown
    assert "left out: theirs" in shown


def test_the_chart_shows_each_row_of_a_charted_table() -> None:
    """Names with characters that mean something in XML are shown as they are."""
    tables = [
        Table("Reading", [Row('config["X"] & more', [1e-6, 2e-6])], charted=True),
        Table("Not shown", [Row("nothing", [1.0])]),
    ]
    texts = [
        element.text
        for element in ElementTree.fromstring(drawn(tables)).iter()
        if element.tag.endswith("text")
    ]
    assert 'config["X"] & more' in texts
    assert "Reading" in texts
    assert "Not shown" not in texts
