"""The judge of the run over several hosts finds what was planted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .judge import Judge
from .tally import Tally

Plant = Callable[[Judge, list[float]], object]


def read(judge: Judge, revision: int, count: int, *, host: str = "one", pid: int = 1) -> None:
    answer = {"revision": revision, "pid": pid, "all": [count] * 4}
    judge.answered(host, judge.ask(host), answer)


def torn(judge: Judge, _: list[float]) -> None:
    judge.answered("one", judge.ask("one"), {"revision": 2, "pid": 1, "all": [1, 1, 1, 2]})


def another_value(judge: Judge, _: list[float]) -> None:
    judge.acknowledge("one", 2, 2)
    read(judge, 2, 3)


def behind_its_own_host(judge: Judge, _: list[float]) -> None:
    judge.acknowledge("one", 2, 2)
    read(judge, 1, 1)


def going_back(judge: Judge, _: list[float]) -> None:
    read(judge, 2, 2)
    read(judge, 1, 1)


def deaf(judge: Judge, clock: list[float]) -> None:
    judge.acknowledge("two", 2, 2)
    clock[0] += 11
    read(judge, 1, 1)


def lost(judge: Judge, _: list[float]) -> None:
    judge.acknowledge("one", 1, 1)
    judge.compare({}, 0)


def counted_twice(judge: Judge, _: list[float]) -> None:
    judge.acknowledge("one", 1, 1)
    judge.acknowledge("two", 2, 1)
    judge.compare({1: 1, 2: 1}, 1)


def acknowledged_twice(judge: Judge, _: list[float]) -> None:
    judge.acknowledge("one", 1, 1)
    judge.acknowledge("two", 1, 1)


def never_committed(judge: Judge, _: list[float]) -> None:
    read(judge, 1, 7)
    judge.compare({}, 0)


def out_of_nowhere(judge: Judge, _: list[float]) -> None:
    judge.compare({1: 1}, 1)


def well(judge: Judge, clock: list[float]) -> None:
    judge.acknowledge("one", 1, 1)
    read(judge, 1, 1)
    read(judge, 0, 0, host="two")  # it has not heard of it yet
    judge.broke("two")
    clock[0] += 100
    read(judge, 0, 0, host="two")  # it can't
    judge.mended("two")
    clock[0] += 5
    read(judge, 0, 0, host="two", pid=2)
    judge.unanswered()
    judge.compare({1: 1, 2: 2}, 2)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (torn, ["torn"]),
        (another_value, ["lost"]),
        (behind_its_own_host, ["stale"]),
        (going_back, ["stale"]),
        (deaf, ["stale"]),
        (lost, ["lost", "lost"]),  # the revision, and the count
        (counted_twice, ["lost", "lost"]),
        (out_of_nowhere, ["lost"]),
        (acknowledged_twice, ["lost"]),
        (never_committed, ["stale"]),
        (well, []),
    ],
)
def test_it_finds_what_was_planted(plant: Plant, found: list[str]) -> None:
    """Each kind of violation once, and none where there is none."""
    clock, tally = [0.0], Tally("planted")
    judge = Judge(tally, ("one", "two"), bound=10.0, clock=lambda: clock[0])
    plant(judge, clock)
    assert [text.partition(":")[0] for text in tally.said] == found
