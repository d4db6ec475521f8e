"""A stored value that doesn't fit stops no command, and the commands repair it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from uwsgi_waffle import InvalidValue
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.schema import MASK

from ..host import Ordered
from .conftest import CONFS, Host, Process

Run = Callable[..., Result]

#: What a new release declares: other types for SITENAME and TOKEN.
RELEASE: dict[str, Any] = {
    **CONFS,
    "SITENAME": {"default": ["Waffle"]},
    "TOKEN": {"default": 0, "secret": True},
}
COMMANDS = "Run flask waffle set SITENAME=VALUE, or flask waffle unset SITENAME"


@pytest.fixture
def run(host: Host, site: Process) -> Run:
    """Run ``flask waffle`` of the new release; SITENAME is stored, and doesn't fit."""
    site.waffle.update({"SITENAME": "Brügge", "LIMIT": 20})

    def create_app() -> Flask:
        return host.start(confs=RELEASE).app

    def run(*words: str) -> Result:
        obj = ScriptInfo(create_app=create_app)
        return site.app.test_cli_runner().invoke(command, words, obj=obj)

    return run


def test_a_server_refuses_to_start_and_names_the_commands(host: Host, run: Run) -> None:
    with pytest.raises(InvalidValue, match=r"SITENAME: Input should be a valid") as raised:
        host.start(confs=RELEASE)
    assert COMMANDS in str(raised.value)


def test_list_marks_it(run: Run) -> None:
    lines = run("list").output.splitlines()
    assert lines[0] == 'SITENAME  ["Waffle"] (default)'
    assert lines[1].startswith('          ! "Brügge" is stored, which can\'t be used: ')
    assert lines[1].endswith(COMMANDS)
    assert lines[2].startswith("LIMIT     20")


def test_list_as_json_marks_it(run: Run) -> None:
    document = json.loads(run("list", "--json").stdout)
    assert document["values"] == {"SITENAME": ["Waffle"], "LIMIT": 20, "TOKEN": MASK}
    (name,) = document["misfits"]
    assert (name, document["misfits"][name]["stored"]) == ("SITENAME", "Brügge")
    assert "valid" in document["misfits"][name]["problem"]


def test_get_marks_it(run: Run) -> None:
    result = run("get", "SITENAME")
    assert (result.exit_code, result.stdout) == (0, '["Waffle"]\n')
    assert COMMANDS in result.stderr
    document = json.loads(run("get", "SITENAME", "--json").stdout)
    assert (document["value"], document["stored"]) == (["Waffle"], "Brügge")
    assert run("get", "LIMIT", "--json").output == "20\n"


def test_status_and_doctor_name_it(run: Run) -> None:
    result = run("status")
    assert result.exit_code == 1
    assert 'SITENAME:      "Brügge" is stored, which' in result.output
    assert run("status", "--json").exit_code == 1
    result = run("doctor", "--patience", "0")
    assert result.exit_code == 1
    assert 'error    store:        SITENAME: "Brügge" is stored, which' in result.output
    assert f"change:       {COMMANDS}" in result.output


def test_export_leaves_it_out_and_says_so(run: Run) -> None:
    """Its default isn't what the store has."""
    result = run("export")
    document = json.loads(result.stdout)
    assert (document["values"], document["set"]) == ({"LIMIT": 20}, ["LIMIT"])
    assert 'SITENAME: left out, "Brügge" is stored, which' in result.stderr
    assert COMMANDS in result.stderr


def test_export_writes_no_values_that_do_not_fit_each_other(
    host: Host, site: Process, tmp_path: Path
) -> None:
    """All variables would have their defaults, and the file may be the only good copy."""
    host.sql("INSERT INTO waffle_values VALUES ('LOW', '50')")
    path = tmp_path / "values.json"
    path.write_text("good")
    obj = ScriptInfo(create_app=lambda: host.start(confs=Ordered).app)
    result = site.app.test_cli_runner().invoke(command, ["export", str(path)], obj=obj)
    assert (result.exit_code, path.read_text()) == (1, "good")
    assert "Error: Nothing was written: what is stored can't be used: Value error" in result.stderr


@pytest.mark.parametrize(
    ("words", "value"), [(["set", 'SITENAME=["a"]'], ["a"]), (["unset", "SITENAME"], ["Waffle"])]
)
def test_set_and_unset_repair_it(host: Host, run: Run, words: list[str], value: object) -> None:
    result = run(*words)
    assert result.exit_code == 0
    assert result.output.startswith('SITENAME: "Brügge" -> ')
    started = host.start(confs=RELEASE)
    assert started.waffle.values["SITENAME"] == value
    assert started.waffle.values.LIMIT == 20
    assert "!" not in run("list").output


def test_the_row_of_temporary_values_is_removed(host: Host, site: Process) -> None:
    """Somebody has edited it by hand."""
    site.waffle.update({"LIMIT": 20}, expires=timedelta(hours=1))
    host.sql("UPDATE waffle_values SET value = '{' WHERE key = 'WAFFLE_EXPIRES'")
    obj = ScriptInfo(create_app=lambda: host.start().app)
    invoke = site.app.test_cli_runner().invoke
    assert "Run flask waffle unset WAFFLE_EXPIRES" in invoke(command, ["status"], obj=obj).output
    assert invoke(command, ["unset", "WAFFLE_EXPIRES"], obj=obj).exit_code == 0
    assert (host.start().waffle.values.LIMIT, site.state.newest_published().temporary) == (20, {})


def test_several_are_repaired_one_after_the_other(host: Host, site: Process, run: Run) -> None:
    """As the line about each says; until the last is done no server starts."""
    site.waffle.update({"TOKEN": "text"})
    assert run("set", 'SITENAME=["a"]').exit_code == 0
    with pytest.raises(InvalidValue, match="TOKEN"):
        host.start(confs=RELEASE)
    result = run("set", "TOKEN=many")
    assert (result.exit_code, run("unset", "TOKEN").exit_code) == (1, 0)
    started = host.start(confs=RELEASE)
    assert dict(started.waffle.values) == {"SITENAME": ["a"], "LIMIT": 20, "TOKEN": 0}


def test_an_update_that_leaves_it_changes_nothing(site: Process, run: Run) -> None:
    """No process of the release could serve it."""
    result = run("set", "LIMIT=30")
    assert result.exit_code == 1
    assert "SITENAME" in result.output
    assert site.waffle.refresh() == 1


def test_processes_of_the_former_release_are_not_disturbed(site: Process, run: Run) -> None:
    """What fits their declarations is an error of the new release only."""
    for words in (["list"], ["status"], ["doctor", "--patience", "0"]):
        run(*words)
    status = site.waffle.status()
    assert (status["store_error"], status["error"], status["revision"]) == ("", "", 1)
    assert site.waffle.values.SITENAME == "Brügge"


def test_a_secret_is_masked(site: Process, run: Run) -> None:
    site.waffle.update({"TOKEN": "geheim"})
    for words in (
        ["list"],
        ["list", "--json"],
        ["get", "TOKEN", "--reveal"],
        ["status"],
        ["doctor"],
    ):
        result = run(*words)
        assert "geheim" not in result.output
        assert MASK in result.output


def test_a_row_that_is_not_json(host: Host, run: Run) -> None:
    """Somebody edited the database."""
    host.sql("UPDATE waffle_values SET value = 'no json' WHERE key = 'LIMIT'")
    assert '! "no json" is stored, which' in run("list").output
    assert run("unset", "SITENAME").exit_code == 0
    assert 'LIMIT: "no json" -> 10' in run("unset", "LIMIT").output
    values = host.start(confs=RELEASE).waffle.values
    assert (values.LIMIT, values.SITENAME) == (10, ["Waffle"])


def test_a_null_is_named_like_any_other_value(host: Host, run: Run) -> None:
    host.sql("UPDATE waffle_values SET value = 'null' WHERE key = 'LIMIT'")
    for words in (["list"], ["status"], ["doctor", "--patience", "0"]):
        assert "null is stored, which can't be used: Input should be" in run(*words).output


def test_rows_that_are_not_json_and_others(host: Host, site: Process, run: Run) -> None:
    """They, too, are repaired one after the other."""
    site.waffle.update({"TOKEN": "text"})
    host.sql("INSERT INTO waffle_values VALUES ('GONE', 'no json')")
    host.sql("UPDATE waffle_values SET value = 'no json' WHERE key = 'LIMIT'")
    for words in ("set", "LIMIT=7"), ("unset", "TOKEN"), ("unset", "GONE"), ("unset", "SITENAME"):
        assert run(*words).exit_code == 0
    assert host.start(confs=RELEASE).waffle.values.LIMIT == 7


def test_a_row_of_a_name_that_is_not_declared(host: Host, run: Run) -> None:
    """Nothing but `unset` is advised, and it does it."""
    host.sql("INSERT INTO waffle_values VALUES ('GONE', 'no json')")
    *_, name, line = run("list").output.splitlines()
    assert name == "GONE"
    assert line.endswith("Run flask waffle unset GONE")
    assert run("unset", "GONE", "SITENAME").exit_code == 0
    assert host.start(confs=RELEASE).waffle.values.SITENAME == ["Waffle"]


def test_values_that_do_not_fit_each_other(host: Host, site: Process) -> None:
    """Nobody knows which of them is wrong: all have their defaults."""
    host.sql("INSERT INTO waffle_values VALUES ('LOW', '50')")

    def run(*words: str) -> Result:
        obj = ScriptInfo(create_app=lambda: host.start(confs=Ordered).app)
        return site.app.test_cli_runner().invoke(command, words, obj=obj)

    result = run("status")
    assert "values:        what is stored can't be used: " in result.output
    assert "LOW must not be above HIGH. Run flask waffle set NAME=VALUE" in result.output
    assert run("unset", "LOW").exit_code == 0
    assert host.start(confs=Ordered).waffle.values.LOW == 1
