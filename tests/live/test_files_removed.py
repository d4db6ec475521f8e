"""P1, P2 and P5 while somebody removes the package's files under a running server."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from .hammer import hammer
from .servers import Servers

Damage = Callable[[Path], object]


def replace_header(folder: Path) -> None:
    """Put another file in its place."""
    fresh = folder / "fresh"
    fresh.touch(0o600)
    fresh.rename(folder / "header")


DAMAGES: dict[str, Damage] = {
    "header deleted": lambda folder: os.unlink(folder / "header"),
    "header replaced": replace_header,
    "snapshots removed": lambda folder: shutil.rmtree(folder / "snapshots"),
    "bell removed": lambda folder: shutil.rmtree(folder / "bell"),
    "folder removed": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_is_stale(servers: Servers, thorough: bool, damage: str) -> None:
    """Whatever is removed, and at which moment: a request sees every update that had returned."""
    # Idle workers hear by uWSGI's timer, each third of the interval, if no monitor is left.
    server = servers.uwsgi(workers=4, WAFFLE_RECONCILE_INTERVAL="9")
    folder, chance = servers.folder / "instance" / "waffle.watch.d", random.Random(damage)
    done, count = threading.Event(), 0

    def break_it() -> None:
        nonlocal count
        while not done.wait(chance.uniform(0.005, 0.04)):
            with suppress(OSError):  # it isn't there again yet
                DAMAGES[damage](folder)
                count += 1

    def write(number: int) -> None:
        assert set(server.update(number)["seen"]["all"]) == {number}

    breaking = threading.Thread(target=break_it)
    breaking.start()
    try:
        hammer([server], write, updates=200 if thorough else 60, processes=2)
    finally:
        done.set()
        breaking.join()
    assert count > 10
    # Nothing of it stays.
    assert server.update(10**6, wait=20.0)["pending"] == []
    status = server.get("/status")
    assert (status["error"], status["store_error"]) == ("", "")
