"""Kill -9 at each step of the end of a temporary value: it ends then or later, once, and whole."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from ..host import Host, Process
from . import steps
from .tally import Tally

pytestmark = [pytest.mark.usefixtures("quiet_host"), pytest.mark.timeout(600)]

BEFORE, MEANWHILE = ("Waffle", 10), ("Gent", 20)


def values(process: Process) -> tuple[str, int]:
    return process.waffle.values.SITENAME, process.waffle.values.LIMIT


def test_killed_at_every_step_of_an_expiry(tmp_path: Path) -> None:
    """The values of one update end together, and the history has that once."""
    tally = Tally.of("killed at every step: an expiry")
    host = Host(tmp_path)
    dying, living = host.start(), host.start()
    for at in count():
        revision = living.waffle.update(
            {"SITENAME": "Gent", "LIMIT": 20}, expires=timedelta(microseconds=1)
        ).revision
        end = steps.killed_at(dying.tick, at)
        assert not end.error, end.error
        tally.faults += 1
        for _ in range(2):
            tally.looks += 1
            if values(living) not in (BEFORE, MEANWHILE):
                tally.wrong("torn", f"step {at}: {values(living)}")
            living.tick()
        if values(living) != BEFORE:
            tally.wrong("lost", f"step {at}: {values(living)}")
        since = [row for row in living.waffle.history() if row.revision > revision]
        if [(row.actor, row.revision) for row in since] != [("expiry", revision + 1)] * 2:
            tally.wrong("other", f"step {at}: {since}")
        if end.finished:
            break
    assert at
    tally.verdict()
