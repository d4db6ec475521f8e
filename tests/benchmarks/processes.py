"""What the kernel says of a process, see proc(5)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path


def spent(pid: int) -> float:
    """Return the seconds that its threads have been on a processor."""
    return (
        sum(
            int(task.read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat")
        )
        / 1e9
    )


def threads(pid: int) -> float:
    return len(os.listdir(f"/proc/{pid}/task"))


def opened(pid: int, pattern: str) -> float:
    """Return how many open descriptors are of a file, socket, … whose name contains the pattern."""
    names = list[str]()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            names.append(os.readlink(link))
    return sum(re.search(pattern, name) is not None for name in names)


def memory(pid: int, kind: str) -> float:
    """Return the bytes of resident memory of a kind: ``Rss``, ``Pss`` (its share of what is
    shared), ``Private_Dirty``, …
    """
    found = re.search(
        rf"^{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
    )
    assert found is not None
    return float(found[1]) * 1024
