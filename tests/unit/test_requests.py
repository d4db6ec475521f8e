"""A request keeps the revision of its first read, and one that reads nothing pays nothing (P2)."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from flask import Flask, copy_current_request_context, current_app
from werkzeug.test import create_environ

import uwsgi_waffle
from uwsgi_waffle import InvalidValue, SQLStore, WaffleConf, sync, unix
from uwsgi_waffle.stores import Stored

from ..host import CONFS, Host, Process

PACKAGE = Path(uwsgi_waffle.__file__).parent


class Calls:
    """Counts the system calls by which this thread looks at its files: others have their own."""

    NAMES = ("pread", "pwrite", "fstat", "lstat", "stat", "open", "read", "write", "listdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        self._thread = threading.get_ident()
        gc.collect()  # what former tests have left would be counted when it is collected
        for module in (os, unix):
            for name in self.NAMES:
                if hasattr(module, name):
                    call = self._counting(name, getattr(module, name))
                    monkeypatch.setattr(module, name, call)

    def _counting(self, name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if threading.get_ident() == self._thread:
                self.made.append(name)
            return genuine(*args, **options)

        return call


def functions_run(site: Process, path: str) -> set[str]:
    """Return the package's functions that this thread runs for a request."""
    environ = create_environ(path)
    found = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            found.add(f"{type(frame.f_locals.get('self')).__name__}.{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        b"".join(site.app.wsgi_app(environ, lambda *_: lambda _: None))
    finally:
        sys.setprofile(None)
    return found


class TestCost:
    @pytest.fixture
    def site(self, host: Host) -> Process:
        site = host.start()
        site.app.add_url_rule("/nothing", view_func=lambda: "nothing", endpoint="nothing")
        site.app.add_url_rule(
            "/twice", view_func=lambda: f"{site.waffle.values.LIMIT} {current_app.config['LIMIT']}"
        )
        return site

    def test_no_function_is_registered_to_run_with_requests(self, site: Process) -> None:
        app = site.app
        assert (app.before_request_funcs, app.after_request_funcs) == ({}, {})
        assert (app.teardown_request_funcs, app.teardown_appcontext_funcs) == ({}, [])
        assert app.url_value_preprocessors == {}

    def test_a_request_that_reads_nothing_runs_no_function_of_the_package(
        self, site: Process
    ) -> None:
        assert functions_run(site, "/nothing") == set()
        assert "View.current" in functions_run(site, "/twice")  # the same look sees what reads

    @pytest.mark.parametrize("path", ["/nothing", "/missing"])
    def test_a_request_that_reads_nothing_makes_no_system_call(
        self, site: Process, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        client = site.app.test_client()
        client.get(path)
        calls = Calls(monkeypatch)
        client.get(path)
        assert calls.made == []

    def test_one_that_reads_makes_two_however_often_it_reads(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "CHECK_INTERVAL", 1e9)
        client = site.app.test_client()
        site.tick()
        calls = Calls(monkeypatch)
        assert client.get("/twice").text == "10 10"
        assert calls.made == ["fstat", "pread"]

    def test_a_read_outside_a_request_makes_two(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "CHECK_INTERVAL", 1e9)
        site = host.start(store := host.store())
        site.tick()
        asked, calls = store.calls, Calls(monkeypatch)
        for _ in range(100):
            assert site.waffle.values.LIMIT == 10
        assert len(calls.made) == 200
        assert store.calls == asked

    def test_the_latest_in_a_request_costs_the_same(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "CHECK_INTERVAL", 1e9)
        site.tick()
        with site.app.test_request_context():
            assert site.waffle.values.LIMIT == 10
            calls = Calls(monkeypatch)
            assert site.waffle.latest.LIMIT == 10
        assert calls.made == ["fstat", "pread"]

    def test_the_files_are_looked_at_once_in_the_check_interval(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync, "CHECK_INTERVAL", 0.0)
        site.tick()
        calls = Calls(monkeypatch)
        assert site.waffle.values.LIMIT == 10
        assert 2 < len(calls.made) < 12
        assert "open" not in calls.made


class TestRevision:
    def test_a_request_keeps_the_one_of_its_first_read(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            first = site.waffle.values
            other.waffle.update({"LIMIT": 20})
            site.tick()
            assert site.waffle.values is first
            assert (site.app.config["LIMIT"], site.app.config.get("LIMIT")) == (10, 10)
            assert (dict(site.app.config)["LIMIT"], site.waffle.revision) == (10, 0)
        assert site.waffle.values.LIMIT == 20
        with site.app.test_request_context():
            assert site.waffle.values.LIMIT == 20

    @pytest.mark.parametrize("first", ["values", "config", "revision", "parse_conf"])
    def test_whatever_reads_first_all_read_the_same(
        self, site: Process, other: Process, first: str
    ) -> None:
        read: dict[str, Callable[[], object]] = {
            "values": lambda: site.waffle.values.LIMIT,
            "config": lambda: site.app.config["LIMIT"],
            "revision": lambda: site.waffle.revision,
            "parse_conf": lambda: site.state.parse_conf(["LIMIT"]),
        }
        with site.app.test_request_context():
            before = read[first]()
            other.waffle.update({"LIMIT": 20})
            assert read[first]() == before
            assert (site.waffle.values.LIMIT, site.app.config["LIMIT"]) == (10, 10)

    def test_it_is_the_newest_at_the_first_read_not_at_the_beginning(
        self, site: Process, other: Process
    ) -> None:
        with site.app.test_request_context():
            other.waffle.update({"LIMIT": 20})
            assert site.waffle.values.LIMIT == 20

    def test_an_early_read_of_the_application_counts(self, site: Process, other: Process) -> None:
        """Flask matches the address and opens the session before its first function."""

        @site.app.url_value_preprocessor
        def early(endpoint: str | None, values: dict[str, Any] | None) -> None:
            assert site.waffle.values.LIMIT == 10
            other.waffle.update({"LIMIT": 20})

        site.app.add_url_rule("/", view_func=lambda: str(current_app.config["LIMIT"]))
        assert site.app.test_client().get("/").text == "10"

    def test_its_own_update_moves_it_on(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            assert site.waffle.revision == 0
            other.waffle.update({"LIMIT": 20})
            site.waffle.update({"SITENAME": "New"})
            assert (site.waffle.values.LIMIT, site.app.config["SITENAME"]) == (20, "New")
            assert site.waffle.revision == 2

    @pytest.mark.parametrize("refresh", ["refresh", "update_conf"])
    def test_its_own_refresh_moves_it_on(self, site: Process, other: Process, refresh: str) -> None:
        with site.app.test_request_context():
            assert site.waffle.revision == 0
            other.waffle.update({"LIMIT": 20})
            site.waffle.refresh() if refresh == "refresh" else site.state.update_conf()
            assert (site.waffle.revision, site.app.config["LIMIT"]) == (1, 20)

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

    def test_threads_that_share_a_request_read_the_same(self, host: Host, site: Process) -> None:
        """Also if they read first at the same time, and one waits for the store."""
        reading, go_on = threading.Event(), threading.Event()

        class WaitingStore(SQLStore):
            def load_after_pending_writes(self) -> Stored:
                stored = super().load_after_pending_writes()
                if threading.current_thread() is slow:
                    reading.set()
                    assert go_on.wait(60)
                return stored

        slow = threading.Thread()
        own = host.start(WaitingStore(f"sqlite:///{host.database}"))
        found: list[int] = []
        with own.app.test_request_context():
            read = copy_current_request_context(lambda: found.append(own.app.config["LIMIT"]))
            slow = threading.Thread(target=read)
            host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
            host.sql("UPDATE waffle_meta SET revision = revision + 1")
            host.open_files().invalidate()
            slow.start()
            assert reading.wait(60)
            assert own.app.config["LIMIT"] == 10
            go_on.set()
            slow.join()
            assert (found, own.app.config["LIMIT"]) == ([10], 10)

    @pytest.mark.parametrize("context", ["none", "application"])
    def test_outside_a_request_every_read_is_of_the_newest(
        self, site: Process, other: Process, context: str
    ) -> None:
        def read() -> int:
            if context == "none":
                return int(site.waffle.values.LIMIT)
            with site.app.app_context():
                return int(current_app.config["LIMIT"])

        for number in (1, 2):
            other.waffle.update({"LIMIT": number})
            assert read() == number

    def test_two_applications_in_one_request_have_each_its_own(
        self, host: Host, site: Process, other: Process, tmp_path: Any
    ) -> None:
        second = Host(tmp_path / "second").start()
        with site.app.test_request_context():
            assert (site.waffle.revision, second.waffle.revision) == (0, 0)
            second.waffle.update({"LIMIT": 20})
            other.waffle.update({"LIMIT": 30})
            assert (site.waffle.values.LIMIT, second.waffle.values.LIMIT) == (10, 20)


def test_a_variable_that_flask_itself_reads_is_fresh(host: Host) -> None:
    """SERVER_NAME, for one, is read before the request has a context."""
    app = Flask("site", instance_path=str(host.instance))
    app.config["WAFFLE_CONFS"] = {**CONFS, "SERVER_NAME": {"default": "a.example"}}
    waffle = WaffleConf(app)
    for name in ("a.example", "b.example"):
        waffle.update({"SERVER_NAME": name})
        with app.app_context():
            assert app.url_for("static", filename="x") == f"http://{name}/static/x"
