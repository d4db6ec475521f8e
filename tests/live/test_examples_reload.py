"""``examples/reload``: a variable that is read once, and a change that uWSGI's cron makes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from uwsgi_waffle.host import HostFiles

from .servers import ROOT, Server, Servers, script

EXAMPLE = ROOT / "examples/reload"
SOURCE = (EXAMPLE / "app.py").read_text()
INI = (EXAMPLE / "uwsgi.ini").read_text()
(COMMAND,) = re.findall(r"^    (flask --app examples/reload/app\.py .*)$", SOURCE, re.MULTILINE)
MODES = {
    "prefork": "",
    "lazy-apps": "lazy-apps = true",
    "cheaper": "cheaper = 2\ncheaper-initial = 4\ncheaper-overload = 1",
    "mule": "mule = true",
    "threads": "threads = 4",
}

Start = Callable[[str], Server]


@pytest.fixture
def environ(servers: Servers) -> dict[str, str]:
    return {
        "WAFFLE_STORE_URL": f"sqlite:///{servers.folder}/waffle.db",
        "WAFFLE_WATCHER_FILE": f"{servers.folder}/waffle.watch",
    }


@pytest.fixture
def start(
    servers: Servers, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Start:
    """Start the example from a copy of its ini with more lines at the end."""
    monkeypatch.setattr(Server, "read", lambda server, **_: answer(server))

    def start(lines: str) -> Server:
        assert INI.count("127.0.0.1:8000") == 1
        ini = tmp_path / "uwsgi.ini"
        ini.write_text(f"{INI.replace(':8000', ':0')}\n{lines}\n")
        return servers.start(["uwsgi", "--ini", str(ini)], **environ)

    return start


def ready(server: Server, mode: str = "prefork") -> None:
    """Wait until the workers have loaded the application: until then they don't stop."""
    files = HostFiles(server.folder / "waffle.watch")
    workers = 2 if mode == "cheaper" else 4

    def started() -> tuple[int, int]:
        kinds = {process.kind for process in files.processes}
        _, _, log = server.log.rpartition("*** Starting uWSGI")
        return sum(kind.startswith("worker") for kind in kinds), log.count("WSGI app 0 ")

    loads = 4 if mode == "lazy-apps" else 1
    server.eventually(
        started, until=lambda seen: seen[0] >= workers and seen[1] >= loads, deadline=60
    )


def answer(server: Server) -> str:
    """Ask for the page, at the port that it has since the last reload; nobody serves the last."""
    server.find_ports(1)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports[0]}/", timeout=1) as response:
        return str(response.read().decode())


@pytest.fixture
def change(environ: dict[str, str]) -> Callable[[int], None]:
    """Change the size by the command in its source."""

    def change(size: int) -> None:
        program, *arguments = shlex.split(COMMAND)
        subprocess.run(
            [script(program), *arguments[:-1], f"POOL_SIZE={size}"],
            cwd=ROOT,
            env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )

    return change


@pytest.mark.parametrize("mode", MODES)
def test_it_reloads_once_for_each_change(
    start: Start, change: Callable[[int], None], mode: str
) -> None:
    """However many workers ask for it, and whichever of them `cheaper` has stopped."""
    server = start(MODES[mode])
    server.eventually(lambda: answer(server), until="one of 4 threads\n".__eq__)
    for reloads, size in enumerate((8, 16), 1):
        ready(server, mode)
        change(size)
        server.eventually(
            lambda: answer(server),
            until=lambda text, size=size: text == f"one of {size} threads\n",
            deadline=60,
        )
        assert server.log.count("gracefully killing workers") == reloads
    ready(server, mode)
    assert "uwsgi_waffle:" not in server.log


def test_a_change_at_a_time(start: Start, environ: dict[str, str]) -> None:
    """uWSGI's cron runs a command of the package's; a time that is now is due at the start."""
    line = next(line for line in INI.splitlines() if "cron = " in line).removeprefix("; ")
    _, command = line.split("-1 -1 -1 ")
    flask = script("flask")
    assert command.startswith("flask --app examples/reload/app.py waffle set POOL_SIZE=")
    now = line.replace("0 22 -1", "-1 -1 -1").replace(" flask ", f" PYTHONPATH={ROOT} {flask} ")
    server = start(now)
    size = command.split("POOL_SIZE=")[1].split()[0]
    server.eventually(lambda: answer(server), until=lambda text: text == f"one of {size} threads\n")
    shown = subprocess.run(
        [flask, "--app", "examples/reload/app.py", "waffle", "list"],
        cwd=ROOT,
        env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    ready(server)
    assert re.search(rf"^POOL_SIZE  {size}  .*\n  +until ", shown.stdout, re.MULTILINE)
