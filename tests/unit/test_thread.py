"""The thread that follows the host where no uWSGI master can wake the process."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from pathlib import Path

import pytest

from uwsgi_waffle.wake import thread
from uwsgi_waffle.wake.watchers import watchers

from ..host import eventually, run_forked

# Seconds within which what is waited for surely happens; nothing is asserted about how soon.
LONG = 30.0


class Watcher:
    """Counts how often it is ticked, and says when it was ticked ``wanted`` times."""

    reconcile_interval = 30.0
    watched: tuple[Path, ...] = ()

    def __init__(self, wanted: int = 1, *, failing: int = 0) -> None:
        self.poll_interval = 0.001
        self.ticks, self.wanted, self.failing, self.done = 0, wanted, failing, threading.Event()
        self.threads: set[threading.Thread] = set()
        self.pid = 0
        self.blocked: set[int] = set()

    def tick(self) -> None:
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.ticks, self.pid = self.ticks + 1, os.getpid()
        self.threads.add(threading.current_thread())
        if self.ticks >= self.wanted:
            self.done.set()
            self.poll_interval = 0.05  # the test has seen enough
        if self.ticks == self.failing:
            raise OSError("such a tick fails")

    def leave(self) -> None:
        raise AssertionError("only where Werkzeug's reloader waits")


def test_it_ticks_again_and_again_whatever_a_tick_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watcher = Watcher(wanted=3, failing=1)
    thread.ensure_running(watcher)
    assert watcher.done.wait(LONG)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the next tick tries again" in caplog.text


def test_there_is_one_for_each_watcher() -> None:
    watcher = Watcher(wanted=5)
    for _ in range(3):
        thread.ensure_running(watcher)
    assert watcher.done.wait(LONG)
    (only,) = watcher.threads
    assert only.daemon


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # that is what this does
def test_a_forked_process_starts_its_own() -> None:
    """No thread outlives a fork."""
    watcher = Watcher()
    thread.ensure_running(watcher)
    assert watcher.done.wait(LONG)

    def program() -> None:
        watcher.pid = 0
        thread.ensure_running(watcher)
        eventually(lambda: watcher.pid == os.getpid())

    assert run_forked(program) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # that is what this does
def test_a_forked_process_that_only_waits_is_followed_for_too() -> None:
    """It needs no read to begin: gunicorn's worker with `preload` may be idle for hours."""
    watcher = Watcher()
    watchers.add(watcher)
    thread.ensure_running(watcher)
    assert watcher.done.wait(LONG)
    assert run_forked(lambda: eventually(lambda: watcher.pid == os.getpid())) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # that is what this does
def test_a_fork_waits_for_a_tick_that_reads_the_store() -> None:
    """The child would inherit the locks of the database's library."""
    inside, leave = threading.Event(), threading.Event()

    class Slow(Watcher):
        def tick(self) -> None:
            if not self.ticks:
                self.ticks = 1
                inside.set()
                assert leave.wait(20)

    watcher = Slow()
    thread.ensure_running(watcher)
    assert inside.wait(LONG)
    threading.Timer(0.05, leave.set).start()

    def program() -> None:
        assert leave.is_set()
        thread.tick_in_thread()

    assert run_forked(program) == 0


def test_one_that_could_not_be_started_is_started_by_whoever_asks_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watcher = Watcher()

    def full(started: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", full)
        with pytest.raises(RuntimeError):
            thread.ensure_running(watcher)
    thread.ensure_running(watcher)
    assert watcher.done.wait(LONG)


def test_it_ends_when_its_watcher_is_forgotten() -> None:
    watcher = Watcher()
    thread.ensure_running(watcher)
    assert watcher.done.wait(LONG)
    (running,) = watcher.threads
    del watcher
    gc.collect()
    running.join(LONG)
    assert not running.is_alive()


def test_it_leaves_signals_to_the_main_thread() -> None:
    """Else uWSGI's handler of SIGTERM would run, and wait for ever, in it."""
    watcher = Watcher()
    thread.ensure_running(watcher)
    assert watcher.done.wait(LONG)
    assert signal.SIGTERM in watcher.blocked
