"""What a person sees: history and status, without secrets."""

from __future__ import annotations

import json
import os

import pytest

from uwsgi_waffle import UnknownVariable
from uwsgi_waffle.schema import MASK

from ..host import Host, Process, forked, logged


class TestHistory:
    def test_it_is_newest_first(self, site: Process) -> None:
        site.waffle.update({"LIMIT": 20}, actor="ann", note="more")
        site.waffle.update({"SITENAME": "New"})
        entries = site.waffle.history()
        assert [(e.revision, e.key, e.old, e.new, e.actor, e.note) for e in entries] == [
            (2, "SITENAME", "Waffle", "New", None, None),
            (1, "LIMIT", 10, 20, "ann", "more"),
        ]
        assert site.waffle.history(limit=1) == entries[:1]
        assert site.waffle.history(key="LIMIT") == entries[1:]
        with pytest.raises(UnknownVariable):
            site.waffle.history(key="SITE")

    @pytest.mark.parametrize("name", ["\udcff", "a\0", ""])
    def test_a_name_that_a_store_can_not_be_asked_for_is_unknown(
        self, site: Process, name: str
    ) -> None:
        """SQLite's error would look as if a row were damaged."""
        with pytest.raises(UnknownVariable):
            site.waffle.history(key=name)

    def test_a_limit_may_have_any_number_of_digits(self, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        assert len(site.waffle.history(limit=10**30)) == 1

    def test_it_masks_secrets(self, site: Process) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        assert [(e.old, e.new) for e in site.waffle.history()] == [(MASK, MASK)]

    def test_it_shows_no_value_of_what_is_no_longer_declared(self, host: Host) -> None:
        """It may have been a secret; nobody knows any more."""
        host.start(confs={"GONE": {"default": 1}}).waffle.update({"GONE": 2})
        assert [(e.old, e.new) for e in host.start().waffle.history(key="GONE")] == [(MASK, MASK)]


class TestStatus:
    def test_it_can_be_written_as_json_and_names_every_process(
        self, host: Host, site: Process, neighbour: int
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        status = json.loads(json.dumps(site.waffle.status()))
        assert (status["revision"], status["store_error"], status["error"]) == (1, "", "")
        assert status["watcher_file"] == str(host.watch_file)
        assert status["store_checked"] >= 0
        found = {(p["pid"], p["revision"], p["behind"]) for p in status["processes"]}
        assert found == {(os.getpid(), 1, False), (neighbour, 0, True)}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace")
    def test_it_names_processes_of_two_containers(self, host: Host, site: Process) -> None:
        """Their pids are equal, and neither has the other in its /proc."""

        def serve() -> None:
            host.start().tick()

        with forked(serve, namespace=True), forked(serve, namespace=True):
            site.tick()
            pids = sorted(process["pid"] for process in site.waffle.status()["processes"])
            assert pids == [1, 1, os.getpid()]
            result = site.waffle.update({"LIMIT": 20}, wait=0)
            assert [process.pid for process in result.pending] == [1, 1]

    def test_it_holds_no_secret(self, site: Process) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        assert "geheim" not in json.dumps(site.waffle.status())

    def test_a_refused_secret_is_shown_nowhere(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('TOKEN', '[\"geheim\"]')")
        site.files.invalidate()
        site.tick()
        shown = json.dumps(site.waffle.status()) + "".join(logged(caplog))
        assert "TOKEN" in shown
        assert "geheim" not in shown
