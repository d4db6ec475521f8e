"""A process that has no free file descriptor goes on, and says what it lacks."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from uwsgi_waffle import WaffleError
from uwsgi_waffle.health import health_blueprint
from uwsgi_waffle.metrics import WaffleCollector

from ..host import Host, Process, close_all, logged, run_forked, used_up


def start(host: Host) -> Process:
    """Start a process that serves all that looks at the host's files."""
    site = host.start()
    site.app.register_blueprint(health_blueprint(site.waffle, details=lambda: True))
    site.waffle.update({"LIMIT": 20})
    site.app.test_client().get("/health")  # what it imports is there from now on
    list(WaffleCollector(site.waffle).collect())
    return site


def update_elsewhere(host: Host, taken: list[int], limit: int) -> None:
    """Update in a process that has descriptors."""

    def program() -> None:
        close_all(taken)
        host.start().waffle.update({"LIMIT": limit})

    assert run_forked(program) == 0


class TestReading:
    def test_it_serves_what_it_has_until_a_descriptor_is_free(self, host: Host) -> None:
        def program() -> None:
            site = start(host)
            with used_up() as taken:
                for _ in range(3):
                    assert site.waffle.values.LIMIT == 20
                update_elsewhere(host, taken, 30)
                for _ in range(3):
                    site.tick()
                    assert site.waffle.values.LIMIT == 20
            assert site.waffle.values.LIMIT == 30
            assert site.waffle.status()["error"] == ""

        assert run_forked(program) == 0

    def test_what_looks_at_the_processes_says_that_it_cannot_see_them(self, host: Host) -> None:
        def program() -> None:
            site = start(host)
            with used_up():
                metrics = {m.name: m.samples for m in WaffleCollector(site.waffle).collect()}
                health: Any = site.app.test_client().get("/health").json
                status = site.waffle.status()
            for found in (status, health["status"]):
                (process,) = found["processes"]
                assert process["kind"] == "unknown"
                assert process["behind"]
                assert process["age"] < 60
                assert "Too many open files. Raise this process's limit" in process["error"]
            assert metrics["uwsgi_waffle_processes_behind"][0].value == 1
            assert [p["kind"] for p in site.waffle.status()["processes"]] != ["unknown"]

        assert run_forked(program) == 0


class TestUpdating:
    def test_it_works_or_says_what_is_missing(self, host: Host) -> None:
        """However many descriptors are left, and SQLite needs some, too."""

        def program() -> None:
            site, errors = start(host), []
            for free in range(12):
                with used_up(free=free):
                    try:
                        site.waffle.update({"LIMIT": 100 + free}, wait=0)
                    except WaffleError as error:
                        errors.append(str(error))
                    before = site.waffle.values.LIMIT
                assert site.waffle.refresh()
                assert before == site.waffle.values.LIMIT, free
            assert 2 < len(errors) < 12
            assert all("Raise this process's limit of open files" in text for text in errors)
            assert before == 111

        assert run_forked(program) == 0

    def test_one_that_is_stored_is_none_that_failed(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whoever waits for the others learns that they can't be seen, and why."""

        def program() -> None:
            site, hold = start(host), []

            @site.waffle.on_update()
            def leak(update: object) -> None:
                hold.append(used_up())
                hold[0].__enter__()

            result = site.waffle.update({"LIMIT": 30}, wait=0.01)
            hold[0].__exit__(None, None, None)
            assert (result.revision, result.changed, result.applied) == (2, ("LIMIT",), ())
            (unseen,) = result.pending
            assert (unseen.kind, unseen.pid) == ("unknown", 0)
            assert "ulimit -n" in unseen.error
            (line,) = logged(caplog, logging.WARNING)
            assert "revision 2 is stored; who has applied it can't be seen: " in line
            assert site.waffle.values.LIMIT == 30

        assert run_forked(program) == 0
