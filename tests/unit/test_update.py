"""Updates: what they say, whose values win, and that everybody sees them."""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import Any

import pytest

from uwsgi_waffle import (
    HostBusy,
    InvalidValue,
    RevisionConflict,
    UnknownRevision,
    UnknownVariable,
    UpdateResult,
    barrier,
    sync,
)
from uwsgi_waffle.host import is_current, snapshot_id_in
from uwsgi_waffle.stores import Commit, CommitBuilder, Stored

from ..host import CONFS, FaultyStore, Host, Ordered, Process, eventually, forked


class TestUpdate:
    @pytest.mark.parametrize("options", [{"expected_revision": 0}, {"comment": "x"}])
    def test_a_misspelt_argument_is_refused(self, site: Process, options: dict[str, Any]) -> None:
        """It would lose the promise that nothing is overwritten unseen."""
        (name,) = options
        for call in (
            partial(site.waffle.update, {"LIMIT": 20}),
            partial(site.waffle.reset, "LIMIT"),
            partial(site.waffle.rollback, 0),
        ):
            with pytest.raises(TypeError, match=name):
                call(**options)
        assert site.waffle.refresh() == 0

    def test_a_revision_is_a_number(self, site: Process) -> None:
        """A form's field is a text."""
        text: Any = "0"
        with pytest.raises(TypeError, match=r"not '0'.*Nothing was changed"):
            site.waffle.update({"LIMIT": 20}, expect_revision=text)
        with pytest.raises(TypeError, match=r"not '0'.*Nothing was changed"):
            site.waffle.rollback(text)
        assert site.waffle.refresh() == 0

    def test_it_says_what_it_did(self, site: Process) -> None:
        result = site.waffle.update({"SITENAME": "New", "LIMIT": 20})
        assert result == UpdateResult(1, ("LIMIT", "SITENAME"), (), ())
        assert site.waffle.revision == 1
        assert (site.waffle.values.SITENAME, site.app.config["LIMIT"]) == ("New", 20)

    def test_another_process_sees_it_by_the_words_of_the_header_alone(
        self, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "CHECK_INTERVAL", 1e9)
        other.tick()
        for number in range(1, 4):
            site.waffle.update({"LIMIT": number, "SITENAME": str(number)})
            assert number == other.waffle.values.LIMIT
            assert other.app.config["SITENAME"] == str(number)
            assert other.waffle.revision == number

    def test_a_real_process_is_another_writer(self, host: Host, site: Process) -> None:
        def program() -> None:
            assert site.waffle.update({"LIMIT": 20}).revision == 1

        with forked(program):
            assert site.waffle.values.LIMIT == 20
        with forked(lambda: host.start().waffle.update({"LIMIT": 30})):
            assert site.waffle.values.LIMIT == 30

    def test_one_store_read_is_enough_for_the_host(self, host: Host, site: Process) -> None:
        stores = [host.store() for _ in range(3)]
        processes = [host.start(store) for store in stores]
        before = [store.calls for store in stores]
        site.waffle.update({"LIMIT": 20})
        assert [process.waffle.values.LIMIT for process in processes] == [20] * 3
        assert [store.calls for store in stores] == before, "the snapshot was read, not the store"

    def test_what_another_wrote_is_kept(self, site: Process, other: Process) -> None:
        with other.app.test_request_context():
            assert other.waffle.revision == 0
            site.waffle.update({"SITENAME": "New"})
            other.waffle.update({"LIMIT": 20})
        for process in (site, other):
            assert process.state.parse_conf() == {"SITENAME": "New", "LIMIT": 20, "TOKEN": ""}
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

    def test_nothing_to_change_makes_no_revision_and_wakes_nobody(
        self, host: Host, site: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        snapshot, bell = snapshot_id_in(site.files.words()), host.folder / "bell"
        os.utime(bell, ns=(1, 1))
        for values in ({"LIMIT": 20}, {}):
            assert site.waffle.update(values) == UpdateResult(1, ())
        assert len(site.waffle.history()) == 1
        words = site.files.words()
        assert (snapshot_id_in(words), is_current(words)) == (snapshot, True)
        assert bell.stat().st_mtime_ns == 1

    def test_a_value_is_stored_as_validated(self, site: Process) -> None:
        site.waffle.update({"LIMIT": "20"})
        assert site.waffle.values.LIMIT == 20
        assert site.state.store.load().values == {"LIMIT": "20"}

    def test_an_unknown_name_changes_nothing(self, site: Process) -> None:
        with pytest.raises(UnknownVariable, match="'SITE' is not declared"):
            site.waffle.update({"LIMIT": 20, "SITE": "x"})
        assert site.state.store.load().revision == 0

    def test_bad_values_are_named_together_and_change_nothing(
        self, site: Process, other: Process
    ) -> None:
        with pytest.raises(InvalidValue) as caught:
            site.waffle.update({"LIMIT": -1, "SITENAME": 5, "TOKEN": "x"})
        assert list(caught.value.problems) == ["LIMIT", "SITENAME"]
        assert other.waffle.refresh() == site.waffle.revision == 0
        assert site.waffle.history() == []

    def test_values_are_validated_together_with_what_the_store_holds(self, host: Host) -> None:
        first, second = host.start(confs=Ordered), host.start(confs=Ordered)
        first.waffle.update({"HIGH": 5})
        with pytest.raises(InvalidValue, match="LOW must not be above HIGH"):
            second.waffle.update({"LOW": 7})
        assert second.waffle.update({"LOW": 20, "HIGH": 30}).changed == ("HIGH", "LOW")
        assert isinstance(first.waffle.values, Ordered)
        assert (first.waffle.values.LOW, first.waffle.values.HIGH) == (20, 30)

    def test_concurrent_updates_lose_nothing(self, site: Process, other: Process) -> None:
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
        with forked(lambda: count(site)):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert site.waffle.values.LIMIT == 10 + 40
        assert site.waffle.revision == other.waffle.revision == 40

    def test_whoever_holds_the_lock_too_long_stops_writers_only(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("uwsgi_waffle.update.LOCK_TIMEOUT", 0.0)
        impatient = host.start()
        with site.files.lock(1):
            with pytest.raises(HostBusy, match="Nothing was read or changed"):
                impatient.waffle.update({"LIMIT": 20})
            assert impatient.waffle.values.LIMIT == 10

    def test_the_watch_file_is_never_touched(
        self, host: Host, site: Process, other: Process
    ) -> None:
        before = host.watch_file.stat()
        for number in (1, 2, 3):
            site.waffle.update({"LIMIT": number})
            other.tick()
            other.waffle.refresh()
        after = host.watch_file.stat()
        assert (after.st_mtime_ns, after.st_ctime_ns, after.st_size) == (
            before.st_mtime_ns,
            before.st_ctime_ns,
            0,
        )

    def test_the_bell_is_touched_after_each(self, host: Host, site: Process) -> None:
        bell = host.folder / "bell"
        for number in (1, 2):
            os.utime(bell, ns=(1, 1))
            site.waffle.update({"LIMIT": number})
            assert bell.stat().st_mtime_ns > 1

    def test_the_newest_snapshot_and_the_one_before_are_kept(
        self, host: Host, site: Process
    ) -> None:
        before = site.state.current().id
        for number in (1, 2, 3):
            site.waffle.update({"LIMIT": number})
            newest = site.state.current().id
            names = {path.name for path in host.snapshots.iterdir()}
            assert names == {before.hex(), newest.hex()}
            before = newest


class TestExpectRevision:
    def test_whoever_was_slower_is_refused(self, site: Process, other: Process) -> None:
        site.waffle.update({"SITENAME": "New"})
        text = r"revision 0 was expected and the store is at 1.*expect_revision=1"
        with pytest.raises(RevisionConflict, match=text) as caught:
            other.waffle.update({"LIMIT": 20}, expect_revision=0)
        assert (caught.value.expected, caught.value.actual) == (0, 1)
        assert other.waffle.values.LIMIT == 10
        assert other.waffle.update({"LIMIT": 20}, expect_revision=1).revision == 2

    def test_a_conflict_is_found_in_the_store_itself(self, host: Host, site: Process) -> None:
        """Another host may have written, and no file here says so."""
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
        argument: Any = {"reset": "LIMIT", "rollback": 1}[write]
        with pytest.raises(RevisionConflict):
            getattr(site.waffle, write)(argument, expect_revision=1)
        assert site.waffle.values.LIMIT == 30


class RacedStore(FaultyStore):
    """Somebody on another host is faster, so the change set is worked out anew."""

    def transact(self, build_commit: CommitBuilder) -> Stored:
        if self.load().revision == 0:
            build_commit(self.load())
            super().transact(lambda stored: Commit({"LIMIT": "20", "SITENAME": '"Raced"'}))
        return super().transact(build_commit)


class TestRace:
    @pytest.fixture
    def raced(self, host: Host, site: Process) -> Process:
        process = host.start(RacedStore(f"sqlite:///{host.database}"))
        host.sql("DELETE FROM waffle_values")
        host.sql("UPDATE waffle_meta SET revision = 0")
        return process

    def check(self, raced: Process, site: Process, *expected: object) -> None:
        for process in (raced, site):
            values = process.waffle.values
            assert (values.LIMIT, values.SITENAME, process.waffle.revision) == expected

    def test_an_update_goes_on_upon_what_the_faster_one_wrote(
        self, site: Process, raced: Process
    ) -> None:
        assert raced.waffle.update({"LIMIT": 30}).revision == 2
        self.check(raced, site, 30, "Raced", 2)

    def test_what_the_faster_one_has_written_already_is_served(
        self, site: Process, raced: Process
    ) -> None:
        result = raced.waffle.update({"LIMIT": 20})
        assert (result.revision, result.changed) == (1, ())
        self.check(raced, site, 20, "Raced", 1)

    def test_a_conflict_leaves_what_the_faster_one_wrote(
        self, site: Process, raced: Process
    ) -> None:
        with pytest.raises(RevisionConflict, match="the store is at 1"):
            raced.waffle.update({"LIMIT": 30}, expect_revision=0)
        self.check(raced, site, 20, "Raced", 1)


class TestNews:
    """An update that writes nothing has read the store: what it saw there isn't forgotten."""

    @pytest.fixture
    def abroad(self, host: Host, site: Process) -> Process:
        """A process of another host: the same database, files of its own."""
        return host.start(WATCHER_FILE=str(host.instance / "abroad" / "waffle.watch"))

    def test_the_same_value_was_written_elsewhere(
        self, site: Process, other: Process, abroad: Process
    ) -> None:
        abroad.waffle.update({"LIMIT": 5})
        result = site.waffle.update({"LIMIT": 5})
        assert (result.changed, result.revision) == ((), 1)
        assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (5, 5)

    def test_an_edit_by_hand_is_news_too(self, host: Host, site: Process, other: Process) -> None:
        """It has no revision of its own yet."""
        site.waffle.update({"SITENAME": "New"})
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        assert site.waffle.update({"LIMIT": 20}).changed == ()
        assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (20, 20)
        host.sql("UPDATE waffle_values SET value = '25' WHERE key = 'LIMIT'")
        with pytest.raises(InvalidValue):
            site.waffle.update({"LIMIT": -1})
        assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (25, 25)

    def test_whoever_does_what_the_conflict_says_succeeds(
        self, site: Process, other: Process, abroad: Process
    ) -> None:
        abroad.waffle.update({"LIMIT": 5})
        with pytest.raises(RevisionConflict):
            site.waffle.update({"LIMIT": 6}, expect_revision=site.waffle.revision)
        assert other.waffle.values.LIMIT == 5
        assert site.waffle.update({"LIMIT": 6}, expect_revision=site.waffle.revision).revision == 2


class TestPast:
    def test_reset_gives_the_default_back_as_a_revision(
        self, site: Process, other: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"})
        result = site.waffle.reset("LIMIT", actor="ann", note="too large")
        assert (result.revision, result.changed) == (2, ("LIMIT",))
        assert (other.waffle.values.LIMIT, other.waffle.values.SITENAME) == (10, "New")
        entry = site.waffle.history(1)[0]
        assert (entry.key, entry.old, entry.new) == ("LIMIT", 20, 10)
        assert (entry.actor, entry.note) == ("ann", "too large")
        assert site.waffle.reset("LIMIT").revision == 2, "nothing left to do"

    def test_a_reset_names_what_it_resets(self, site: Process) -> None:
        with pytest.raises(UnknownVariable):
            site.waffle.reset("SITE")
        with pytest.raises(TypeError):
            site.waffle.reset()  # type: ignore[call-arg]  # that is the point

    def test_rollback_makes_former_values_a_new_revision(
        self, site: Process, other: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        site.waffle.update({"LIMIT": 30, "SITENAME": "New"})
        result = site.waffle.rollback(1)
        assert (result.revision, result.changed) == (3, ("LIMIT", "SITENAME"))
        assert (other.waffle.values.LIMIT, other.waffle.values.SITENAME) == (20, "Waffle")
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


class TestWait:
    def test_what_is_no_number_is_refused_before_anything_is_written(self, site: Process) -> None:
        revision = site.waffle.revision
        with pytest.raises(TypeError, match="wait= is a number of seconds"):
            site.waffle.update({"LIMIT": 20}, wait="x")  # type: ignore[arg-type]  # that is the test
        assert site.waffle.refresh() == revision

    def test_it_names_who_has_applied_it_and_who_has_not(
        self, site: Process, neighbour: int
    ) -> None:
        result = site.waffle.update({"LIMIT": 20}, wait=0)
        assert [process.pid for process in result.applied] == [os.getpid()]
        assert [(p.pid, p.kind) for p in result.pending] == [(neighbour, "worker 9")]

    def test_it_ends_when_all_have_applied_it(self, site: Process, other: Process) -> None:
        other.tick()
        results: list[UpdateResult] = []

        def wait() -> None:
            results.append(site.waffle.update({"LIMIT": 20}, wait=100))

        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: (other.tick(), results)[1])
        waiting.join()
        (result,) = results
        assert [process.revision for process in result.applied] == [1, 1]
        assert result.pending == ()

    def test_it_is_allowed_where_nothing_changed(self, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        assert len(site.waffle.update({"LIMIT": 20}, wait=100).applied) == 1

    def test_a_hook_of_this_process_may_wait_for_the_others(
        self, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(barrier, "PAUSE", 0.0)
        results: list[Any] = []
        other.tick()

        @site.waffle.on_change("SITENAME")
        def follow(change: object) -> None:
            results.append(site.waffle.update({"LIMIT": 20}, wait=100).pending)

        updating = threading.Thread(target=site.waffle.update, args=({"SITENAME": "New"},))
        updating.start()
        eventually(lambda: (other.tick(), not updating.is_alive())[1])
        assert results == [()]

    def test_a_process_has_applied_it_when_its_hooks_have_run(
        self, site: Process, other: Process
    ) -> None:
        called, leave = threading.Event(), threading.Event()

        @other.waffle.on_change()
        def slow(change: object) -> None:
            called.set()
            assert leave.wait(20)

        other.tick()
        site.waffle.update({"LIMIT": 1})
        thread = threading.Thread(target=other.tick)
        thread.start()
        assert called.wait(20)
        other.tick()
        assert other.waffle.values.LIMIT == 1
        assert len(site.waffle.update({}, wait=0).pending) == 1
        leave.set()
        thread.join()
        assert site.waffle.update({}, wait=0).pending == ()
