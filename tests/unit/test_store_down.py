"""A store that fails: what was served goes on being served, said once, and tried again."""

from __future__ import annotations

import logging
import time

import pytest
from sqlalchemy.exc import DatabaseError

from uwsgi_waffle import StoreUnavailable, fetch, sync, wake

from ..host import ALWAYS, NEVER, FaultyStore, Host, Process, eventually, logged


def take_away(store: FaultyStore, process: Process) -> None:
    """Let the store fail; the process finds that out, and serves on."""
    store.failing = ALWAYS
    process.files.invalidate()
    assert process.waffle.values.LIMIT == 10


class TestStoreDown:
    def test_the_last_good_values_are_served_until_it_is_back(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        process = host.start(store := host.store())
        process.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = '30'")
        store.failing = ALWAYS
        process.files.invalidate()
        for _ in range(5):
            assert process.waffle.values.LIMIT == 20
        assert "the store is down" in process.waffle.status()["store_error"]
        store.failing = NEVER
        process.tick()
        assert process.waffle.values.LIMIT == 30
        assert process.waffle.status()["store_error"] == ""
        assert [text for text in logged(caplog, logging.WARNING) if "is back" in text]

    def test_it_is_logged_once_for_the_host_and_incident(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        stores = [host.store(), host.store()]
        first, second = (host.start(store, RECONCILE_INTERVAL=1e-9) for store in stores)
        for incident in (1, 2):
            for store in stores:
                store.failing = ALWAYS
            first.files.invalidate()
            for _ in range(5):
                first.tick()
                second.tick()
            assert len(logged(caplog)) == incident
            assert "serving the last good values: the store is down" in logged(caplog)[-1]
            for store in stores:
                store.failing = NEVER
            first.tick()

    def test_a_command_that_sees_it_first_does_not_keep_it_from_the_servers_log(
        self, host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its own line is on somebody's terminal."""
        server, command = (host.start(host.store()) for _ in range(2))
        for process in (server, command):
            assert isinstance(process.state.store, FaultyStore)
            process.state.store.failing = ALWAYS
        for process in (command, command, server, server, command, server):
            with monkeypatch.context() as patch:
                if process is command:
                    patch.setattr(wake, "_program", lambda: "flask waffle list")
                process.files.invalidate()
                process.tick()
        lines = logged(caplog)
        assert len(lines) == 2
        assert ["flask waffle list" in line for line in lines] == [True, False]

    def test_requests_do_not_ask_it_again(self, host: Host) -> None:
        """A silent database must not cost requests anything."""
        process = host.start(store := host.store())
        take_away(store, process)
        calls = store.calls
        for _ in range(5):
            assert process.waffle.values.LIMIT == 10
            time.sleep(sync.CHECK_INTERVAL)
        assert store.calls == calls
        process.tick()
        assert store.calls == calls + 1

    def test_a_request_asks_it_again_when_somebody_says_that_it_has_changed(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer that died after its commit, or another host: its update must be seen."""
        monkeypatch.setattr(fetch, "FIRST_RETRY", 60.0)
        process = host.start(store := host.store())
        take_away(store, process)
        store.failing = NEVER
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        assert process.waffle.values.LIMIT == 10
        process.files.invalidate()
        assert process.waffle.values.LIMIT == 20

    def test_ticks_wait_ten_times_as_long_as_the_attempt_took(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetch, "RETRY_FACTOR", 10)
        took, asked = 0.03, []

        class SlowStore(FaultyStore):
            def _count(self) -> None:
                if self.failing is ALWAYS:
                    asked.append(time.monotonic())
                    time.sleep(took)
                super()._count()

        store = SlowStore(f"sqlite:///{host.database}")
        process = host.start(store, RECONCILE_INTERVAL=1e-9)
        store.failing = ALWAYS
        process.files.invalidate()

        def two_attempts() -> bool:
            process.tick()
            return len(asked) == 2

        eventually(two_attempts)
        assert asked[1] - asked[0] >= 11 * took

    def test_a_refresh_asks_it_at_once_and_says_what_is_wrong(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetch, "FIRST_RETRY", 60.0)
        process = host.start(store := host.store())
        store.failing = ALWAYS
        with pytest.raises(StoreUnavailable, match="down"):
            process.waffle.refresh()
        assert process.waffle.values.LIMIT == 10
        store.failing = NEVER
        assert process.waffle.refresh() == 0
        assert process.waffle.status()["store_error"] == ""

    def test_its_error_names_the_drivers_as_its_cause(self, host: Host, site: Process) -> None:
        host.sql("DROP TABLE waffle_values")
        with pytest.raises(StoreUnavailable) as caught:
            site.waffle.refresh()
        assert isinstance(caught.value.__cause__, DatabaseError)

    def test_a_writers_success_ends_the_incident(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetch, "FIRST_RETRY", 60.0)
        process = host.start(store := host.store())
        take_away(store, process)
        site.waffle.update({"LIMIT": 20})
        assert process.waffle.values.LIMIT == 20
        assert process.waffle.status()["store_error"] == ""
        assert process.files.notes().retry_at == 0

    @pytest.mark.parametrize("call", [1, 2, 3, 4])
    def test_a_failure_at_any_call_leaves_whole_values(
        self, host: Host, site: Process, call: int
    ) -> None:
        process = host.start(store := host.store())
        store.failing = [store.calls + call]
        done = 0
        for number in range(1, 6):
            process.files.invalidate()
            process.tick()
            try:
                process.waffle.update({"LIMIT": number, "SITENAME": str(number)})
                done = number
            except StoreUnavailable:
                pass
            assert site.waffle.values.LIMIT == process.waffle.values.LIMIT == (done or 10)
            assert (str(done) if done else "Waffle") == site.waffle.values.SITENAME
        assert done == 5

    def test_an_update_is_refused_and_changes_nothing(self, host: Host, site: Process) -> None:
        process = host.start(store := host.store())
        store.failing = ALWAYS
        with pytest.raises(StoreUnavailable, match="down"):
            process.waffle.update({"LIMIT": 20})
        assert (process.waffle.values.LIMIT, site.waffle.values.LIMIT) == (10, 10)

    @pytest.mark.parametrize("error", [StoreUnavailable, LookupError])
    def test_an_error_without_text_or_of_any_kind_is_one_like_others(
        self, host: Host, error: type[Exception]
    ) -> None:
        class Strange(FaultyStore):
            def _count(self) -> None:
                self.calls += 1
                if self.failing is ALWAYS:
                    raise error()

        store = Strange(f"sqlite:///{host.database}")
        process = host.start(store)
        take_away(store, process)
        calls = store.calls
        for _ in range(3):
            assert process.waffle.values.LIMIT == 10
        assert store.calls == calls
        assert error.__name__ in process.waffle.status()["store_error"]
