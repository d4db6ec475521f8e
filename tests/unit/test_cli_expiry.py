"""``flask waffle set --for TIME``, and what shows that a value is temporary."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest
from click.testing import Result

from uwsgi_waffle.cli import waffle as command

from .conftest import Process

Run = Callable[..., Result]


@pytest.fixture
def run(site: Process) -> Run:
    return lambda *words: site.app.test_cli_runner().invoke(command, words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("1h30m", timedelta(hours=1.5)),
        ("2d 12h", timedelta(days=2.5)),
    ],
)
def test_the_value_is_temporary(site: Process, run: Run, text: str, expected: timedelta) -> None:
    result = run("set", "LIMIT=20", "SITENAME=New", "--for", text)
    assert result.exit_code == 0
    left = site.state.current().temporary["LIMIT"] - datetime.now(timezone.utc)
    assert expected - timedelta(minutes=1) < left <= expected
    (end,) = set(json.loads(run("list", "--json").output)["temporary"].values())
    assert datetime.fromisoformat(end) == site.state.current().temporary["LIMIT"]
    assert f"          until {end[:10]} {end[11:19]} UTC" in run("list").output.splitlines()
    assert site.waffle.status()["temporary"] == {"LIMIT": end, "SITENAME": end}


@pytest.mark.parametrize("text", ["", "30", "0m", "-5m", "1.5h", "30m1h", "soon"])
def test_what_is_no_time_changes_nothing(site: Process, run: Run, text: str) -> None:
    result = run("set", "LIMIT=20", "--for", text)
    assert result.exit_code == 2
    assert f"{text!r} is no time; write 90s, 30m, 12h, 7d, or 1h30m." in result.output
    assert site.waffle.revision == 0


def test_a_dry_run_writes_nothing(site: Process, run: Run) -> None:
    assert run("set", "LIMIT=20", "--for", "30m", "--dry-run").exit_code == 4
    assert site.waffle.refresh() == 0


def test_a_time_that_no_date_reaches_is_too_long(site: Process, run: Run) -> None:
    result = run("set", "LIMIT=20", "--for", "999999999d")
    assert (result.exit_code, site.waffle.revision) == (2, 0)
    assert "'999999999d' is too long; write a shorter time, or none." in result.output


def test_the_time_of_the_value_that_counts_already(site: Process, run: Run) -> None:
    """That it changes is said, with `--dry-run` too."""
    run("set", "LIMIT=20", "--for", "30m")
    for words, end in ((["--for", "2h"], "until when they count changes"), ([], "now for good")):
        dry = run("set", "LIMIT=20", *words, "--dry-run")
        assert dry.output == f"revision 1 (the values stay; {end})\n"
        assert dry.exit_code == 4
    assert run("set", "LIMIT=20").output == "revision 2 (the values stay; now for good)\n"
    assert site.state.current().temporary == {}
    assert "revision 2 (nothing to change)" in run("set", "LIMIT=20").output
