"""A folder with an application in it, in which shells and terminals run `flask waffle`."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import subprocess
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..live.servers import ROOT, script

__all__ = ["Shell"]

APP = """
import sys
from flask import Flask
from uwsgi_waffle import WaffleConf

{before}
app = Flask("site", instance_path={instance!r})
app.config["WAFFLE_CONFS"] = {{{confs}}}
waffle = WaffleConf(app)
{after}
"""

CONFS = """
    "SITENAME": {"desc": "Name in the page header", "default": "Waffle"},
    "SIZE": {"default": 10},
    "TEXT": {"default": "x" * 100_000},
    "TOKEN": {"default": "", "secret": True},
"""

# An application may print anything while it is loaded.
NOISE = "print('loading'); print('loading', file=sys.stderr)"


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

    def write(self, *, before: str = NOISE, after: str = "", confs: str = CONFS) -> None:
        instance = str(self.folder / "instance")
        text = APP.format(instance=instance, before=before, after=after, confs=confs)
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

    def on_terminal(
        self, line: str, *answers: str, before_answer: Callable[[], object] = lambda: None
    ) -> str:
        """Run a command on a terminal of its own, and return what can be seen there.

        Each answer is typed when a line that doesn't end asks for it.
        """
        ours, theirs = os.openpty()
        path = f"{Path(script('flask')).parent}:{os.environ['PATH']}"
        with subprocess.Popen(
            ["bash", "--norc", "-c", line],
            cwd=self.folder,
            env={**self.environ, "PATH": path},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY),
        ):
            os.close(theirs)
            seen, remaining = "", list(answers)
            with suppress(OSError):  # when the last process has closed it
                while data := os.read(ours, 65536):
                    seen += data.decode()
                    if remaining and seen.endswith((": ", "? ")):
                        before_answer()
                        os.write(ours, f"{remaining.pop(0)}\n".encode())
        os.close(ours)
        return seen

    def complete(self, line: str) -> list[str]:
        """Return what bash offers when Tab is pressed at the end of a line.

        Nothing may be printed meanwhile. Bash splits words at "=".
        """
        words = [*re.findall("=|[^ =]+", line), *([""] if line.endswith(" ") else [])]
        done = self.bash(
            completion()
            + "COMP_WORDS=($WORDS); COMP_CWORD=$AT; _flask_completion flask; "
            + 'printf "%s\\n" "${COMPREPLY[@]}"',
            WORDS=" ".join(words),
            AT=str(len(words) - 1),
        )
        assert done.stderr == ""
        return done.stdout.split()


@functools.cache
def completion() -> str:
    """Return what ``~/.bashrc`` evaluates; no application is needed for it."""
    source = "_FLASK_COMPLETE=bash_source flask"
    environ = {**os.environ, "PATH": f"{Path(script('flask')).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "--norc", "-c", source], env=environ, capture_output=True, text=True, check=True
    ).stdout
