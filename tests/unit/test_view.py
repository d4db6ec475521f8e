"""`waffle.latest` is always the newest, and `waffle.snapshot()` holds one revision."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import copy_current_request_context, stream_with_context

from uwsgi_waffle import UnknownVariable
from uwsgi_waffle.testing import override

from ..host import CONFS, Host, Process


def seen(site: Process) -> tuple[object, object, int]:
    waffle = site.waffle
    return waffle.values.SITENAME, site.app.config["SITENAME"], waffle.revision


class TestLatest:
    def test_it_is_the_newest_whatever_the_request_has(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            assert site.waffle.values.SITENAME == "Waffle"
            other.waffle.update({"SITENAME": "New"})
            assert site.waffle.latest.SITENAME == "New"
            assert seen(site) == ("Waffle", "Waffle", 0)

    def test_reading_it_does_not_fix_the_revision_of_the_request(
        self, site: Process, other: Process
    ) -> None:
        with site.app.test_request_context():
            assert site.waffle.latest.SITENAME == "Waffle"
            other.waffle.update({"SITENAME": "New"})
            assert seen(site) == ("New", "New", 1)

    def test_it_is_the_newest_within_a_block(self, site: Process, other: Process) -> None:
        with site.waffle.snapshot():
            other.waffle.update({"SITENAME": "New"})
            assert site.waffle.latest.SITENAME == "New"

    def test_it_asks_no_store_where_nothing_has_changed(self, host: Host) -> None:
        store = host.store()
        site = host.start(store)
        calls = store.calls
        assert site.waffle.latest.SITENAME == "Waffle"
        assert store.calls == calls

    def test_a_job_with_a_copied_context_sees_what_changes_after_the_request(
        self, site: Process, other: Process
    ) -> None:
        """The case of a brake: the job goes on for hours after the answer."""
        changed, found, threads = threading.Event(), [], []

        @site.app.post("/job")
        def start() -> str:
            @copy_current_request_context
            def job() -> None:
                changed.wait(10)
                found.extend([site.waffle.latest.LIMIT, site.waffle.values.LIMIT])

            assert site.waffle.values.LIMIT == 10
            threads.append(threading.Thread(target=job))
            threads[0].start()
            return "started"

        assert site.app.test_client().post("/job").text == "started"
        other.waffle.update({"LIMIT": 20})
        changed.set()
        threads[0].join()
        assert found == [20, 10]

    def test_a_stream_sees_what_changes_while_it_runs(self, site: Process, other: Process) -> None:
        @site.app.get("/stream")
        def stream() -> Any:
            def lines() -> Iterator[str]:
                for number in range(2):
                    yield f"{site.waffle.latest.SITENAME} {site.waffle.values.SITENAME}\n"
                    other.waffle.update({"SITENAME": f"New {number}"})

            return stream_with_context(lines())

        response = site.app.test_client().get("/stream")
        assert response.text == "Waffle Waffle\nNew 0 Waffle\n"

    def test_a_copied_context_and_a_task_have_the_revision_of_their_request(
        self, site: Process, other: Process
    ) -> None:
        """Also when the request has ended."""
        contexts = []

        @site.app.get("/copied")
        def copied() -> str:
            contexts.append(contextvars.copy_context())
            return str(site.waffle.values.LIMIT)

        async def read() -> tuple[int, int]:
            return site.waffle.latest.LIMIT, site.waffle.values.LIMIT

        async def main() -> tuple[int, int]:
            return await asyncio.create_task(read())

        assert site.app.test_client().get("/copied").text == "10"
        other.waffle.update({"LIMIT": 20})
        assert contexts[0].run(asyncio.run, main()) == (20, 10)

    def test_an_override_of_a_test_counts(self, site: Process) -> None:
        with override(site.app, SITENAME="Test"):
            assert site.waffle.latest.SITENAME == "Test"


class TestSnapshot:
    def test_a_block_sees_one_revision(self, site: Process, other: Process) -> None:
        """Through the values, `app.config` and the revision alike."""
        with site.waffle.snapshot() as values:
            other.waffle.update({"SITENAME": "New"})
            assert values.SITENAME == "Waffle"
            assert seen(site) == ("Waffle", "Waffle", 0)
            with site.app.app_context():
                assert seen(site) == ("Waffle", "Waffle", 0)
        assert seen(site) == ("New", "New", 1)

    def test_in_a_request_it_is_that_of_the_request(self, site: Process, other: Process) -> None:
        with site.app.test_request_context():
            assert site.waffle.values.SITENAME == "Waffle"
            other.waffle.update({"SITENAME": "New"})
            with site.waffle.snapshot() as values:
                assert values.SITENAME == "Waffle"

    def test_a_request_context_within_a_block_sees_the_same(
        self, site: Process, other: Process
    ) -> None:
        """A job that renders a page for a mail."""
        with site.waffle.snapshot():
            other.waffle.update({"SITENAME": "New"})
            with site.app.test_request_context():
                assert seen(site) == ("Waffle", "Waffle", 0)
        with site.app.test_request_context():
            assert seen(site) == ("New", "New", 1)

    def test_a_block_within_a_block_is_part_of_it(self, site: Process, other: Process) -> None:
        with site.waffle.snapshot():
            other.waffle.update({"SITENAME": "New"})
            with site.waffle.snapshot() as inner:
                assert inner.SITENAME == "Waffle"
                site.waffle.update({"LIMIT": 20})
            assert seen(site) == ("New", "New", 2)

    @pytest.mark.parametrize("request_too", [False, True])
    @pytest.mark.parametrize(
        "move",
        [
            lambda site: site.waffle.update({"LIMIT": 20}),
            lambda site: site.waffle.refresh(),
            lambda site: site.state.update_conf(),
        ],
        ids=["update", "refresh", "update_conf"],
    )
    def test_its_own_update_or_refresh_moves_it_on(
        self, site: Process, other: Process, move: Callable[[Process], object], request_too: bool
    ) -> None:
        context = site.app.test_request_context() if request_too else site.app.app_context()
        with context:
            with site.waffle.snapshot() as values:
                other.waffle.update({"SITENAME": "New"})
                move(site)
                assert site.waffle.values.SITENAME == site.app.config["SITENAME"] == "New"
                assert values.SITENAME == "Waffle"
            assert site.waffle.values.SITENAME == "New"

    def test_another_thread_is_not_in_the_block(self, site: Process, other: Process) -> None:
        found = []
        with site.waffle.snapshot():
            other.waffle.update({"SITENAME": "New"})
            thread = threading.Thread(
                target=contextvars.Context().run, args=(lambda: found.append(seen(site)),)
            )
            thread.start()
            thread.join()
            assert seen(site) == ("Waffle", "Waffle", 0)
        assert found == [("New", "New", 1)]

    def test_each_task_has_its_own_block(self, site: Process, other: Process) -> None:
        found = {}

        async def job(name: str, updated: asyncio.Event) -> None:
            with site.waffle.snapshot():
                await updated.wait()
                found[name] = seen(site)

        async def both() -> None:
            first_may_end, second_may_end = asyncio.Event(), asyncio.Event()
            first = asyncio.create_task(job("first", first_may_end))
            await asyncio.sleep(0)
            other.waffle.update({"SITENAME": "New"})
            second = asyncio.create_task(job("second", second_may_end))
            await asyncio.sleep(0)
            second_may_end.set()
            await second
            first_may_end.set()
            await first

        asyncio.run(both())
        assert found == {"first": ("Waffle", "Waffle", 0), "second": ("New", "New", 1)}

    def test_each_greenlet_has_its_own_block(self, site: Process, other: Process) -> None:
        gevent = pytest.importorskip("gevent")
        found = {}

        def job(name: str) -> None:
            with site.waffle.snapshot():
                gevent.sleep(0)
                gevent.sleep(0)
                found[name] = seen(site)

        first = gevent.spawn(job, "first")
        gevent.sleep(0)
        other.waffle.update({"SITENAME": "New"})
        second = gevent.spawn(job, "second")
        gevent.joinall([first, second])
        assert found == {"first": ("Waffle", "Waffle", 0), "second": ("New", "New", 1)}

    def test_a_task_that_outlives_the_block_is_fresh(self, site: Process, other: Process) -> None:
        async def job() -> tuple[object, object, int]:
            await asyncio.sleep(0)
            return seen(site)

        async def run() -> tuple[object, object, int]:
            with site.waffle.snapshot():
                task = asyncio.create_task(job())
                other.waffle.update({"SITENAME": "New"})
            return await task

        assert asyncio.run(run()) == ("New", "New", 1)

    def test_a_generator_that_is_closed_elsewhere_ends_its_block(
        self, site: Process, other: Process
    ) -> None:
        """Servers may begin and close a response in two contexts."""

        def lines() -> Iterator[str]:
            with site.waffle.snapshot():
                yield site.waffle.values.SITENAME

        begun = lines()
        assert next(begun) == "Waffle"
        other.waffle.update({"SITENAME": "New"})
        contextvars.Context().run(begun.close)
        assert seen(site) == ("New", "New", 1)

    def test_one_that_was_closed_elsewhere_is_forgotten_by_the_next(
        self, site: Process, other: Process
    ) -> None:
        """Its values don't stay in memory for as long as the thread that began it."""

        def lines() -> Iterator[weakref.ref[object]]:
            with site.waffle.snapshot() as values:
                yield weakref.ref(values)

        begun = lines()
        values = next(begun)
        other.waffle.update({"SITENAME": "New"})
        contextvars.Context().run(begun.close)
        with site.waffle.snapshot():
            gc.collect()
            assert values() is None

    def test_an_error_ends_it(self, site: Process, other: Process) -> None:
        with pytest.raises(UnknownVariable), site.waffle.snapshot():
            site.waffle.update({"SITENAM": "New"})
        other.waffle.update({"SITENAME": "New"})
        assert seen(site) == ("New", "New", 1)

    def test_each_application_has_its_own(self, host: Host, other: Process, site: Process) -> None:
        second = host.start(confs=CONFS)
        with site.waffle.snapshot():
            other.waffle.update({"SITENAME": "New"})
            with second.waffle.snapshot():
                assert seen(second) == ("New", "New", 1)
                assert seen(site) == ("Waffle", "Waffle", 0)
            assert seen(site) == ("Waffle", "Waffle", 0)

    def test_an_override_of_a_test_counts(self, site: Process) -> None:
        with override(site.app, SITENAME="Test"), site.waffle.snapshot() as values:
            assert values.SITENAME == site.app.config["SITENAME"] == "Test"
