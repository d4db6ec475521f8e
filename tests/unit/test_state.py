"""Two processes of one host, their store, and what may happen to each of them."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask import Flask, current_app
from pydantic import BaseModel, model_validator

import uwsgi_waffle
from uwsgi_waffle import (
    Change,
    HostBusy,
    HostFilesError,
    InvalidValue,
    MemoryStore,
    RevisionConflict,
    StoreUnavailable,
    UnknownRevision,
    UnknownVariable,
    WaffleConf,
    WaffleError,
)
from uwsgi_waffle.hostfiles import HostFiles, digest_in, is_settled
from uwsgi_waffle.hostfiles.header import NOTES_AT, WORD
from uwsgi_waffle.schema import MASK
from uwsgi_waffle.snapshot import Encoded, Snapshot
from uwsgi_waffle.stores import Commit, Stored
from uwsgi_waffle.stores.contract import Decide

from .conftest import ALWAYS, CONFS, NEVER, FaultyStore, Host, Process

NOISE = bytes(range(256)) * 8
GENERATION_AT = NOTES_AT + WORD


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and record.name == "uwsgi_waffle"
    ]


def damage_snapshots(host: Host, damage: str) -> None:
    for path in host.snapshots.iterdir():
        if damage == "noise":
            path.write_bytes(NOISE)
        elif damage == "truncated":
            os.truncate(path, 10)
        else:
            path.unlink()
    if damage == "folder deleted":
        host.snapshots.rmdir()


def killed(*args: object) -> NoReturn:
    """Stand for kill -9: the process does nothing more, the kernel frees its locks."""
    raise SystemExit("killed")


def recorded(process: Process, *names: str) -> list[Change]:
    """Return the list to which each change of ``names`` will be added."""
    changes: list[Change] = []
    process.waffle.on_change(*names)(changes.append)
    return changes


class TestUpdate:
    def test_it_says_what_it_did(self, site: Process) -> None:
        result = site.waffle.update({"SITENAME": "New", "LIMIT": 20})
        assert (result.revision, result.changed, result.applied, result.pending) == (
            1,
            ("LIMIT", "SITENAME"),
            (),
            (),
        )
        assert site.waffle.revision == 1
        assert (site.waffle.values.SITENAME, site.app.config["LIMIT"]) == ("New", 20)

    def test_another_process_sees_it_at_once(self, site: Process, other: Process) -> None:
        """By comparing the header's words alone, with no signal, no thread and no tick."""
        other.trust_header()
        for number in range(1, 4):
            site.waffle.update({"LIMIT": number, "SITENAME": str(number)})
            assert (
                other.waffle.values.LIMIT,
                other.app.config["SITENAME"],
                other.waffle.revision,
            ) == (number, str(number), number)

    def test_one_store_read_is_enough_for_the_host(self, host: Host, site: Process) -> None:
        stores = [host.store() for _ in range(3)]
        processes = [host.start(store) for store in stores]
        before = [store.calls for store in stores]
        site.waffle.update({"LIMIT": 20})
        assert [process.waffle.values.LIMIT for process in processes] == [20] * 3
        assert [store.calls for store in stores] == before, "the snapshot was read, not the store"

    def test_a_look_reads_neither_store_nor_files_when_nothing_changed(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = host.start(store := host.store())
        process.trust_header()
        calls = store.calls
        monkeypatch.setattr(HostFiles, "snapshot", killed)
        monkeypatch.setattr(HostFiles, "verify", killed)
        for _ in range(100):
            assert process.waffle.values.LIMIT == 10
        assert store.calls == calls

    def test_what_another_wrote_is_kept(self, site: Process, other: Process) -> None:
        with other.app.test_request_context():
            assert other.waffle.revision == 0
            site.waffle.update({"SITENAME": "New"})
            other.waffle.update({"LIMIT": 20})
        for process in (site, other):
            assert process.binding.parse_conf() == {"SITENAME": "New", "LIMIT": 20, "TOKEN": ""}
            assert process.waffle.revision == 2

    def test_what_is_not_declared_here_is_kept(self, host: Host, site: Process) -> None:
        """Two versions of the application may run beside each other."""
        newer = host.start(confs={**CONFS, "ADDED": {"default": 0}})
        newer.waffle.update({"ADDED": 7})
        site.waffle.update({"LIMIT": 20})
        site.waffle.reset("LIMIT")
        site.waffle.rollback(0)
        assert newer.waffle.values.ADDED == 7
        assert newer.state.store.load().values["ADDED"] == "7"

    def test_nothing_to_change_makes_no_revision(self, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        before = site.files.peek()
        assert (
            site.waffle.update({"LIMIT": 20})
            == site.waffle.update({})
            == uwsgi_waffle.UpdateResult(1, ())
        )
        assert site.waffle.revision == 1
        assert len(site.waffle.history()) == 1
        assert site.files.peek() == before, "and no bell"

    def test_a_value_is_stored_as_validated(self, site: Process) -> None:
        site.waffle.update({"LIMIT": "20"})
        assert site.waffle.values.LIMIT == 20
        assert site.state.store.load().values == {"LIMIT": "20"}

    def test_an_unknown_name_changes_nothing(self, site: Process) -> None:
        with pytest.raises(UnknownVariable, match="'SITE' is not declared"):
            site.waffle.update({"LIMIT": 20, "SITE": "x"})
        assert site.state.store.load().revision == 0

    def test_bad_values_are_told_together_and_change_nothing(
        self, site: Process, other: Process
    ) -> None:
        with pytest.raises(InvalidValue) as caught:
            site.waffle.update({"LIMIT": -1, "SITENAME": 5, "TOKEN": "x"})
        assert list(caught.value.problems) == ["LIMIT", "SITENAME"]
        assert other.waffle.refresh() == site.waffle.revision == 0
        assert site.waffle.history() == []

    def test_values_are_validated_together_with_what_the_store_holds(self, host: Host) -> None:
        class Range(BaseModel):
            low: int = 0
            high: int = 10

            @model_validator(mode="after")
            def check(self) -> Range:
                if self.low > self.high:
                    raise ValueError("low is above high")
                return self

        first, second = host.start(confs=Range), host.start(confs=Range)
        first.waffle.update({"high": 5})
        with pytest.raises(InvalidValue, match="low is above high"):
            second.waffle.update({"low": 7})
        assert second.waffle.update({"low": 20, "high": 30}).changed == ("high", "low")
        assert isinstance(first.waffle.values, Range)
        assert (first.waffle.values.low, first.waffle.values.high) == (20, 30)

    def test_a_model_shows_its_values_in_the_configuration(self, host: Host) -> None:
        class Page(BaseModel):
            size: int = 10

        process = host.start(confs=Page)
        process.waffle.update({"size": 20})
        assert process.app.config["size"] == process.waffle.values["size"] == 20

    def test_concurrent_updates_of_threads_lose_nothing(
        self, site: Process, other: Process
    ) -> None:
        def count(process: Process) -> None:
            for _ in range(10):
                while True:
                    revision, limit = process.waffle.revision, process.waffle.values.LIMIT
                    try:
                        process.waffle.update({"LIMIT": limit + 1}, expect_revision=revision)
                        break
                    except RevisionConflict:
                        continue

        threads = [
            threading.Thread(target=count, args=(process,)) for process in (site, other, site)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert site.waffle.values.LIMIT == 10 + 30
        assert site.waffle.revision == other.waffle.revision == 30

    def test_who_holds_the_lock_too_long_stops_writers_only(
        self, site: Process, other: Process
    ) -> None:
        site.state._lock_timeout = 0.0
        with other.files.lock(1):
            with pytest.raises(HostBusy, match="nothing was changed"):
                site.waffle.update({"LIMIT": 20})
            assert site.waffle.values.LIMIT == 10


class TestExpectRevision:
    def test_who_was_slower_is_refused(self, site: Process, other: Process) -> None:
        site.waffle.update({"SITENAME": "New"})
        with pytest.raises(
            RevisionConflict,
            match=r"revision 0 was expected and the store is at 1.*expect_revision=1",
        ) as caught:
            other.waffle.update({"LIMIT": 20}, expect_revision=0)
        assert (caught.value.expected, caught.value.actual) == (0, 1)
        assert other.waffle.values.LIMIT == 10
        assert other.waffle.update({"LIMIT": 20}, expect_revision=1).revision == 2

    def test_a_conflict_is_found_in_the_store_itself(self, host: Host, site: Process) -> None:
        """Another host may have written, of which no file here tells."""
        host.sql("UPDATE waffle_meta SET revision = 5")
        assert site.waffle.revision == 0
        with pytest.raises(RevisionConflict, match="the store is at 5"):
            site.waffle.update({"LIMIT": 20}, expect_revision=0)

    def test_it_is_refused_also_where_nothing_would_change(self, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        with pytest.raises(RevisionConflict):
            site.waffle.update({"LIMIT": 20}, expect_revision=0)

    @pytest.mark.parametrize("write", ["reset", "rollback"])
    def test_it_holds_for_every_way_to_write(self, site: Process, write: str) -> None:
        site.waffle.update({"LIMIT": 20})
        site.waffle.update({"LIMIT": 30})
        with pytest.raises(RevisionConflict):
            site.waffle.reset(
                "LIMIT", expect_revision=1
            ) if write == "reset" else site.waffle.rollback(1, expect_revision=1)
        assert site.waffle.values.LIMIT == 30


class RacedStore(FaultyStore):
    """Has decided when somebody on another host is faster, and so lets decide look again."""

    def transact(self, decide: Any) -> Stored:
        if self.load().revision == 0:
            decide(self.load())
            super().transact(lambda stored: Commit({"LIMIT": "20", "SITENAME": '"Raced"'}))
        return super().transact(decide)


class TestRace:
    @pytest.fixture
    def raced(self, host: Host, site: Process) -> Process:
        return host.start(RacedStore(f"sqlite:///{host.database}"))

    def test_an_update_goes_on_upon_what_the_faster_one_wrote(
        self, site: Process, raced: Process
    ) -> None:
        assert raced.waffle.update({"LIMIT": 30}).revision == 2
        for process in (raced, site):
            assert (
                process.waffle.values.LIMIT,
                process.waffle.values.SITENAME,
                process.waffle.revision,
            ) == (30, "Raced", 2)

    def test_what_the_faster_one_has_written_already_is_served_as_it_is_stored(
        self, site: Process, raced: Process
    ) -> None:
        result = raced.waffle.update({"LIMIT": 20})
        assert (result.revision, result.changed) == (1, ())
        for process in (raced, site):
            assert (
                process.waffle.values.LIMIT,
                process.waffle.values.SITENAME,
                process.waffle.revision,
            ) == (20, "Raced", 1)

    def test_a_conflict_leaves_what_the_faster_one_wrote(
        self, site: Process, raced: Process
    ) -> None:
        with pytest.raises(RevisionConflict, match="the store is at 1"):
            raced.waffle.update({"LIMIT": 30}, expect_revision=0)
        for process in (raced, site):
            assert (
                process.waffle.values.LIMIT,
                process.waffle.values.SITENAME,
                process.waffle.revision,
            ) == (20, "Raced", 1)


class TestPast:
    def test_reset_gives_the_default_back_as_a_revision(
        self, site: Process, other: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"})
        result = site.waffle.reset("LIMIT", actor="ann", note="too large")
        assert (result.revision, result.changed) == (2, ("LIMIT",))
        assert (other.waffle.values.LIMIT, other.waffle.values.SITENAME) == (10, "New")
        entry = site.waffle.history(1)[0]
        assert (entry.key, entry.old, entry.new, entry.actor, entry.note) == (
            "LIMIT",
            20,
            10,
            "ann",
            "too large",
        )
        assert site.waffle.reset("LIMIT").revision == 2, "nothing left to do"
        with pytest.raises(UnknownVariable):
            site.waffle.reset("SITE")

    def test_rollback_makes_former_values_a_new_revision(
        self, site: Process, other: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        site.waffle.update({"LIMIT": 30, "SITENAME": "New"})
        result = site.waffle.rollback(1)
        assert (result.revision, result.changed) == (3, ("LIMIT", "SITENAME"))
        assert (other.waffle.values.LIMIT, other.waffle.values.SITENAME, other.waffle.revision) == (
            20,
            "Waffle",
            3,
        )
        assert {entry.note for entry in site.waffle.history(2)} == {"rollback to revision 1"}
        with pytest.raises(UnknownRevision, match="no revision 4"):
            site.waffle.rollback(4)

    def test_rollback_to_what_is_refused_today_changes_nothing(self, host: Host) -> None:
        earlier = host.start(confs={"LIMIT": {"default": 10}})
        for number in (-5, 5):
            earlier.waffle.update({"LIMIT": number})
        today = host.start()
        with pytest.raises(InvalidValue, match="LIMIT"):
            today.waffle.rollback(1)
        assert (today.waffle.values.LIMIT, today.waffle.refresh()) == (5, 2)

    def test_history_tells_values_newest_first(self, site: Process) -> None:
        site.waffle.update({"LIMIT": 20}, actor="ann", note="more")
        site.waffle.update({"SITENAME": "New"})
        entries = site.waffle.history()
        assert [(e.revision, e.key, e.old, e.new, e.actor, e.note) for e in entries] == [
            (2, "SITENAME", "Waffle", "New", None, None),
            (1, "LIMIT", 10, 20, "ann", "more"),
        ]
        assert site.waffle.history(limit=1) == entries[:1]
        assert site.waffle.history(key="LIMIT") == entries[1:]
        with pytest.raises(UnknownVariable):
            site.waffle.history(key="SITE")

    def test_history_masks_secrets(self, site: Process) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        assert [(e.old, e.new) for e in site.waffle.history()] == [(MASK, MASK)]

    def test_history_knows_what_is_no_longer_declared_and_shows_no_value_of_it(
        self, host: Host
    ) -> None:
        """It may have been a secret; nobody knows any more."""
        host.start(confs={"GONE": {"default": 1}}).waffle.update({"GONE": 2})
        assert [(e.old, e.new) for e in host.start().waffle.history(key="GONE")] == [(MASK, MASK)]


class TestHooks:
    def test_a_change_is_told_once_with_old_and_new(self, site: Process, other: Process) -> None:
        mine, theirs = recorded(site), recorded(other)
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"})
        other.tick()
        other.tick()
        for (change,) in (mine, theirs):
            assert (change.revision, change.old, change.new) == (
                1,
                {"LIMIT": 10, "SITENAME": "Waffle"},
                {"LIMIT": 20, "SITENAME": "New"},
            )

    def test_changes_are_told_in_order(self, site: Process, other: Process) -> None:
        changes = recorded(other)
        for number in (1, 2, 3):
            site.waffle.update({"LIMIT": number})
            other.tick()
        assert [(c.revision, c.old["LIMIT"], c.new["LIMIT"]) for c in changes] == [
            (1, 10, 1),
            (2, 1, 2),
            (3, 2, 3),
        ]

    def test_what_was_missed_meanwhile_is_one_change(self, site: Process, other: Process) -> None:
        changes = recorded(other)
        for number in (1, 2, 3):
            site.waffle.update({"LIMIT": number})
        other.tick()
        assert [(c.revision, c.old["LIMIT"], c.new["LIMIT"]) for c in changes] == [(3, 10, 3)]

    def test_names_select(self, site: Process) -> None:
        limit, either = recorded(site, "LIMIT"), recorded(site, "LIMIT", "TOKEN")
        site.waffle.update({"SITENAME": "New"})
        site.waffle.update({"LIMIT": 20, "SITENAME": "x"})
        site.waffle.update({"TOKEN": "y"})
        assert [c.revision for c in limit] == [2]
        assert [c.revision for c in either] == [2, 3]

    def test_it_decorates_with_and_without_parentheses(self, site: Process) -> None:
        seen = []

        @site.waffle.on_change
        def bare(change: Change) -> None:
            seen.append("bare")

        @site.waffle.on_change("LIMIT")
        def named(change: Change) -> None:
            seen.append("named")

        site.waffle.update({"LIMIT": 20})
        assert seen == ["bare", "named"]
        assert callable(bare)
        assert callable(named)

    def test_an_unknown_name_is_refused_before_and_after_init_app(
        self, host: Host, site: Process
    ) -> None:
        with pytest.raises(UnknownVariable, match="'SITE'"):
            site.waffle.on_change("SITE")(print)
        waffle = WaffleConf()
        waffle.on_change("SITE")(print)
        with pytest.raises(UnknownVariable, match="'SITE'"):
            host.start(waffle=waffle)

    def test_a_start_is_no_change(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        waffle = WaffleConf()
        changes: list[Change] = []
        waffle.on_change(changes.append)
        host.start(waffle=waffle).tick()
        assert changes == []

    def test_an_undone_change_is_no_change(self, site: Process, other: Process) -> None:
        changes = recorded(other)
        site.waffle.update({"LIMIT": 20})
        site.waffle.reset("LIMIT")
        other.tick()
        assert changes == []
        assert other.waffle.revision == 2

    @pytest.mark.parametrize("error", [ValueError, SystemExit])
    def test_one_that_raises_is_logged_and_the_others_run(
        self, site: Process, caplog: pytest.LogCaptureFixture, error: type[BaseException]
    ) -> None:
        @site.waffle.on_change
        def faulty(change: Change) -> None:
            raise error("no")

        changes = recorded(site)
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert len(changes) == 1
        (told,) = logged(caplog)
        assert "faulty" in told
        assert "revision 1" in told

    def test_one_may_update_and_all_are_told_in_order(self, site: Process, other: Process) -> None:
        @site.waffle.on_change("SITENAME")
        def follow(change: Change) -> None:
            for number in (1, 2):
                site.waffle.update({"LIMIT": number})

        changes = recorded(site)
        site.waffle.update({"SITENAME": "New"})
        assert [(c.revision, dict(c.new)) for c in changes] == [
            (1, {"SITENAME": "New"}),
            (2, {"LIMIT": 1}),
            (3, {"LIMIT": 2}),
        ]
        assert (other.waffle.values.LIMIT, other.waffle.revision) == (2, 3)

    def test_it_sees_the_new_values_also_within_a_request_that_has_old_ones(
        self, site: Process, other: Process
    ) -> None:
        seen: list[Any] = []

        @site.waffle.on_change
        def look(change: Change) -> None:
            seen.append((site.waffle.values.LIMIT, current_app.config["LIMIT"], current_app.name))

        with site.app.test_request_context():
            assert site.waffle.values.LIMIT == 10
            other.waffle.update({"LIMIT": 20})
            site.tick()
            assert site.waffle.values.LIMIT == 10
        assert seen == [(20, 20, "site")]

    @pytest.mark.parametrize("hooks", [0, 1])
    def test_what_an_application_tears_down_is_not_that_of_the_request_under_way(
        self, site: Process, other: Process, hooks: int
    ) -> None:
        """As with a session of SQLAlchemy's that belongs to the thread: its `remove` is called when
        a context ends.
        """
        of_thread = threading.local()
        closed: list[object] = []
        site.app.teardown_appcontext(
            lambda error: closed.append(getattr(of_thread, "session", None))
        )
        told = recorded(site) if hooks else []
        with site.app.test_request_context():
            of_thread.session = "of the request"
            site.waffle.update({"LIMIT": 20})
            other.waffle.update({"LIMIT": 30})
            site.waffle.refresh()
        assert closed == [None] * len(told) + ["of the request"]
        assert len(told) == 2 * hooks
        del closed[:]
        other.waffle.update({"LIMIT": 40})
        assert site.waffle.values.LIMIT == 40, "a script's session neither"
        assert closed == [None] * hooks

    def test_a_teardown_that_fails_is_logged(
        self, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(error: object) -> NoReturn:
            raise LookupError("oops")

        told = recorded(site)
        site.app.teardown_appcontext(broken)
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert len(told) == 1
        assert "a teardown function failed" in logged(caplog)[0]

    def test_a_hook_that_updates_leaves_the_table_of_processes_right(self, site: Process) -> None:
        @site.waffle.on_change("LIMIT")
        def derive(change: Change) -> None:
            site.waffle.update({"SITENAME": f"limit {change.new['LIMIT']}"})

        site.waffle.update({"LIMIT": 20})
        assert site.waffle.values.SITENAME == "limit 20"
        assert (
            [process.revision for process in site.state.processes()]
            == [site.waffle.revision]
            == [2]
        )

    def test_hooks_wait_where_no_thread_can_be_started(
        self, site: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The update is in the store, so it mustn't raise; the hooks are called as soon as one can."""
        changes = recorded(site)

        def full(thread: threading.Thread) -> NoReturn:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as limit:
            limit.setattr(threading.Thread, "start", full)
            assert site.waffle.update({"LIMIT": 20}).revision == 1
            assert site.waffle.values.LIMIT == 20
            site.state.catch_up()
        assert changes == []
        (told,) = logged(caplog)
        assert "the on_change hooks of revision 1 have to wait: can't start new thread" in told
        site.state._lease = 0.0
        assert site.waffle.values.LIMIT == 20
        assert [change.revision for change in changes] == [1]

    def test_hooks_of_a_store_in_memory_wait_likewise(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("uwsgi_waffle.reading.LEASE", 0.0)
        app = Flask("site")
        app.config["WAFFLE_CONFS"] = CONFS
        waffle, told = WaffleConf(app, MemoryStore()), []
        waffle.on_change()(lambda change: told.append(change.revision))

        def full(thread: threading.Thread) -> NoReturn:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as limit:
            limit.setattr(threading.Thread, "start", full)
            waffle.update({"LIMIT": 20})
        assert told == []
        assert waffle.values.LIMIT == 20
        assert told == [1]

    def test_a_time_limit_of_the_applications_own_passes_and_its_hooks_run_once(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as gevent's Timeout, or an exception of a signal handler's, while the hooks' thread
        is waited for.
        """
        changes, genuine = recorded(site), threading.Thread.join

        class TooSlow(Exception):
            pass

        def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
            genuine(thread, timeout)
            raise TooSlow

        with monkeypatch.context() as limit:
            limit.setattr(threading.Thread, "join", interrupted)
            with pytest.raises(TooSlow):
                site.waffle.update({"LIMIT": 20})
        site.tick()
        assert [change.revision for change in changes] == [1]

    def test_who_comes_while_another_calls_the_hooks_does_not_say_that_it_is_done(
        self, site: Process, other: Process
    ) -> None:
        called, go_on, told = threading.Event(), threading.Event(), []
        threads: list[threading.Thread] = []

        @site.waffle.on_change
        def slow(change: Change) -> None:
            called.set()
            assert go_on.wait(20)

        class Lock:
            """Whose other owner comes at the worst moment."""

            def __init__(self, genuine: threading.Lock) -> None:
                self.acquire, self.release, self.genuine = genuine.acquire, genuine.release, genuine

            def locked(self) -> bool:
                answer = self.genuine.locked()
                if not threads:
                    other.waffle.update({"LIMIT": 20})
                    threads.append(threading.Thread(target=site.state.look))
                    threads[0].start()
                    assert called.wait(20)
                return answer

        def note(kind: str, revision: int, *rest: Any) -> bool:
            told.append((revision, go_on.is_set()))
            return True

        site.tick()
        # that much of one
        site.state._announcing = Lock(site.state._announcing)  # type: ignore[assignment]
        site.state._noted = None
        site.files.slots.note = note  # type: ignore[method-assign]  # of this one object
        site.state.catch_up()
        go_on.set()
        threads[0].join()
        assert (1, False) not in told
        assert (1, True) in told

    def test_making_a_context_may_read_what_changes(self, host: Host) -> None:
        """Flask itself reads SERVER_NAME for it; the hook is called once, and with the new one."""
        site, other = (
            host.start(confs={"SERVER_NAME": {"desc": "", "default": "a.example"}})
            for _ in range(2)
        )
        seen: list[str] = []

        @site.waffle.on_change
        def look(change: Change) -> None:
            seen.append(current_app.url_for("static", filename="x"))

        for process, name in ((site, "b.example"), (other, "c.example")):
            process.waffle.update({"SERVER_NAME": name})
            site.tick()
        assert seen == ["http://b.example/static/x", "http://c.example/static/x"]

    def test_the_signal_names_the_application(self, site: Process, other: Process) -> None:
        seen: list[tuple[Flask, int]] = []

        def receive(sender: Flask, change: Change) -> None:
            seen.append((sender, change.revision))

        with uwsgi_waffle.config_changed.connected_to(receive):
            site.waffle.update({"LIMIT": 20})
            other.tick()
        assert seen == [(site.app, 1), (other.app, 1)]

    def test_the_mappings_of_a_change_are_read_only(self, site: Process) -> None:
        changes = recorded(site)
        site.waffle.update({"LIMIT": 20})
        with pytest.raises(TypeError):
            changes[0].new["LIMIT"] = 5  # type: ignore[index]  # that is what is tested


class TestRequests:
    def test_a_request_keeps_its_revision(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            first = site.waffle.values
            other.waffle.update({"LIMIT": 20})
            site.tick()
            assert site.waffle.values is first
            assert (
                site.app.config["LIMIT"],
                site.app.config.get("LIMIT"),
                site.waffle.revision,
            ) == (10, 10, 0)
        assert site.waffle.values.LIMIT == 20
        with site.app.test_request_context():
            assert site.waffle.values.LIMIT == 20

    def test_it_is_that_of_its_beginning_not_of_its_first_look(
        self, site: Process, other: Process
    ) -> None:
        @site.app.before_request
        def meanwhile() -> None:
            other.waffle.update({"LIMIT": 20})

        @site.app.get("/")
        def view() -> str:
            return f"{site.waffle.values.LIMIT} {current_app.config['LIMIT']}"

        assert site.app.test_client().get("/").text == "10 10"

    def test_it_begins_before_what_the_application_does_first(
        self, host: Host, other: Process
    ) -> None:
        app = Flask("site", instance_path=str(host.instance))
        app.config["WAFFLE_CONFS"] = CONFS

        @app.before_request
        def meanwhile() -> None:
            other.waffle.update({"LIMIT": 20})

        @app.get("/")
        def view() -> str:
            return str(current_app.config["LIMIT"])

        WaffleConf(app)
        assert app.test_client().get("/").text == "10"

    def test_it_is_that_of_a_look_before_its_first_function(
        self, site: Process, other: Process
    ) -> None:
        """Flask matches the address and opens the session before, and either may read the
        configuration.
        """

        @site.app.url_value_preprocessor
        def early(endpoint: str | None, values: dict[str, Any] | None) -> None:
            assert site.waffle.values.LIMIT == 10
            other.waffle.update({"LIMIT": 20})

        @site.app.get("/")
        def view() -> str:
            return str(current_app.config["LIMIT"])

        assert site.app.test_client().get("/").text == "10"

    def test_its_own_update_moves_it_on(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            assert site.waffle.revision == 0
            other.waffle.update({"LIMIT": 20})
            site.waffle.update({"SITENAME": "New"})
            assert (
                site.waffle.values.LIMIT,
                site.app.config["SITENAME"],
                site.waffle.revision,
            ) == (20, "New", 2)

    def test_its_own_refresh_moves_it_on(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            assert site.waffle.revision == 0
            other.waffle.update({"LIMIT": 20})
            assert site.waffle.refresh() == site.waffle.revision == 1
            assert site.app.config["LIMIT"] == 20

    def test_an_update_that_fails_does_not(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            assert site.waffle.revision == 0
            other.waffle.update({"LIMIT": 20})
            with pytest.raises(InvalidValue):
                site.waffle.update({"LIMIT": -1})
            assert (site.waffle.revision, site.app.config["LIMIT"]) == (0, 10)

    def test_the_update_of_another_request_does_not(self, site: Process) -> None:
        with site.app.test_request_context():
            assert site.waffle.revision == 0
            with site.app.test_request_context():
                site.waffle.update({"LIMIT": 20})
                assert site.waffle.values.LIMIT == 20
            assert site.waffle.values.LIMIT == 10

    def test_each_thread_has_its_own_request(self, site: Process) -> None:
        seen = []

        def request() -> None:
            with site.app.test_request_context():
                site.waffle.update({"LIMIT": 20})
                seen.append(site.waffle.values.LIMIT)

        with site.app.test_request_context():
            seen.append(site.waffle.values.LIMIT)
            thread = threading.Thread(target=request)
            thread.start()
            thread.join()
            seen.append(site.waffle.values.LIMIT)
        assert seen == [10, 20, 10]

    @pytest.mark.parametrize("context", ["none", "application"])
    def test_outside_a_request_every_look_is_at_the_newest(
        self, site: Process, other: Process, context: str
    ) -> None:
        def look() -> int:
            if context == "none":
                return int(site.waffle.values.LIMIT)
            with site.app.app_context():
                return int(current_app.config["LIMIT"])

        for number in (1, 2):
            other.waffle.update({"LIMIT": number})
            assert look() == number


class TestApplications:
    def test_several_in_one_waffle_conf_need_a_context(self, host: Host) -> None:
        waffle = WaffleConf()
        first = host.start(MemoryStore(), waffle=waffle)
        second = host.start(MemoryStore(), waffle=waffle)
        with pytest.raises(WaffleError, match=r"several applications.*app_context"):
            _ = waffle.values
        with first.app.app_context():
            waffle.update({"LIMIT": 20})
            assert waffle.values.LIMIT == 20
        with second.app.app_context():
            assert (waffle.values.LIMIT, waffle.revision) == (10, 0)
        assert (first.app.config["LIMIT"], second.app.config["LIMIT"]) == (20, 10)

    def test_one_alone_needs_none(self, site: Process) -> None:
        assert site.waffle.values.LIMIT == 10

    def test_a_foreign_applications_context_does_not_mislead_the_only_one(
        self, site: Process
    ) -> None:
        with Flask("foreign").app_context():
            assert site.waffle.values.LIMIT == 10

    def test_none_at_all_is_told(self) -> None:
        with pytest.raises(WaffleError, match=r"no application yet.*init_app"):
            _ = WaffleConf().values

    def test_a_second_init_app_is_refused(self, site: Process) -> None:
        with pytest.raises(WaffleError, match="'site' has a WaffleConf already"):
            site.waffle.init_app(site.app)
        with pytest.raises(WaffleError, match="already"):
            WaffleConf(site.app)

    def test_an_application_can_be_forgotten(self, host: Host) -> None:
        waffle = WaffleConf()
        process = host.start(waffle=waffle)
        process.waffle.on_change(lambda change: None)
        process.waffle.update({"LIMIT": 20})
        forgotten = weakref.ref(process.app)
        del process
        gc.collect()
        assert forgotten() is None

    def test_the_store_may_be_given_to_either(self, host: Host) -> None:
        store = MemoryStore()
        app = Flask("site", instance_path=str(host.instance))
        app.config["WAFFLE_CONFS"] = CONFS
        WaffleConf(app, store).update({"LIMIT": 20})
        assert host.start(store).waffle.values.LIMIT == 20

    def test_the_default_store_is_a_sqlite_file_in_the_instance_folder(
        self, host: Host, site: Process
    ) -> None:
        assert host.database.is_file()
        assert site.waffle.status()["store"] == f"sqlite:///{host.database}"

    def test_without_multiproc_nothing_is_shared_but_the_store(self, host: Host) -> None:
        first, second = (host.start(MULTIPROC=False) for _ in range(2))
        first.waffle.update({"LIMIT": 20})
        assert (first.waffle.values.LIMIT, second.waffle.values.LIMIT) == (20, 10)
        assert second.waffle.refresh() == 1
        assert second.waffle.values.LIMIT == 20
        assert second.waffle.update({"SITENAME": "New"}, wait=5).pending == ()
        assert [path.name for path in host.instance.iterdir()] == ["waffle.db"]
        assert json.dumps(second.waffle.status())


class TestOldNames:
    def test_parse_conf_gives_a_dictionary(self, site: Process) -> None:
        old = site.app.extensions["waffleconf"]
        assert old.parse_conf() == {"SITENAME": "Waffle", "LIMIT": 10, "TOKEN": ""}
        assert old.parse_conf(keys=["LIMIT"]) == old.parse_conf(["LIMIT"]) == {"LIMIT": 10}
        with pytest.raises(UnknownVariable):
            old.parse_conf(["SITE"])

    def test_update_db_leaves_unknown_keys_out_with_a_warning(
        self, site: Process, other: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.app.extensions["waffleconf"].update_db({"LIMIT": 20, "SITE": "x"})
        assert other.waffle.values.LIMIT == 20
        (told,) = logged(caplog, logging.WARNING)
        assert "'SITE'" in told
        with pytest.raises(InvalidValue):
            site.app.extensions["waffleconf"].update_db({"LIMIT": -1})

    def test_update_conf_reads_the_store(self, host: Host, site: Process) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        with site.app.test_request_context():
            assert site.app.config["LIMIT"] == 10
            site.app.extensions["waffleconf"].update_conf()
            assert site.app.config["LIMIT"] == 20


class TestStoreDown:
    def test_the_last_good_values_are_served_until_it_is_back(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        process = host.start(store := host.store())
        process.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = '30'")
        store.failing = ALWAYS
        process.files.ring()
        for _ in range(5):
            assert process.waffle.values.LIMIT == 20
        assert "the store is down" in process.waffle.status()["store_error"]
        store.failing = NEVER
        assert process.waffle.values.LIMIT == 30
        assert process.waffle.status()["store_error"] == ""
        assert [message for message in logged(caplog, logging.WARNING) if "is back" in message]

    def test_an_incident_is_logged_once_for_the_host(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        stores = [host.store(), host.store()]
        first, second = (host.start(store) for store in stores)
        for incident in (1, 2):
            for store in stores:
                store.failing = ALWAYS
            first.files.ring()
            for _ in range(5):
                first.tick()
                second.tick()
            assert len(logged(caplog)) == incident
            assert "last good values stay in force: the store is down" in logged(caplog)[-1]
            for store in stores:
                store.failing = NEVER
            first.tick()

    def test_it_is_not_asked_again_before_its_time(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()
        monkeypatch.setattr(uwsgi_waffle.server.thread, "ensure_running", lambda member: None)
        monkeypatch.setattr("uwsgi_waffle.hostfiles.header.FIRST_RETRY", 4.0)
        process = host.start(store := host.store())
        store.failing = ALWAYS
        process.files.ring()
        process.tick()
        calls = store.calls
        for _ in range(10):
            process.tick()
        assert store.calls == calls
        store.failing = NEVER
        assert process.waffle.refresh() == 0, "but whoever asks for it gets an answer now"

    @pytest.mark.parametrize("call", [1, 2, 3, 4])
    def test_a_failure_at_any_call_leaves_whole_values(
        self, host: Host, site: Process, call: int
    ) -> None:
        process = host.start(store := host.store())
        store.failing = [store.calls + call]
        done = 0
        for number in range(1, 6):
            process.files.ring()
            process.tick()
            try:
                process.waffle.update({"LIMIT": number, "SITENAME": str(number)})
                done = number
            except StoreUnavailable:
                pass
            assert site.waffle.values.LIMIT == process.waffle.values.LIMIT == (done or 10)
            assert (str(done) if done else "Waffle") == site.waffle.values.SITENAME
        assert done == 5

    def test_an_update_is_refused_and_changes_nothing(self, host: Host, site: Process) -> None:
        process = host.start(store := host.store())
        store.failing = ALWAYS
        with pytest.raises(StoreUnavailable, match="down"):
            process.waffle.update({"LIMIT": 20})
        assert (process.waffle.values.LIMIT, site.waffle.values.LIMIT) == (10, 10)

    def test_a_refresh_says_so(self, host: Host) -> None:
        process = host.start(store := host.store())
        store.failing = ALWAYS
        with pytest.raises(StoreUnavailable, match="down"):
            process.waffle.refresh()
        assert process.waffle.values.LIMIT == 10

    def test_a_start_serves_the_hosts_last_snapshot(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        process = host.start(store := host.store(ALWAYS), RECONCILE_INTERVAL=1e-9)
        assert (process.waffle.values.LIMIT, process.waffle.revision) == (20, 1)
        assert "the store is down" in process.waffle.status()["store_error"]
        assert "last snapshot" in "".join(logged(caplog))
        store.failing = NEVER
        host.sql("UPDATE waffle_values SET value = '30'")
        process.tick()
        assert process.waffle.values.LIMIT == 30

    def test_a_start_without_a_snapshot_is_refused(self, host: Host) -> None:
        with pytest.raises(StoreUnavailable, match="down"):
            host.start(host.store(ALWAYS))

    def test_a_start_with_a_damaged_snapshot_is_refused(self, host: Host, site: Process) -> None:
        damage_snapshots(host, "noise")
        with pytest.raises(StoreUnavailable, match="down"):
            host.start(host.store(ALWAYS))

    def test_a_start_with_a_snapshot_that_the_schema_refuses_is_refused(
        self, host: Host, site: Process
    ) -> None:
        site.waffle.update({"SITENAME": "New"})
        with pytest.raises(StoreUnavailable, match="down"):
            host.start(host.store(ALWAYS), confs={"SITENAME": {"default": 1}})

    def test_a_vanished_database_is_not_replaced_by_an_empty_one(
        self, host: Host, site: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.database.unlink()
        site.files.ring()
        assert site.waffle.values.LIMIT == 20
        assert host.start().waffle.values.LIMIT == 20
        with pytest.raises(StoreUnavailable):
            site.waffle.update({"LIMIT": 30})
        assert not host.database.exists()


class TestBadStore:
    @pytest.mark.parametrize("text", ["{noise", "-5", '"many"', "", '1,"TOKEN":"x"'])
    def test_a_damaged_value_is_not_served(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = ?", text)
        site.files.ring()
        for _ in range(3):
            site.tick()
            assert site.waffle.values.LIMIT == 20
        (told,) = logged(caplog)
        assert "LIMIT" in told
        assert "LIMIT" in site.waffle.status()["store_error"]
        with pytest.raises(InvalidValue, match="LIMIT"):
            site.waffle.refresh()
        host.sql("UPDATE waffle_values SET value = '30'")
        site.tick()
        assert site.waffle.values.LIMIT == 30

    def test_an_update_can_mend_it(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = '-5'")
        with pytest.raises(
            InvalidValue, match=r"LIMIT.*this is what the store holds; set or reset it"
        ):
            site.waffle.update({"SITENAME": "New"})
        site.waffle.reset("LIMIT")
        site.waffle.update({"SITENAME": "New"})
        assert (site.waffle.values.LIMIT, site.waffle.values.SITENAME) == (10, "New")

    def test_an_update_can_mend_what_is_not_even_json(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = '{noise'")
        site.waffle.update({"LIMIT": 30})
        assert site.waffle.values.LIMIT == 30

    def test_a_key_that_nobody_declared_stops_nothing(self, host: Host, site: Process) -> None:
        host.sql("INSERT INTO waffle_values VALUES (?, ?)", 'odd "key"\\', "1")
        site.waffle.update({"LIMIT": 20})
        site.files.ring()
        site.tick()
        assert site.waffle.values.LIMIT == 20
        assert site.waffle.status()["store_error"] == ""

    @pytest.mark.parametrize("look", ["refresh", "touch"])
    def test_an_edit_by_hand_becomes_a_revision_of_its_own(
        self, host: Host, site: Process, other: Process, look: str
    ) -> None:
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"})
        other.tick()
        changes = recorded(other)
        host.sql("UPDATE waffle_values SET value = '30' WHERE key = 'LIMIT'")
        if look == "refresh":
            assert site.waffle.refresh() == 2
        else:
            os.utime(host.watch_file, ns=(1, 1))
            site.tick()
        other.tick()
        assert (other.waffle.values.LIMIT, other.waffle.revision) == (30, 2)
        entry = site.waffle.history()[0]
        assert (entry.revision, entry.key, entry.old, entry.new, entry.actor) == (
            2,
            "LIMIT",
            20,
            30,
            "outside",
        )
        assert [(c.revision, dict(c.new)) for c in changes] == [(2, {"LIMIT": 30})]
        site.waffle.rollback(1)
        assert other.waffle.values.LIMIT == 20
        assert site.waffle.refresh() == 3, "one edit is one revision"

    def test_a_bad_edit_by_hand_that_is_mended_by_hand_leaves_a_true_history(
        self, host: Host, site: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = '-5'")
        with pytest.raises(InvalidValue):
            site.waffle.refresh()
        host.sql("UPDATE waffle_values SET value = '30'")
        site.waffle.refresh()
        store = site.state.store
        assert store.values_at(site.waffle.revision) == store.load().values == {"LIMIT": "30"}

    def test_a_restored_backup_wins(
        self, host: Host, site: Process, other: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Revisions are compared for difference, never for order."""
        site.waffle.update({"LIMIT": 1})
        backup = host.database.with_name("backup")
        shutil.copyfile(host.database, backup)
        site.waffle.update({"LIMIT": 2})
        site.waffle.update({"LIMIT": 3})
        other.tick()
        changes = recorded(other)
        shutil.copyfile(backup, host.database)
        os.utime(host.watch_file, ns=(1, 1))
        other.tick()
        for process in (site, other):
            assert (process.waffle.values.LIMIT, process.waffle.revision) == (1, 1)
        assert [(c.revision, c.old["LIMIT"], c.new["LIMIT"]) for c in changes] == [(1, 3, 1)]
        assert any(
            "went back from revision 3 to 1" in message
            for message in logged(caplog, logging.WARNING)
        )
        assert site.waffle.update({"LIMIT": 22}).revision == 2
        assert other.waffle.values.LIMIT == 22, "a revision 2 that is another than the first"


class TestDamagedFiles:
    def test_a_foreign_touch_has_the_store_read_again_once(self, host: Host, site: Process) -> None:
        process = host.start(store := host.store())
        calls = store.calls
        os.utime(host.watch_file, ns=(1, 1))
        for _ in range(3):
            process.tick()
        assert store.calls == calls + 1

    def test_a_watch_file_that_was_replaced_is_watched_by_all_though_one_has_noted_it(
        self, host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        followed: list[Process] = []
        for process in (site, other):
            process.tick()
            monkeypatch.setattr(
                process.state, "_follow", lambda process=process: followed.append(process)
            )
            process.tick()
        assert followed == []
        fresh = host.watch_file.with_name("fresh")
        fresh.touch()
        fresh.rename(host.watch_file)
        for process in (site, other, site, other):
            process.tick()
        assert followed == [site, other]

    def test_a_reading_that_finds_nothing_new_wakes_nobody(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        bell = site.files.bell_folder / "bell"
        os.utime(bell, ns=(1, 1))
        os.utime(host.watch_file, ns=(1, 1))
        site.tick()
        site.waffle.refresh()
        assert (bell.stat().st_mtime_ns, host.watch_file.stat().st_mtime_ns) == (1, 1)

    def test_a_foreign_touch_is_noticed_by_a_look(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("uwsgi_waffle.reading.LEASE", 0.0)
        site.tick()
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        os.utime(host.watch_file, ns=(1, 1))
        assert site.waffle.values.LIMIT == 20

    @pytest.mark.parametrize("damage", ["noise", "truncated", "deleted", "folder deleted"])
    def test_a_damaged_snapshot_loses_nothing(self, host: Host, site: Process, damage: str) -> None:
        site.waffle.update({"LIMIT": 20})
        damage_snapshots(host, damage)
        site.tick()
        assert site.waffle.values.LIMIT == 20
        other = host.start()
        assert other.waffle.values.LIMIT == 20
        site.waffle.update({"LIMIT": 30})
        assert other.waffle.values.LIMIT == 30

    @pytest.mark.parametrize("damage", ["noise", "truncated", "deleted", "folder deleted"])
    def test_a_damaged_snapshot_is_replaced_from_the_store_by_whoever_needs_it(
        self, host: Host, site: Process, other: Process, damage: str
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        damage_snapshots(host, damage)
        assert other.waffle.values.LIMIT == 20
        assert host.start(host.store(ALWAYS)).waffle.values.LIMIT == 20, "there is a good one again"

    @pytest.mark.parametrize(
        "intruder", [lambda path: path.symlink_to("elsewhere"), Path.mkdir, os.mkfifo]
    )
    def test_what_is_no_snapshot_in_place_of_one_makes_nobody_stale(
        self,
        site: Process,
        other: Process,
        intruder: Callable[[Path], object],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Who hasn't read it asks the store."""
        site.waffle.update({"LIMIT": 20})
        (path,) = (
            path
            for path in site.files._snapshots.iterdir()
            if path.name == digest_in(site.files.peek()).hex()
        )
        path.unlink()
        intruder(path)
        assert other.waffle.values.LIMIT == 20
        assert "the newest snapshot can't be read" in logged(caplog, logging.WARNING)[0]
        assert intruder is not Path.mkdir or "can't be shown" in logged(caplog)[0], (
            "only a folder isn't replaced"
        )

    def test_what_is_no_header_in_place_of_it_keeps_nobody_from_what_was_published(
        self, host: Host, site: Process, other: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Somebody rang after the update, so the header doesn't say that it is the newest."""
        other.tick()
        site.waffle.update({"LIMIT": 20})
        site.files.ring()
        host.header.unlink()
        host.header.symlink_to("elsewhere")
        assert other.waffle.values.LIMIT == 20
        assert str(host.header) in logged(caplog)[0]

    @pytest.mark.parametrize(
        "damage", ["noise", "zeros", "truncated", "empty", "deleted", "replaced", "folder deleted"]
    )
    def test_a_damaged_header_loses_nothing(
        self, host: Host, site: Process, other: Process, damage: str
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        size = host.header.stat().st_size
        if damage in ("noise", "zeros"):
            with host.header.open("r+b") as file:
                file.write(bytes(size) if damage == "zeros" else NOISE * (size // len(NOISE)))
        elif damage in ("truncated", "empty"):
            os.truncate(host.header, 10 if damage == "truncated" else 0)
        elif damage == "folder deleted":
            shutil.rmtree(host.header.parent)
        else:
            host.header.unlink()
        if damage == "replaced":
            host.header.write_bytes(NOISE)
        assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (20, 20)
        site.tick()
        assert site.waffle.status()["store_checked"] is not None, (
            "a reader has written a whole header"
        )
        for number in (30, 40):
            site.waffle.update({"LIMIT": number})
            assert number == other.waffle.values.LIMIT
            other.waffle.update({"SITENAME": str(number)})
            assert str(number) == site.waffle.values.SITENAME
        assert is_settled(site.files.peek())

    def test_a_lease_on_a_deleted_header_has_run_out_when_an_update_returns(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever still trusts the deleted header may do so no longer than `LEASE`; the writer
        waits for that.
        """
        lease = 0.2  # more than an update takes
        monkeypatch.setattr("uwsgi_waffle.state.LEASE", lease)
        host.header.unlink()
        site.waffle.update({"LIMIT": 20})
        assert site.files.opened_at > 0
        assert time.monotonic() >= site.files.opened_at + lease

    def test_a_thread_that_is_late_does_not_bring_old_values_back(
        self, site: Process, other: Process
    ) -> None:
        """While one thread is loading a revision, two more are published: a thread that looks then
        sees the newest.
        """
        told: list[int] = []
        other.waffle.on_change()(lambda change: told.append(change.revision))
        genuine, loading, go_on = other.files.snapshot, threading.Event(), threading.Event()

        def slow(digest: bytes) -> Encoded | None:
            found = genuine(digest)
            loading.set()
            assert go_on.wait(20)
            return found

        other.files.snapshot = slow  # type: ignore[method-assign]  # of this one object
        seen: list[int] = []
        site.waffle.update({"LIMIT": 1})
        late = threading.Thread(target=lambda: seen.append(other.waffle.values.LIMIT))
        late.start()
        assert loading.wait(20)
        site.waffle.update({"LIMIT": 2})
        site.waffle.update({"LIMIT": 3})
        other.files.snapshot = genuine  # type: ignore[method-assign]  # as it was
        prompt = threading.Thread(target=lambda: seen.append(other.waffle.values.LIMIT))
        prompt.start()
        go_on.set()
        late.join()
        prompt.join()
        assert 3 in seen
        assert other.waffle.values.LIMIT == 3
        assert told == sorted(told)

    def test_a_snapshot_with_a_good_checksum_and_bad_values_is_not_served(
        self,
        host: Host,
        site: Process,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Another version of the application may have declared another type."""
        site.waffle.update({"SITENAME": "New"})
        newer = host.start(confs={"SITENAME": {"default": None, "type": "json"}})
        newer.waffle.update({"SITENAME": [1]})
        site.tick()
        with monkeypatch.context() as disk:
            disk.setattr(site.files, "snapshot", killed)  # once refused, it isn't read again
            for _ in range(3):
                site.tick()
                assert site.waffle.values.SITENAME == "New"
        (told,) = logged(caplog)
        assert "revision 2 can't be served here" in told
        assert "SITENAME" in site.waffle.status()["error"]
        newer.waffle.update({"SITENAME": "Good"})
        assert site.waffle.values.SITENAME == "Good"
        assert site.waffle.status()["error"] == ""

    def test_a_header_that_is_not_ours_is_told_once_and_stops_nobody(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        host.header.unlink()
        host.header.mkdir()
        for _ in range(3):
            site.tick()
            assert site.waffle.values.LIMIT == 10
        (told,) = logged(caplog)
        assert str(host.header) in told
        assert str(host.header) in site.waffle.status()["error"]
        with pytest.raises(HostFilesError, match=str(host.header)):
            site.waffle.update({"LIMIT": 20})
        host.header.rmdir()
        site.tick()
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert site.waffle.status()["error"] == ""

    def test_a_closed_descriptor_stops_nobody(self, site: Process, other: Process) -> None:
        os.close(site.files._fd)
        assert site.waffle.values.LIMIT == 10
        other.waffle.update({"LIMIT": 20})
        assert site.waffle.values.LIMIT == 20

    def test_an_update_on_a_full_disk_changes_nothing(
        self, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as disk:
            disk.setattr(os, "write", full)
            with pytest.raises(HostFilesError, match="No space left"):
                site.waffle.update({"LIMIT": 20})
        assert other.waffle.refresh() == 0
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert other.waffle.values.LIMIT == 20

    def test_a_network_folder_is_warned_about_in_plain_words(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("uwsgi_waffle.hostfiles.header.filesystem_of", lambda path: "nfs4")
        host.start()
        (told,) = logged(caplog, logging.WARNING)
        assert "network file system (nfs4)" in told
        assert "WAFFLE_WATCHER_FILE" in told


class TestLease:
    """A look whose lease on the header's words has run out renews it by two glances at the files."""

    def test_nothing_else_is_looked_at_when_nothing_happened(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.tick()
        monkeypatch.setattr(HostFiles, "verify", killed)
        monkeypatch.setattr(HostFiles, "snapshot", killed)
        site.state._lease = 0.0
        assert site.waffle.values.LIMIT == 10
        monkeypatch.setattr(HostFiles, "is_as_seen", killed)
        monkeypatch.setattr("uwsgi_waffle.reading.monotonic", lambda: 0.0)
        assert site.waffle.values.LIMIT == 10, "by the renewed lease"

    def test_a_header_that_was_replaced_by_its_copy_is_noticed(
        self, host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("uwsgi_waffle.reading.LEASE", 0.0)
        site.tick()
        copy = host.header.with_name("copy")
        shutil.copy2(host.header, copy)
        copy.rename(host.header)
        other.tick()
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        other.files.ring()  # and touches nothing, as a writer that died
        assert site.waffle.values.LIMIT == 20

    def test_a_touch_that_nobody_could_take_is_taken_later(
        self, host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("uwsgi_waffle.reading.LEASE", 0.0)
        site.tick()
        with other.files.try_lock() as locked:
            assert locked
            host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
            os.utime(host.watch_file, ns=(1, 1))
            assert site.waffle.values.LIMIT == 10
        assert site.waffle.values.LIMIT == 20

    @pytest.mark.parametrize("how", ["written", "renamed"])
    def test_an_older_header_that_was_put_back_is_noticed(
        self, host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        """Its words name a snapshot that is there still, and by them alone nobody could tell."""
        monkeypatch.setattr("uwsgi_waffle.reading.LEASE", 0.0)
        other.waffle.update({"LIMIT": 20})
        backup = host.header.read_bytes()
        other.waffle.update({"LIMIT": 30})
        site.trust_header()
        if how == "written":
            with host.header.open("r+b") as header:
                header.write(backup)
        else:
            copy = host.header.with_name("copy")
            copy.write_bytes(backup)
            copy.chmod(0o600)
            copy.rename(host.header)
            site.files.elect()  # as the thread that listens to Redis does: it opens what is there
        assert site.waffle.values.LIMIT in (20, 30)
        site.state._lease = 0.0
        assert site.waffle.values.LIMIT == 30

    def test_a_header_that_was_cut_off_is_mended(self, host: Host, site: Process) -> None:
        site.tick()
        size = host.header.stat().st_size
        os.truncate(host.header, 24)
        site.state._lease = 0.0
        assert site.waffle.values.LIMIT == 10
        assert host.header.stat().st_size == size

    @pytest.mark.parametrize("when", ["the lease is looked at", "it is renewed"])
    def test_another_thread_that_opens_another_header_meanwhile_does_not_vouch_for_the_words_of_this_one(
        self, host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        site.tick()
        site.state._lease = 0.0
        host.header.unlink()
        other.files.verify()
        other.waffle.update({"LIMIT": 20})
        threads: list[threading.Thread] = []

        def look_elsewhere() -> None:
            if not threads:
                threads.append(threading.Thread(target=lambda: site.state.catch_up(thorough=True)))
                threads[0].start()
                threads[0].join()

        def clock() -> float:
            look_elsewhere()
            return time.monotonic()

        def glance(files: HostFiles) -> bool:
            look_elsewhere()
            return genuine(files)

        genuine = HostFiles.is_as_seen
        if when == "it is renewed":
            monkeypatch.setattr(HostFiles, "is_as_seen", glance)
        else:
            monkeypatch.setattr("uwsgi_waffle.reading.monotonic", clock)
        assert site.state.look().values.LIMIT == 20

    def test_hooks_that_were_left_to_a_thread_that_was_cut_off_are_told_by_the_next_look(
        self, site: Process, other: Process
    ) -> None:
        class CutOff(BaseException):
            """As gevent's Timeout."""

        told: list[object] = []

        @site.waffle.on_change
        def hook(change: Change) -> None:
            told.append(change.new["LIMIT"])
            if change.new["LIMIT"] == 20:
                other.waffle.update({"LIMIT": 30})
                thread = threading.Thread(target=site.state.look)  # it leaves the hooks to this one
                thread.start()
                thread.join()
                raise CutOff

        other.waffle.update({"LIMIT": 20})
        with pytest.raises(CutOff):
            site.tick()
        site.state._lease = 0.0
        assert site.waffle.values.LIMIT == 30
        assert told == [20, 30]

    def test_an_entry_in_the_table_that_could_not_be_written_is_written_later(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.tick()
        with monkeypatch.context() as full:
            full.setattr(site.files.slots, "note", lambda *entry: False)
            site.waffle.update({"LIMIT": 20})
            site.tick()
        site.state._lease = 0.0
        assert site.waffle.values.LIMIT == 20
        assert [process.revision for process in site.state.processes()] == [1]

    @pytest.mark.parametrize("how", ["deleted", "cut off"])
    @pytest.mark.parametrize("by", ["election", "lock", "refresh"])
    def test_whoever_opens_a_new_header_first_the_process_is_in_its_table_and_follows(
        self, host: Host, site: Process, how: str, by: str
    ) -> None:
        site.tick()
        followed: list[int] = []
        site.state._follow = lambda: followed.append(1)
        if how == "deleted":
            host.header.unlink()
        else:
            os.truncate(host.header, 24)
        if by == "election":
            site.files.elect()
        elif by == "lock":
            with site.files.try_lock() as locked:
                assert locked
        else:
            site.waffle.refresh()
        for _ in range(2):  # the first mends it
            site.tick()
        assert [process.revision for process in site.state.processes()] == [0]
        assert followed

    @pytest.mark.parametrize("when", ["after a fork", "with another header"])
    def test_a_process_that_can_start_no_thread_to_look_serves_and_tries_again(
        self, host: Host, site: Process, when: str
    ) -> None:
        site.tick()
        tried: list[int] = []

        def follow() -> None:
            tried.append(1)
            if len(tried) < 3:
                raise RuntimeError("can't start new thread")

        site.state._follow = follow
        if when == "after a fork":
            site.state._belong_to_this_process()
        else:
            header = bytearray(host.header.read_bytes())
            header[GENERATION_AT : GENERATION_AT + WORD] = os.urandom(WORD - 1) + bytes(1)
            copy = host.header.with_name("copy")
            copy.write_bytes(header)
            copy.chmod(0o600)
            copy.rename(host.header)
        for _ in range(4):
            assert site.waffle.values.LIMIT == 10
            site.state._lease = 0.0
        assert len(tried) == 3

    @pytest.mark.filterwarnings(
        "ignore:.*multi-threaded:DeprecationWarning"
    )  # the thread that looks is there, as in a server that forks
    @pytest.mark.parametrize("does", ["looks", "updates"])
    def test_a_forked_process_follows_for_itself(self, site: Process, does: str) -> None:
        """Also where it begins with an update, within the lease that it has inherited."""
        site.tick()
        followed: list[int] = []
        site.state._follow = lambda: followed.append(os.getpid())
        site.state._lease = 0.0
        pid = os.fork()
        if pid == 0:
            if does == "looks":
                site.state.look()
            else:
                site.state._lease = float("inf")
                site.waffle.update({"LIMIT": 20})
            os._exit(0 if followed == [os.getpid()] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class CommittingStore(FaultyStore):
    """Calls ``meanwhile`` when everything is written and not yet committed."""

    meanwhile: Callable[[], object] = staticmethod(int)

    def transact(self, decide: Decide) -> Stored:
        def decided(stored: Stored) -> Commit | None:
            commit = decide(stored)
            self.meanwhile()
            return commit

        return super().transact(decided)


class TestPreparing:
    """What a worker does that is woken while a writer commits."""

    @pytest.fixture
    def store(self, host: Host) -> CommittingStore:
        return CommittingStore(f"sqlite:///{host.database}")

    def test_a_process_woken_before_the_commit_takes_the_update_without_reading_it_again(
        self, host: Host, site: Process, store: CommittingStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = recorded(site)
        writer = host.start(store)
        store.meanwhile = site.tick
        writer.waffle.update({"LIMIT": 20})
        site.state._lease = float("inf")
        assert told == []
        monkeypatch.setattr(site.files, "snapshot", killed)
        assert (site.waffle.values.LIMIT, site.waffle.revision) == (20, 1)
        assert [(change.revision, dict(change.old), dict(change.new)) for change in told] == [
            (1, {"LIMIT": 10}, {"LIMIT": 20})
        ]

    def test_it_serves_the_old_values_until_then(
        self, host: Host, site: Process, store: CommittingStore
    ) -> None:
        seen: list[object] = []

        def look() -> None:
            site.tick()
            seen.append((site.waffle.values.LIMIT, site.waffle.revision))

        writer = host.start(store)
        store.meanwhile = look
        writer.waffle.update({"LIMIT": 20})
        assert seen == [(10, 0)]

    def test_what_is_rolled_back_is_never_served(
        self, host: Host, site: Process, store: CommittingStore
    ) -> None:
        def look_and_die() -> None:
            site.tick()
            killed()

        writer = host.start(store)
        store.meanwhile = look_and_die
        with pytest.raises(SystemExit):
            writer.waffle.update({"LIMIT": 20})
        site.tick()
        assert (site.waffle.values.LIMIT, site.waffle.revision) == (10, 0)
        store.meanwhile = site.tick
        writer.waffle.update({"LIMIT": 30})
        assert (site.waffle.values.LIMIT, site.waffle.revision) == (30, 1)

    def test_what_was_prepared_upon_other_values_tells_the_true_change(
        self, host: Host, site: Process, store: CommittingStore
    ) -> None:
        """The store was read meanwhile: this process serves other values than when it prepared."""
        told = recorded(site)
        writer = host.start(store)

        def look() -> None:
            site.tick()
            site.state._apply(
                Snapshot(1, b"from afar"[:8], writer.state.schema.load('{"LIMIT":15}')), None
            )

        store.meanwhile = look
        writer.waffle.update({"LIMIT": 20})
        assert site.waffle.values.LIMIT == 20
        assert [(change.old["LIMIT"], change.new["LIMIT"]) for change in told] == [
            (10, 15),
            (15, 20),
        ]

    def test_a_hook_that_comes_after_it_is_told_too(
        self, host: Host, site: Process, store: CommittingStore
    ) -> None:
        told: list[list[Change]] = []

        def look() -> None:
            site.tick()
            told.append(recorded(site))

        writer = host.start(store)
        store.meanwhile = look
        writer.waffle.update({"LIMIT": 20})
        assert site.waffle.values.LIMIT == 20
        assert [change.revision for change in told[0]] == [1]

    def test_a_header_that_is_replaced_before_the_commit_makes_nobody_stale(
        self, host: Host, site: Process, store: CommittingStore
    ) -> None:
        """Who looks at the new one has read the store when it still had the old values."""

        def replace() -> None:
            writer.state._lease = float("inf")
            host.header.unlink()
            site.tick()
            assert is_settled(site.files.peek())

        writer = host.start(store)
        store.meanwhile = replace
        writer.waffle.update({"LIMIT": 20})
        site.state._lease = float("inf")
        assert site.waffle.values.LIMIT == 20

    def test_a_type_that_this_process_does_not_know_is_no_news_until_it_is_committed(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = CommittingStore(f"sqlite:///{host.database}")
        newer = host.start(store, confs={"SITENAME": {"default": None, "type": "json"}})
        store.meanwhile = lambda: (site.tick(), seen.append(list(logged(caplog))))
        seen: list[list[str]] = []
        newer.waffle.update({"SITENAME": [1]})
        site.tick()
        assert seen == [[]]
        assert "can't be served here" in logged(caplog)[0]
        assert site.waffle.values.SITENAME == "Waffle"


class TestKilledWriter:
    @pytest.mark.parametrize("step", ["settle", "toll", "promote", "succeed", "tidy"])
    def test_what_it_had_committed_is_finished_by_the_next_reader(
        self, host: Host, other: Process, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        writer = host.start()
        monkeypatch.setattr(writer.files, step, killed)
        with pytest.raises(SystemExit):
            writer.waffle.update({"LIMIT": 20})
        other.trust_header()
        assert (other.waffle.values.LIMIT, other.waffle.revision) == (20, 1)
        assert is_settled(other.files.peek())
        assert host.start(host.store(ALWAYS)).waffle.values.LIMIT == 20, (
            "the snapshot is published, too"
        )

    @pytest.mark.parametrize("step", ["settle", "toll", "promote", "succeed", "tidy"])
    def test_a_process_that_starts_afterwards_sees_it(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        writer = host.start()
        monkeypatch.setattr(writer.files, step, killed)
        with pytest.raises(SystemExit):
            writer.waffle.update({"LIMIT": 20})
        assert host.start().waffle.values.LIMIT == 20
        assert site.waffle.values.LIMIT == 20

    @pytest.mark.parametrize("step", ["mend", "stage", "announce", "ring"])
    def test_what_it_had_not_committed_is_seen_by_nobody(
        self, host: Host, other: Process, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        writer = host.start()
        with monkeypatch.context() as death:
            death.setattr(writer.files, step, killed)
            with pytest.raises(SystemExit):
                writer.waffle.update({"LIMIT": 20})
        assert (other.waffle.values.LIMIT, other.waffle.refresh()) == (10, 0)
        assert other.waffle.update({"LIMIT": 30}).revision == 1
        assert host.start().waffle.values.LIMIT == 30

    def test_a_staged_snapshot_of_a_rolled_back_update_is_never_shown(
        self, host: Host, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It died between the bell and the commit: whoever answers the bell finds the old values in
        the store.
        """
        writer = host.start()
        announce = writer.files.announce
        monkeypatch.setattr(writer.files, "announce", lambda digest: (announce(digest), killed()))
        with pytest.raises(SystemExit):
            writer.waffle.update({"LIMIT": 20})
        assert not is_settled(other.files.peek())
        assert (other.waffle.values.LIMIT, other.waffle.revision) == (10, 0)
        assert is_settled(other.files.peek())

    def test_a_staged_snapshot_is_not_served_either_when_header_and_store_are_lost(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        with monkeypatch.context() as death:
            death.setattr(site.files, "announce", killed)
            with pytest.raises(SystemExit):
                site.waffle.update({"LIMIT": 30})
        host.header.unlink()
        assert host.start(host.store(ALWAYS)).waffle.values.LIMIT == 20

    @pytest.mark.parametrize("step", ["settle", "toll"])
    def test_what_can_not_be_shown_is_read_from_the_store(
        self,
        site: Process,
        other: Process,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        step: str,
    ) -> None:
        def refused(*args: object) -> NoReturn:
            raise HostFilesError("header: Input/output error.")

        with monkeypatch.context() as disk:
            disk.setattr(site.files, step, refused)
            assert site.waffle.update({"LIMIT": 20}).revision == 1, "it is in the store"
        assert other.waffle.values.LIMIT == site.waffle.values.LIMIT == 20
        assert step != "toll" or "can't be shown" in logged(caplog)[0]


class TestStatus:
    def test_wait_tells_who_has_applied_it_and_who_has_not(
        self, site: Process, neighbour: int
    ) -> None:
        result = site.waffle.update({"LIMIT": 20}, wait=0)
        assert [p.pid for p in result.applied] == [os.getpid()]
        assert [(p.pid, p.kind) for p in result.pending] == [(neighbour, "worker 9")]

    def test_wait_ends_when_all_have_applied_it(self, site: Process) -> None:
        result = site.waffle.update({"LIMIT": 20}, wait=100)
        assert [p.revision for p in result.applied] == [1]
        assert result.pending == ()

    def test_wait_is_allowed_where_nothing_changed(self, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        assert [p.pid for p in site.waffle.update({"LIMIT": 20}, wait=100).applied] == [os.getpid()]

    def test_it_can_be_written_as_json_and_names_every_process(
        self, host: Host, site: Process, neighbour: int
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        status = json.loads(json.dumps(site.waffle.status()))
        assert (status["revision"], status["store_error"], status["error"]) == (1, "", "")
        assert status["watcher_file"] == str(host.watch_file)
        assert status["store_checked"] >= 0
        assert {(p["pid"], p["revision"]) for p in status["processes"]} == {
            (os.getpid(), 1),
            (neighbour, 0),
        }

    def test_it_holds_no_secret(self, site: Process) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        assert "geheim" not in json.dumps(site.waffle.status())

    def test_a_refused_secret_is_told_nowhere(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('TOKEN', '[\"geheim\"]')")
        site.files.ring()
        site.tick()
        told = json.dumps(site.waffle.status()) + "".join(logged(caplog))
        assert "TOKEN" in told
        assert "geheim" not in told


class TestReconcile:
    def test_a_lost_bell_is_made_good_when_it_is_time(self, host: Host) -> None:
        """Another host may have written, and its message was lost."""
        process = host.start(RECONCILE_INTERVAL=1e-9)
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        process.tick()
        assert process.waffle.values.LIMIT == 20

    def test_one_process_of_a_host_is_enough(self, host: Host) -> None:
        process = host.start(store := host.store(), RECONCILE_INTERVAL=3600)
        calls = store.calls
        for _ in range(3):
            process.tick()
        assert store.calls == calls

    def test_a_store_that_is_down_is_an_incident_like_any_other(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        process = host.start(store := host.store(), RECONCILE_INTERVAL=1e-9)
        store.failing = ALWAYS
        for _ in range(3):
            process.tick()
        assert len(logged(caplog)) == 1
        store.failing = NEVER
        process.tick()
        assert process.waffle.status()["store_error"] == ""
