"""The help of every command is compared with a file, so that nobody changes it by accident.

``python -m tests.unit.test_help`` writes the files anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.cli import cli

from uwsgi_waffle.cli import waffle

KEPT = Path(__file__).with_name("help")
WIDTH = 100
NAMES = ["waffle", *sorted(waffle.commands)]


def help_of(name: str) -> str:
    """Return what ``flask waffle <name> --help`` prints; for ``waffle`` what the group prints."""
    words = ["waffle", *([] if name == "waffle" else [name]), "--help"]
    result = CliRunner().invoke(
        cli, words, prog_name="flask", terminal_width=WIDTH, max_content_width=WIDTH
    )
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("name", NAMES)
def test_help(name: str) -> None:
    kept = (KEPT / f"{name}.txt").read_text()
    assert help_of(name) == kept, (
        "If the new text is meant, keep it: python -m tests.unit.test_help"
    )


def test_no_file_is_left_over() -> None:
    assert sorted(path.stem for path in KEPT.iterdir()) == sorted(NAMES), (
        "Run: python -m tests.unit.test_help"
    )


def test_all_commands_that_were_promised_have_json() -> None:
    promised = {
        "list",
        "get",
        "set",
        "unset",
        "history",
        "rollback",
        "status",
        "watch",
        "export",
        "apply",
        "prune",
        "doctor",
    }
    assert promised <= set(waffle.commands)
    assert [name for name in waffle.commands if "--json" not in help_of(name)] == []


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for path in KEPT.iterdir():
        path.unlink()
    for name in NAMES:
        (KEPT / f"{name}.txt").write_text(help_of(name))
