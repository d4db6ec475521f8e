"""kill -9 of a writer at any step: everybody converges to what the store has (P3)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from uwsgi_waffle import unix
from uwsgi_waffle.host import is_current
from uwsgi_waffle.stores import Commit, CommitBuilder, Stored

from ..host import ALWAYS, FaultyStore, Host, Process, run_forked

KILLED = 9
#: What a writer changes the world with.
CALLS = ("open", "write", "pwrite", "utime", "unlink", "mkdir")


def kill(*_: object) -> None:
    """Die as by kill -9: no `finally`, no handler."""
    os._exit(KILLED)


class DeadlyStore(FaultyStore):
    """Kills the process that writes, at a named point."""

    point = ""

    def transact(self, build_commit: CommitBuilder) -> Stored:
        def build(stored: Stored) -> Commit | None:
            self._reach("transaction begun")
            commit = build_commit(stored)
            self._reach("all prepared")
            return commit

        self._reach("locked")
        stored = super().transact(build)
        self._reach("committed")
        return stored

    def _reach(self, point: str) -> None:
        if point == self.point:
            kill()


class Deadly:
    """Kills the process at the n-th of the calls by which it changes files."""

    def __init__(self, at: int) -> None:
        self.left = at

    def install(self) -> None:
        for module in (os, unix):
            for name in set(CALLS) & set(dir(module)):
                setattr(module, name, self._counting(getattr(module, name)))

    def _counting(self, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                kill()
            return genuine(*args, **options)

        return call


def check(host: Host, readers: list[Process], *, limit: int | None = None) -> int:
    """Assert that all readers serve what the store holds, by a read alone. Return it."""
    stored = int(host.store().load().values.get("LIMIT", "10"))
    assert limit in (None, stored)
    for process in readers:
        assert stored == process.waffle.values.LIMIT
        assert is_current(process.files.words())
    assert stored == host.start().waffle.values.LIMIT
    assert stored == host.start(host.store(ALWAYS)).waffle.values.LIMIT, "it is published, too"
    return stored


@pytest.mark.parametrize(
    ("point", "limit"),
    [("locked", 10), ("transaction begun", 10), ("all prepared", 10), ("committed", 20)],
)
def test_at_a_named_point(
    host: Host, site: Process, other: Process, point: str, limit: int
) -> None:
    store = DeadlyStore(f"sqlite:///{host.database}")
    writer = host.start(store)
    store.point = point
    assert run_forked(lambda: writer.waffle.update({"LIMIT": 20})) == KILLED
    check(host, [site, other], limit=limit)
    assert other.waffle.update({"LIMIT": 30}).changed == ("LIMIT",)
    check(host, [site, other], limit=30)


def test_before_it_has_told_other_hosts(
    host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own host has everything; the others' bound is their reconcile interval."""
    monkeypatch.setattr("uwsgi_waffle.wake.Listener.notify_hosts", kill)
    writer = host.start(WATCHTYPE="redis")
    assert run_forked(lambda: writer.waffle.update({"LIMIT": 20})) == KILLED
    check(host, [site], limit=20)


def test_at_every_change_of_a_file(host: Host, site: Process) -> None:
    """The calls of one update are counted; it is killed at each of them."""
    outcomes: list[int] = []
    for at in range(100):
        deadly, limit = Deadly(at), 20 + at

        def update(deadly: Deadly = deadly, limit: int = limit) -> None:
            deadly.install()
            site.waffle.update({"LIMIT": limit})

        if run_forked(update) == 0:
            break
        before = site.waffle.values.LIMIT
        stored = int(host.store().load().values.get("LIMIT", "10"))
        assert before == stored
        outcomes.append(stored == limit)
    check(host, [site])
    assert 8 <= len(outcomes) < 100
    assert not outcomes[0], "killed before it began"
    assert outcomes[-1], "killed when all was committed"
    assert outcomes == sorted(outcomes)


def test_what_was_rolled_back_is_served_by_nobody_though_the_store_is_down(
    host: Host, site: Process
) -> None:
    """Its snapshot is written, and no header names it."""
    site.waffle.update({"LIMIT": 20})
    store = DeadlyStore(f"sqlite:///{host.database}")
    writer = host.start(store)
    store.point = "all prepared"
    assert run_forked(lambda: writer.waffle.update({"LIMIT": 30})) == KILLED
    assert host.start(host.store(ALWAYS)).waffle.values.LIMIT == 20


def test_its_lock_is_free_at_once(host: Host, site: Process) -> None:
    store = DeadlyStore(f"sqlite:///{host.database}")
    writer = host.start(store)
    store.point = "committed"
    run_forked(lambda: writer.waffle.update({"LIMIT": 20}))
    with site.files.try_lock() as fields:
        assert fields is not None
