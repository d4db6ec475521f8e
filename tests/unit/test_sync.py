"""How a process follows its host: touches by hand, comparing, a start, what surprises it."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import ClassVar

import pytest
from pydantic import BaseModel, field_validator

from uwsgi_waffle import InvalidValue, StoreUnavailable, fetch, sync, wake
from uwsgi_waffle.host import HostFiles, LockedHeader
from uwsgi_waffle.stores import Stored

from ..host import ALWAYS, CONFS, NEVER, FaultyStore, Host, Process, eventually, logged, recorded


class TestTouch:
    """Anyone may touch the watch file to say "look at the store"."""

    def test_the_store_is_read_once(self, host: Host, site: Process) -> None:
        process = host.start(store := host.store())
        calls = store.calls
        host.touch()
        for _ in range(3):
            process.tick()
            site.tick()
        assert store.calls == calls + 1

    def test_a_read_notices_it_after_the_check_interval(self, host: Host, site: Process) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        host.touch()
        eventually(lambda: site.waffle.values.LIMIT == 20, 2.0)

    def test_what_finds_nothing_new_wakes_nobody(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        bell = host.folder / "bell"
        os.utime(bell, ns=(1, 1))
        host.touch()
        site.tick()
        site.waffle.refresh()
        assert bell.stat().st_mtime_ns == 1

    @pytest.mark.parametrize("how", ["removed", "replaced", "written"])
    def test_a_watch_file_that_is_another_one_is_a_touch(
        self, host: Host, site: Process, how: str
    ) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        if how == "written":
            host.watch_file.write_text("look")
        elif how == "removed":
            host.watch_file.unlink()
        else:
            fresh = host.watch_file.with_name("fresh")
            fresh.touch()
            fresh.rename(host.watch_file)
        site.tick()
        assert site.waffle.values.LIMIT == 20
        assert host.watch_file.is_file()

    def test_one_that_comes_while_the_lock_is_held_is_answered_later(
        self, host: Host, site: Process
    ) -> None:
        with host.open_files().lock(1):
            host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
            host.touch()
            site.tick()
            assert site.waffle.values.LIMIT == 10
        eventually(lambda: site.waffle.values.LIMIT == 20, 2.0)

    def test_a_process_that_starts_sees_what_is_in_the_store(
        self, host: Host, site: Process
    ) -> None:
        """Also where nobody has touched anything."""
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        assert host.start().waffle.values.LIMIT == 20
        assert site.waffle.values.LIMIT == 20


class TestReconcile:
    def test_what_nobody_said_is_found_when_it_is_time(self, host: Host) -> None:
        """Another host may have written, and its message was lost."""
        process = host.start(RECONCILE_INTERVAL=1e-9)
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        process.tick()
        assert process.waffle.values.LIMIT == 20

    def test_one_process_of_a_host_is_enough(self, host: Host, site: Process) -> None:
        stores = [host.store() for _ in range(3)]
        processes = [host.start(store, RECONCILE_INTERVAL=1.0) for store in stores]
        calls = sum(store.calls for store in stores)
        end = time.monotonic() + 0.8  # the comparison is due after 0.6 s
        while time.monotonic() < end:
            for process in processes:
                process.tick()
        assert sum(store.calls for store in stores) == calls + 1

    def test_it_is_the_ticks_that_compare_and_no_request(self, host: Host) -> None:
        process = host.start(store := host.store(), RECONCILE_INTERVAL=1e-9)
        calls = store.calls
        for _ in range(3):
            assert process.waffle.values.LIMIT == 10
            time.sleep(sync.CHECK_INTERVAL)
        assert store.calls == calls


class TestStart:
    def test_it_serves_the_hosts_last_snapshot_while_the_store_is_down(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        process = host.start(store := host.store(ALWAYS), RECONCILE_INTERVAL=1e-9)
        assert (process.waffle.values.LIMIT, process.waffle.revision) == (20, 1)
        assert "the store is down" in process.waffle.status()["store_error"]
        assert "started with the last snapshot" in "".join(logged(caplog))
        store.failing = NEVER
        host.sql("UPDATE waffle_values SET value = '30'")
        process.tick()
        assert process.waffle.values.LIMIT == 30
        assert process.waffle.status()["error"] == ""

    def test_it_is_refused_without_a_snapshot(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        text = "the store is down This host has no snapshot to start with"
        with pytest.raises(StoreUnavailable, match=text):
            host.start(host.store(ALWAYS))
        (line,) = logged(caplog)
        assert "can't use the store: the store is down" in line, "it serves nothing"

    @pytest.mark.parametrize("damage", ["noise", "removed"])
    def test_it_is_refused_with_a_damaged_snapshot(
        self, host: Host, site: Process, damage: str
    ) -> None:
        for path in host.snapshots.iterdir():
            path.write_bytes(b"noise") if damage == "noise" else path.unlink()
        with pytest.raises(StoreUnavailable, match="down"):
            host.start(host.store(ALWAYS))

    def test_it_is_refused_with_a_snapshot_that_the_schema_refuses(
        self, host: Host, site: Process
    ) -> None:
        site.waffle.update({"SITENAME": "New"})
        with pytest.raises(StoreUnavailable, match="down"):
            host.start(host.store(ALWAYS), confs={"SITENAME": {"default": 1}})

    def test_it_is_refused_after_waiting_for_a_writer_as_at_any_other_time(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The writer has another release, with another type."""
        writer = host.start(confs={"LIMIT": {"default": "none"}})
        lock, waits = HostFiles.lock, threading.Event()

        def noted(files: HostFiles, timeout: float) -> AbstractContextManager[LockedHeader]:
            waits.set()
            return lock(files, timeout)

        def slow(stored: Stored) -> dict[str, str | None]:
            monkeypatch.setattr(HostFiles, "lock", noted)
            starting.append(pool.submit(host.start))
            assert waits.wait(20)
            return {"LIMIT": '"many"'}

        starting: list[Future[Process]] = []
        with ThreadPoolExecutor() as pool:
            writer.state.update(slow)
            with pytest.raises(InvalidValue, match="LIMIT"):
                starting[0].result(20)

    def test_a_vanished_database_is_not_replaced_by_an_empty_one(
        self, host: Host, site: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.database.unlink()
        site.files.invalidate()
        assert site.waffle.values.LIMIT == 20
        assert host.start().waffle.values.LIMIT == 20
        with pytest.raises(StoreUnavailable):
            site.waffle.update({"LIMIT": 30})
        assert not host.database.exists()


class TestOutside:
    """Other values under a known revision become a revision of their own."""

    LOOKS: ClassVar[dict[str, Callable[[Host, Process], object]]] = {
        "refresh": lambda host, site: site.waffle.refresh(),
        "touch": lambda host, site: (host.touch(), site.tick()),
    }

    @pytest.mark.parametrize("look", LOOKS)
    def test_an_edit_by_hand(self, host: Host, site: Process, other: Process, look: str) -> None:
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"})
        other.tick()
        changes = recorded(other)
        host.sql("UPDATE waffle_values SET value = '30' WHERE key = 'LIMIT'")
        self.LOOKS[look](host, site)
        other.tick()
        assert (other.waffle.values.LIMIT, other.waffle.revision) == (30, 2)
        entry = site.waffle.history()[0]
        assert (entry.revision, entry.key, entry.old, entry.new) == (2, "LIMIT", 20, 30)
        assert entry.actor == "outside"
        assert [(c.revision, dict(c.new)) for c in changes] == [(2, {"LIMIT": 30})]
        site.waffle.rollback(1)
        assert other.waffle.values.LIMIT == 20
        assert site.waffle.refresh() == 3, "one edit is one revision"

    def test_other_spaces_in_the_text_are_no_edit(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = ' 20 '")
        assert site.waffle.refresh() == 1
        assert len(site.waffle.history()) == 1

    def test_a_bad_edit_that_is_mended_by_hand_leaves_a_true_history(
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
        host.touch()
        other.tick()
        for process in (site, other):
            assert (process.waffle.values.LIMIT, process.waffle.revision) == (1, 1)
        assert [(c.revision, c.old["LIMIT"], c.new["LIMIT"]) for c in changes] == [(1, 3, 1)]
        warnings = logged(caplog, logging.WARNING)
        assert any("went back from revision 3 to 1" in text for text in warnings)
        assert site.waffle.update({"LIMIT": 22}).revision == 2
        assert other.waffle.values.LIMIT == 22, "a revision 2 that is another than the first"


def test_a_snapshot_that_this_version_refuses_is_not_served(
    host: Host, site: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version of the application may declare another type."""
    site.waffle.update({"SITENAME": "New"})
    newer = host.start(confs={**CONFS, "SITENAME": {"default": None, "type": "json"}})
    newer.waffle.update({"SITENAME": [1]})
    for _ in range(3):
        site.tick()
        assert site.waffle.values.SITENAME == "New"
    (text,) = logged(caplog)
    assert "revision 2 can't be served here" in text
    assert "SITENAME" in site.waffle.status()["error"]
    newer.waffle.update({"SITENAME": "Good"})
    assert site.waffle.values.SITENAME == "Good"
    assert site.waffle.status()["error"] == ""


def test_what_only_this_version_refuses_is_no_error_of_the_store(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever version compares it: the log would say each time that the store is back."""
    older = host.start(RECONCILE_INTERVAL=1e-9)
    newer = host.start(confs={**CONFS, "LIMIT": {"default": "none"}}, RECONCILE_INTERVAL=1e-9)
    newer.waffle.update({"LIMIT": "many"})
    for _ in range(2):
        older.tick()
        newer.tick()
        assert newer.waffle.status()["store_error"] == ""
    host.touch()
    older.tick()
    assert newer.waffle.status()["store_error"] == ""
    (text,) = logged(caplog)
    assert "revision 1 can't be served here" in text
    with pytest.raises(InvalidValue, match="Run flask waffle set LIMIT=VALUE"):
        older.waffle.refresh()


def test_the_defaults() -> None:
    """What the tests set to zero, users have."""
    assert sync.CHECK_INTERVAL == 0.01
    assert (fetch.FIRST_RETRY, fetch.LAST_RETRY, fetch.RETRY_FACTOR) == (0.5, 60.0, 10)


def test_who_holds_the_lock_for_too_long_keeps_nobody_from_the_store(
    host: Host, site: Process
) -> None:
    """A stopped process must not keep its host from other hosts' changes."""
    with host.open_files().lock(1) as header:
        header.set_notes(checked_at=time.monotonic_ns() - 90 * 10**9)
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        host.sql("UPDATE waffle_meta SET revision = revision + 1")
        for _ in range(2):
            site.tick()
            assert site.waffle.values.LIMIT == 20
            assert "held this host's lock" in site.waffle.status()["error"]
    site.tick()
    assert (site.waffle.values.LIMIT, site.waffle.status()["error"]) == (20, "")


def test_who_is_stopped_while_it_tries_a_store_again_keeps_nobody_from_it(
    host: Host, site: Process
) -> None:
    """The store is back, and the notes of the process that has stopped say that it is down."""
    with host.open_files().lock(1) as header:
        ago = time.monotonic_ns() - 90 * 10**9
        header.set_notes(checked_at=ago, retry_at=ago, error="the store is down")
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        host.sql("UPDATE waffle_meta SET revision = revision + 1")
        site.tick()
        assert site.waffle.values.LIMIT == 20
        assert "held this host's lock" in site.waffle.status()["error"]


def test_a_backup_that_is_restored_after_a_read_alone_is_served(host: Host, site: Process) -> None:
    site.waffle.update({"LIMIT": 20})
    with host.open_files().lock(1) as header:
        header.set_notes(checked_at=time.monotonic_ns() - 90 * 10**9)
        host.sql("UPDATE waffle_values SET value = '30' WHERE key = 'LIMIT'")
        host.sql("UPDATE waffle_meta SET revision = 2")
        site.tick()
        assert site.waffle.values.LIMIT == 30
    host.sql("UPDATE waffle_values SET value = '20' WHERE key = 'LIMIT'")
    host.sql("UPDATE waffle_meta SET revision = 1")
    assert site.waffle.refresh() == 1
    assert site.waffle.values.LIMIT == 20


def test_an_error_of_a_tick_stands_and_is_logged_once(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """A stopped process has the lock, and the store is down, too."""
    process = host.start(store := host.store())
    with host.open_files().lock(1) as header:
        header.set_notes(checked_at=time.monotonic_ns() - 90 * 10**9)
        store.failing = ALWAYS
        for _ in range(3):
            process.tick()
            assert "the store is down" in process.waffle.status()["error"]
    (line,) = logged(caplog)
    assert "the store is down" in line


def test_an_error_of_a_tick_ends_also_where_each_tick_has_news(
    host: Host, site: Process, other: Process
) -> None:
    """The process that was stopped goes on, and values change every second."""
    with host.open_files().lock(1) as header:
        header.set_notes(checked_at=time.monotonic_ns() - 90 * 10**9)
        site.tick()
        assert "held this host's lock" in site.waffle.status()["error"]
    for limit in (20, 21):
        other.waffle.update({"LIMIT": limit})
        site.tick()
    assert site.waffle.status()["error"] == ""


def test_an_error_ends_when_the_store_goes_back_to_what_is_served(
    host: Host, site: Process
) -> None:
    """Another release has written what this one can't read, and a backup undoes it."""
    site.waffle.update({"LIMIT": 20})
    writer = host.start(confs={"LIMIT": {"default": 10, "type": int | str}})
    writer.waffle.update({"LIMIT": "many"})
    site.tick()
    assert "revision 2 can't be served here" in site.waffle.status()["error"]
    host.sql("UPDATE waffle_values SET value = '20'")
    host.sql("UPDATE waffle_meta SET revision = 1")
    writer.waffle.refresh()
    site.tick()
    assert (site.waffle.values.LIMIT, site.waffle.status()["error"]) == (20, "")


def test_an_idle_tick_sees_to_it_that_this_process_goes_on_being_woken(
    host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have replaced what uWSGI's master monitors."""
    asked: list[object] = []
    monkeypatch.setattr(wake, "ensure_watched", lambda one: asked.append(one) or "thread")
    site.tick()
    assert asked == [site.state]


def test_who_cannot_be_woken_compares_with_the_store_all_the_same(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = host.start(RECONCILE_INTERVAL=1e-9)

    def fail(_: object) -> str:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(wake, "ensure_watched", fail)
    host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
    process.tick()
    assert process.waffle.values.LIMIT == 20
    assert "can't start new thread" in process.waffle.status()["error"]


class SlowStore(FaultyStore):
    """What it has read arrives late, after ``meanwhile`` was called."""

    meanwhile: Callable[[], object] | None = None

    def load_after_pending_writes(self) -> Stored:
        stored = super().load_after_pending_writes()
        if self.meanwhile is not None:
            self.meanwhile()
        return stored


def test_a_process_that_read_for_itself_does_not_go_back(host: Host, site: Process) -> None:
    """Whoever held the lock for too long publishes what it had read before."""
    slow = host.start(store := SlowStore(f"sqlite:///{host.database}"))
    with host.open_files().lock(1) as header:
        header.set_notes(checked_at=time.monotonic_ns() - 90 * 10**9)

    def change_elsewhere(value: int) -> None:
        host.sql(f"INSERT OR REPLACE INTO waffle_values VALUES ('LIMIT', '{value}')")
        host.sql("UPDATE waffle_meta SET revision = revision + 1")

    def change_and_look() -> None:
        change_elsewhere(20)
        site.tick()
        assert site.waffle.values.LIMIT == 20

    change_elsewhere(10)
    store.meanwhile = change_and_look
    slow.waffle.refresh()
    store.meanwhile = None
    assert site.waffle.values.LIMIT == 20
    assert slow.waffle.values.LIMIT == 20


def test_a_store_without_news_is_validated_once(host: Host) -> None:
    """A store with many values is looked at each interval, also if nobody changes them."""
    validated: list[int] = []

    class Limits(BaseModel):
        LIMIT: int = 10

        @field_validator("LIMIT")
        @classmethod
        def note(cls, value: int) -> int:
            validated.append(value)
            return value

    process = host.start(confs=Limits)
    process.waffle.update({"LIMIT": 20})
    validated.clear()
    process.waffle.refresh()
    assert validated == [20]
