"""Others look at each step of a writer or fetcher; kill -9 at each step and within each write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from . import steps
from .sites import Process, Site, StoreKind, new_values, served, served_by, sqlite
from .tally import Tally

pytestmark = [pytest.mark.usefixtures("quiet_host"), pytest.mark.timeout(600)]

Prepare = Callable[[Site, Process, int], None]
Work = Callable[[Process, int], object]


def nothing(site: Site, process: Process, number: int) -> None:
    pass


def notified(site: Site, process: Process, number: int) -> None:
    """Another host has written, and its message has come."""
    site.write_elsewhere(number)
    process.state.host.invalidate()


def touched(site: Site, process: Process, number: int) -> None:
    """Somebody has edited the rows and touched the watch file."""
    site.edit(number)
    site.touch()


def update(process: Process, number: int) -> None:
    process.waffle.update(new_values(number))


def look(process: Process, number: int) -> None:
    process.follow()


SCENARIOS: dict[str, tuple[Prepare, Work]] = {
    "a writer": (nothing, update),
    "a writer that finds news": (notified, update),
    "a fetcher, after a message": (notified, look),
    "a fetcher, after a touch": (touched, look),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_looked_at_every_step(tmp_path: Path, store_kind: StoreKind, scenario: str) -> None:
    """A look at any step of an update shows a committed revision; one after it shows the update."""
    tally = Tally.of("others look at every step")
    site = Site(tmp_path, store_kind, tally)
    prepare, work = SCENARIOS[scenario]
    busy, observers = site.start(), {"one process": site.start(), "another process": site.start()}
    for number in range(1, 4, 2):
        busy.waffle.update(new_values(number))
        prepare(site, busy, number + 1)
        committed = {served(busy), served_by(site.store.load())}

        def look_on(
            at: int, name: str, number: int = number, committed: set[object] = committed
        ) -> None:
            observer = observers["one process" if at % number else "another process"]
            if at % 2:
                observer.follow()
            seen = served(observer)
            # After the look: what was rolled back, or is still to come, doesn't count.
            committed.add(served_by(site.store.load()))
            tally.looks += 1
            if seen not in committed:
                where = f"{scenario}, {name}, step {at}"
                tally.wrong("stale", f"{where}: {seen} is served; committed were {committed}")

        tally.faults += steps.walk(
            lambda number=number: work(busy, number + 2), before=look_on, after=look_on
        )
        site.judge(observers, f"{scenario}, looked at")
    tally.verdict()


def test_a_message_at_every_step_of_a_fetch(tmp_path: Path) -> None:
    """A message that comes while the store is read isn't answered by that read."""
    tally = Tally.of("a message at every step of a fetch")
    site = Site(tmp_path, sqlite(tmp_path), tally)
    fetcher = site.start()
    observers = {"one process": site.start(), "another process": site.start()}
    fetcher.waffle.update(new_values(1))
    for at in count():
        notified(site, fetcher, 2 * at + 2)

        def write(number: int, name: str, at: int = at) -> None:
            if number == at:
                notified(site, observers["one process"], 2 * at + 3)

        done = steps.walk(lambda: look(fetcher, 0), before=write)
        site.judge(observers, f"a message at step {at} of a fetch")
        tally.faults += 1
        if done <= at:
            break
    tally.verdict()


class Killing:
    """One process of a host that is killed again and again, and others that look at it."""

    def __init__(self, site: Site, scenario: str) -> None:
        self.site, self.scenario = site, scenario
        self.prepare, self.work = SCENARIOS[scenario]
        self.dying = site.start()
        self.observers = {"one process": site.start(), "another process": site.start()}
        self.number = 1
        self.observers["one process"].waffle.update(new_values(1))

    def steps(self) -> tuple[str, ...]:
        """Return the names of the steps of one whole run."""
        self.number += 2
        self.prepare(self.site, self.dying, self.number - 1)
        names = steps.names(lambda: self.work(self.dying, self.number))
        self.site.judge(self.observers, "a dry run")
        return names

    def attempt(self, kill: Callable[[Callable[[], object]], steps.End], what: str) -> bool:
        """Kill once. Return whether the work was done before that."""
        site, self.number = self.site, self.number + 2
        where = f"{self.scenario}, killed {what}"
        self.prepare(site, self.dying, self.number - 1)
        before = site.truth()
        end = kill(lambda: self.work(self.dying, self.number))
        assert not end.error, end.error
        site.tally.faults += not end.finished
        self.judge_by_the_words(where)
        truth = site.judge(self.observers, where)
        done = truth.values["A"] == str(self.number)
        if self.work is not update:
            assert truth.values["A"] == str(self.number - 1)
        elif end.finished and not done:
            site.tally.wrong("lost", f"{where}: the update had returned, the store has {truth}")
        elif not done and truth != before:
            site.tally.wrong("other", f"{where}: the store had {before} and has {truth}")
        site.judge({"a new process": site.start()}, f"{where}, then started")
        self.observers["another process"].waffle.update(new_values(self.number + 1))
        site.judge(self.observers, f"{where}, then updated")
        self.number += 1
        return end.finished

    def judge_by_the_words(self, where: str) -> None:
        """The first request afterwards compares the header's words only."""
        if self.prepare is touched:
            return
        seen, truth = served(self.observers["another process"]), self.site.truth()
        if seen != served_by(truth):
            text = f"by the words alone {seen} is served, the store has {served_by(truth)}"
            self.site.tally.wrong("stale", f"{where}: {text}")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_step(
    tmp_path: Path, store_kind: StoreKind, scenario: str, deep: bool
) -> None:
    """After kill -9 old and new processes serve what the store has, and the next update works."""
    if "news" in scenario and not deep:
        pytest.skip(
            "a writer that finds news takes the steps of a writer: python -m tests.campaign has it"
        )
    tally = Tally.of(f"killed at every step: {scenario.partition(',')[0]}")
    killing = Killing(Site(tmp_path, store_kind, tally), scenario)
    names = killing.steps()
    for at, name in enumerate(names):
        step = f"step {at}, {name} of {names}"
        killing.attempt(partial(steps.killed_at, number=at), f"before {step}")
        # Nothing changes between two steps, so after the one is before the next.
        if deep or at == len(names) - 1:
            killing.attempt(partial(steps.killed_at, number=at, after=True), f"after {step}")
    for write in count():
        if killing.attempt(partial(steps.killed_within, number=write), f"within write {write}"):
            break
    assert write
    tally.verdict()
