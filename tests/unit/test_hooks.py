"""The ``on_change`` hooks: once for each change, in order, and never in the way."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any, NoReturn

import pytest
from flask import Flask, current_app
from pydantic import BaseModel, model_validator

import uwsgi_waffle
from uwsgi_waffle import Change, UnknownVariable, WaffleConf

from ..host import Host, Process, logged, recorded


class TestChanges:
    def test_a_change_comes_once_with_old_and_new(self, site: Process, other: Process) -> None:
        mine, theirs = recorded(site), recorded(other)
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"})
        other.tick()
        other.tick()
        for (change,) in (mine, theirs):
            assert change.revision == 1
            assert change.old == {"LIMIT": 10, "SITENAME": "Waffle"}
            assert change.new == {"LIMIT": 20, "SITENAME": "New"}

    def test_changes_come_in_order(self, site: Process, other: Process) -> None:
        changes = recorded(other)
        for number in (1, 2, 3):
            site.waffle.update({"LIMIT": number})
            other.tick()
        found = [(c.revision, c.old["LIMIT"], c.new["LIMIT"]) for c in changes]
        assert found == [(1, 10, 1), (2, 1, 2), (3, 2, 3)]

    def test_what_was_missed_meanwhile_is_one_change(self, site: Process, other: Process) -> None:
        changes = recorded(other)
        for number in (1, 2, 3):
            site.waffle.update({"LIMIT": number})
        other.tick()
        assert [(c.revision, c.old["LIMIT"], c.new["LIMIT"]) for c in changes] == [(3, 10, 3)]

    def test_a_start_is_no_change(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        waffle = WaffleConf()
        changes: list[Change] = []
        waffle.on_change(changes.append)
        host.start(waffle=waffle).tick()
        assert changes == []

    def test_what_a_model_works_out_once_is_no_variable(self, host: Host) -> None:
        """A validator may ask for it at one update and not at another."""

        class Limits(BaseModel):
            LOW: int = 1
            HIGH: int = 9
            CHECKED: bool = False

            @cached_property
            def span(self) -> int:
                return self.HIGH - self.LOW

            @model_validator(mode="after")
            def check(self) -> Limits:
                assert not self.CHECKED or self.span >= 0
                return self

        site, other = host.start(confs=Limits), host.start(confs=Limits)
        changes = recorded(other)
        for checked in (True, False):
            site.waffle.update({"CHECKED": checked})
            other.tick()
        assert [dict(change.new) for change in changes] == [{"CHECKED": True}, {"CHECKED": False}]

    def test_an_undone_change_is_no_change(self, site: Process, other: Process) -> None:
        changes = recorded(other)
        site.waffle.update({"LIMIT": 20})
        site.waffle.reset("LIMIT")
        other.tick()
        assert changes == []
        assert other.waffle.revision == 2

    @pytest.mark.parametrize(
        ("old", "new"), [(0, False), (1, True), ([0], [False]), ({"a": 1}, {"a": True})]
    )
    def test_what_python_calls_equal_may_be_a_change(
        self, host: Host, old: object, new: object
    ) -> None:
        site = host.start(confs={"ANY": {"default": old, "type": "json"}})
        changes = recorded(site, "ANY")
        site.waffle.update({"ANY": new})
        assert repr([change.new["ANY"] for change in changes]) == repr([new])

    def test_its_mappings_are_read_only(self, site: Process) -> None:
        changes = recorded(site)
        site.waffle.update({"LIMIT": 20})
        with pytest.raises(TypeError):
            changes[0].new["LIMIT"] = 5  # type: ignore[index]  # that is what is tested

    def test_a_thread_that_is_late_brings_no_old_values_back(
        self, site: Process, other: Process
    ) -> None:
        """Threads that read while revisions are published call the hooks in their order."""
        revisions: list[int] = []
        other.waffle.on_change()(lambda change: revisions.append(change.revision))
        stop = threading.Event()

        def read() -> None:
            newest = 0
            while not stop.is_set():
                seen = other.waffle.revision
                assert seen >= newest
                newest = seen

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 31):
            site.waffle.update({"LIMIT": number})
        stop.set()
        for thread in threads:
            thread.join()
        other.tick()
        assert revisions == sorted(revisions)
        assert (revisions[-1], other.waffle.values.LIMIT) == (30, 30)


class TestRegistering:
    def test_names_select(self, site: Process) -> None:
        limit, either = recorded(site, "LIMIT"), recorded(site, "LIMIT", "TOKEN")
        site.waffle.update({"SITENAME": "New"})
        site.waffle.update({"LIMIT": 20, "SITENAME": "x"})
        site.waffle.update({"TOKEN": "y"})
        assert [change.revision for change in limit] == [2]
        assert [change.revision for change in either] == [2, 3]

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

    @pytest.mark.parametrize("given", [("LIMIT", print), (["LIMIT"],)], ids=repr)
    def test_what_would_register_nothing_is_refused(self, site: Process, given: Any) -> None:
        with pytest.raises(TypeError, match="Name the variables, and decorate"):
            site.waffle.on_change(*given)

    def test_an_unknown_name_is_refused_before_and_after_init_app(
        self, host: Host, site: Process
    ) -> None:
        with pytest.raises(UnknownVariable, match="'SITE'"):
            site.waffle.on_change("SITE")(print)
        waffle = WaffleConf()
        waffle.on_change("SITE")(print)
        with pytest.raises(UnknownVariable, match="'SITE'"):
            host.start(waffle=waffle)

    def test_the_signal_names_the_application(self, site: Process, other: Process) -> None:
        seen: list[tuple[Flask, int]] = []

        def receive(sender: Flask, change: Change) -> None:
            seen.append((sender, change.revision))

        with uwsgi_waffle.config_changed.connected_to(receive):
            site.waffle.update({"LIMIT": 20})
            other.tick()
        assert seen == [(site.app, 1), (other.app, 1)]


class TestErrors:
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
        (text,) = logged(caplog)
        assert "faulty" in text
        assert "revision 1" in text

    def test_a_receiver_that_fails_stops_no_other_and_is_named(
        self, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        revisions: list[int] = []

        def failing(app: Flask, change: Change) -> None:
            raise RuntimeError("broken")

        def sound(app: Flask, change: Change) -> None:
            revisions.append(change.revision)

        for receiver in (failing, sound):
            uwsgi_waffle.config_changed.connect(receiver, sender=site.app)
        site.waffle.update({"LIMIT": 1})
        assert revisions == [1]
        assert "failing" in caplog.text

    def test_a_teardown_that_fails_is_logged(
        self, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(error: object) -> NoReturn:
            raise LookupError("oops")

        changes = recorded(site)
        site.app.teardown_appcontext(broken)
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert len(changes) == 1
        assert any("a teardown function failed" in line for line in logged(caplog))

    def test_where_no_thread_can_be_started_the_update_succeeds(
        self, site: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        changes = recorded(site)

        def full(thread: threading.Thread) -> NoReturn:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as limit:
            limit.setattr(threading.Thread, "start", full)
            assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert site.waffle.values.LIMIT == 20
        (text,) = logged(caplog)
        assert "hooks of revision 1 were not called: can't start new thread" in text
        site.waffle.update({"LIMIT": 30})
        assert [change.revision for change in changes] == [2]

    def test_a_time_limit_of_the_applications_own_passes_and_its_hooks_run_once(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as gevent's Timeout, while the hooks' thread is waited for."""
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

    def test_those_of_a_thread_that_was_cut_off_are_called_by_the_next_read(
        self, site: Process, other: Process
    ) -> None:
        class CutOff(BaseException):
            """As gevent's Timeout."""

        seen: list[object] = []

        @site.waffle.on_change
        def hook(change: Change) -> None:
            seen.append(change.new["LIMIT"])
            if change.new["LIMIT"] == 20:
                other.waffle.update({"LIMIT": 30})
                thread = threading.Thread(target=site.tick)  # it leaves the hooks to this one
                thread.start()
                thread.join()
                raise CutOff

        other.waffle.update({"LIMIT": 20})
        with pytest.raises(CutOff):
            site.tick()
        site.tick()
        assert site.waffle.values.LIMIT == 30
        assert seen == [20, 30]


class TestContext:
    def test_one_may_update_and_all_come_in_order(self, site: Process, other: Process) -> None:
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
        assert [process.revision for process in site.files.processes if process.revision] == [3, 3]

    def test_it_sees_the_new_values_within_a_request_that_has_old_ones(
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
    def test_it_ends_no_session_of_the_request_under_way(
        self, site: Process, other: Process, hooks: int
    ) -> None:
        """SQLAlchemy's belongs to the thread, and is removed when an application context ends."""
        of_thread = threading.local()
        closed: list[object] = []
        site.app.teardown_appcontext(
            lambda error: closed.append(getattr(of_thread, "session", None))
        )
        changes = recorded(site) if hooks else []
        with site.app.test_request_context():
            of_thread.session = "of the request"
            site.waffle.update({"LIMIT": 20})
            other.waffle.update({"LIMIT": 30})
            site.waffle.refresh()
        assert closed == [None] * len(changes) + ["of the request"]
        assert len(changes) == 2 * hooks
        del closed[:]
        other.waffle.update({"LIMIT": 40})
        assert site.waffle.values.LIMIT == 40, "a script's session neither"
        assert closed == [None] * hooks

    def test_making_its_context_may_read_what_changes(self, host: Host) -> None:
        """Flask itself reads SERVER_NAME for it."""
        site, other = (
            host.start(confs={"SERVER_NAME": {"default": "a.example"}}) for _ in range(2)
        )
        seen: list[str] = []

        @site.waffle.on_change
        def look(change: Change) -> None:
            seen.append(current_app.url_for("static", filename="x"))

        for process, name in ((site, "b.example"), (other, "c.example")):
            process.waffle.update({"SERVER_NAME": name})
            site.tick()
        assert seen == ["http://b.example/static/x", "http://c.example/static/x"]
