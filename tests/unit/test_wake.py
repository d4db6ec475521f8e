"""Which way a process is woken, and who may listen to other hosts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from uwsgi_waffle import WaffleConf, mule, wake
from uwsgi_waffle.host import HostFiles
from uwsgi_waffle.wake import thread, uwsgi
from uwsgi_waffle.wake.watchers import tick_all, watchers

from ..host import Host, Process, logged, run_forked
from .test_uwsgi import FakeUWSGI


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this process be one of a uWSGI server; call it with what it is."""

    def become(**what: Any) -> FakeUWSGI:
        fake = FakeUWSGI(**what)
        monkeypatch.setattr(uwsgi, "uwsgi", fake)
        return fake

    return become


class TestWays:
    def test_outside_uwsgi_it_is_a_thread(self, site: Process) -> None:
        assert site.state.woken_by == "thread"
        assert site.waffle.status()["woken_by"] == "thread"

    def test_that_is_in_its_first_report(self, host: Host) -> None:
        """Also if the configuration has a value for a variable, so that it is read before."""
        app = Flask("site", instance_path=str(host.instance))
        app.config.update(LIMIT=25, WAFFLE_CONFS={"LIMIT": {"desc": "Upload limit in bytes"}})
        WaffleConf(app)
        (process,) = HostFiles(host.watch_file).processes
        assert process.server["woken_by"] == "thread"

    def test_a_worker_without_a_signal_says_once_which_line_is_missing(
        self, host: Host, server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        server(worker=1, lazy_apps=b"true")

        def program() -> None:
            for _ in range(2):
                assert host.start().state.woken_by == "thread"
            (text,) = logged(caplog, logging.WARNING)
            assert "Add to the ini: shared-import = uwsgi_waffle" in text
            assert "a thread in each looks every WAFFLE_POLL_INTERVAL" in text

        assert run_forked(program) == 0

    def test_other_workers_leave_that_to_the_first(
        self, host: Host, server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        server(worker=2)
        assert host.start().state.woken_by == "thread"
        assert logged(caplog, logging.WARNING) == []

    def test_the_master_serves_nobody(self, host: Host, server: Any) -> None:
        server()
        site = host.start()
        site.tick()
        assert list(site.files.processes) == []

    def test_one_of_them_that_fails_keeps_no_other_from_being_woken(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Watcher:
            poll_interval = reconcile_interval = 1.0
            watched: tuple[Path, ...] = ()
            ticks = 0

            def __init__(self, error: type[BaseException] | None) -> None:
                self.error = error

            def tick(self) -> None:
                self.ticks += 1
                if self.error is not None:
                    raise self.error

            def leave(self) -> None:
                """Do nothing."""

        failing = [Watcher(LookupError), Watcher(SystemExit)]
        sound = Watcher(None)
        for watcher in (*failing, sound):
            watchers.add(watcher)
        tick_all()
        assert sound.ticks == 1
        assert len([text for text in logged(caplog) if "the next tick tries again" in text]) == 2


class TestListening:
    @pytest.mark.parametrize(
        ("what", "configured", "may"),
        [
            ({}, True, False),
            ({"worker": 1}, True, True),
            ({"worker": 1, "mule_line": b"uwsgi_waffle.mule"}, False, True),
            ({"mule": 1, "mule_line": b"uwsgi_waffle.mule"}, True, True),
            ({"mule": 1, "mule_line": b"uwsgi_waffle.mule"}, False, True),
        ],
    )
    def test_a_process_of_uwsgi(
        self, server: Any, what: dict[str, Any], configured: bool, may: bool
    ) -> None:
        """The master never does; where no mule knows where, a worker does."""
        line = what.pop("mule_line", None)
        fake = server(**what)
        if line:
            fake.opt["mule"] = line
        assert wake.can_subscribe(mule_is_configured=configured) is may

    def test_workers_leave_it_to_a_mule_that_knows_where(self, server: Any) -> None:
        def program() -> None:
            born = server()
            wake.start(lambda: None)
            server(worker=1, mules=b"1")
            assert wake.can_subscribe(mule_is_configured=True), "uwsgidecorators took the hook"
            born.post_fork_hook()
            assert not wake.can_subscribe(mule_is_configured=True)
            assert wake.can_subscribe(mule_is_configured=False)

        assert run_forked(program) == 0

    def test_the_parent_of_the_reloader_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(thread, "is_reloader_parent", lambda: True)
        assert not wake.can_subscribe(mule_is_configured=False)


@pytest.mark.parametrize(
    ("process", "name"),
    [
        ("worker 3", "uWSGI"),
        ("mule 1", "uWSGI"),
        ("spooler", "uWSGI"),
        ("uwsgi", "uWSGI"),
        ("gunicorn", "gunicorn"),
        ("flask run", "flask run"),
        ("flask waffle", None),
        ("unknown", None),
        ("backup.py", "backup.py"),
    ],
)
def test_a_server_is_told_from_a_command(process: str, name: str | None) -> None:
    assert wake.server_of(process) == name


class TestMule:
    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No application of another test lives in this process."""
        monkeypatch.setattr(wake, "watchers", set())

    def test_without_the_environment_it_says_what_is_missing(
        self, server: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        server(mule=1).opt["mule"] = b"uwsgi_waffle.mule"
        mule.after_fork()
        (text,) = logged(caplog, logging.WARNING)
        assert "env = WAFFLE_WATCHTYPE=..., env = WAFFLE_WATCHER_FILE=<an absolute path>" in text

    @pytest.mark.parametrize("what", [{"worker": 1}, {}, {"mule": 1}])
    def test_elsewhere_it_says_nothing(
        self, server: Any, what: dict[str, int], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nor in a mule that somebody else has."""
        server(**what)
        mule.after_fork()
        assert caplog.records == []
