"""kill -9 before and after each step of a writer and of a fetcher, and in the middle of each write."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from ..unit.conftest import Process
from . import steps
from .sites import OpenStore, Site, new_values
from .tally import Tally

pytestmark = [pytest.mark.usefixtures("quiet_host"), pytest.mark.timeout(600)]

THOROUGH = "CAMPAIGN_THOROUGH" in os.environ

Prepare = Callable[[Site, Process, int], None]
Work = Callable[[Process, int], object]


def nothing(site: Site, process: Process, number: int) -> None:
    pass


def rung(site: Site, process: Process, number: int) -> None:
    """Another host has written, and its message has come."""
    site.write_elsewhere(number)
    process.files.ring()


def touched(site: Site, process: Process, number: int) -> None:
    """Somebody has edited the rows and touched the watch file."""
    site.edit(number)
    site.touch()


def update(process: Process, number: int) -> None:
    process.waffle.update(new_values(number))


def look(process: Process, number: int) -> None:
    process.state._lease = 0.0
    process.state.look()


SCENARIOS: dict[str, tuple[Prepare, Work]] = {
    "a writer": (nothing, update),
    "a writer that finds news": (rung, update),
    "a fetcher, after a bell": (rung, look),
    "a fetcher, after a touch": (touched, look),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_step(tmp_path: Path, open_store: OpenStore, scenario: str, request: pytest.FixtureRequest) -> None:
    """Whoever is there, and whoever comes, then serves what the store has committed; and the next update works."""
    tally = Tally.of(f"killed at every step: {scenario.partition(',')[0]}")
    site = Site(tmp_path, open_store, tally)
    prepare, work = SCENARIOS[scenario]
    dying, observers = site.start(), {"one process": site.start(), "another process": site.start()}
    observers["one process"].waffle.update(new_values(1))
    number = 1

    def attempt(kill: Callable[[Callable[[], object]], steps.End], what: str) -> bool:
        """Kill once; tell whether the work was done before that."""
        nonlocal number
        number += 2
        prepare(site, dying, number - 1)
        before = site.truth()
        end = kill(lambda: work(dying, number))
        assert not end.error, end.error
        tally.faults += not end.finished
        truth = site.judge(observers, f"{scenario}, killed {what}")
        if work is update:
            done = truth.values["A"] == str(number)
            if end.finished and not done:
                tally.wrong("lost", f"{what}: the update had returned and the store has {truth}")
            if not done and truth != before:
                tally.wrong("other", f"{what}: the store had {before}, has {truth}, and was to have {number}")
        else:
            assert truth.values["A"] == str(number - 1)
        site.judge({"a new process": site.start()}, f"{scenario}, killed {what}, then started")
        observers["another process"].waffle.update(new_values(number + 1))
        site.judge(observers, f"{scenario}, killed {what}, then updated")
        number += 1
        return end.finished

    prepare(site, dying, 2)
    names = steps.names(lambda: work(dying, 3))
    number = 3
    site.judge(observers, "a dry run")
    for at, name in enumerate(names):
        attempt(partial(steps.killed_at, number=at), f"before step {at}, {name} of {names}")
        if THOROUGH or at == len(names) - 1:  # between two steps there is nothing that another process could see
            attempt(partial(steps.killed_at, number=at, after=True), f"after step {at}, {name} of {names}")
    for write in count():
        if attempt(partial(steps.killed_within, number=write), f"within write {write}"):
            break
    assert write
    tally.verdict()
