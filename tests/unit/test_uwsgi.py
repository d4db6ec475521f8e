"""How uWSGI is used: what is registered where, and what is said if a line of the ini is missing."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from uwsgi_waffle.wake import uwsgi as real_room


class FakeUWSGI(ModuleType):
    """What the package needs of the module `uwsgi`."""

    version = b"2.0.31"
    SIGNALS = 256

    def __init__(self, *, master: bool = True, worker: int = 0, mule: int = 0, **opt: Any) -> None:
        super().__init__("uwsgi")
        self.opt = {name.replace("_", "-"): value for name, value in opt.items()}
        self.worker, self.mule = worker, mule
        self.master = 0 if not master else os.getpid() if not worker + mule else os.getppid()
        self.signals: dict[int, tuple[str, object]] = {}
        self.monitors: list[tuple[int, str]] = []
        self.timers: list[tuple[int, int]] = []
        self.sent: list[int] = []
        self.mounted: list[bytes] = []
        self.longest = 4096

    def masterpid(self) -> int:
        return self.master

    def worker_id(self) -> int:
        return self.worker

    def mule_id(self) -> int:
        return self.mule

    def i_am_the_spooler(self) -> bool:
        return False

    def workers(self) -> list[dict[str, Any]]:
        return [{"id": 1, "apps": [{"mountpoint": point} for point in self.mounted]}]

    def signal_registered(self, number: int) -> bool:
        return number in self.signals

    def register_signal(self, number: int, target: str, handler: object) -> None:
        self.signals[number] = (target, handler)

    def add_file_monitor(self, number: int, path: str) -> None:
        if len(path) > self.longest:
            raise ValueError("unable to add file monitor")
        self.monitors.append((number, path))

    def add_timer(self, number: int, seconds: int) -> None:
        self.timers.append((number, seconds))

    def signal(self, number: int) -> None:
        self.sent.append(number)


class Watcher:
    poll_interval, reconcile_interval = 1.0, 30.0

    def __init__(self, *watched: Path) -> None:
        self.watched = watched

    def tick(self) -> None:
        """Do nothing."""

    def leave(self) -> None:
        """Do nothing."""


Load = Callable[[ModuleType | None], Any]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load the room anew, as a process that has this `uwsgi`."""

    def load(uwsgi: ModuleType | None) -> Any:
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
        name = "uwsgi_waffle.wake.uwsgi_of_the_test"
        spec = importlib.util.spec_from_file_location(name, str(real_room.__file__))
        assert spec is not None
        assert spec.loader is not None
        room = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(room)
        return room

    return load


def nothing() -> None:
    """Stand for what is called after a fork."""


class TestPresence:
    def test_without_the_module_it_is_absent(self, load: Load) -> None:
        room = load(None)
        assert not room.is_present()
        room.register_signal(nothing)
        assert not room.signal_registered()

    def test_a_module_that_happens_to_have_its_name_is_not_it(self, load: Load) -> None:
        assert not load(ModuleType("uwsgi")).is_present()

    @pytest.mark.parametrize(
        ("server", "name"),
        [
            (FakeUWSGI(worker=3), "worker 3"),
            (FakeUWSGI(mule=2), "mule 2"),
            (FakeUWSGI(), None),
            (FakeUWSGI(master=False), "uwsgi"),
        ],
    )
    def test_processes_have_its_names(
        self, load: Load, server: FakeUWSGI, name: str | None
    ) -> None:
        assert load(server).process_name() == name


class TestSignal:
    def test_the_master_registers_the_highest_free_one_for_active_workers(self, load: Load) -> None:
        server = FakeUWSGI()
        server.signals[255] = ("application", None)
        room = load(server)
        room.register_signal(nothing)
        assert room.signal_registered()
        assert server.signals[254][0] == "active-workers"

    @pytest.mark.parametrize(
        "server", [FakeUWSGI(worker=1), FakeUWSGI(mule=1), FakeUWSGI(master=False)]
    )
    def test_no_other_process_does(self, load: Load, server: FakeUWSGI) -> None:
        room = load(server)
        room.register_signal(nothing)
        assert not room.signal_registered()
        assert server.signals == {}

    def test_where_none_is_free_a_thread_looks(self, load: Load) -> None:
        server = FakeUWSGI()
        server.signals = dict.fromkeys(range(FakeUWSGI.SIGNALS), ("application", None))
        room = load(server)
        room.register_signal(nothing)
        assert not room.signal_registered()

    def test_a_refusal_is_explained(self, load: Load, caplog: pytest.LogCaptureFixture) -> None:
        class Refusing(FakeUWSGI):
            def register_signal(self, number: int, target: str, handler: object) -> None:
                raise ValueError("unable to register signal")

        room = load(Refusing())
        room.register_signal(nothing)
        assert not room.signal_registered()
        assert "Set `single-interpreter = true`" in caplog.text

    @pytest.mark.parametrize(
        ("server", "line"),
        [
            (FakeUWSGI(master=False), "master = true"),
            (FakeUWSGI(worker=1, lazy_apps=b"true"), "shared-import = uwsgi_waffle"),
            (FakeUWSGI(worker=1, lazy=True), "shared-import = uwsgi_waffle"),
            (FakeUWSGI(worker=1), "shared-import = uwsgi_waffle"),
        ],
    )
    def test_the_missing_line_is_named(self, load: Load, server: FakeUWSGI, line: str) -> None:
        assert load(server).missing_ini_line() == line

    def test_none_is_missing_where_the_master_has_the_signal(self, load: Load) -> None:
        room = load(FakeUWSGI())
        room.register_signal(nothing)
        assert room.missing_ini_line() == ""


class TestMonitors:
    def test_each_file_and_timer_is_asked_for_once(self, load: Load, tmp_path: Path) -> None:
        server = FakeUWSGI()
        room = load(server)
        room.register_signal(nothing)
        bell, watch = tmp_path / "bell", tmp_path / "watch"
        bell.mkdir()
        watch.touch()
        for _ in range(3):
            assert room.ensure_monitored(Watcher(bell, watch))
        assert server.monitors == [(255, str(bell)), (255, str(watch))]
        assert server.timers == [(255, 10)], "three ticks in the reconcile interval"

    def test_a_file_that_was_replaced_is_asked_for_again(self, load: Load, tmp_path: Path) -> None:
        server = FakeUWSGI()
        room = load(server)
        room.register_signal(nothing)
        watch = tmp_path / "watch"
        watch.touch()
        room.ensure_monitored(Watcher(watch))
        (tmp_path / "fresh").touch()
        (tmp_path / "fresh").rename(watch)
        room.ensure_monitored(Watcher(watch))
        assert server.monitors == [(255, str(watch))] * 2

    def test_a_missing_file_is_asked_for_again_when_it_is_there(
        self, load: Load, tmp_path: Path
    ) -> None:
        server = FakeUWSGI()
        room = load(server)
        room.register_signal(nothing)
        watch = tmp_path / "watch"
        room.ensure_monitored(Watcher(watch))
        watch.touch()
        room.ensure_monitored(Watcher(watch))
        assert server.monitors[1:] == [(255, str(watch))]

    def test_no_more_than_the_package_may_take_are_asked_for(
        self, load: Load, tmp_path: Path
    ) -> None:
        """uWSGI has 64 for its whole life; the rest is for the application's own."""
        server = FakeUWSGI()
        room = load(server)
        room.register_signal(nothing)
        for number in range(100):
            (tmp_path / str(number)).touch()
            room.ensure_monitored(Watcher(tmp_path / str(number)))
        assert len(server.monitors) + len(server.timers) == 40
        assert not room.ensure_monitored(Watcher(tmp_path / "99"))

    def test_a_refusal_is_said(
        self, load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Refusing(FakeUWSGI):
            def add_timer(self, number: int, seconds: int) -> None:
                raise ValueError("unable to add timer")

        room = load(Refusing())
        room.register_signal(nothing)
        assert not room.ensure_monitored(Watcher())
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "uWSGI can't monitor timer 10 (unable to add timer)" in caplog.text

    def test_a_refusal_is_said_once(
        self, load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each look asks again; `flask waffle doctor` shows what it was."""
        server = FakeUWSGI()
        server.longest = 254
        room = load(server)
        room.register_signal(nothing)
        watcher = Watcher(tmp_path / ("long" * 60))
        assert not room.ensure_monitored(watcher)
        assert not room.ensure_monitored(watcher)
        (record,) = caplog.records
        assert "WAFFLE_WATCHER_FILE to a shorter path" in record.getMessage()
        assert str(watcher.watched[0]) in room.describe()["monitor_error"]
        assert room.ensure_monitored(Watcher(tmp_path))
        assert room.describe()["monitor_error"] == ""


class TestForkHook:
    def test_one_that_is_there_is_called_first(self, load: Load) -> None:
        server, calls = FakeUWSGI(worker=1), []
        server.post_fork_hook = lambda: calls.append("theirs")
        room = load(server)
        room.register_signal(lambda: calls.append("ours"))
        room.install_post_fork_hook()
        server.post_fork_hook()
        assert calls == ["theirs", "ours"]

    def test_uwsgidecorators_has_a_list_for_it(
        self, load: Load, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decorators = ModuleType("uwsgidecorators")
        decorators.postfork_chain = []  # type: ignore[attr-defined]  # as it has
        monkeypatch.setitem(sys.modules, "uwsgidecorators", decorators)
        room = load(FakeUWSGI())
        room.register_signal(nothing)
        room.install_post_fork_hook()
        assert decorators.postfork_chain == [nothing]


class TestOptions:
    @pytest.mark.parametrize(
        ("value", "on"),
        [(b"true", True), (True, True), (b"1", True), (b"false", False), (b"", False)],
    )
    def test_a_flag(self, load: Load, value: object, on: bool) -> None:
        assert load(FakeUWSGI(lazy_apps=value)).is_on("lazy-apps") is on

    @pytest.mark.parametrize(
        ("options", "mules", "ours"),
        [
            ({}, False, False),
            ({"mules": b"0"}, False, False),
            ({"mules": b"2"}, True, False),
            ({"mule": b"other.py"}, True, False),
            ({"mule": b"uwsgi_waffle.mule"}, True, True),
            ({"mule": b"uwsgi_waffle.mule:run"}, True, True),
        ],
    )
    def test_mules(self, load: Load, options: dict[str, Any], mules: bool, ours: bool) -> None:
        room = load(FakeUWSGI(mule=1))
        room.uwsgi.opt.update(options)
        assert (room.has_mules(), room.is_our_mule()) == (mules, ours)

    def test_doctor_is_given_what_it_judges(self, load: Load) -> None:
        room = load(FakeUWSGI(worker=1, lazy_apps=b"true", enable_threads=b"true"))
        found = room.describe()
        assert found["uwsgi"] == "2.0.31"
        assert (found["lazy_apps"], found["enable_threads"]) == (True, True)
        assert found["missing_ini_line"] == "shared-import = uwsgi_waffle"

    @pytest.mark.parametrize(
        ("mounted", "options", "found"),
        [
            ([b"/a"], {}, "/b"),
            ([b"/a", b"/b"], {}, ""),
            ([], {}, ""),  # not yet, under lazy-apps
            ([b"/a"], {"single_interpreter": True}, ""),
        ],
    )
    def test_a_mounted_application_that_is_not_loaded(
        self, load: Load, mounted: list[bytes], options: dict[str, object], found: str
    ) -> None:
        """uWSGI tells the last of several `mount` lines only."""
        server = FakeUWSGI(worker=1, mount=b"/b=app:application", **options)
        server.mounted = mounted
        assert load(server).describe()["not_loaded"] == found
