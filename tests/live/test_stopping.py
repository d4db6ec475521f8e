"""A server that is told to stop while its workers are only being born."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from .servers import ROOT, UWSGI, eventually, script

SITE = """
import time
from pathlib import Path
from flask import Flask
from uwsgi_waffle import SQLStore, WaffleConf
from uwsgi_waffle.state import WaffleState


def tick(state):
    Path("ticking").touch()
    while True:
        time.sleep(0.01)


WaffleState.tick = tick
application = Flask(__name__, instance_path=str(Path.cwd()))
application.config["WAFFLE_CONFS"] = {"A": {"default": 1}}
WaffleConf(application, SQLStore("sqlite:///waffle.db"))
"""


def test_a_worker_that_is_stopped_in_its_first_tick_ends(tmp_path: Path) -> None:
    """Python still has the signal then, as an exception in whatever runs; nothing swallows it."""
    (tmp_path / "born.py").write_text(SITE)
    program, *options = UWSGI
    options += ["--master", "--http-socket", "127.0.0.1:0", "--worker-reload-mercy", "5"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [script(program), *options, "--module", "born"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
            stdout=log,
            stderr=log,
            # A shell that starts the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        with server:
            eventually((tmp_path / "ticking").exists)
            eventually(lambda: catches(server.pid, signal.SIGTERM))
            server.terminate()
    assert "NO MERCY" not in (tmp_path / "log").read_text(errors="replace")


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler of its own for a signal; see proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << (number - 1))
