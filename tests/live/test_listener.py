"""One process of a host listens; whoever ends it, another or the next one does."""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from .hosts import LAZY, MULE, WORKERS, Hosts, listener, mule, wait_until_told
from .servers import kill


def test_a_killed_mule_comes_back_and_catches_up(hosts: Hosts) -> None:
    left, right = hosts.pair(MULE)
    for number in range(1, 4):
        victim = mule(right)
        kill(victim)
        left.update(number)  # nobody over there hears of it
        wait_until_told(right, number)
        hosts.wait_for_listeners([left, right])
        assert mule(right) != victim
        assert listener(right) == mule(right)


def test_a_mule_killed_amid_messages(hosts: Hosts, thorough: bool) -> None:
    """The last of many updates arrives, and no reader over there sees revisions go back."""
    left, right = hosts.pair(MULE)
    kills, number = 0, 0
    stop = threading.Event()
    seen: list[list[int]] = [[] for _ in range(WORKERS)]

    def read(socket: int) -> None:
        while not stop.is_set():
            seen[socket] += [right.read(socket=socket)["revision"]]

    readers = [threading.Thread(target=read, args=(socket,)) for socket in range(WORKERS)]
    for reader in readers:
        reader.start()
    try:
        while kills < (10 if thorough else 3):
            victim = mule(right)
            for _ in range(random.randint(1, 20)):
                number += 1
                left.update(number)
            kill(victim)
            kills += 1
            number += 1
            left.update(number)
            right.eventually(lambda old=victim: mule(right) != old)
            wait_until_told(right, number)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert [revisions == sorted(revisions) for revisions in seen] == [True] * WORKERS
    assert {right.read(socket=socket)["revision"] for socket in range(WORKERS)} == {number}


def test_a_writer_killed_before_its_message(hosts: Hosts) -> None:
    """The other host hears of what it had committed within the reconcile interval."""
    left, right = (
        hosts.start("left", MULE),
        hosts.start("right", MULE, WAFFLE_RECONCILE_INTERVAL="2"),
    )
    hosts.wait_for_listeners([left, right])
    (left.folder / "die-after-commit").touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        left.update(1)
    wait_until_told(right, 1)


@pytest.mark.parametrize("options", [(MULE,), (MULE, *LAZY)], ids=" ".join)
def test_a_mule_that_is_told_to_end_does_so_and_comes_back(
    hosts: Hosts, options: tuple[str, ...], tmp_path: Path
) -> None:
    """By TERM, by HUP, by touch-mules-reload; that none waits for uWSGI's patience is checked when
    the server is stopped.
    """
    touched = tmp_path / "touched"
    touched.touch()
    left, right = (
        hosts.start("left", MULE),
        hosts.start("right", *options, "--touch-mules-reload", str(touched)),
    )
    hosts.wait_for_listeners([left, right])
    later = time.time() + 10

    def touch(_: int) -> None:
        nonlocal later
        later += 10
        os.utime(touched, (later, later))  # uWSGI compares whole seconds

    ways = [
        lambda pid: psutil.Process(pid).terminate(),
        lambda pid: psutil.Process(pid).send_signal(signal.SIGHUP),
        touch,
    ]
    for number, end in enumerate(ways, 1):
        victim = mule(right)
        end(victim)
        right.eventually(lambda old=victim: mule(right) != old and not psutil.pid_exists(old))
        hosts.wait_for_listeners([left, right])
        left.update(number)
        wait_until_told(right, number)


@pytest.mark.parametrize("options", [(), LAZY], ids=" ".join)
def test_without_a_mule_another_worker_is_elected(hosts: Hosts, options: tuple[str, ...]) -> None:
    left, right = hosts.pair(*options)
    for number in range(1, 4):
        victim = listener(right)
        kill(victim)
        left.update(number)
        right.eventually(lambda old=victim: listener(right) != old)
        hosts.wait_for_listeners([left, right])
        right.eventually(
            lambda n=number: (
                set(right.read(socket=0)["all"]) == set(right.read(socket=1)["all"]) == {n}
            )
        )


def test_a_lazy_mule_that_knows_nothing_says_so_and_a_worker_listens(hosts: Hosts) -> None:
    server = hosts.start("left", MULE, *LAZY, WAFFLE_WATCHER_FILE="waffle.watch")
    hosts.wait_for_listeners([server])
    assert listener(server) in server.workers().values()
    assert server.log.count("this mule has no application") == 1


def test_where_uwsgidecorators_took_the_hook_a_worker_listens(hosts: Hosts) -> None:
    """It replaces the one that starts the mule's listener, if it is imported last."""
    left = hosts.start("left")
    right = hosts.start("right", MULE, SITE_DECORATORS="late", WAFFLE_RECONCILE_INTERVAL="3")
    hosts.wait_for_listeners([left, right])
    assert listener(right) != mule(right)
    left.update(1)
    wait_until_told(right, 1)
