"""`flask waffle` changes something: `set`, `unset`, `rollback`, and the history of it."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import ANY

import pytest
from click.testing import Result

from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.schema import MASK

from .conftest import ALWAYS, Host, Process

Run = Callable[..., Result]


@pytest.fixture
def run(site: Process) -> Run:
    """Run ``flask waffle`` with the given words."""
    return lambda *words: site.app.test_cli_runner().invoke(command, words)


class TestSet:
    def test_several_assignments_are_one_update(self, other: Process, run: Run) -> None:
        result = run("set", "SITENAME=New", "LIMIT=20", "--note", "why")
        assert result.output.splitlines() == [
            "LIMIT: 10 -> 20",
            'SITENAME: "Waffle" -> "New"',
            "revision 1",
        ]
        assert result.exit_code == 0
        assert (other.waffle.values.SITENAME, other.waffle.values.LIMIT, other.waffle.revision) == (
            "New",
            20,
            1,
        )
        assert {(e.revision, e.actor, e.note) for e in other.waffle.history()} == {
            (1, getpass.getuser(), "why")
        }

    def test_as_json(self, run: Run) -> None:
        assert json.loads(
            run("set", "SITENAME=New", "LIMIT=20", "TOKEN=geheim", "--json").output
        ) == {
            "revision": 1,
            "changed": ["LIMIT", "SITENAME", "TOKEN"],
            "old": {"LIMIT": 10, "SITENAME": "Waffle", "TOKEN": MASK},
            "new": {"LIMIT": 20, "SITENAME": "New", "TOKEN": MASK},
        }

    def test_what_stands_behind_the_first_equals_sign_is_the_value(
        self, site: Process, run: Run
    ) -> None:
        run("set", "SITENAME=a=b c")
        assert site.waffle.values.SITENAME == "a=b c"
        run("set", "SITENAME=")
        assert site.waffle.values.SITENAME == ""

    @pytest.mark.parametrize("text", ["0.12345678901234567890123", "1.10", "7"])
    def test_a_decimal_keeps_its_digits(self, host: Host, text: str) -> None:
        """Also where the type takes other numbers, too."""
        process = host.start(confs={"PRICE": {"default": 1, "type": int | Decimal}})
        result = process.app.test_cli_runner().invoke(command, ["set", f"PRICE={text}"])
        assert result.exit_code == 0
        assert str(process.waffle.values.PRICE) == text

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
            (["=1"], 2, ["'=1' is no assignment"]),
            (["LIMIT=1", "LIMIT=2"], 2, ["LIMIT is assigned twice"]),
            (["SITENAME=a", "LIMIT=1\0"], 1, ["LIMIT", "valid integer"]),
            (["LIMIT=20", "--wait", "nan"], 2, ["'nan' is no number of seconds"]),
            (["LIMIT=20", "--wait", "-1"], 2, ["'-1' is no number of seconds"]),
            (["LIMIT=20", "--expect", "x"], 2, ["not a valid integer"]),
            (["LIMIT=20", "--colour"], 2, ["No such option"]),
            (
                ["SITENAME=New", "--expect", "5"],
                1,
                ["revision 5 was expected and the store is at 0"],
            ),
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

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (
                ["set", "LIMIT=many", "SITENAME=New"],
                {"error": "InvalidValue", "problems": {"LIMIT": ANY}},
            ),
            (["set", "LIMIT=1", "--expect", "5"], {"error": "RevisionConflict", "revision": 0}),
            (["set", "SITE=1"], {"error": "UnknownVariable"}),
            (["unset", "SITE"], {"error": "UnknownVariable"}),
            (["get", "SITE"], {"error": "UnknownVariable"}),
            (["history", "SITE"], {"error": "UnknownVariable"}),
            (["rollback", "5"], {"error": "UnknownRevision"}),
            (["apply", "-"], {"error": "InvalidValue", "problems": ANY}),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_with_json_a_refusal_is_json_too(
        self, run: Run, words: list[str], told: dict[str, Any]
    ) -> None:
        result = run(*words, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout) == {**told, "message": ANY}
        assert result.stderr == f"Error: {json.loads(result.stdout)['message']}\n"

    def test_old_values_are_those_of_the_store(self, host: Host, run: Run) -> None:
        """Another host has changed them, and this one hasn't heard of it yet."""
        elsewhere = Host(host.instance.parent / "elsewhere")
        elsewhere.start(host.store()).waffle.update({"LIMIT": 15})
        assert run("set", "LIMIT=20").output == "LIMIT: 15 -> 20\nrevision 2\n"

    def test_all_bad_values_are_told_together(self, host: Host) -> None:
        runner = host.start(
            confs={"A": {"default": 1}, "B": {"default": 1.5}}
        ).app.test_cli_runner()
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
        assert (told["revision"], told["applied"], told["pending"]) == (
            1,
            [site.waffle.status()["pid"]],
            [],
        )
        assert run("set", "LIMIT=30", "--wait", "100").output == "LIMIT: 20 -> 30\nrevision 2\n"

    def test_wait_names_who_has_it_not_yet(self, neighbour: int, run: Run) -> None:
        result = run("set", "LIMIT=20", "--wait", "0", "--json")
        assert (json.loads(result.stdout)["pending"], result.exit_code) == ([neighbour], 3)
        result = run("set", "LIMIT=30", "--wait", "0")
        assert (result.stdout, result.exit_code) == ("LIMIT: 20 -> 30\nrevision 2\n", 3)
        assert result.stderr == f"not yet applied by worker 9 (pid {neighbour})\n"

    def test_a_store_that_is_down_is_exit_code_1(self, host: Host, site: Process) -> None:
        runner = host.start(host.store(ALWAYS)).app.test_cli_runner()
        result = runner.invoke(command, ["set", "LIMIT=20"])
        assert result.exit_code == 1
        assert "the store is down" in result.output
        assert runner.invoke(command, ["get", "LIMIT"]).output == "10\n", "reading goes on"


class TestPast:
    def test_unset_gives_the_default_back_as_a_revision(self, site: Process, run: Run) -> None:
        run("set", "LIMIT=20", "SITENAME=New")
        result = run("unset", "LIMIT", "SITENAME", "--note", "enough")
        assert result.output.splitlines() == [
            "LIMIT: 20 -> 10",
            'SITENAME: "New" -> "Waffle"',
            "revision 2",
        ]
        assert site.waffle.history(limit=1)[0].note == "enough"
        assert run("unset", "LIMIT", "--expect", "1").exit_code == 1
        assert run("unset", "SITE").exit_code == 1
        assert run("unset").exit_code == 2

    def test_rollback_shows_what_comes_back(self, site: Process, run: Run) -> None:
        run("set", "LIMIT=20")
        run("set", "LIMIT=30")
        assert run("rollback", "1").output.splitlines() == ["LIMIT: 30 -> 20", "revision 3"]
        assert site.waffle.history(limit=1)[0].note == "rollback to revision 1"
        told = json.loads(run("rollback", "0", "--json", "--note", "no").output)
        assert (told["revision"], told["old"], told["new"]) == (4, {"LIMIT": 20}, {"LIMIT": 10})
        assert site.waffle.history(limit=1)[0].note == "no"

    @pytest.mark.parametrize(("words", "code"), [(["99"], 1), (["-1"], 2), (["first"], 2), ([], 2)])
    def test_a_bad_revision_changes_nothing(
        self, site: Process, run: Run, words: list[str], code: int
    ) -> None:
        result = run("rollback", *words)
        assert result.exit_code == code
        assert site.waffle.refresh() == 0

    def test_history_tells_the_newest_first(self, run: Run) -> None:
        run("set", "LIMIT=20", "TOKEN=geheim", "--note", "why")
        run("set", "LIMIT=30")
        lines = run("history").output.splitlines()
        who = getpass.getuser()
        assert re.fullmatch(
            rf"2  \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC  {who}  LIMIT: 20 -> 30", lines[0]
        )
        assert {line.split("  ", 3)[3] for line in lines[1:]} == {
            "LIMIT: 10 -> 20  # why",
            f"TOKEN: {MASK} -> {MASK}  # why",
        }
        assert len(run("history", "LIMIT").output.splitlines()) == 2
        assert len(run("history", "--limit", "1").output.splitlines()) == 1
        assert run("history", "SITE").exit_code == 1
        assert run("history", "--limit", "0").exit_code == 2

    def test_history_takes_any_limit(self, run: Run) -> None:
        """Databases don't."""
        run("set", "LIMIT=20")
        result = run("history", "--limit", "9" * 30)
        assert (result.exit_code, result.output.count("LIMIT: 10 -> 20")) == (0, 1)

    def test_a_note_stays_on_its_line(self, site: Process, run: Run) -> None:
        site.waffle.update({"LIMIT": 20}, actor="a\x1b[2J", note="b\n9  now  root  LIMIT: 1 -> 2")
        (line,) = run("history").output.splitlines()
        assert line.endswith("UTC  a\\x1b[2J  LIMIT: 10 -> 20  # b\\n9  now  root  LIMIT: 1 -> 2")

    def test_history_as_json(self, run: Run) -> None:
        run("set", "LIMIT=20", "TOKEN=geheim")
        result = run("history", "--json")
        told = {entry["key"]: entry for entry in json.loads(result.output)}
        assert (told["LIMIT"]["old"], told["LIMIT"]["new"], told["LIMIT"]["revision"]) == (
            10,
            20,
            1,
        )
        assert datetime.fromisoformat(told["LIMIT"]["at"]).utcoffset() == timedelta(0)
        assert "geheim" not in result.output
