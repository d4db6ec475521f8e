"""A value that is set for a time goes back by itself: once per store, in its own revision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from annotated_types import Ge

from uwsgi_waffle import InvalidValue, MemoryStore, ending, expiry
from uwsgi_waffle.served import repairing

from ..host import ALWAYS, CONFS, NEVER, Host, Ordered, Process, eventually

HOUR = timedelta(hours=1)


class Clock:
    """The time of day, which every process of the test reads."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self, zone: timezone) -> datetime:
        return datetime.now(zone) + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    stand_in = SimpleNamespace(now=clock.now, fromtimestamp=datetime.fromtimestamp)
    for module in (expiry, ending):
        monkeypatch.setattr(module, "datetime", stand_in)
    return clock


@pytest.fixture
def site(host: Host, clock: Clock) -> Process:
    return host.start()


def values(site: Process) -> tuple[str, int]:
    return site.waffle.values.SITENAME, site.waffle.values.LIMIT


class TestEnd:
    def test_the_values_before_come_back_in_one_revision(self, site: Process, clock: Clock) -> None:
        site.waffle.update({"LIMIT": 15})
        site.waffle.update({"SITENAME": "New", "LIMIT": 20}, expires=HOUR)
        clock.ahead = HOUR - timedelta(minutes=1)
        site.tick()
        assert values(site) == ("New", 20)
        clock.ahead = HOUR
        site.tick()
        assert (values(site), site.waffle.revision) == (("Waffle", 15), 3)
        rows = site.waffle.history(limit=2)
        assert {(row.key, row.old, row.new, row.actor, row.revision) for row in rows} == {
            ("SITENAME", "New", "Waffle", "expiry", 3),
            ("LIMIT", 20, 15, "expiry", 3),
        }

    def test_whoever_ends_it_tells(self, host: Host, site: Process, clock: Clock) -> None:
        """That the time of a value changes is no update that is told."""
        told: list[tuple[str | None, dict[str, Any]]] = []
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        other = host.start()
        site.waffle.on_update(lambda update: told.append((update.actor, dict(update.new))))
        site.waffle.update({"LIMIT": 20}, expires=2 * HOUR)
        assert told == []
        clock.ahead = 2 * HOUR
        site.tick()
        other.tick()
        assert told == [("expiry", {"LIMIT": 10})]

    def test_a_temporary_reset_ends_as_well(self, site: Process, clock: Clock) -> None:
        site.waffle.update({"LIMIT": 15})
        site.waffle.reset("LIMIT", expires=HOUR)
        assert site.waffle.values.LIMIT == 10
        clock.ahead = HOUR
        site.tick()
        assert site.waffle.values.LIMIT == 15

    def test_whoever_ticks_first_does_it_and_nobody_else(
        self, host: Host, site: Process, clock: Clock
    ) -> None:
        others = [host.start() for _ in range(3)]
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        clock.ahead = 2 * HOUR
        for process in (*others, site):
            process.tick()
        assert {process.waffle.revision for process in (*others, site)} == {2}
        assert [row.actor for row in site.waffle.history()] == ["expiry", None]

    def test_ten_hosts_end_it_once(self, tmp_path: Path, site: Process, clock: Clock) -> None:
        """They share a store, and no files."""
        hosts = [Host(tmp_path / f"host{number}") for number in range(10)]
        processes = [host.start(site.state.store) for host in hosts for _ in range(2)]
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        for process in processes:
            process.waffle.refresh()
        clock.ahead = HOUR
        with ThreadPoolExecutor(len(processes)) as pool:
            list(pool.map(Process.tick, processes))
        assert {process.waffle.refresh() for process in processes} == {2}
        assert [row.actor for row in site.waffle.history()] == ["expiry", None]

    def test_a_refresh_ends_it_where_nothing_ticks(self, clock: Clock, host: Host) -> None:
        site = host.start(MemoryStore())
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        clock.ahead = HOUR
        assert site.waffle.refresh() == 2
        assert site.waffle.values.LIMIT == 10

    def test_it_survives_a_restart(self, host: Host, site: Process, clock: Clock) -> None:
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        clock.ahead = HOUR
        later = host.start()
        later.tick()
        assert later.waffle.values.LIMIT == 10


class TestMeanwhile:
    @pytest.mark.parametrize("limit", [20, 30])
    def test_what_was_set_since_stays(self, site: Process, clock: Clock, limit: int) -> None:
        """Also if it was set to the same value."""
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"}, expires=HOUR)
        site.waffle.update({"LIMIT": limit})
        clock.ahead = HOUR
        site.tick()
        assert values(site) == ("Waffle", limit)

    def test_set_for_a_time_again_it_goes_back_to_what_was_before_both(
        self, site: Process, clock: Clock
    ) -> None:
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        site.waffle.update({"LIMIT": 30}, expires=2 * HOUR)
        clock.ahead = HOUR
        site.tick()
        assert site.waffle.values.LIMIT == 30
        clock.ahead = 2 * HOUR
        site.tick()
        assert site.waffle.values.LIMIT == 10

    def test_a_rollback_makes_what_it_changes_permanent(self, site: Process, clock: Clock) -> None:
        site.waffle.update({"LIMIT": 15})
        site.waffle.update({"LIMIT": 20, "SITENAME": "New"}, expires=HOUR)
        site.waffle.update({"LIMIT": 30}, expires=HOUR)
        site.waffle.rollback(2)
        clock.ahead = HOUR
        site.tick()
        assert values(site) == ("Waffle", 20)

    def test_a_version_that_knows_no_expiry_has_set_it(
        self, host: Host, site: Process, clock: Clock
    ) -> None:
        """It leaves the row of temporary values as it was."""
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        host.sql("UPDATE waffle_values SET value = '30' WHERE key = 'LIMIT'")
        site.waffle.refresh()
        clock.ahead = HOUR
        site.tick()
        assert site.waffle.values.LIMIT == 30
        assert site.state.newest_published().temporary == {}


class Named(Ordered):
    NAME: str = "Waffle"


class TestErrors:
    @pytest.mark.parametrize("expires", [timedelta(), -HOUR, timedelta.max])
    def test_only_a_time_to_come(self, site: Process, expires: timedelta) -> None:
        with pytest.raises(ValueError, match="expires="):
            site.waffle.update({"LIMIT": 20}, expires=expires)
        assert site.waffle.revision == 0

    @pytest.mark.parametrize("expires", [30, 0.5, "30m", True, datetime.max])
    def test_only_a_duration(self, site: Process, expires: object) -> None:
        with pytest.raises(TypeError, match=r"expires must be a datetime\.timedelta, not "):
            site.waffle.update({"LIMIT": 20}, expires=expires)  # type: ignore[arg-type]  # the point
        assert site.waffle.revision == 0

    def test_what_does_not_fit_any_more_gets_its_default(
        self, host: Host, site: Process, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It keeps no other value from going back."""
        site.waffle.update({"LIMIT": 15, "SITENAME": "Old"})
        site.waffle.update({"LIMIT": 200, "SITENAME": "New"}, expires=HOUR)
        limit = {"default": 100, "type": Annotated[int, Ge(100)]}
        later = host.start(confs={**CONFS, "LIMIT": limit})
        clock.ahead = HOUR
        for _ in range(2):
            later.tick()
        assert (later.waffle.values.LIMIT, later.waffle.values.SITENAME) == (100, "Old")
        assert caplog.text.count("the value of LIMIT before its temporary one doesn't fit") == 1

    def test_what_does_not_fit_the_others_waits_until_it_does(
        self, host: Host, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It keeps no other value from going back, and no command writes what servers refuse."""
        site = host.start(confs=Named, RECONCILE_INTERVAL=0.001)
        site.waffle.update({"HIGH": 20}, expires=HOUR)
        site.waffle.update({"NAME": "New"}, expires=2 * HOUR)
        site.waffle.update({"LOW": 15})
        clock.ahead = 2 * HOUR
        with repairing():
            command = host.start(confs=Named)
        for process in (command, site):
            process.waffle.refresh()
        assert dict(site.waffle.values) == {"LOW": 15, "HIGH": 20, "NAME": "Waffle"}
        assert "can't be set back yet: The values don't fit" in caplog.text
        site.waffle.update({"LOW": 5})
        eventually(lambda: [site.tick(), site.waffle.values.HIGH][1] == 10)

    @pytest.mark.parametrize("row", ["[]", "{", '{"LIMIT": 1}', '{"LIMIT": ["x", null, null]}'])
    def test_a_row_edited_by_hand_stops_no_update(
        self, host: Host, site: Process, row: str
    ) -> None:
        site.waffle.update({"LIMIT": 20}, expires=HOUR)
        edit = "UPDATE waffle_values SET value = ? WHERE key = 'WAFFLE_EXPIRES'"
        host.sql(edit, row)
        if row == "{":
            with pytest.raises(InvalidValue, match="WAFFLE_EXPIRES"):
                site.waffle.refresh()
        else:
            site.waffle.update({"LIMIT": 30}, expires=HOUR)
            assert list(site.state.newest_published().temporary) == ["LIMIT"]


class TestFormerNames:
    @pytest.fixture
    def site(self, host: Host, clock: Clock) -> Process:
        host.start(confs={"OLD": {"default": 1}}).waffle.update({"OLD": 5})
        return host.start(confs={"NEW": {"default": 1, "was": "OLD"}, "OTHER": {"default": 0}})

    def test_an_update_of_another_variable_changes_nothing_about_it(
        self, site: Process, clock: Clock
    ) -> None:
        site.waffle.update({"NEW": 7}, expires=HOUR)
        site.waffle.update({"OTHER": 1})
        assert list(site.waffle.status()["temporary"]) == ["NEW"]
        clock.ahead = HOUR
        site.tick()
        assert (site.waffle.values.NEW, site.waffle.values.OTHER) == (5, 1)
        assert site.state.store.load().values["OLD"] == "5"

    def test_only_what_was_set_is_temporary(self, site: Process, clock: Clock) -> None:
        site.waffle.update({"OTHER": 2}, expires=HOUR)
        assert list(site.waffle.status()["temporary"]) == ["OTHER"]
        clock.ahead = HOUR
        site.tick()
        assert (site.waffle.values.NEW, site.waffle.values.OTHER) == (5, 0)


def test_a_store_that_was_down_at_the_time_is_tried_again(
    host: Host, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = host.store()
    site = host.start(store, RECONCILE_INTERVAL=0.001)
    site.waffle.update({"LIMIT": 20}, expires=HOUR)
    clock.ahead = HOUR
    store.failing = ALWAYS
    site.state.expire()
    assert site.waffle.values.LIMIT == 20
    assert "can't be set back yet: the store is down" in caplog.text
    store.failing = NEVER
    eventually(lambda: [site.tick(), site.waffle.values.LIMIT][1] == 10)


class TestRenamed:
    """Two releases of the application, in which a variable has two names."""

    @pytest.fixture
    def old(self, host: Host, clock: Clock) -> Process:
        return host.start(confs={"NAME": {"default": "Waffle"}, "LIMIT": {"default": 10}})

    @pytest.fixture
    def new(self, host: Host, old: Process) -> Process:
        confs = {"TITLE": {"default": "Waffle", "was": "NAME"}, "LIMIT": {"default": 10}}
        return host.start(confs=confs)

    @pytest.fixture(params=["old", "new"])
    def first(self, request: pytest.FixtureRequest, old: Process, new: Process) -> Process:
        """Whichever release ticks first."""
        return old if request.param == "old" else new

    @staticmethod
    def end(first: Process, *others: Process) -> set[str]:
        """Let the time come, and return what each process then reads."""
        first.tick()
        read = set()
        for process in (first, *others):
            process.waffle.refresh()
            names = ("NAME", "TITLE")
            read |= {
                process.waffle.values[name]
                for name in names
                if name in process.state.schema.variables
            }
        return read

    @pytest.mark.parametrize("before", ["Waffle", "Gent"])
    def test_it_ends_under_both_names(
        self, old: Process, new: Process, first: Process, clock: Clock, before: str
    ) -> None:
        """Also when the new release has written its name meanwhile."""
        if before != "Waffle":
            old.waffle.update({"NAME": before})
        old.waffle.update({"NAME": "Brugge"}, expires=HOUR)
        assert "TITLE" in new.waffle.status()["temporary"]
        new.waffle.update({"LIMIT": 20})
        clock.ahead = HOUR
        assert self.end(first, old, new) == {before}
        assert new.waffle.status()["temporary"] == {}

    def test_set_again_under_the_new_name_it_goes_back_to_what_was_before_both(
        self, old: Process, new: Process, first: Process, clock: Clock
    ) -> None:
        old.waffle.update({"NAME": "Brugge"}, expires=HOUR)
        new.waffle.update({"TITLE": "Namur"}, expires=2 * HOUR)
        clock.ahead = HOUR
        assert self.end(first, old, new) == {"Namur"}
        clock.ahead = 2 * HOUR
        assert self.end(first, old, new) == {"Waffle"}

    def test_what_the_other_release_has_set_since_stays(
        self, old: Process, new: Process, first: Process, clock: Clock
    ) -> None:
        new.waffle.update({"TITLE": "Brugge"})
        new.waffle.update({"TITLE": "Namur"}, expires=HOUR)
        old.waffle.update({"NAME": "Gent"})
        clock.ahead = HOUR
        assert self.end(first, old, new) == {"Gent"}
        new.waffle.update({"LIMIT": 20})
        assert new.waffle.values.TITLE == "Gent"
        assert new.waffle.status()["temporary"] == {}

    def test_also_if_it_is_the_same_value(
        self, old: Process, new: Process, first: Process, clock: Clock
    ) -> None:
        old.waffle.update({"NAME": "Brugge"})
        new.waffle.update({"TITLE": "Namur"}, expires=HOUR)
        old.waffle.update({"NAME": "Namur"})
        assert new.waffle.status()["temporary"] == {}
        clock.ahead = HOUR
        assert self.end(first, old, new) == {"Namur"}
