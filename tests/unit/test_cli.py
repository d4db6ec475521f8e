"""`flask waffle`: what it prints, and the exit code by which a script knows how it went."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import click
import pytest
from click.testing import Result
from flask import Flask
from pydantic_core import core_schema

from uwsgi_waffle import server
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.cli import watching
from uwsgi_waffle.schema import MASK

from .conftest import ALWAYS, CONFS, Host, Process

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
        assert json.loads(result.output) == {
            "revision": 1,
            "values": {"SITENAME": "Waffle", "LIMIT": 20, "TOKEN": MASK},
        }
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
        runner = host.start(
            confs={"ON": {"default": True}, "ALL": {"default": {"a": [None]}}}
        ).app.test_cli_runner()
        assert runner.invoke(command, ["get", "ON"]).output == "true\n"
        assert runner.invoke(command, ["get", "ALL"]).output == '{"a":[null]}\n'

    def test_a_secret_is_masked_unless_it_is_to_be_revealed(self, site: Process, run: Run) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        assert run("get", "TOKEN").output == f"{MASK}\n"
        assert run("get", "TOKEN", "--json").output == f'"{MASK}"\n'
        assert run("get", "TOKEN", "--reveal").output == "geheim\n"
        assert run("get", "TOKEN", "--reveal", "--json").output == '"geheim"\n'

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

    def test_a_user_without_a_name_is_told_by_number(
        self, site: Process, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nobody() -> str:
            raise KeyError("getpwuid(): uid not found: 12345")

        monkeypatch.setattr(getpass, "getuser", nobody)
        assert run("set", "LIMIT=20").exit_code == 0
        assert site.waffle.history()[0].actor == f"uid {os.getuid()}"

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
            (["import", "-", "--yes"], {"error": "InvalidValue", "problems": ANY}),
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

    def test_old_values_are_those_of_the_store(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where another host has changed them a moment ago, and this one hasn't heard of it."""
        site.trust_header()
        Host(host.instance.parent / "elsewhere").start(host.store()).waffle.update({"LIMIT": 15})
        result = site.app.test_cli_runner().invoke(command, ["set", "LIMIT=20"])
        assert result.output == "LIMIT: 15 -> 20\nrevision 2\n"

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


class TestStatus:
    def test_it_names_store_and_processes(self, site: Process, neighbour: int, run: Run) -> None:
        lines = run("status").output.splitlines()
        assert lines[0] == "revision:      0"
        assert re.fullmatch(
            rf"store:         {re.escape(site.state.store.name)}, compared \d+ s ago", lines[1]
        )
        assert f"watch file:    {site.files.watch_file}" in lines
        assert lines[2:4] == ["server:        pytest, uWSGI", "watch type:    file"]
        assert "errors:        none" in lines
        assert any(
            re.fullmatch(rf"worker 9       pid {neighbour}, revision 0, for \d+ s", line)
            for line in lines
        )
        assert any(
            re.fullmatch(rf"\S+ +pid {os.getpid()} \(this command\), revision 0, for \d+ s", line)
            for line in lines
        )
        assert run("status").exit_code == 0

    @pytest.mark.parametrize(
        ("kind", "told"),
        [
            *((kind, "uWSGI") for kind in ("worker 1", "mule 2", "spooler", "uwsgi")),
            *((kind, kind) for kind in ("gunicorn", "flask run", "backup.py")),
            *((kind, None) for kind in ("flask shell", "flask waffle status")),
        ],
    )
    def test_which_server_a_process_belongs_to(self, kind: str, told: str | None) -> None:
        assert server.program(kind) == told

    def test_redis_without_its_library_is_told(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)
        result = host.start(WATCHTYPE="redis").app.test_cli_runner().invoke(command, ["status"])
        assert "watch type:    redis" in result.output
        assert (
            "Redis:         not used: redis-py isn't installed; run: pip install "
            "'uwsgi_waffle[redis]'" in result.output
        )

    def test_as_json_it_is_what_the_application_returns(self, site: Process, run: Run) -> None:
        told = json.loads(run("status", "--json").output)
        assert told.keys() == site.waffle.status().keys()
        assert told["redis"] is None

    def test_an_error_is_exit_code_1(self, host: Host, site: Process) -> None:
        broken = host.start(host.store(ALWAYS))
        result = broken.app.test_cli_runner().invoke(command, ["status"])
        assert result.exit_code == 1
        assert "store's error: the store is down" in result.output
        assert broken.app.test_cli_runner().invoke(command, ["status", "--json"]).exit_code == 1


class TestWatch:
    def watched(self, site: Process, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
        """Watch, and change something at each of its pauses."""
        updates = iter([{"LIMIT": 20}, {}, {"SITENAME": "New", "TOKEN": "geheim"}])

        def pause(seconds: float) -> None:
            site.waffle.update(next(updates))

        monkeypatch.setattr(watching, "time", SimpleNamespace(sleep=pause))
        result = site.app.test_cli_runner().invoke(command, ["watch", "--count", "2", *words])
        assert result.exit_code == 0
        return result

    def test_it_prints_changes_as_they_happen(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = self.watched(site, monkeypatch)
        assert result.output.splitlines() == [
            "1  LIMIT: 10 -> 20",
            '2  SITENAME: "Waffle" -> "New"',
            f"2  TOKEN: {MASK} -> {MASK}",
        ]

    def test_as_json_it_prints_a_line_each(
        self, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = [
            json.loads(line)
            for line in self.watched(site, monkeypatch, "--json").output.splitlines()
        ]
        assert lines[0] == {"revision": 1, "key": "LIMIT", "old": 10, "new": 20}
        assert lines[2]["new"] == MASK


@pytest.mark.parametrize(
    "words",
    [["list"], ["get", "LIMIT"], ["set", "LIMIT=1"], ["status"], ["watch"], ["history"]],
    ids=" ".join,
)
def test_an_application_without_the_extension_is_told(words: list[str]) -> None:
    result = Flask("bare").test_cli_runner().invoke(command, words)
    assert result.exit_code == 1
    assert "has no WaffleConf: call WaffleConf(app)" in result.output


def test_help_lists_the_commands(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("list", "get", "set"))


class TestTransfer:
    @pytest.fixture
    def target(self, tmp_path_factory: pytest.TempPathFactory) -> Process:
        """A process of another host, with a store of its own."""
        return Host(tmp_path_factory.mktemp("target")).start()

    def run_in(self, process: Process, *words: str, stdin: str | None = None) -> Result:
        return process.app.test_cli_runner().invoke(command, words, input=stdin)

    def test_values_go_from_one_store_to_another_in_one_update(
        self, site: Process, target: Process, run: Run, tmp_path: Path
    ) -> None:
        site.waffle.update({"SITENAME": "Brüssel 🧇", "LIMIT": 20, "TOKEN": "geheim"})
        path = str(tmp_path / "values.json")
        assert (
            run("export", path, "--reveal").exit_code,
            run("export", path, "--reveal").output,
        ) == (0, "")
        result = self.run_in(target, "import", path, "--yes", "--note", "moved")
        assert result.output.splitlines() == [
            "LIMIT: 10 -> 20",
            'SITENAME: "Waffle" -> "Br\\u00fcssel \\ud83e\\uddc7"',
            f"TOKEN: {MASK} -> {MASK}",
            "revision 1",
        ]
        assert target.binding.parse_conf() == site.binding.parse_conf()
        assert {(entry.actor, entry.note) for entry in target.waffle.history()} == {
            (getpass.getuser(), "moved")
        }
        assert (
            self.run_in(target, "import", path, "--yes").output
            == "revision 1 (nothing was changed)\n"
        )

    def test_what_was_set_is_set_whatever_the_default_becomes(
        self, site: Process, target: Process, run: Run
    ) -> None:
        """A value that is the default of the day was chosen all the same; what nobody chose goes on
        following the default.
        """
        site.waffle.update({"LIMIT": 10})
        text = run("export").stdout
        result = self.run_in(target, "import", "-", "--dry-run", stdin=text)
        assert result.output.splitlines() == [
            "LIMIT: 10 by default -> 10",
            "revision 0 (nothing was changed)",
        ]
        assert (
            self.run_in(target, "import", "-", "--yes", stdin=text).output.splitlines()[-1]
            == "revision 1"
        )
        assert target.state.store.load().values == {"LIMIT": "10"}
        assert (
            self.run_in(target, "import", "-", "--yes", stdin=text).output
            == "revision 1 (nothing was changed)\n"
        )

    def test_what_was_the_default_is_set_only_where_another_value_is_in_force(
        self, site: Process, target: Process, tmp_path_factory: pytest.TempPathFactory, run: Run
    ) -> None:
        text = run("export").stdout
        assert json.loads(text)["set"] == []
        target.waffle.update({"LIMIT": 20})
        assert self.run_in(target, "import", "-", "--yes", stdin=text).output.splitlines() == [
            "LIMIT: 20 -> 10",
            "revision 2",
        ]
        assert target.state.store.load().values == {"LIMIT": "10"}
        later = Host(tmp_path_factory.mktemp("later")).start(
            confs={**CONFS, "LIMIT": {"default": 30}}
        )
        self.run_in(later, "import", "-", "--yes", stdin=text)
        assert later.state.store.load().values == {"LIMIT": "10"}

    def test_a_document_that_does_not_say_what_was_set_has_set_it_all(
        self, target: Process
    ) -> None:
        text = json.dumps({"uwsgi_waffle": 1, "values": {"LIMIT": 10, "SITENAME": "Waffle"}})
        self.run_in(target, "import", "-", "--yes", stdin=text)
        assert target.state.store.load().values == {"LIMIT": "10", "SITENAME": '"Waffle"'}

    def test_the_document_tells_revision_and_declarations(self, site: Process, run: Run) -> None:
        site.waffle.update({"LIMIT": 20})
        told = json.loads(run("export", "--reveal").stdout)
        assert (told["uwsgi_waffle"], told["revision"], told["values"]) == (
            1,
            1,
            {"SITENAME": "Waffle", "LIMIT": 20, "TOKEN": ""},
        )
        assert told["schema"]["LIMIT"] == {
            "desc": "Upload limit in bytes",
            "secret": False,
            "type": {"type": "integer", "exclusiveMinimum": 0},
        }

    def test_a_type_that_json_schema_has_no_words_for_is_any(self, host: Host) -> None:
        class Odd(int):
            @classmethod
            def __get_pydantic_core_schema__(cls, *args: object) -> core_schema.CoreSchema:
                plain = core_schema.plain_serializer_function_ser_schema(int)
                return core_schema.no_info_plain_validator_function(cls, serialization=plain)

        told = json.loads(
            self.run_in(host.start(confs={"N": {"default": Odd(7), "type": Odd}}), "export").stdout
        )
        assert (told["values"], told["schema"]["N"]["type"]) == ({"N": 7}, {})

    def test_with_json_it_tells_what_was_written(self, run: Run, tmp_path: Path) -> None:
        path = str(tmp_path / "values.json")
        result = run("export", path, "--json")
        assert (json.loads(result.stdout), result.stderr) == (
            {"revision": 0, "file": path, "left_out": ["TOKEN"]},
            "",
        )
        assert json.loads(run("export", "--json").stdout)["values"] == {
            "SITENAME": "Waffle",
            "LIMIT": 10,
        }

    @pytest.mark.parametrize("existing", [False, True])
    def test_a_file_with_secrets_is_the_users_alone(
        self, run: Run, tmp_path: Path, existing: bool
    ) -> None:
        path = tmp_path / "all.json"
        if existing:
            path.touch(mode=0o644)
        assert run("export", str(path), "--reveal").exit_code == 0
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_store_that_is_gone_is_not_exported(
        self, host: Host, site: Process, tmp_path: Path
    ) -> None:
        result = self.run_in(
            host.start(host.store(ALWAYS)), "export", str(tmp_path / "values.json")
        )
        assert result.exit_code == 1
        assert "the store is down" in result.output
        assert not (tmp_path / "values.json").exists()

    def test_secrets_are_left_out_and_named(self, site: Process, run: Run) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        result = run("export")
        assert "geheim" not in result.output
        assert json.loads(result.stdout)["values"].keys() == {"SITENAME", "LIMIT"}
        assert "left out, for they are secret: TOKEN" in result.stderr

    def test_a_secret_is_masked_on_its_way_in(self, target: Process) -> None:
        text = json.dumps({"uwsgi_waffle": 1, "values": {"TOKEN": "geheim"}})
        for options in (("--dry-run",), ("--dry-run", "--json"), ("--yes", "--json")):
            assert "geheim" not in self.run_in(target, "import", "-", *options, stdin=text).output
        assert target.waffle.values.TOKEN == "geheim"

    def test_what_a_file_does_not_name_stays(self, target: Process) -> None:
        target.waffle.update({"SITENAME": "Mine"})
        text = json.dumps({"uwsgi_waffle": 1, "values": {"LIMIT": 20}})
        result = self.run_in(target, "import", "-", "--yes", "--json", stdin=text)
        assert json.loads(result.output) == {
            "revision": 2,
            "dry_run": False,
            "changed": {"LIMIT": [10, 20]},
        }
        assert (target.waffle.values.SITENAME, target.waffle.values.LIMIT) == ("Mine", 20)

    def test_a_dry_run_changes_nothing(self, target: Process) -> None:
        text = json.dumps({"uwsgi_waffle": 1, "values": {"LIMIT": 20}})
        result = self.run_in(target, "import", "-", "--dry-run", stdin=text)
        assert result.output.splitlines() == ["LIMIT: 10 -> 20", "revision 0 (nothing was changed)"]
        assert target.waffle.refresh() == 0

    @pytest.mark.parametrize(("answer", "revision"), [("y", 1), ("n", 0), ("", 0)])
    def test_it_asks(self, target: Process, tmp_path: Path, answer: str, revision: int) -> None:
        path = tmp_path / "values.json"
        path.write_text(json.dumps({"uwsgi_waffle": 1, "values": {"LIMIT": 20}}))
        result = self.run_in(target, "import", str(path), stdin=f"{answer}\n")
        assert "LIMIT: 10 -> 20" in result.output
        assert "Change 1 of 3 variables?" in result.output
        assert (target.waffle.refresh(), result.exit_code) == (revision, 1 - revision)

    def test_json_can_not_ask(self, target: Process) -> None:
        assert self.run_in(target, "import", "-", "--json", stdin="{}").exit_code == 2

    def test_who_was_faster_is_not_overwritten(
        self, host: Host, target: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        path = tmp_path / "values.json"
        path.write_text(json.dumps({"uwsgi_waffle": 1, "values": {"LIMIT": 20}}))

        def confirm(*words: object, **options: object) -> bool:
            target.waffle.update({"LIMIT": 30})
            return True

        monkeypatch.setattr(click, "confirm", confirm)
        result = self.run_in(target, "import", str(path))
        assert result.exit_code == 1
        assert "revision 0 was expected" in result.output
        assert target.waffle.values.LIMIT == 30

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", "isn't JSON"),
            ("{", "isn't JSON"),
            ("[" * 100_000, "isn't JSON"),
            ("[]", "isn't what `flask waffle export` writes"),
            ('{"values": {}}', "isn't what `flask waffle export` writes"),
            ('{"uwsgi_waffle": 2, "values": {}}', "isn't what `flask waffle export` writes"),
            ('{"uwsgi_waffle": 1, "values": []}', "isn't what `flask waffle export` writes"),
            (
                '{"uwsgi_waffle": 1, "values": {"LIMIT": 20}, "set": "LIMIT"}',
                "isn't what `flask waffle export` writes",
            ),
            (
                '{"uwsgi_waffle": 1, "values": {"LIMIT": 20}, "set": [1]}',
                "isn't what `flask waffle export` writes",
            ),
            ('{"uwsgi_waffle": 1, "values": {"SITE": 1}}', "'SITE' is not declared"),
            (
                '{"uwsgi_waffle": 1, "values": {"LIMIT": -1, "SITENAME": 5}}',
                "LIMIT: Input should be greater than 0, not -1; SITENAME:",
            ),
            ('{"uwsgi_waffle": 1, "values": {"TOKEN": 5}}', "TOKEN: refused"),
        ],
    )
    def test_a_bad_file_changes_nothing_and_is_exit_code_1(
        self, target: Process, text: str, told: str
    ) -> None:
        result = self.run_in(target, "import", "-", "--yes", stdin=text)
        assert result.exit_code == 1
        assert told in result.output
        assert "Nothing was changed" in result.output
        assert target.waffle.refresh() == 0

    def test_a_file_that_is_not_there_is_exit_code_2(self, target: Process, tmp_path: Path) -> None:
        assert self.run_in(target, "import", str(tmp_path / "none.json")).exit_code == 2
