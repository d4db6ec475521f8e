"""`flask waffle` as a shell starts it: real processes, pipes, signals, and the completion of names."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from flask.cli import ScriptInfo

from uwsgi_waffle.cli import waffle

from ..live.servers import ROOT, eventually, script
from .conftest import Process

pytestmark = pytest.mark.timeout(600)  # each starts several processes one after the other

APP = """
import sys
from flask import Flask
from uwsgi_waffle import WaffleConf

print("loading")  # a program of the application's own may print anything
print("loading", file=sys.stderr)
{before}
app = Flask("site", instance_path={instance!r})
app.config["WAFFLE_CONFS"] = {{
    "SITENAME": {{"desc": "Name in the page header", "default": "Waffle"}},
    "SIZE": {{"default": 10}},
    "TEXT": {{"default": "x" * 100_000}},
    "TOKEN": {{"default": "", "secret": True}},
}}
waffle = WaffleConf(app)
{after}
"""


class Shell:
    """A folder with an application in it, and the processes started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "FLASK_APP": "site_app",
            "FLASK_SKIP_DOTENV": "1",
        }
        self.write()

    def write(self, *, before: str = "", after: str = "") -> None:
        text = APP.format(instance=str(self.folder / "instance"), before=before, after=after)
        (self.folder / "site_app.py").write_text(text)

    def run(self, *words: str | bytes) -> subprocess.CompletedProcess[str]:
        command = [script("flask"), "waffle", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False
        )

    def bash(self, line: str, **environ: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(script('flask')).parent}:{os.environ['PATH']}"
        command = ["bash", "--norc", "-c", line]
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environ, "PATH": path, **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def complete(self, line: str) -> list[str]:
        """Return what bash offers when Tab is pressed at the end of a line; nothing may be said on
        the terminal.
        """
        words = line.split(" ")
        done = self.bash(
            completion()
            + 'COMP_WORDS=($WORDS); COMP_CWORD=$AT; _flask_completion flask; printf "%s\\n" "${COMPREPLY[@]}"',
            WORDS=line,
            AT=str(len(words) - 1),
        )
        assert done.stderr == ""
        return done.stdout.split()


@functools.cache
def completion() -> str:
    """Return what the README's line for ``~/.bashrc`` evaluates; no application is needed for it."""
    (source,) = re.findall(r'^eval "\$\((.+)\)"$', (ROOT / "README.md").read_text(), re.MULTILINE)
    environ = {**os.environ, "PATH": f"{Path(script('flask')).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "--norc", "-c", source], env=environ, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


class TestErrors:
    def test_why_an_application_refuses_to_start_is_told_without_a_traceback(
        self, shell: Shell
    ) -> None:
        (shell.folder / "instance").mkdir()
        (shell.folder / "instance" / "waffle.db").write_text("no database, " * 100)
        done = shell.run("list", "--json")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "file is not a database" in done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["error"] == "StoreUnavailable"
        assert "file is not a database" in told["message"]

    def test_what_is_no_text_is_refused(self, shell: Shell) -> None:
        done = shell.run("set", b"SITENAME=\xff")
        assert (done.returncode, "Nothing was changed: SITENAME" in done.stderr) == (1, True)
        done = shell.run("set", "SITENAME=x", "--note", b"\xff")
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert shell.run("get", "SITENAME").stdout.splitlines()[-1] == "Waffle"

    def test_a_reader_that_goes_away_is_no_traceback(self, shell: Shell) -> None:
        done = shell.bash(
            "flask waffle list | head -1; flask waffle get TEXT | head -c 1 >/dev/null; echo ${PIPESTATUS[0]}"
        )
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
        assert done.stdout.splitlines()[-1] == "1"


class TestWatch:
    def test_control_c_ends_it_as_it_should(self, shell: Shell) -> None:
        numbers = itertools.count(11)
        out = shell.folder / "out"
        with out.open("w") as file:
            # In a script's background the signal would be ignored.
            command = [script("flask"), "waffle", "watch", "--json", "--interval", "0.01"]
            process = subprocess.Popen(
                command,
                cwd=shell.folder,
                env={**shell.environ, "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

        def change() -> list[str]:
            assert shell.run("set", f"SIZE={next(numbers)}").returncode == 0
            return out.read_text().splitlines()[1:]

        with process:
            told = json.loads(eventually(change)[0])
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        assert (process.returncode, err) == (0, "loading\n")
        assert (told["key"], told["new"] - told["old"], told["revision"]) == (
            "SIZE",
            1,
            told["new"] - 10,
        )


class TestNames:
    @pytest.mark.parametrize(
        "program", [["flask"], [sys.executable, "-m", "flask"]], ids=["flask", "python -m flask"]
    )
    def test_a_command_has_its_name_in_the_table(self, shell: Shell, program: list[str]) -> None:
        command = [
            script("flask") if program == ["flask"] else program[0],
            *program[1:],
            "waffle",
            "status",
            "--json",
        ]
        done = subprocess.run(
            command, cwd=shell.folder, env=shell.environ, capture_output=True, text=True, check=True
        )
        told = json.loads(done.stdout.split("loading\n")[1])
        assert [process["kind"] for process in told["processes"]] == ["flask waffle status"]
        assert told["servers"] == []


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("flask waffle get SI", ["SITENAME", "SIZE"]),
            ("flask waffle set SIZE = 1 SI", ["SITENAME="]),
            ("flask waffle set SIZE =", []),
            ("flask waffle sta", ["status"]),
        ],
    )
    def test_bash_is_offered_names(self, shell: Shell, line: str, offered: list[str]) -> None:
        """As bash splits the line: it takes ``=`` for a word of its own."""
        assert shell.complete(line) == offered

    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("get ", ["SITENAME", "LIMIT", "TOKEN"]),
            ("get X", []),
            ("get LIMIT ", []),
            ("unset LIMIT ", ["SITENAME", "TOKEN"]),
            ("history TO", ["TOKEN"]),
            ("set LIMIT=1 ", ["SITENAME=", "TOKEN="]),
            ("set LIMIT = TOKEN SI", ["SITENAME="]),
            ("set LIMIT = S", []),
            ("set LIMIT=S", []),
        ],
    )
    def test_what_is_offered_where(self, site: Process, line: str, offered: list[str]) -> None:
        *words, incomplete = line.split(" ")
        context = {"obj": ScriptInfo(create_app=lambda: site.app)}
        found = ShellComplete(waffle, context, "waffle", "").get_completions(words, incomplete)
        assert [item.value for item in found if not item.value.startswith("-")] == offered

    @pytest.mark.parametrize("before", ["1 / 0", "sys.exit('no')"])
    def test_an_application_that_can_not_be_loaded_offers_nothing(
        self, shell: Shell, before: str
    ) -> None:
        shell.write(before=before)
        assert shell.complete("flask waffle get SI") == []

    def test_what_is_logged_meanwhile_is_not_on_the_terminal(self, shell: Shell) -> None:
        shell.write(
            before="import logging; logging.basicConfig(level=0)",
            after="logging.error('x'); import os; os.write(2, b'x')",
        )
        assert shell.complete("flask waffle get SI") == ["SITENAME", "SIZE"]
