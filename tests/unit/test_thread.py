"""The thread that looks where no uWSGI master can wake the process."""

from __future__ import annotations

import gc
import logging
import os
import threading
from pathlib import Path

import pytest

from uwsgi_waffle.server.thread import ensure_running

# seconds within which what is waited for surely happens; nothing is asserted about how soon
LONG = 30.0


class Member:
    """Counts how often it is woken, and tells when it was woken ``wanted`` times."""

    poll_interval = 0.001
    reconcile_interval = 30.0
    watched: tuple[Path, ...] = ()

    def __init__(self, wanted: int = 1, *, failing: int = 0) -> None:
        self.ticks, self.wanted, self.failing, self.done = 0, wanted, failing, threading.Event()
        self.threads: set[threading.Thread] = set()
        self.both = threading.Event()

    def tick(self) -> None:
        self.ticks += 1
        self.threads.add(threading.current_thread())
        if len(self.threads) == 2:
            self.both.set()
        if self.ticks >= self.wanted:
            self.done.set()
        if self.ticks == self.failing:
            raise OSError("such a look fails")

    def leave(self) -> None:
        raise AssertionError("only where Werkzeug's reloader waits")


def test_it_looks_again_and_again_whatever_a_look_raises(caplog: pytest.LogCaptureFixture) -> None:
    member = Member(wanted=3, failing=1)
    ensure_running(member)
    assert member.done.wait(LONG)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "it will be tried again" in caplog.text


def test_there_is_one_for_each_member() -> None:
    member = Member(wanted=5)
    for _ in range(3):
        ensure_running(member)
    assert member.done.wait(LONG)
    (thread,) = member.threads
    assert thread.daemon


def test_a_forked_process_starts_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread outlives a fork."""
    member = Member(wanted=10**9)
    ensure_running(member)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    ensure_running(member)
    assert member.both.wait(LONG)


def test_one_that_could_not_be_started_is_started_by_whoever_asks_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member = Member()

    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", full)
        with pytest.raises(RuntimeError):
            ensure_running(member)
    ensure_running(member)
    assert member.done.wait(LONG)


def test_it_ends_when_its_member_is_forgotten() -> None:
    member = Member()
    ensure_running(member)
    assert member.done.wait(LONG)
    (thread,) = member.threads
    del member
    gc.collect()
    thread.join(LONG)
    assert not thread.is_alive()


def test_it_leaves_signals_to_the_main_thread() -> None:
    """Else uWSGI's handler of SIGTERM would run, and wait for ever, in it."""
    member = Member()
    ensure_running(member)
    assert member.done.wait(LONG)
    (thread,) = member.threads
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    blocked = next(
        int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk")
    )
    assert blocked >> 14 & 1, "SIGTERM is signal 15"
