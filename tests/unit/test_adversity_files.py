"""Damaged, deleted and exchanged files: nothing is lost, and nobody is stale after an update."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable

import pytest

from uwsgi_waffle import HostFilesError, sync
from uwsgi_waffle.host import is_current
from uwsgi_waffle.stores import Commit, CommitBuilder, Stored

from ..host import (
    ALWAYS,
    OTHER_FILE,
    SAME_FILE,
    FaultyStore,
    Host,
    Process,
    damage_header,
    descriptors,
    eventually,
    fill_disk,
    logged,
    recorded,
)

DAMAGES = [*OTHER_FILE, *SAME_FILE]


class InterruptedStore(FaultyStore):
    """Lets something happen within an update: before its commit, or right after it."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def transact(self, build_commit: CommitBuilder) -> Stored:
        def build(stored: Stored) -> Commit | None:
            commit = build_commit(stored)
            if self.before is not None:
                self.before()
            return commit

        stored = super().transact(build)
        if self.after is not None:
            self.after()
        return stored


@pytest.fixture
def store(host: Host) -> InterruptedStore:
    return InterruptedStore(f"sqlite:///{host.database}")


class TestHeader:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_nothing_is_lost_and_it_is_repaired_by_a_read(
        self, host: Host, site: Process, other: Process, damage: str
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        damage_header(host, damage)
        for process in (site, other):
            process.tick()
            assert process.waffle.values.LIMIT == 20
            assert is_current(process.files.words())
            assert process.files.header.is_open()
        assert site.waffle.status()["store_checked"] is not None

    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("when", ["between updates", "before the commit", "after the commit"])
    def test_everybody_is_fresh_when_the_next_update_has_returned(
        self, host: Host, site: Process, store: InterruptedStore, damage: str, when: str
    ) -> None:
        """By a request's look, without a tick, and also if others read the store meanwhile."""
        writer, other = host.start(store), host.start()
        for process in (site, other):
            process.tick()
            assert process.waffle.values.LIMIT == 10

        def strike() -> None:
            store.before = store.after = None
            damage_header(host, damage)
            if when != "between updates":
                other.tick()

        if when == "between updates":
            strike()
        elif when == "before the commit":
            store.before = strike
        else:
            store.after = strike
        writer.waffle.update({"LIMIT": 20})
        if damage.endswith("moved"):  # whoever has it open sees that by its path only
            time.sleep(sync.CHECK_INTERVAL)
        assert [p.waffle.values.LIMIT for p in (site, other, writer)] == [20, 20, 20]
        other.waffle.update({"LIMIT": 30})
        assert [p.waffle.values.LIMIT for p in (site, other, writer)] == [30, 30, 30]

    @pytest.mark.parametrize("made", ["folder", "link", "link to nothing"])
    def test_what_is_no_header_is_an_error_and_stops_no_reader(
        self, host: Host, site: Process, made: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.header.unlink()
        if made == "folder":
            host.header.mkdir()
        else:
            (host.instance / "file").touch()
            host.header.symlink_to("../file" if made == "link" else "nowhere")
        for _ in range(3):
            site.tick()
            assert site.waffle.values.LIMIT == 20
        (text,) = logged(caplog)
        assert str(host.header) in text
        assert str(host.header) in site.waffle.status()["error"]
        with pytest.raises(HostFilesError, match=str(host.header)):
            site.waffle.update({"LIMIT": 30})
        assert site.state.store.load().revision == 1
        host.header.rmdir() if made == "folder" else host.header.unlink()
        site.tick()
        assert site.waffle.update({"LIMIT": 30}).revision == 2
        assert site.waffle.status()["error"] == ""

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_what_is_no_header_in_the_middle_of_an_update(
        self, host: Host, site: Process, store: InterruptedStore, when: str
    ) -> None:
        """It is committed, so it doesn't raise; who looks sees it when the way is free."""
        writer = host.start(store)

        def strike() -> None:
            store.before = store.after = None
            host.header.unlink()
            host.header.mkdir()

        setattr(store, when, strike)
        assert writer.waffle.update({"LIMIT": 20}).revision == 1
        host.header.rmdir()
        assert (site.waffle.values.LIMIT, writer.waffle.values.LIMIT) == (20, 20)

    @pytest.mark.parametrize("how", ["written", "renamed"])
    def test_an_older_header_put_back_is_forgotten_with_the_next_update(
        self, host: Host, site: Process, other: Process, how: str
    ) -> None:
        other.waffle.update({"LIMIT": 20})
        backup = host.header.read_bytes()
        other.waffle.update({"LIMIT": 30})
        if how == "written":
            with host.header.open("r+b") as file:
                file.write(backup)
        else:
            copy = host.header.with_name("copy")
            copy.write_bytes(backup)
            copy.chmod(0o600)
            copy.rename(host.header)
        other.waffle.update({"LIMIT": 40})
        assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (40, 40)

    def test_a_descriptor_that_somebody_closed_stops_nobody(
        self, host: Host, site: Process, other: Process
    ) -> None:
        """As a program that becomes a daemon closes all it has."""
        for fd in descriptors(host.folder):
            os.close(fd)
        assert site.waffle.values.LIMIT == 10
        other.waffle.update({"LIMIT": 20})
        assert site.waffle.values.LIMIT == 20

    def test_one_that_may_not_be_opened_makes_nobody_stale(
        self, host: Host, site: Process, other: Process
    ) -> None:
        """What was published is served though somebody has invalidated since."""
        other.tick()
        site.waffle.update({"LIMIT": 20})
        site.files.invalidate()
        os.chown(host.header, 12345, -1) if os.geteuid() == 0 else host.header.chmod(0)
        assert (other.waffle.values.LIMIT, other.waffle.revision) == (20, 1)


class TestSnapshots:
    @staticmethod
    def damage(host: Host, damage: str) -> None:
        if damage == "folder removed":
            shutil.rmtree(host.snapshots)
            return
        for path in host.snapshots.iterdir():
            if damage == "noise":
                path.write_bytes(bytes(range(256)) * 8)
            elif damage == "cut off":
                os.truncate(path, 10)
            else:
                path.unlink()
            if damage == "folder":
                path.mkdir()
            elif damage == "link":
                path.symlink_to("elsewhere")

    @pytest.mark.parametrize("damage", ["noise", "cut off", "removed", "folder removed"])
    def test_a_damaged_one_is_replaced_from_the_store_by_whoever_needs_it(
        self, host: Host, site: Process, other: Process, damage: str
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        self.damage(host, damage)
        assert site.waffle.values.LIMIT == 20
        assert other.waffle.values.LIMIT == 20
        assert host.start(host.store(ALWAYS)).waffle.values.LIMIT == 20, "there is a good one"
        site.waffle.update({"LIMIT": 30})
        assert other.waffle.values.LIMIT == 30

    @pytest.mark.parametrize(
        ("damage", "advice"),
        [("folder", "It must be a plain file. Remove the folder."), ("link", "Remove it.")],
    )
    def test_what_cannot_be_replaced_leaves_the_last_good_values_and_is_an_error(
        self,
        host: Host,
        site: Process,
        other: Process,
        caplog: pytest.LogCaptureFixture,
        damage: str,
        advice: str,
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        self.damage(host, damage)
        for _ in range(3):
            assert other.waffle.values.LIMIT == 10
        (text,) = logged(caplog)
        assert advice in text
        for path in host.snapshots.iterdir():
            path.rmdir() if damage == "folder" else path.unlink()
        other.tick()
        assert other.waffle.values.LIMIT == 20

    def test_a_look_at_the_store_that_finds_nothing_new_leaves_it_alone(
        self, host: Host, site: Process
    ) -> None:
        """Another process may be reading it at this moment."""
        site.waffle.update({"LIMIT": 20})
        before = {path.name: path.stat().st_mtime_ns for path in host.snapshots.iterdir()}
        assert site.waffle.refresh() == 1
        assert before == {path.name: path.stat().st_mtime_ns for path in host.snapshots.iterdir()}


class TestOtherFiles:
    @pytest.mark.parametrize("name", ["bell", "processes", "snapshots"])
    @pytest.mark.parametrize("when", ["before", "after", "between updates"])
    def test_a_folder_that_vanishes_loses_nothing(
        self, host: Host, site: Process, store: InterruptedStore, name: str, when: str
    ) -> None:
        writer = host.start(store)

        def strike() -> None:
            store.before = store.after = None
            shutil.rmtree(host.folder / name, ignore_errors=True)

        site.tick()
        strike() if when == "between updates" else setattr(store, when, strike)
        writer.waffle.update({"LIMIT": 20})
        assert (site.waffle.values.LIMIT, writer.waffle.values.LIMIT) == (20, 20)
        writer.waffle.update({"LIMIT": 21})
        site.tick()
        assert (host.folder / "bell").is_dir()
        assert writer.waffle.update({}, wait=20).pending == ()
        assert len(list(site.files.processes)) == 2

    def test_a_watch_file_that_is_none_stops_nobody(
        self, host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "CHECK_INTERVAL", 0.0)
        host.watch_file.unlink()
        host.watch_file.mkdir()
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (20, 20)


class TestFullDisk:
    def test_an_update_changes_nothing(
        self, host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = f"{host.snapshots}/.*No space left.*Make room"
        with monkeypatch.context() as disk:
            fill_disk(disk)
            with pytest.raises(HostFilesError, match=text):
                site.waffle.update({"LIMIT": 20})
            assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (10, 10)
            assert site.state.store.load().revision == 0
            assert other.waffle.refresh() == 0
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert other.waffle.values.LIMIT == 20

    def test_another_hosts_change_is_not_served_and_taken_back_in_turn(
        self,
        host: Host,
        site: Process,
        other: Process,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Nobody could serve it for all, so hooks aren't run to and fro; the log says it once."""
        changes = [*map(recorded, (site, other))]
        abroad = host.start(WATCHER_FILE=str(host.instance / "abroad" / "waffle.watch"))
        abroad.waffle.update({"LIMIT": 20})
        with monkeypatch.context() as disk:
            fill_disk(disk)
            site.files.invalidate()
            for _ in range(20):
                for process in (site, other):
                    process.tick()
                    assert process.waffle.values.LIMIT == 10
            assert "No space left" in other.waffle.status()["store_error"]
            (line,) = logged(caplog)
            assert "serving the last good values" in line
            assert logged(caplog, logging.WARNING) == []
            assert host.start().waffle.values.LIMIT == 10, "what was published is still there"
            assert len(logged(caplog)) == 2, "and it says with what it has started"
        for process in (site, other):
            process.tick()
            assert process.waffle.values.LIMIT == 20
        assert [[change.revision for change in seen] for seen in changes] == [[1], [1]]
        assert other.waffle.status()["store_error"] == ""
        (line,) = logged(caplog, logging.WARNING)
        assert "the store is back" in line
        assert len(logged(caplog)) == 2


def test_a_process_whose_file_was_removed_is_seen_again_after_its_next_tick(
    host: Host, site: Process, other: Process
) -> None:
    """An update that waits for it must not miss it."""
    shutil.rmtree(host.folder / "processes")
    for process in (site, other):
        process.tick()
    assert len(list(site.files.processes)) == 2


def test_a_process_reports_at_its_next_read_where_the_folder_was_replaced(
    host: Host, site: Process, other: Process
) -> None:
    """An update that waits must not miss it until its next tick."""
    host.folder.rename(host.instance / "gone")
    eventually(lambda: other.waffle.values.LIMIT == 10 and host.header.exists())
    assert len(site.waffle.update({"LIMIT": 20}, wait=0).pending) == 1


def test_a_bell_that_cannot_be_touched_undoes_nothing(
    host: Host, site: Process, other: Process, caplog: pytest.LogCaptureFixture
) -> None:
    (host.folder / "bell").rmdir()
    (host.folder / "bell").touch()
    for number in (1, 2, 3):
        site.waffle.update({"LIMIT": number})
        assert number == other.waffle.values.LIMIT
    assert site.waffle.status()["updates"] == 4
    assert len(list(host.snapshots.iterdir())) == 2
    assert logged(caplog, logging.WARNING) == []


def test_a_process_that_cannot_report_itself_says_so_once_and_serves(
    host: Host, site: Process, other: Process, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(host.folder / "processes")
    (host.folder / "processes").touch()
    for number in (1, 2, 3):
        other.waffle.update({"LIMIT": number})
        site.tick()
        assert number == site.waffle.values.LIMIT
    texts = logged(caplog)
    assert len(texts) == 2, "once for each process"
    assert all(f"{host.folder}/processes: " in text for text in texts)
    site.tick()
    assert "processes: " in site.waffle.status()["error"]
    (host.folder / "processes").unlink()
    for _ in range(2):
        site.tick()
    assert site.waffle.status()["error"] == ""
    assert len(list(site.files.processes)) == 1
