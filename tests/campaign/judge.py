"""What clients of several hosts were told, and what of it can't be."""

from __future__ import annotations

import bisect
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .tally import Tally

__all__ = ["Judge"]


class Judge:
    """Compares each answer with those before it. Safe to use by many threads.

    Args:
        tally: gets the violations.
        hosts: their names.
        bound: seconds in which a host hears of an update while nothing of it is broken.
        clock: seconds; those of one clock for all hosts.
    """

    def __init__(
        self,
        tally: Tally,
        hosts: tuple[str, ...],
        *,
        bound: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally, self._bound, self._clock = tally, bound, clock
        self._lock = threading.Lock()
        self.acknowledged: dict[int, int] = {}  # the count, by revision
        self._times: list[tuple[float, int]] = []  # of acknowledgements, with the highest revision
        self._least = dict.fromkeys(hosts, 0)  # the highest revision that a host has acknowledged
        self._seen: dict[tuple[str, int], int] = {}  # the highest revision, by host and process
        self._well_since: dict[str, float | None] = dict.fromkeys(hosts, clock())
        self._read: dict[int, int] = {}  # the count, by revision
        self.unknown = 0  # updates without an answer

    def ask(self, host: str) -> tuple[float, int, Mapping[tuple[str, int], int]]:
        """Note what an answer may not fall short of; give it to `answered`."""
        with self._lock:
            return self._clock(), self._least[host], dict(self._seen)

    def answered(
        self, host: str, asked: tuple[float, int, Mapping[tuple[str, int], int]], answer: Any
    ) -> None:
        """Judge an answer to a read."""
        began, least, seen = asked
        revision, process = answer["revision"], (host, answer["pid"])
        with self._lock:
            self._tally.looks += 1
            known = self.acknowledged.get(revision)
            self._seen[process] = max(revision, self._seen.get(process, 0))
            self._read.setdefault(revision, answer["all"][0])
            told = self._told_before(began, self._well_since[host])
        if len(set(answer["all"])) != 1:
            self._tally.wrong("torn", f"{host}: {answer}")
        if known is not None and answer["all"][0] != known:
            self._tally.wrong("lost", f"{host}: {answer}, and {known} was acknowledged")
        if revision < least:
            self._tally.wrong("stale", f"{host} has acknowledged {least}: {answer}")
        if revision < seen.get(process, 0):
            self._tally.wrong("stale", f"{host} went back from {seen[process]}: {answer}")
        if revision < told:
            self._tally.wrong(
                "stale", f"{host} hasn't heard of {told} in {self._bound} s: {answer}"
            )

    def acknowledge(self, host: str, revision: int, count: int) -> None:
        """Note that an update has returned."""
        with self._lock:
            if revision in self.acknowledged:
                self._tally.wrong("lost", f"{host}: revision {revision} was acknowledged twice")
            self.acknowledged[revision] = count
            self._least[host] = max(self._least[host], revision)
            highest = max(revision, self._times[-1][1] if self._times else 0)
            self._times.append((self._clock(), highest))

    def unanswered(self) -> None:
        """Note that an update got no answer: it may be stored, or not."""
        with self._lock:
            self.unknown += 1

    def broke(self, host: str) -> None:
        """Note that something of the host doesn't work from now on."""
        with self._lock:
            self._well_since[host] = None

    def mended(self, host: str) -> None:
        """Note that it works again."""
        with self._lock:
            self._well_since[host] = self._clock()

    def _told_before(self, began: float, well_since: float | None) -> int:
        """Return the revision that a host must have heard of."""
        end = began - self._bound
        if well_since is None or well_since > end:
            return 0
        number = bisect.bisect(self._times, (end, math.inf))
        return self._times[number - 1][1] if number else 0

    def compare(self, history: Mapping[int, int], count: int) -> None:
        """Judge what is stored at the end.

        Args:
            history: the count of each revision, from the database.
            count: the one that is stored.
        """
        for revision, number in self.acknowledged.items():
            if history.get(revision) != number:
                text = f"{number} was acknowledged as revision {revision}"
                self._tally.wrong("lost", f"{text}, the history has {history.get(revision)}")
        for revision, number in self._read.items():
            if revision and history.get(revision) != number:
                self._tally.wrong("stale", f"{number} was read at revision {revision}")
        if list(history.values()) != list(range(1, count + 1)):
            self._tally.wrong("lost", f"the counter is {count}, its history {history}")
        unacknowledged = count - len(self.acknowledged)
        if not 0 <= unacknowledged <= self.unknown:
            text = f"{count} increments, {len(self.acknowledged)} acknowledged"
            self._tally.wrong("lost", f"{text}, and {self.unknown} without an answer")
