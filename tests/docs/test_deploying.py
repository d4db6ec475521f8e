"""docs/deploying.md: its unit for systemd, and what it says of uWSGI's own reload."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..live.servers import script
from .page import DOCS
from .shell import wait_for

pytestmark = pytest.mark.live
PAGE = (DOCS / "deploying.md").read_text()
UNIT = re.search(r"^```ini\n\[Service\]\n(.*?)^```", PAGE, re.M | re.DOTALL)
SITE = """
import os
import time
from pathlib import Path

import uwsgi

FOLDER = Path(__file__).parent


def application(environ, start):
    start("200 OK", [])
    if environ["PATH_INFO"] == "/reload":
        uwsgi.reload()
    if environ["PATH_INFO"] == "/slow":
        (FOLDER / "begun").touch()
        while not (FOLDER / "go on").exists():
            time.sleep(0.01)
    return [str(os.getpid()).encode()]
"""


def unit() -> dict[str, list[str]]:
    assert UNIT is not None
    found: dict[str, list[str]] = {}
    for line in UNIT[1].splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Start uWSGI on the socket ``uwsgi.sock``, with options and more of the environment."""
    (tmp_path / "site_app.py").write_text(SITE)
    processes = []

    def start(*options: str, **environ: str) -> None:
        command = [script("uwsgi"), "--die-on-term", "--http-socket", str(tmp_path / "uwsgi.sock")]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--master", "--module", "site_app", *options],
                cwd=tmp_path,
                env={**os.environ, **environ},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        processes.append(process)

    yield start
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)  # nothing of it is worth waiting for
        process.wait()


def test_the_unit(tmp_path: Path, start: Callable[..., None]) -> None:
    """systemd makes both folders; uWSGI tells it when it is ready, as `Type=notify` says."""
    lines = unit()
    settings = dict(line.split("=", 1) for line in lines["Environment"])
    for name, value in settings.items():
        assert f'app.config["{name}"] = "{value}"\n' in PAGE
    assert settings["WAFFLE_STORE_URL"].startswith(
        f"sqlite:////var/lib/{lines['StateDirectory'][0]}/"
    )
    assert settings["WAFFLE_WATCHER_FILE"].startswith(f"/run/{lines['RuntimeDirectory'][0]}/")
    assert Path(shlex.split(lines["ExecStart"][0])[0]).name == "uwsgi"
    assert lines["Type"] == ["notify"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        start(NOTIFY_SOCKET=str(tmp_path / "notify"))
        while b"READY=1" not in systemd.recv(4096):
            pass


def test_a_reload(tmp_path: Path, start: Callable[..., None]) -> None:
    """Running requests finish, and the socket stays open: a request waits and is answered."""

    def ask(path: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(tmp_path / "uwsgi.sock"))
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        return answer.partition(b"\r\n\r\n")[2]

    def log() -> str:
        return (tmp_path / "log").read_text()

    start("--processes", "2")
    wait_for(lambda: log().count("spawned uWSGI worker") == 2, log)
    answers: dict[str, bytes] = {}

    def visit(path: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.update({path: ask(path)}))
        thread.start()
        return thread

    slow = visit("/slow")
    wait_for((tmp_path / "begun").exists, log)
    assert ask("/reload") != b""
    wait_for(lambda: "gracefully killing workers" in log(), log)
    waiting = visit("/waiting")
    (tmp_path / "go on").touch()
    slow.join()
    waiting.join()
    wait_for(lambda: log().count("spawned uWSGI worker") == 4, log)
    assert b"" not in answers.values()
    assert ask("/after") not in answers["/slow"]
