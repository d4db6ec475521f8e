"""Completion, in a real bash."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from flask.cli import ScriptInfo

from uwsgi_waffle.cli import waffle

from .conftest import Process
from .shell import Shell

# Each starts several processes one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("flask waffle get SI", ["SITENAME", "SIZE"]),
        ("flask waffle set SI", ["SITENAME=", "SIZE="]),
        ("flask waffle set SITENAME=x SI", ["SIZE="]),
        ("flask waffle set SITENAME=S", []),
        ("flask waffle sta", ["status"]),
    ],
)
def test_bash_is_offered_names(shell: Shell, line: str, offered: list[str]) -> None:
    assert shell.complete(line) == offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("get ", ["SITENAME", "LIMIT", "TOKEN"]),
        ("get X", []),
        ("unset LIMIT S", ["SITENAME"]),
        ("history TO", ["TOKEN"]),
        ("set LIMIT=1 T", ["TOKEN="]),
        ("set LIMIT=1 ", ["SITENAME=", "TOKEN="]),
        ("unset LIMIT TOKEN ", ["SITENAME"]),
    ],
)
def test_what_is_offered_where(site: Process, line: str, offered: list[str]) -> None:
    *words, incomplete = line.split(" ")
    context = {"obj": ScriptInfo(create_app=lambda: site.app)}
    found = ShellComplete(waffle, context, "waffle", "").get_completions(words, incomplete)
    assert [item.value for item in found if not item.value.startswith("-")] == offered


@pytest.mark.parametrize("before", ["1 / 0", "sys.exit('no')"])
def test_an_application_that_can_not_be_loaded_offers_nothing(shell: Shell, before: str) -> None:
    shell.write(before=before)
    assert shell.complete("flask waffle get SI") == []


def test_what_is_logged_meanwhile_is_not_on_the_terminal(shell: Shell) -> None:
    shell.write(
        before="import logging; logging.basicConfig(level=0)",
        after="logging.error('x'); print('x')",
    )
    assert shell.complete("flask waffle get SI") == ["SITENAME", "SIZE"]
