"""`flask waffle` as a shell starts it: real processes, pipes, terminals, signals."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..live.servers import eventually, script
from .shell import Shell

# Each starts several processes one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RECORD_LENGTHS = """
from uwsgi_waffle import SQLStore
history = SQLStore.history
def recorded(store, limit, key=None, *, max_length=None):
    print(max_length, file=open("lengths", "a"))
    return history(store, limit, key, max_length=max_length)
SQLStore.history = recorded
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def quiet(shell: Shell) -> None:
    """Nothing is printed while the application is loaded."""
    shell.write(before="")


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
        document = json.loads(done.stdout.splitlines()[-1])
        assert document["error"] == "StoreUnavailable"
        assert "file is not a database" in document["message"]

    def test_what_is_no_text_is_refused(self, shell: Shell) -> None:
        done = shell.run("set", b"SITENAME=\xff")
        assert (done.returncode, "Nothing was changed: SITENAME" in done.stderr) == (1, True)
        done = shell.run("set", "SITENAME=x", "--note", b"\xff")
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert shell.run("get", "SITENAME").stdout.splitlines()[-1] == "Waffle"

    def test_a_reader_that_goes_away_is_no_traceback(self, shell: Shell) -> None:
        done = shell.bash(
            "flask waffle list | head -1; flask waffle get TEXT | head -c 1 >/dev/null; "
            "echo ${PIPESTATUS[0]}"
        )
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr
        assert done.stdout.splitlines()[-1] == "1"


@pytest.mark.usefixtures("quiet")
class TestOutput:
    """Output that can't be written never changes what exit code and message say of an update."""

    def test_an_update_whose_output_nobody_reads(self, shell: Shell) -> None:
        done = shell.bash("flask waffle set SIZE=11 | true; echo ${PIPESTATUS[0]}")
        assert done.stdout == "0\n"
        assert "Traceback" not in done.stderr
        assert shell.run("get", "SIZE").stdout.splitlines()[-1] == "11"

    def test_an_update_whose_output_does_not_fit_on_the_disk(self, shell: Shell) -> None:
        done = shell.bash("flask waffle set SIZE=11 --json >/dev/full")
        assert done.returncode == 0
        text = "revision 1 is stored; the output can't be written: No space left on device"
        assert text in done.stderr.splitlines()
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("command", "text"),
        [
            ("list", "Error: the output can't be written: No space left on device"),
            ("set SIZE=x --json", "Error: Nothing was changed: SIZE: "),
        ],
    )
    def test_all_else_is_exit_code_1(self, shell: Shell, command: str, text: str) -> None:
        done = shell.bash(f"flask waffle {command} >/dev/full")
        assert done.returncode == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("after", "text"),
        [
            (
                "app.teardown_appcontext(lambda error: 1 / 0)",
                "a teardown function failed: ZeroDivisionError: division by zero",
            ),
            (
                "sys.stdout.close()",
                "revision 1 is stored; the output can't be written: I/O operation on closed file.",
            ),
        ],
    )
    def test_an_update_whose_application_fails_afterwards(
        self, shell: Shell, after: str, text: str
    ) -> None:
        shell.write(before="", after=after)
        done = shell.run("set", "SIZE=11")
        assert done.returncode == 0
        assert text in done.stderr.splitlines()
        assert "Traceback" not in done.stderr
        refused = shell.run("set", "SIZE=x")
        assert (refused.returncode, "Nothing was changed" in refused.stderr) == (1, True)

    def test_an_encoding_that_does_not_have_a_letter(self, shell: Shell) -> None:
        command = 'flask waffle set "SITENAME=Bru 🧇" && flask waffle get SITENAME'
        done = shell.bash(command, PYTHONIOENCODING="latin-1:strict")
        assert done.returncode == 0
        assert done.stdout.splitlines()[0].endswith('-> "Bru \\U0001f9c7"')

    @pytest.mark.parametrize(
        ("encoding", "old", "new", "who"),
        [
            ("utf-8", "Br\u00fcgge", "\u65e5\u672c", "Zo\u00eb"),
            ("ascii", "Br\\xfcgge", "\\u65e5\\u672c", "Zo\\xeb"),
        ],
    )
    def test_the_history_on_a_terminal(
        self, shell: Shell, encoding: str, old: str, new: str, who: str
    ) -> None:
        """Letters are shown as they are.

        What the terminal doesn't have is written as in Python's source.
        """
        for value in ("Br\u00fcgge", "\u65e5\u672c" * 5000):
            shell.run("set", f"SITENAME={value}", "--actor", "Zo\u00eb")
        seen = shell.on_terminal(f"PYTHONIOENCODING={encoding} flask waffle history")
        assert f'  {who}  SITENAME: "{old}" -> "{new}{new}' in seen
        assert f'  {who}  SITENAME: "Waffle" -> "{old}"' in seen
        assert seen.count("\n") == 2

    def test_get_escapes_on_a_terminal_only(self, shell: Shell) -> None:
        value = "Br\u00fcgge\x1b[2J\nend"
        shell.run("set", f"SITENAME={value}")
        assert shell.run("get", "SITENAME").stdout.endswith(f"{value}\n")
        ours, theirs = os.openpty()
        command = [script("flask"), "waffle", "get", "SITENAME"]
        subprocess.run(command, cwd=shell.folder, env=shell.environ, stdout=theirs, check=True)
        os.close(theirs)
        seen = os.read(ours, 1000).decode().splitlines()
        os.close(ours)
        assert seen[-2:] == ["Br\u00fcgge\\x1b[2J", "end"]

    @pytest.mark.parametrize(
        ("command", "output"),
        [
            ("set SIZE=12", ">/dev/full 2>&1"),
            ("set SIZE=12", ">&-"),
            ("set SIZE=12", "2>&-"),
            ("unset SIZE", ">/dev/full"),
            ("rollback 0", ">/dev/full"),
            ("prune --yes", ">/dev/full"),
            ("apply values.toml", "| true"),
            ("apply values.toml --reset-others --yes", ">/dev/full"),
        ],
    )
    def test_no_command_that_changes_something_fails_afterwards(
        self, shell: Shell, command: str, output: str
    ) -> None:
        shell.bash("flask waffle set SIZE=11 TOKEN=t")
        shell.write(before="", after="", confs='"SIZE": {"default": 10}')
        (shell.folder / "values.toml").write_text("SIZE = 13\n")
        done = shell.bash(f"flask waffle {command} {output}; echo ${{PIPESTATUS[0]}} >code")
        assert (shell.folder / "code").read_text() == "0\n"
        assert "Traceback" not in done.stdout + done.stderr
        assert json.loads(shell.run("status", "--json").stdout)["revision"] == 2

    def test_control_c_while_it_waits_for_others(self, shell: Shell) -> None:
        """The update is made: that is no failure."""
        server = [sys.executable, "-c", "import site_app; print('up', flush=True); input()"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            server, cwd=shell.folder, env=shell.environ, stdin=pipe, stdout=pipe, text=True
        ) as stopped:
            assert stopped.stdout is not None
            assert stopped.stdout.readline() == "up\n"
            stopped.send_signal(signal.SIGSTOP)
            command = [script("flask"), "waffle", "set", "SIZE=11", "--wait", "500"]
            with subprocess.Popen(
                command,
                cwd=shell.folder,
                env=shell.environ,
                stdout=pipe,
                stderr=pipe,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            ) as waiting:

                def is_stored() -> bool:
                    return shell.run("get", "SIZE").stdout == "11\n"

                eventually(is_stored)
                waiting.send_signal(signal.SIGINT)
                out, err = waiting.communicate()
            stopped.send_signal(signal.SIGCONT)
            stopped.communicate("\n")
        assert (waiting.returncode, out) == (3, "SIZE: 10 -> 11\nrevision 1\n")
        assert "revision 1 is stored; not all processes may have it yet" in err.splitlines()

    def test_control_c_while_a_hook_runs(self, shell: Shell) -> None:
        """The update is made: that is no failure either."""
        hook = "import time\n    open('called', 'w').close()\n    time.sleep(500)"
        shell.write(after=f"@waffle.on_update\ndef slow(update):\n    {hook}")
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [script("flask"), "waffle", "set", "SIZE=11"],
            cwd=shell.folder,
            env=shell.environ,
            stdout=pipe,
            stderr=pipe,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as setting:
            eventually((shell.folder / "called").exists)
            setting.send_signal(signal.SIGINT)
            _, err = setting.communicate()
        assert setting.returncode == 3
        assert "revision 1 is stored; not all hooks may have run to their end" in err.splitlines()

    def test_a_terminal_shows_the_beginning_of_a_long_value(self, shell: Shell) -> None:
        shell.bash("head -c 150000 /dev/zero | tr '\\0' y | flask waffle set TEXT=-")
        for command, length in (("list", "150,002"), ("history", "more than 4,096")):
            seen = shell.on_terminal(f"flask waffle {command}")
            assert f"yyy... ({length} characters)" in seen
            assert len(seen) < 2_000
            assert "y" * 150_000 in shell.run(command).stdout

    @pytest.mark.parametrize("options", ["", " --since 0"])
    def test_no_more_of_a_history_is_read_than_a_terminal_shows(
        self, shell: Shell, options: str
    ) -> None:
        shell.write(before="", after=RECORD_LENGTHS)
        shell.run("set", "SIZE=11")
        shell.on_terminal(f"flask waffle history{options}")
        shell.run("history", *options.split())
        shell.on_terminal(f"flask waffle history{options} --json")
        assert (shell.folder / "lengths").read_text() == "4097\nNone\nNone\n"


@pytest.mark.usefixtures("quiet")
class TestTerminal:
    """Somebody can be asked."""

    def test_a_secret_is_asked_for_twice_and_not_shown(self, shell: Shell) -> None:
        seen = shell.on_terminal("flask waffle set TOKEN", "geheim", "geheim")
        assert "TOKEN: ******** -> ********" in seen
        assert "geheim" not in seen
        assert shell.run("get", "TOKEN", "--reveal").stdout == "geheim\n"

    def test_two_that_differ_are_asked_for_again(self, shell: Shell) -> None:
        seen = shell.on_terminal("flask waffle set TOKEN", "one", "two", "three", "three")
        assert "do not match" in seen
        assert shell.run("get", "TOKEN", "--reveal").stdout == "three\n"

    @pytest.mark.parametrize(("answer", "value"), [("y", "Waffle"), ("n", "Mine"), ("", "Mine")])
    def test_a_reset_of_others_is_asked_for(self, shell: Shell, answer: str, value: str) -> None:
        shell.run("set", "SITENAME=Mine")
        (shell.folder / "values.toml").write_text("SIZE = 13\n")
        seen = shell.on_terminal("flask waffle apply values.toml --reset-others", answer)
        assert 'SITENAME: "Mine" -> "Waffle"' in seen
        assert "Reset SITENAME?" in seen
        assert shell.run("get", "SITENAME").stdout == f"{value}\n"

    def test_whoever_was_faster_is_not_overwritten(self, shell: Shell) -> None:
        shell.run("set", "SITENAME=Mine")
        (shell.folder / "values.toml").write_text("SIZE = 13\n")
        seen = shell.on_terminal(
            "flask waffle apply values.toml --reset-others",
            "y",
            before_answer=lambda: shell.run("set", "SITENAME=Theirs"),
        )
        assert "revision 1 was expected and the store is at 2" in seen
        assert shell.run("get", "SITENAME").stdout == "Theirs\n"

    def test_pruning_is_asked_for(self, shell: Shell) -> None:
        shell.run("set", "TOKEN=t", "SIZE=11")
        shell.write(before="", confs='"SIZE": {"default": 10}')
        assert "TOKEN: removed" in shell.on_terminal("flask waffle prune", "y")
        assert shell.run("list", "--undeclared").stdout == ""


class TestExport:
    """What is no plain file is written to, not replaced."""

    def test_a_pipe(self, shell: Shell) -> None:
        done = shell.bash(
            "mkfifo pipe; timeout 20 cat pipe >got & flask waffle export pipe --reveal; wait"
        )
        assert done.returncode == 0
        assert (shell.folder / "pipe").is_fifo()
        assert json.loads((shell.folder / "got").read_text())["values"]["SITENAME"] == "Waffle"

    def test_the_standard_output_by_its_name(self, shell: Shell) -> None:
        shell.bash("echo before >log; flask waffle export /dev/stdout >>log")
        lines = (shell.folder / "log").read_text().splitlines()
        assert (lines[0], lines[-1]) == ("before", "}")

    def test_a_device_that_is_full(self, shell: Shell) -> None:
        done = shell.bash("flask waffle export /dev/full")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr


class TestNoServer:
    """An update that no server hears of says so."""

    def test_a_shell_alone(self, shell: Shell) -> None:
        done = shell.run("set", "SIZE=11")
        assert done.returncode == 0
        assert done.stderr.splitlines()[-1] == "No server process here uses this store"
        done = shell.run("unset", "SIZE", "--wait", "1", "--json")
        assert done.returncode == 3
        assert json.loads(done.stdout.splitlines()[-1])["revision"] == 2

    def test_beside_a_server(self, shell: Shell) -> None:
        command = [sys.executable, "-c", "import site_app; print('up'); input()"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=shell.folder, env=shell.environ, stdin=pipe, stdout=pipe, text=True
        ) as server:
            assert server.stdout is not None
            assert "up\n" in iter(server.stdout.readline, "")
            done = shell.run("set", "SIZE=11", "--wait", "20")
        assert (done.returncode, done.stderr) == (0, "loading\n")


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
            line = json.loads(eventually(change)[0])
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        assert (process.returncode, err) == (0, "loading\n")
        assert (line["key"], line["new"] - line["old"]) == ("SIZE", 1)
        assert line["revision"] == line["new"] - 10


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
        status = json.loads(done.stdout.split("loading\n")[1])
        assert [process["kind"] for process in status["processes"]] == ["flask waffle status"]
        assert status["servers"] == []
