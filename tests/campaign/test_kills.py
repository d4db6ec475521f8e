"""Others look at each step of a writer and of a fetcher; and kill -9 before and after each, and in
the middle of each write.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from ..redis_server import RedisServer
from ..unit.conftest import Process
from . import steps
from .sites import OpenStore, Site, new_values, served, served_by, sqlite
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
def test_looked_at_every_step(tmp_path: Path, open_store: OpenStore, scenario: str) -> None:
    """Whoever looks while an update is on its way serves what is committed, and all of it; when it
    has returned, that.
    """
    tally = Tally.of("others look at every step")
    site = Site(tmp_path, open_store, tally)
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
                observer.state._lease = 0.0
            seen = served(observer)
            committed.add(
                served_by(site.store.load())
            )  # after the look: what was rolled back or is to come doesn't count
            tally.looks += 1
            if seen not in committed:
                tally.wrong(
                    "stale",
                    f"{scenario}, {name}, step {at}: {seen} is served, and only {committed} were ever committed",
                )

        tally.faults += steps.walk(
            lambda number=number: work(busy, number + 2), before=look_on, after=look_on
        )
        site.judge(observers, f"{scenario}, looked at")
    tally.verdict()


def test_a_message_at_every_step_of_a_fetch(tmp_path: Path) -> None:
    """Another host writes, and its message comes, while this one reads the store: the fetch doesn't
    answer that bell.
    """
    tally = Tally.of("a message at every step of a fetch")
    site = Site(tmp_path, sqlite(tmp_path), tally)
    fetcher, observers = (
        site.start(),
        {"one process": site.start(), "another process": site.start()},
    )
    fetcher.waffle.update(new_values(1))
    for at in count():
        rung(site, fetcher, 2 * at + 2)

        def write(number: int, name: str, at: int = at) -> None:
            if number == at:
                rung(site, observers["one process"], 2 * at + 3)

        done = steps.walk(lambda: look(fetcher, 0), before=write)
        site.judge(observers, f"a message at step {at} of a fetch")
        tally.faults += 1
        if done <= at:
            break
    tally.verdict()


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if THOROUGH or "news" not in name])
def test_killed_at_every_step(
    tmp_path: Path, open_store: OpenStore, scenario: str, request: pytest.FixtureRequest
) -> None:
    """Whoever is there, and whoever comes, then serves what the store has committed; and the next
    update works.
    """
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
        trusting = observers["another process"]
        if (
            prepare is not touched
        ):  # first one that looks at the header's words only, as within a lease
            trusting.state._lease = math.inf
        seen = served(trusting) if prepare is not touched else None
        truth = site.judge(observers, f"{scenario}, killed {what}")
        if seen not in (None, served_by(truth)):
            tally.wrong(
                "stale",
                f"{scenario}, killed {what}: by the words alone {seen} is served, the store has {served_by(truth)}",
            )
        if work is update:
            done = truth.values["A"] == str(number)
            if end.finished and not done:
                tally.wrong("lost", f"{what}: the update had returned and the store has {truth}")
            if not done and truth != before:
                tally.wrong(
                    "other",
                    f"{what}: the store had {before}, has {truth}, and was to have {number}",
                )
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
        if (
            THOROUGH or at == len(names) - 1
        ):  # between two steps there is nothing that another process could see
            attempt(
                partial(steps.killed_at, number=at, after=True),
                f"after step {at}, {name} of {names}",
            )
    for write in count():
        if attempt(partial(steps.killed_within, number=write), f"within write {write}"):
            break
    assert write
    tally.verdict()


def test_what_a_killed_writer_has_not_told_is_known(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """It was killed on its way to Redis: other hosts have heard of what it had committed, or the
    header says that they haven't.
    """
    tally = Tally.of("killed at every step: telling other hosts")
    site = Site(tmp_path, sqlite(tmp_path), tally, WATCHTYPE="redis", REDIS_URL=redis_server.url)
    dying, other = site.start(), site.start()
    bridge = other.binding._bridge
    assert bridge is not None
    with redis_server.client() as client, client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe("waffleconf")
        channel.get_message(timeout=5)

        def heard() -> bool:
            """Tell whether there was a message; who is killed has sent it or not, before this asks."""
            channel.ping()
            found = False
            while (
                message := channel.get_message(timeout=5, ignore_subscribe_messages=False)
            ) is not None:
                if message["type"] == "pong":
                    return found
                found = found or message["type"] == "message"
            raise AssertionError("Redis doesn't answer")

        for at in count():
            before = site.truth()
            end = steps.killed_at(lambda at=at: dying.waffle.update(new_values(at)), at)
            tally.faults += not end.finished
            told = heard()
            site.judge({"another process": other}, f"killed at step {at}")
            if site.truth() != before and not told and not any(other.files.untold()):
                tally.wrong(
                    "lost",
                    f"killed at step {at}: it is committed, and no other host will hear of it before it compares",
                )
            bridge.publish()
            assert heard()
            assert not any(other.files.untold())
            if end.finished:
                break
    tally.verdict()
