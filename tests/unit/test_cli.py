"""`flask waffle`: what it prints, and the exit code by which a script knows how it went."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
from click.testing import Result
from flask import Flask

from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.schema import MASK

from .conftest import ALWAYS, Host, Process

Run = Callable[..., Result]


@pytest.fixture
def run(site: Process) -> Run:
    """Run ``flask waffle`` with the given words."""
    return lambda *words: site.app.test_cli_runner().invoke(command, words)


def test_the_command_is_found_by_flask() -> None:
    (found,) = entry_points(group="flask.commands", name="waffle")
    assert found.load() is command


class TestList:
    def test_it_shows_values_and_descriptions(self, run: Run) -> None:
        assert run("list").output.splitlines() == [
            'SITENAME  "Waffle"  # Name in the page header',
            "LIMIT     10  # Upload limit in bytes",
            f"TOKEN     {MASK}  # Token of the payment API",
        ]

    def test_as_json(self, site: Process, run: Run) -> None:
        site.waffle.update({"LIMIT": 20, "TOKEN": "geheim"})
        result = run("list", "--json")
        assert json.loads(result.output) == {"revision": 1, "values": {"SITENAME": "Waffle", "LIMIT": 20, "TOKEN": MASK}}
        assert result.exit_code == 0

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_secrets_are_masked(self, site: Process, run: Run, options: tuple[str, ...]) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        assert "geheim" not in run("list", *options).output

    def test_nothing_declared_is_nothing_shown(self, host: Host) -> None:
        result = host.start(confs={}).app.test_cli_runner().invoke(command, ["list"])
        assert (result.exit_code, result.output) == (0, "")


class TestGet:
    def test_a_text_is_printed_as_it_is_and_all_else_as_json(self, host: Host, run: Run) -> None:
        assert run("get", "SITENAME").output == "Waffle\n"
        assert run("get", "SITENAME", "--json").output == '"Waffle"\n'
        assert run("get", "LIMIT").output == "10\n"
        runner = host.start(confs={"ON": {"default": True}, "ALL": {"default": {"a": [None]}}}).app.test_cli_runner()
        assert runner.invoke(command, ["get", "ON"]).output == "true\n"
        assert runner.invoke(command, ["get", "ALL"]).output == '{"a":[null]}\n'

    def test_a_secret_is_printed_for_it_is_asked_for_by_name(self, site: Process, run: Run) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        assert run("get", "TOKEN").output == "geheim\n"

    def test_it_sees_what_another_process_wrote(self, other: Process, run: Run) -> None:
        other.waffle.update({"LIMIT": 20})
        assert run("get", "LIMIT").output == "20\n"

    def test_an_unknown_name_is_exit_code_1(self, run: Run) -> None:
        result = run("get", "SITE")
        assert result.exit_code == 1
        assert "'SITE' is not declared" in result.output


class TestSet:
    def test_several_assignments_are_one_update(self, other: Process, run: Run) -> None:
        result = run("set", "SITENAME=New", "LIMIT=20", "--note", "why")
        assert result.output.splitlines() == ["LIMIT: 10 -> 20", 'SITENAME: "Waffle" -> "New"', "revision 1"]
        assert result.exit_code == 0
        assert (other.waffle.values.SITENAME, other.waffle.values.LIMIT, other.waffle.revision) == ("New", 20, 1)
        assert {(e.revision, e.actor, e.note) for e in other.waffle.history()} == {(1, getpass.getuser(), "why")}

    def test_as_json(self, run: Run) -> None:
        assert json.loads(run("set", "SITENAME=New", "LIMIT=20", "--json").output) == {"revision": 1, "changed": ["LIMIT", "SITENAME"]}

    def test_what_stands_behind_the_first_equals_sign_is_the_value(self, site: Process, run: Run) -> None:
        run("set", "SITENAME=a=b c")
        assert site.waffle.values.SITENAME == "a=b c"
        run("set", "SITENAME=")
        assert site.waffle.values.SITENAME == ""

    def test_nothing_to_change_is_said(self, run: Run) -> None:
        run("set", "LIMIT=20")
        result = run("set", "LIMIT=20")
        assert result.output == "revision 1 (nothing to change)\n"
        assert result.exit_code == 0

    def test_secrets_are_masked(self, site: Process, run: Run) -> None:
        result = run("set", "TOKEN=geheim")
        assert result.output == f"TOKEN: {MASK} -> {MASK}\nrevision 1\n"
        assert site.waffle.values.TOKEN == "geheim"

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (["SITE=x"], 1, ["'SITE' is not declared"]),
            (["LIMIT=many"], 1, ["LIMIT", "'many'"]),
            (["LIMIT=-5"], 1, ["LIMIT", "greater than 0"]),
            (["LIMIT=many", "TOKEN=x", "SITE=x"], 1, ["not declared"]),
            (["SITENAME=New", "LIMIT=-5"], 1, ["LIMIT", "greater than 0", "Nothing was changed"]),
            (["SITENAME"], 2, ["'SITENAME' is no assignment; write NAME=VALUE"]),
            ([], 2, ["Missing argument"]),
            (["LIMIT=20", "--expect", "x"], 2, ["not a valid integer"]),
            (["LIMIT=20", "--colour"], 2, ["No such option"]),
            (["SITENAME=New", "--expect", "5"], 1, ["revision 5 was expected and the store is at 0"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_errors_have_an_exit_code_and_change_nothing(
        self, site: Process, run: Run, words: list[str], code: int, told: list[str]
    ) -> None:
        result = run("set", *words)
        assert result.exit_code == code
        assert all(text in result.output for text in told), result.output
        assert "Traceback" not in result.output
        assert site.state.store.load().revision == 0

    def test_all_bad_values_are_told_together(self, host: Host) -> None:
        runner = host.start(confs={"A": {"default": 1}, "B": {"default": 1.5}}).app.test_cli_runner()
        result = runner.invoke(command, ["set", "A=x", "B=y"])
        assert result.exit_code == 1
        assert "A: " in result.output
        assert "B: " in result.output

    def test_a_refused_secret_is_not_printed(self, host: Host) -> None:
        runner = host.start(confs={"PIN": {"default": 1, "secret": True}}).app.test_cli_runner()
        result = runner.invoke(command, ["set", "PIN=geheim"])
        assert result.exit_code == 1
        assert "geheim" not in result.output

    def test_expect_lets_the_right_revision_pass(self, site: Process, run: Run) -> None:
        assert run("set", "LIMIT=20", "--expect", "0").exit_code == 0
        assert run("set", "LIMIT=30", "--expect", "0").exit_code == 1
        assert site.waffle.values.LIMIT == 20

    def test_wait_tells_who_has_it(self, site: Process, run: Run) -> None:
        told = json.loads(run("set", "LIMIT=20", "--wait", "100", "--json").output)
        assert told == {"revision": 1, "changed": ["LIMIT"], "applied": [site.waffle.status()["pid"]], "pending": []}
        assert run("set", "LIMIT=30", "--wait", "100").output == "LIMIT: 20 -> 30\nrevision 2\n"

    def test_wait_names_who_has_it_not_yet(self, neighbour: int, run: Run) -> None:
        assert json.loads(run("set", "LIMIT=20", "--wait", "0", "--json").output)["pending"] == [neighbour]
        assert f"not yet applied by worker 9 (pid {neighbour})" in run("set", "LIMIT=30", "--wait", "0").output

    def test_a_store_that_is_down_is_exit_code_1(self, host: Host, site: Process) -> None:
        runner = host.start(host.store(ALWAYS)).app.test_cli_runner()
        result = runner.invoke(command, ["set", "LIMIT=20"])
        assert result.exit_code == 1
        assert "the store is down" in result.output
        assert runner.invoke(command, ["get", "LIMIT"]).output == "10\n", "reading goes on"


@pytest.mark.parametrize("words", [["list"], ["get", "LIMIT"], ["set", "LIMIT=1"]], ids=" ".join)
def test_an_application_without_the_extension_is_told(words: list[str]) -> None:
    result = Flask("bare").test_cli_runner().invoke(command, words)
    assert result.exit_code == 1
    assert "has no WaffleConf: call WaffleConf(app)" in result.output


def test_help_lists_the_commands(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("list", "get", "set"))
