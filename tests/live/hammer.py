"""Reads with several threads while something is written, and judges every answer."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from .servers import Server

__all__ = ["Answers", "hammer"]

READERS = 4


@dataclass
class Answers:
    """What the readers saw."""

    committed: int = 0
    done: bool = False
    count: int = 0
    pids: set[int] = field(default_factory=set)
    stale: list[tuple[int, object]] = field(default_factory=list)
    torn: list[object] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def read(self, servers: list[Server], *, may_fail: bool) -> None:
        """Read until all is done.

        What was committed *before* a request began is the least that it must show.

        Args:
            may_fail: whether a connection may break, because a worker is killed.
        """
        try:
            while not self.done:
                for server in servers:
                    least = self.committed
                    try:
                        answer = server.read()
                    except (OSError, http.client.HTTPException):
                        if may_fail:
                            continue
                        raise
                    self.count += 1
                    self.pids.add(answer["pid"])
                    if len(set(answer["all"])) != 1:
                        self.torn.append(answer)
                    if answer["all"][0] < least:
                        self.stale.append((least, answer))
        except BaseException as error:
            self.errors.append(error)


def hammer(
    servers: list[Server],
    write: Callable[[int], object],
    *,
    updates: int,
    processes: int,
    readers: int = READERS,
    may_fail: bool = False,
) -> Answers:
    """Read all the time while ``write`` makes one update after the other.

    Raises:
        AssertionError: an answer was stale or torn.

    Args:
        servers: which are read.
        write: makes the update with that number; returns when that is done.
        updates: how many there are at least.
        processes: how many different ones have to answer until it ends.
        readers: how many threads read.
        may_fail: whether a connection may break, because a worker is killed.
    """
    answers = Answers()
    threads = [
        threading.Thread(target=answers.read, args=(servers,), kwargs={"may_fail": may_fail})
        for _ in range(readers)
    ]
    for thread in threads:
        thread.start()
    try:
        while not answers.errors and (answers.committed < updates or len(answers.pids) < processes):
            write(answers.committed + 1)
            answers.committed += 1
    finally:
        answers.done = True
        for thread in threads:
            thread.join()
    if answers.errors:
        raise answers.errors[0]
    found = f"{len(answers.stale)} stale, {len(answers.torn)} torn of {answers.count}"
    assert (answers.stale, answers.torn) == ([], []), f"{found}: {answers.stale[:3]}"
    assert answers.count >= updates
    return answers
