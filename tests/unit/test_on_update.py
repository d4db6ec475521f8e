"""``on_update`` hooks and the audit log: once for each update, in the process that made it."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime, timedelta, timezone
from typing import NoReturn

import pytest
from flask import Flask, current_app
from pydantic import BaseModel

import uwsgi_waffle
from uwsgi_waffle import (
    InvalidValue,
    RevisionConflict,
    StoreUnavailable,
    UnknownVariable,
    Update,
)
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.schema import MASK
from uwsgi_waffle.stores import CommitBuilder, Stored

from ..host import FaultyStore, Host, Process, logged, report_process

EDIT = "UPDATE waffle_values SET value = ? WHERE key = 'LIMIT'"


def updates_of(process: Process, *names: str) -> list[Update]:
    """Return the list to which each update that ``process`` tells of will be added."""
    updates: list[Update] = []
    process.waffle.on_update(*names)(updates.append)
    return updates


def audit_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "uwsgi_waffle.audit"]


@pytest.fixture(autouse=True)
def audit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uwsgi_waffle.audit")


class TestUpdate:
    def test_it_says_what_was_done(self, site: Process) -> None:
        updates = updates_of(site)
        site.waffle.update({"SITENAME": "New", "LIMIT": 10}, actor="ann", note="rename")
        (update,) = updates
        assert (update.revision, update.actor, update.note) == (1, "ann", "rename")
        assert update.old == {"SITENAME": "Waffle", "LIMIT": 10}
        assert update.new == {"SITENAME": "New", "LIMIT": 10}
        assert abs(datetime.now(timezone.utc) - update.at) < timedelta(minutes=1)

    def test_only_the_process_that_made_it_is_told(self, site: Process, other: Process) -> None:
        mine, theirs = updates_of(site), updates_of(other)
        site.waffle.update({"LIMIT": 20})
        other.tick()
        site.tick()
        other.waffle.update({"LIMIT": 30})
        site.tick()
        assert [update.new for update in mine] == [{"LIMIT": 20}]
        assert [update.new for update in theirs] == [{"LIMIT": 30}]

    def test_each_update_is_told_though_a_change_would_be_one(self, site: Process) -> None:
        updates = updates_of(site)
        for limit in (20, 10, 20):
            site.waffle.update({"LIMIT": limit})
        assert [update.new["LIMIT"] for update in updates] == [20, 10, 20]

    def test_it_is_committed(self, site: Process, other: Process) -> None:
        """And every request that starts now sees it."""
        seen = []

        @site.waffle.on_update
        def look(update: Update) -> None:
            seen.append((site.state.store.load().revision, other.waffle.values.LIMIT))
            seen.append((site.waffle.revision, current_app.config["LIMIT"]))

        with site.app.test_request_context():
            assert site.waffle.values.LIMIT == 10
            site.waffle.update({"LIMIT": 20})
        assert seen == [(1, 20), (1, 20)]

    @pytest.mark.parametrize(
        ("names", "revisions"), [((), [1, 2]), (("LIMIT",), [2]), (("TOKEN", "SITENAME"), [1])]
    )
    def test_names_choose(self, site: Process, names: tuple[str, ...], revisions: object) -> None:
        updates = updates_of(site, *names)
        site.waffle.update({"SITENAME": "New"})
        site.waffle.update({"LIMIT": 20})
        assert [update.revision for update in updates] == revisions

    def test_what_changes_nothing_is_not_told(self, site: Process) -> None:
        updates = updates_of(site)
        site.waffle.update({"LIMIT": 20})
        site.waffle.update({"LIMIT": 20})
        with pytest.raises(InvalidValue):
            site.waffle.update({"LIMIT": -1})
        with pytest.raises(RevisionConflict):
            site.waffle.update({"LIMIT": 30}, expect_revision=7)
        assert [update.revision for update in updates] == [1]

    def test_a_reset_tells_of_the_default_and_a_rollback_of_its_note(self, site: Process) -> None:
        updates = updates_of(site)
        site.waffle.update({"LIMIT": 20})
        site.waffle.reset("LIMIT", actor="ben")
        site.waffle.rollback(1)
        assert [(u.old["LIMIT"], u.new["LIMIT"], u.note) for u in updates[1:]] == [
            (20, 10, None),
            (10, 20, "rollback to revision 1"),
        ]

    def test_values_have_their_types_and_are_frozen(self, host: Host) -> None:
        class Limits(BaseModel):
            DAY: datetime = datetime(2026, 1, 1)
            NAMES: list[str] = []

        site = host.start(confs=Limits)
        updates = updates_of(site)
        site.waffle.update({"DAY": "2026-02-01T00:00:00", "NAMES": ["a"]})
        assert updates[0].new == {"DAY": datetime(2026, 2, 1), "NAMES": ["a"]}
        with pytest.raises(uwsgi_waffle.ManagedVariable):
            updates[0].new["NAMES"].append("b")

    def test_the_command_line_tells_of_its_own(self, site: Process) -> None:
        updates = updates_of(site)
        site.app.test_cli_runner().invoke(command, ["set", "LIMIT=20", "--note", "why"])
        assert [(update.new, update.note) for update in updates] == [({"LIMIT": 20}, "why")]

    def test_a_connection_that_is_lost_during_the_commit(self, host: Host) -> None:
        """The update may be made, and nobody is told."""

        class Broken(FaultyStore):
            def transact(self, build_commit: CommitBuilder) -> Stored:
                super().transact(build_commit)
                raise StoreUnavailable("the connection was lost during the commit")

        site, other = host.start(Broken(f"sqlite:///{host.database}")), host.start()
        mine, theirs = updates_of(site), updates_of(other)
        with pytest.raises(StoreUnavailable):
            site.waffle.update({"LIMIT": 20})
        for process in (site, other):
            process.tick()
            assert process.waffle.values.LIMIT == 20
        assert mine == theirs == []

    def test_it_is_told_before_the_wait(self, site: Process, host: Host) -> None:
        theirs = report_process(host.open_files(), 4711, "worker 1")
        site.waffle.on_update(lambda update: theirs.processes.leave())
        assert site.waffle.update({"LIMIT": 20}, wait=10).pending == ()

    def test_a_hook_may_update(self, site: Process) -> None:
        updates = updates_of(site)
        site.waffle.on_update("SITENAME")(lambda update: site.waffle.update({"LIMIT": 20}))
        assert site.waffle.update({"SITENAME": "New"}).revision == 1
        assert [update.revision for update in updates] == [1, 2]
        assert site.waffle.revision == 2

    def test_an_error_is_logged_and_stops_nothing(
        self, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(update: Update) -> NoReturn:
            raise RuntimeError("no mail today")

        site.waffle.on_update(fail)
        updates = updates_of(site)
        assert site.waffle.update({"LIMIT": 20}).changed == ("LIMIT",)
        assert (site.waffle.values.LIMIT, len(updates)) == (20, 1)
        (line,) = logged(caplog)
        assert "the on_update hook" in line
        assert "failed at revision 1" in line
        assert "no mail today" in caplog.text

    def test_the_signal_says_the_same(self, site: Process) -> None:
        heard: list[tuple[Flask, Update]] = []

        def receiver(app: Flask, update: Update) -> None:
            heard.append((app, update))

        with uwsgi_waffle.config_updated.connected_to(receiver, sender=site.app):
            site.waffle.update({"LIMIT": 20})
        assert [(app, update.revision) for app, update in heard] == [(site.app, 1)]

    def test_an_unknown_name_is_refused(self, site: Process, host: Host) -> None:
        with pytest.raises(UnknownVariable):
            site.waffle.on_update("SITENAM")(print)
        waffle = uwsgi_waffle.WaffleConf()
        waffle.on_update("SITENAM")(print)
        with pytest.raises(UnknownVariable):
            host.start(waffle=waffle)

    def test_a_value_that_moves_to_a_new_name_is_not_told(self, host: Host) -> None:
        host.start(confs={"NAME": {"default": ""}}).waffle.update({"NAME": "Gent"})
        site = host.start(confs={"TITLE": {"default": "", "was": "NAME"}, "N": {"default": 1}})
        updates = updates_of(site)
        site.waffle.update({"N": 2})
        site.waffle.update({"TITLE": "Brugge"})
        assert [dict(update.old) for update in updates] == [{"N": 1}, {"TITLE": "Gent"}]


class TestOutside:
    def test_the_process_that_finds_an_edit_tells(
        self, host: Host, site: Process, other: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        other.tick()
        mine, theirs = updates_of(site), updates_of(other)
        host.sql(EDIT, "30")
        host.touch()
        other.tick()
        site.tick()
        assert mine == []
        (update,) = theirs
        assert (update.revision, update.actor, update.note) == (2, "outside", None)
        assert (update.old, update.new) == ({"LIMIT": 20}, {"LIMIT": 30})

    def test_its_hook_may_update(self, host: Host, site: Process) -> None:
        """The host's lock is free by then."""
        site.waffle.update({"LIMIT": 20})
        site.waffle.on_update(
            lambda update: update.actor and site.waffle.update({"SITENAME": "Edited"})
        )
        host.sql(EDIT, "30")
        assert site.waffle.refresh() == 3
        assert site.waffle.values.SITENAME == "Edited"

    def test_one_that_is_found_at_a_start_is_in_the_log(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql(EDIT, "30")
        host.start()
        site.tick()
        assert audit_lines(caplog)[1:] == ["revision 2 by outside: LIMIT: 20 -> 30"]


class TestAudit:
    def test_one_line_for_each_update(
        self, site: Process, other: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.waffle.update({"SITENAME": "New", "LIMIT": 20}, actor="ann", note="rename")
        site.waffle.reset("LIMIT")
        other.tick()
        assert audit_lines(caplog) == [
            'revision 1 by ann: SITENAME: "Waffle" -> "New", LIMIT: 10 -> 20 (rename)',
            "revision 2 by -: LIMIT: 20 -> 10",
        ]

    def test_a_formatter_finds_its_parts(
        self, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.waffle.update({"SITENAME": "New"}, actor="ann")
        (record,) = [r for r in caplog.records if r.name == "uwsgi_waffle.audit"]
        found = json.loads(json.dumps(vars(record)["waffle_update"]))
        at = datetime.fromisoformat(found.pop("at"))
        assert at.tzinfo is not None
        assert found == {
            "revision": 1,
            "changes": {"SITENAME": {"old": "Waffle", "new": "New"}},
            "actor": "ann",
            "note": None,
        }

    def test_secrets_are_masked(self, site: Process, caplog: pytest.LogCaptureFixture) -> None:
        updates = updates_of(site)
        site.waffle.update({"TOKEN": "geheim"})
        site.waffle.update({"TOKEN": "anders"})
        assert audit_lines(caplog)[1] == f'revision 2 by -: TOKEN: "{MASK}" -> "{MASK}"'
        shown = [*map(str, (vars(record) for record in caplog.records)), *map(repr, updates)]
        assert not [text for text in shown if "geheim" in text or "anders" in text]
        assert updates[1].old["TOKEN"] == "geheim"

    def test_a_filter_that_fails_fails_no_update(
        self, site: Process, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(record: logging.LogRecord) -> bool:
            raise ConnectionError("no SIEM today")

        updates = updates_of(site)
        monkeypatch.setattr(logging.getLogger("uwsgi_waffle.audit"), "filters", [fail])
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert [update.revision for update in updates] == [1]
        (line,) = logged(caplog)
        assert "the audit log failed at revision 1" in line

    def test_an_audit_log_that_fails_undoes_nothing(
        self,
        site: Process,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A handler of the root logger may fail for each line, also for the one about that."""

        def fail(record: logging.LogRecord) -> bool:
            raise ConnectionError("no SIEM today")

        updates = updates_of(site)
        for name in ("uwsgi_waffle", "uwsgi_waffle.audit"):
            monkeypatch.setattr(logging.getLogger(name), "filters", [fail])
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        assert [update.revision for update in updates] == [1]
        assert "no SIEM today" in capsys.readouterr().err

    def test_nobody_can_write_a_line_of_his_own(
        self, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.waffle.update({"SITENAME": "a\nb"}, actor="x\ny", note="\x1b[2J")
        (line,) = audit_lines(caplog)
        assert line.isprintable()


class TestAsync:
    def test_hooks_that_are_coroutines_are_awaited(self, site: Process) -> None:
        pytest.importorskip("asgiref")
        heard = []

        @site.waffle.on_update
        async def told(update: Update) -> None:
            await asyncio.sleep(0)
            heard.append(("update", update.revision))

        @site.waffle.on_change
        async def changed(change: uwsgi_waffle.Change) -> None:
            await asyncio.sleep(0)
            heard.append(("change", change.revision))

        async def receive(app: Flask, update: Update) -> None:
            heard.append(("signal", update.revision))

        with uwsgi_waffle.config_updated.connected_to(receive, sender=site.app):
            site.waffle.update({"LIMIT": 20})
        assert heard == [("change", 1), ("update", 1), ("signal", 1)]
