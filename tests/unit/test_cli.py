"""`flask waffle` reads: `list`, `get`, `status`, `watch`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from types import SimpleNamespace

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo
from pydantic import BaseModel, Field

from uwsgi_waffle import wake
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.cli import watching
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
            'SITENAME  "Waffle" (default)  # Name in the page header',
            "LIMIT     10 (default)  # Upload limit in bytes",
            f"TOKEN     {MASK} (default)  # Token of the payment API",
        ]

    def test_it_shows_what_is_set_and_what_is_only_the_default(
        self, site: Process, run: Run
    ) -> None:
        site.waffle.update({"LIMIT": 10})
        assert "LIMIT     10  # Upload limit in bytes" in run("list").output.splitlines()

    def test_a_group(self, site: Process, run: Run) -> None:
        variables = site.state.schema.variables
        variables["LIMIT"] = replace(variables["LIMIT"], group="Uploads")
        (line,) = run("list", "--group", "Uploads").output.splitlines()
        assert line.startswith("LIMIT  10")
        document = json.loads(run("list", "--group", "Uploads", "--json").output)
        assert document["values"] == {"LIMIT": 10}
        result = run("list", "--group", "Mail")
        assert result.exit_code == 1
        assert "No variable has the group 'Mail' (groups: 'Uploads')" in result.output

    def test_as_json(self, site: Process, run: Run) -> None:
        site.waffle.update({"LIMIT": 20, "TOKEN": "geheim"})
        result = run("list", "--json")
        assert json.loads(result.output) == {
            "revision": 1,
            "values": {"SITENAME": "Waffle", "LIMIT": 20, "TOKEN": MASK},
            "set": ["LIMIT", "TOKEN"],
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
            re.fullmatch(rf"worker 9       pid {neighbour}, revision 0 \(behind\), for \d+ s", line)
            for line in lines
        )
        assert any(
            re.fullmatch(rf"\S+ +pid {os.getpid()} \(this command\), revision 0, for \d+ s", line)
            for line in lines
        )
        assert run("status").exit_code == 0

    @pytest.mark.parametrize(
        ("kind", "program"),
        [
            *((kind, "uWSGI") for kind in ("worker 1", "mule 2", "spooler", "uwsgi")),
            *((kind, kind) for kind in ("gunicorn", "flask run", "backup.py")),
            *((kind, None) for kind in ("flask shell", "flask waffle status")),
        ],
    )
    def test_which_server_a_process_belongs_to(self, kind: str, program: str | None) -> None:
        assert wake.server_of(kind) == program

    def test_redis_without_its_library_is_told(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)
        result = host.start(WATCHTYPE="redis").app.test_cli_runner().invoke(command, ["status"])
        assert "watch type:    redis" in result.output
        assert (
            "Redis:         not used: redis-py isn't installed. Run: pip install "
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


@pytest.mark.parametrize(
    "words", ["list", "get OLD", "export", "set NEW=3", "set OLD=3", "history", "apply -"]
)
def test_a_deprecated_variable_warns_nobody_in_a_shell(host: Host, words: str) -> None:
    """The application's code is to go on without it."""

    class Site(BaseModel):
        OLD: int = Field(default=1, deprecated="use NEW")
        NEW: int = 2

    process = host.start(confs=Site)
    process.waffle.update({"NEW": 4})
    file = '{"uwsgi_waffle": 1, "values": {"OLD": 1, "NEW": 5}, "set": ["NEW"]}'
    result = process.app.test_cli_runner().invoke(command, words.split(), input=file)
    assert (result.exit_code, result.exception) == (0, None)


def test_a_program_that_calls_it_may_catch_the_output_as_text(site: Process) -> None:
    """What it puts in the place of the standard output need not take bytes."""
    output, info = io.StringIO(), ScriptInfo(create_app=lambda: site.app)
    with contextlib.redirect_stdout(output):
        command.main(["set", "LIMIT=20", "--json"], obj=info, standalone_mode=False)
    assert json.loads(output.getvalue())["new"] == {"LIMIT": 20}


def test_help_lists_the_commands(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in ("list", "get", "set"))
