"""What is stored and no longer declared; and the history since a revision."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.stores.row_history import HISTORY_ROWS

from ..contract.models import peewee_store
from .conftest import CONFS, Host, Process

Run = Callable[..., Result]
BEFORE: dict[str, Any] = {**CONFS, "GONE": {"default": 1}, "KEY": {"default": "", "secret": True}}


@pytest.fixture
def run(host: Host, site: Process) -> Run:
    """Run ``flask waffle`` in a release that has two variables less."""
    host.start(confs=BEFORE).waffle.update({"GONE": 2, "KEY": "geheim", "LIMIT": 20})
    app = host.start().app
    return lambda *words: app.test_cli_runner().invoke(command, words)


def test_they_are_listed_without_their_values(run: Run) -> None:
    assert run("list", "--undeclared").output.splitlines() == ["GONE", "KEY"]
    assert json.loads(run("list", "--undeclared", "--json").output) == {
        "revision": 1,
        "undeclared": ["GONE", "KEY"],
    }


def test_they_have_no_group(run: Run) -> None:
    result = run("list", "--undeclared", "--group", "Site")
    assert result.exit_code == 2
    assert "What isn't declared has no group: leave out --group." in result.output


def test_their_removal_is_told_to_no_hook(host: Host) -> None:
    """No variable has another value."""
    host.start(confs=BEFORE).waffle.update({"GONE": 2})
    told: list[object] = []
    release = host.start()
    release.waffle.on_update(told.append)
    result = release.app.test_cli_runner().invoke(command, ["prune", "--yes"])
    assert (result.output.splitlines()[-1], told) == ("revision 2", [])


def test_they_are_removed_as_a_revision(host: Host, site: Process, run: Run) -> None:
    result = run("prune", "--dry-run")
    assert result.exit_code == 4
    assert result.output.splitlines() == [
        "GONE: removed",
        "KEY: removed",
        "revision 1 (nothing was changed)",
    ]
    result = run("prune", "--yes")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "revision 2")
    assert site.state.store.load().values == {"LIMIT": "20"}
    assert {entry.key for entry in site.waffle.history(2)} == {"GONE", "KEY"}
    result = run("prune")
    assert (result.exit_code, result.output) == (0, "revision 2 (nothing to change)\n")
    assert run("prune", "--dry-run").exit_code == 0


def test_where_nobody_can_be_asked_nothing_is_removed(site: Process, run: Run) -> None:
    result = run("prune")
    assert (result.exit_code, result.stdout) == (1, "GONE: removed\nKEY: removed\n")
    assert "there is no terminal to ask on. Add --yes" in result.stderr
    assert site.waffle.refresh() == 1


def test_doctor_counts_them(run: Run) -> None:
    line = "warning  store:        2 stored, and not declared: GONE, KEY"
    assert line in run("doctor", "--patience", "0").output.splitlines()
    run("prune", "--yes")
    assert "not declared" not in run("doctor", "--patience", "0").output


def test_other_rows_of_the_applications_own_table_are_not_left_over(
    host: Host, tmp_path: Path
) -> None:
    """They are its own, and `prune` leaves them alone."""
    store = peewee_store(tmp_path)
    store.model.create(key="own", value="text")
    store.model._meta.database.close()
    runner = host.start(store).app.test_cli_runner()
    assert "not declared" not in runner.invoke(command, ["doctor", "--patience", "0"]).output


def test_what_the_package_keeps_for_itself_is_not_left_over(host: Host, run: Run) -> None:
    host.sql("INSERT INTO waffle_values VALUES ('WAFFLE_OWN', '1')")
    assert "WAFFLE_OWN" not in run("list", "--undeclared").output


class TestHistory:
    def test_since_a_revision(self, site: Process, run: Run) -> None:
        for number in range(30, 55):
            site.waffle.update({"LIMIT": number})
        found = json.loads(run("history", "--since", "1", "--json").output)
        assert [entry["revision"] for entry in found] == list(range(26, 1, -1)), "not only twenty"
        assert len(run("history", "--since", "1", "--limit", "2").output.splitlines()) == 2
        assert run("history", "--since", "26").output == ""
        assert len(run("history", "--since", "0", "GONE").output.splitlines()) == 1

    def test_a_long_one(self, site: Process, run: Run) -> None:
        for number in range(30, 160):
            site.waffle.update({"LIMIT": number})
        assert len(run("history", "--since", "1").output.splitlines()) == 130

    def test_what_a_table_of_the_applications_own_has_forgotten(
        self, host: Host, tmp_path: Path
    ) -> None:
        """Not all changes can be shown, so none are."""
        site = host.start(peewee_store(tmp_path))
        for number in range(30, 32 + HISTORY_ROWS):
            site.waffle.update({"LIMIT": number})
        invoke = site.app.test_cli_runner().invoke
        result = invoke(command, ["history", "--since", "1"])
        assert result.exit_code == 1
        assert "They lead back to revision 2.\n" in result.output
        result = invoke(command, ["history", "--since", "2"])
        assert len(result.output.splitlines()) == HISTORY_ROWS

    @pytest.mark.parametrize("revision", ["99", "-1"])
    def test_a_revision_that_never_was(self, run: Run, revision: str) -> None:
        result = run("history", "--since", revision)
        assert result.exit_code == 1
        assert f"There is no revision {revision}: the store is at 1" in result.output


def test_what_is_stored_under_a_former_name_is_not_left_over(host: Host, run: Run) -> None:
    """It may be the value in force."""
    process = host.start(confs={"COUNT": {"default": 1, "was": "GONE"}, "LIMIT": {"default": 1}})
    runner = process.app.test_cli_runner()
    listed = runner.invoke(command, ["list", "--undeclared"]).output.split()
    assert "GONE" not in listed
    assert runner.invoke(command, ["prune", "--yes"]).exit_code == 0
    assert "GONE" in process.state.store.load().values


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_an_update_that_moves_one_says_so(host: Host, run: Run, options: list[str]) -> None:
    confs = {"COUNT": {"default": 1, "was": "GONE"}, "LIMIT": {"default": 1}}
    runner = host.start(confs=confs).app.test_cli_runner()
    moved, changed = "COUNT: 2 (moved from its former name)", "LIMIT: 20 -> 30"
    lines = runner.invoke(command, ["set", "LIMIT=30", *options]).output.splitlines()
    assert lines[:-1] == [moved, changed]
    options = [*options, "--json"]
    document = json.loads(runner.invoke(command, ["set", "COUNT=5", *options]).output)
    assert document["changed"] == ["COUNT"]
    assert (document["old"], document["new"]) == ({"COUNT": 2}, {"COUNT": 5})
