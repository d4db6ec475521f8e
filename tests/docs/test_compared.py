"""README.md, "Compared with": restarting and dynaconf, of which no benchmark tells."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .page import ROOT
from .shell import wait_for

ROW = dict(re.findall(r"^\| ([\w ]+) \| ([^|]+) \|", (ROOT / "README.md").read_text(), re.M))
APP = """
import os
from flask import Flask

app = Flask(__name__)
app.config.from_pyfile("settings.py")

@app.get("/")
def show():
    return f"{os.getpid()} {app.config['SITENAME']}"
"""


def test_dynaconf(tmp_path: Path) -> None:
    """A process has the new values when its code reloads them; that reads all files again."""
    dynaconf = pytest.importorskip("dynaconf")
    assert ROW["dynaconf"] == "when your code reloads it"
    files = [tmp_path / "one.toml", tmp_path / "two.toml"]

    def write(value: int) -> None:
        for file in files:
            file.write_text(f"{file.stem} = {value}\n")

    write(1)
    settings = dynaconf.Dynaconf(settings_files=list(map(str, files)))
    assert (settings.ONE, settings.TWO) == (1, 1)
    write(2)
    assert (settings.ONE, settings.TWO) == (1, 1)
    settings.reload()
    assert (settings.ONE, settings.TWO) == (2, 2)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, Callable[[], dict[str, str]]]]:
    """A site with two workers: its first process, and what asks for each worker's value."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "settings.py").write_text("SITENAME = 'old'\n")
    log = tmp_path / "log"
    command = ["gunicorn", "--no-control-socket", "--workers=2", "--bind=127.0.0.1:0", "app:app"]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environ, stdout=file, stderr=file
        )

    def ask() -> dict[str, str]:
        found = re.search(r"Listening at: (http://\S+)", log.read_text())
        assert found
        answers = {}
        while len(answers) < 2:
            with urllib.request.urlopen(found[1]) as response:
                pid, value = response.read().decode().split()
            answers[pid] = value
        return answers

    try:
        wait_for(lambda: log.read_text().count("Booting worker") == 2, log.read_text)
        yield server.pid, ask
    finally:
        server.terminate()
        server.wait()


@pytest.mark.live
def test_restarting(served: tuple[int, Callable[[], dict[str, str]]], tmp_path: Path) -> None:
    """A worker has a new value once it has started again, and each worker does."""
    assert ROW["restarting"] == "once it has started again"
    master, ask = served
    before = ask()
    (tmp_path / "settings.py").write_text("SITENAME = 'new'\n")
    assert ask() == before == dict.fromkeys(before, "old")
    os.kill(master, signal.SIGHUP)
    wait_for(lambda: set(ask().values()) == {"new"}, lambda: str(ask()))
    assert not before.keys() & ask().keys()
