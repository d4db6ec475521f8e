"""What happens between the steps: another host, another store, files that vanish, validators that
fail.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import shutil
import sqlite3
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from annotated_types import Predicate
from flask import Flask

import uwsgi_waffle
from uwsgi_waffle import (
    InvalidValue,
    MemoryStore,
    RevisionConflict,
    SchemaError,
    SQLStore,
    StoreUnavailable,
    WaffleConf,
)
from uwsgi_waffle.stores import Store, Stored

from .conftest import FaultyStore, Host, Process


@pytest.fixture
def abroad(host: Host, site: Process) -> Process:
    """A process of another host: the same database, files of its own."""
    return host.start(WATCHER_FILE=str(host.instance / "abroad" / "waffle.watch"))


class TestNews:
    """An update that changes nothing, or is refused, has read the store: what it saw there isn't
    forgotten.
    """

    def test_the_same_value_was_written_elsewhere(
        self, site: Process, other: Process, abroad: Process
    ) -> None:
        abroad.waffle.update({"LIMIT": 5})
        result = site.waffle.update({"LIMIT": 5})
        assert (result.changed, result.revision) == ((), 1)
        assert (site.waffle.values.LIMIT, other.waffle.values.LIMIT) == (5, 5)

    def test_somebody_elsewhere_was_faster(
        self, site: Process, other: Process, abroad: Process
    ) -> None:
        """Who then does what the error says succeeds."""
        abroad.waffle.update({"LIMIT": 5})
        with pytest.raises(RevisionConflict):
            site.waffle.update({"LIMIT": 6}, expect_revision=site.waffle.revision)
        assert other.waffle.values.LIMIT == 5
        assert site.waffle.update({"LIMIT": 6}, expect_revision=site.waffle.revision).revision == 2


class TestOtherStores:
    def test_a_second_store_on_one_watch_file_is_refused(self, host: Host, site: Process) -> None:
        site.waffle.update({"SITENAME": "Shop one"})
        with pytest.raises(
            SchemaError,
            match=r"WAFFLE_WATCHER_FILE .*waffle\.watch is used for another store than .*second\.db",
        ):
            host.start(SQLStore(f"sqlite:///{host.instance}/second.db"))
        assert site.waffle.values.SITENAME == "Shop one"

    def test_a_living_process_keeps_its_files(
        self, host: Host, site: Process, neighbour: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "uwsgi_waffle.hostfiles.host._claimed", set()
        )  # as if the first had been another process
        with pytest.raises(SchemaError, match="is used for another store"):
            host.start(SQLStore(f"sqlite:///{host.instance}/second.db"))

    def test_a_store_that_has_moved_is_started_with(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once nobody uses the files, they may belong to another store; nothing of the first is
        left in them.
        """
        site.waffle.update({"SITENAME": "Old"})
        site.state.leave()
        monkeypatch.setattr("uwsgi_waffle.hostfiles.host._claimed", set())
        moved = host.start(SQLStore(f"sqlite:///{host.instance}/second.db"))
        assert (moved.waffle.values.SITENAME, moved.waffle.revision) == ("Waffle", 0)


class VanishingStore(FaultyStore):
    """Lets something happen between the commit and what follows it."""

    meanwhile: Callable[[], None] | None = None

    def transact(self, decide: Any) -> Stored:
        stored = super().transact(decide)
        if self.meanwhile is not None:
            self.meanwhile()
        return stored


@pytest.mark.parametrize(
    "vanished",
    ["waffle.watch.d", "waffle.watch.d/header", "waffle.watch.d/snapshots", "waffle.watch.d/bell"],
)
def test_files_that_vanish_between_commit_and_showing(
    host: Host, other: Process, vanished: str
) -> None:
    """When the update has returned, everyone sees it all the same."""
    store = VanishingStore(f"sqlite:///{host.database}")
    writer = host.start(store)

    def meanwhile() -> None:
        path = host.instance / vanished
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    store.meanwhile = meanwhile
    writer.waffle.update({"LIMIT": 20})
    store.meanwhile = None
    # A third process has the lock: nobody can read the store now, and nobody needs to.
    third = host.start()
    with third.files.lock(5):
        assert (writer.waffle.values.LIMIT, other.waffle.values.LIMIT) == (20, 20)
    writer.waffle.update({"LIMIT": 21})
    assert (other.waffle.values.LIMIT, third.waffle.values.LIMIT) == (21, 21)


class TestFailingValidators:
    """A validator of the application's own that raises what it likes."""

    CONFS: ClassVar = {"PATTERN": {"default": ".", "type": Annotated[str, Predicate(re.compile)]}}

    def test_an_update_is_refused(self, host: Host) -> None:
        site = host.start(confs=self.CONFS)
        with pytest.raises(InvalidValue, match="PATTERN: its validator failed with error: missing"):
            site.waffle.update({"PATTERN": "("})
        assert site.waffle.revision == 0

    def test_a_bad_row_disturbs_no_request(self, host: Host) -> None:
        site = host.start(confs=self.CONFS)
        site.waffle.update({"PATTERN": "a"})
        host.sql("UPDATE waffle_values SET value = ?", '"("')
        os.utime(host.watch_file, ns=(1, 1))
        site.tick()
        assert site.waffle.values.PATTERN == "a"
        assert "validator failed" in site.waffle.status()["store_error"]

    def test_a_row_that_is_nested_too_deeply_disturbs_no_request(self, host: Host) -> None:
        site = host.start(confs={"ANY": {"default": None}})
        site.waffle.update({"ANY": 1})
        host.sql("UPDATE waffle_values SET value = ?", "[" * 100_000 + "]" * 100_000)
        os.utime(host.watch_file, ns=(1, 1))
        site.tick()
        assert site.waffle.values.ANY == 1
        assert site.waffle.status()["store_error"]


@pytest.mark.parametrize("kind", ["memory", "sql"])
def test_writers_without_shared_files_end_on_the_newest(
    host: Host, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of one process: the one that commits first can't serve its values last."""
    store: Store = (
        MemoryStore() if kind == "memory" else SQLStore(f"sqlite:///{tmp_path}/waffle.db")
    )
    site = host.start(store, MULTIPROC=False)
    first_committed, second_began = threading.Event(), threading.Event()
    genuine = store.transact

    def slow(decide: Any) -> Stored:
        stored = genuine(decide)
        if stored.revision == 1:
            first_committed.set()
            assert second_began.wait(20)
        return stored

    monkeypatch.setattr(store, "transact", slow)
    first = threading.Thread(target=lambda: site.waffle.update({"LIMIT": 1}))
    first.start()
    assert first_committed.wait(20)

    def second() -> None:
        second_began.set()
        site.waffle.update({"LIMIT": 2})

    later = threading.Thread(target=second)
    later.start()
    first.join()
    later.join()
    assert (site.waffle.values.LIMIT, site.waffle.revision) == (2, 2)


def test_no_secret_in_a_traceback(host: Host, site: Process) -> None:
    """Whatever the database refuses, the chain of errors doesn't show what was to be written."""
    host.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON waffle_history BEGIN SELECT RAISE(ABORT, "
        "'refused'); END"
    )
    with pytest.raises(StoreUnavailable, match="refused") as caught:
        site.waffle.update({"TOKEN": "-".join(("s3cr3t", "value"))})
    assert "s3cr3t-value" not in "".join(traceback.format_exception(caught.value))
    assert site.waffle.revision == 0


class TestHooks:
    def test_a_receiver_that_fails_stops_no_other_and_is_named(
        self, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[int] = []

        def failing(app: Flask, change: uwsgi_waffle.Change) -> None:
            raise RuntimeError("broken")

        def sound(app: Flask, change: uwsgi_waffle.Change) -> None:
            told.append(change.revision)

        for receiver in (failing, sound):
            uwsgi_waffle.config_changed.connect(receiver, sender=site.app)
        site.waffle.update({"LIMIT": 1})
        assert told == [1]
        assert "failing" in caplog.text

    def test_a_process_has_applied_a_change_when_its_hooks_have_run(
        self, site: Process, other: Process
    ) -> None:
        """Also where one thread runs them while another looks."""
        called, go_on = threading.Event(), threading.Event()

        @other.waffle.on_change()
        def slow(change: uwsgi_waffle.Change) -> None:
            called.set()
            assert go_on.wait(20)

        def noted() -> list[int]:
            return [process.revision for process in other.files.slots]

        other.tick()
        assert noted() == [0]
        site.state.leave()  # both stand for processes of their own, and have one pid
        site.state._noted = (os.getpid(), b"", "")
        site.state._kind = lambda: None
        site.waffle.update({"LIMIT": 1})
        thread = threading.Thread(target=other.tick)
        thread.start()
        assert called.wait(20)
        other.tick()
        assert other.waffle.values.LIMIT == 1
        assert 1 not in noted()
        go_on.set()
        thread.join()
        assert noted() == [1]

    @pytest.mark.parametrize(
        ("old", "new"), [(0, False), (1, True), ([0], [False]), ({"a": 1}, {"a": True})]
    )
    def test_what_python_calls_equal_may_be_a_change(
        self, host: Host, old: object, new: object
    ) -> None:
        site = host.start(confs={"ANY": {"default": old, "type": "json"}})
        told: list[object] = []
        site.waffle.on_change("ANY")(lambda change: told.append(change.new["ANY"]))
        site.waffle.update({"ANY": new})
        assert repr(told) == repr([new])


def test_a_static_value_of_a_declared_variable_is_told(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    """It was set before the extension came, and it doesn't count."""
    app = Flask("site", instance_path=str(host.instance))
    app.config.update(WAFFLE_CONFS={"S": {"default": "declared"}}, S="from a file")
    WaffleConf(app, MemoryStore())
    assert app.config["S"] == "declared"
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "app.config['S'] was set" in record.getMessage()


def test_a_reset_names_what_it_resets(site: Process) -> None:
    with pytest.raises(TypeError):
        site.waffle.reset()  # type: ignore[call-arg]  # that is the point


def test_a_relative_watch_file_is_in_the_instance_folder(host: Host) -> None:
    """Wherever the process was started: a shell elsewhere is no other host."""
    assert (
        host.start(WATCHER_FILE="here/my.watch").files.watch_file
        == host.instance / "here" / "my.watch"
    )


def test_applications_that_are_forgotten_leave_no_file_open(host: Host) -> None:
    host.start()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        host.start()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_header_put_back_from_a_copy_makes_nobody_stale(
    host: Host, site: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who still has the first one open may trust it for `LEASE`; the update waits for that."""
    slept: list[float] = []
    monkeypatch.setattr("uwsgi_waffle.state.LEASE", 5.0)
    monkeypatch.setattr("uwsgi_waffle.state.time.sleep", slept.append)
    copy = host.header.with_name("copy")
    shutil.copy2(host.header, copy)
    copy.rename(host.header)
    site.waffle.update({"LIMIT": 20})
    assert slept
    assert slept[-1] > 4.0


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded:DeprecationWarning"
)  # such a fork is what this is about
def test_a_store_read_by_a_process_that_forks_is_let_finish(tmp_path: Path) -> None:
    """The child would inherit the locks of the database's library."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    with uwsgi_waffle.server.thread._busy:
        pid = os.fork()  # in the thread that holds it: no deadlock
        if pid == 0:
            os._exit(0 if uwsgi_waffle.server.thread._busy.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    inside, go_on = threading.Event(), threading.Event()

    def tick() -> None:
        with uwsgi_waffle.server.thread._busy:
            inside.set()
            assert go_on.wait(20)

    thread = threading.Thread(target=tick)
    thread.start()
    assert inside.wait(20)
    threading.Timer(0.05, go_on.set).start()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if go_on.is_set() else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_lock_that_nobody_may_take_makes_nobody_stale(
    host: Host, site: Process, other: Process
) -> None:
    """What an update has published is served though somebody rang since, and the header can't be
    opened any more.
    """
    site.waffle.update({"LIMIT": 20})
    site.files.ring()
    if os.geteuid():
        host.header.chmod(0)
    else:
        os.chown(host.header, 12345, -1)
    assert (other.waffle.values.LIMIT, other.waffle.revision) == (20, 1)
