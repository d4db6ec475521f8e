"""Runs under strace: an update and a fetch, with a mark in the trace before and after each step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from uwsgi_waffle.wake import thread

from .sites import Site, new_values, sqlite
from .steps import walk
from .tally import Tally


def main() -> None:
    """Start, update, look."""
    thread.ensure_running = lambda watcher: None
    folder = Path(sys.argv[1])
    site = Site(folder, sqlite(folder), Tally("traced"))
    marks = os.open("/dev/null", os.O_WRONLY)

    def mark(what: str) -> Callable[[int, str], object]:
        return lambda number, name: os.write(marks, f"MARK {what} {name}\n".encode())

    def work() -> None:
        process = site.start()
        process.waffle.update(new_values(1))
        site.touch()
        process.follow()
        process.tick()

    mark("first")(0, "")
    walk(work, before=mark("begin"), after=mark("end"))
    mark("last")(0, "")


if __name__ == "__main__":
    main()
