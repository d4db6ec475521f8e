"""The sites that come from Flask-WaffleConf: their own table, their own names for things."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from .servers import ALWAYS, ROOT, Server, Servers, script

EXAMPLES = ROOT / "examples" / "from_waffleconf"
WORKERS = 4
START = r"--master --processes 4 --shared-import uwsgi_waffle"

Start = Callable[[], Server]
Flask = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["with_sqlalchemy", "with_peewee"])
def module(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(servers: Servers, module: str, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(
        Server, "read", lambda server, *, socket: show(server, socket)
    )  # these applications answer with a line
    return lambda: start_example(servers, module)


def start_example(servers: Servers, module: str) -> Server:
    """Start it with the options that it names, and an address for each worker."""
    text = (EXAMPLES / f"{module}.py").read_text().replace("\\\n", " ")
    assert f"uwsgi {START} --http-socket 127.0.0.1:8000 --module {module} " in " ".join(
        text.split()
    )
    command = ["uwsgi", *START.split(), "--die-on-term", "--need-app", "--module", module]
    for number in range(WORKERS):
        command += ["--http-socket", "127.0.0.1:0", "--map-socket", f"{number}:{number + 1}"]
    return servers.start(
        command, sockets=WORKERS, cwd=EXAMPLES, EXAMPLE_FOLDER=str(servers.folder / "instance")
    )


@pytest.fixture
def flask(module: str, tmp_path: Path) -> Flask:
    """Run ``flask waffle`` with the example."""

    def flask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [script("flask"), "--app", f"{EXAMPLES / module}.py", "waffle", *words]
        environ = {**os.environ, **ALWAYS, "EXAMPLE_FOLDER": str(tmp_path / "instance")}
        return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path)

    return flask


def show(server: Server, worker: int, **fields: str) -> str:
    return fetch(server, worker, "/", **fields)


def fetch(server: Server, worker: int, path: str, **fields: str) -> str:
    """Get a page of one worker's; with fields, post them."""
    data = urllib.parse.urlencode(fields).encode() if fields else None
    with urllib.request.urlopen(
        f"http://127.0.0.1:{server.ports[worker]}{path}", data, timeout=30
    ) as response:
        return str(response.read().decode())


def test_an_update_in_one_worker_is_seen_in_the_others(start: Start) -> None:
    server = start()
    seen: set[str] = set()
    for number in range(20):
        show(
            server,
            number % WORKERS,
            SITENAME=f"Site {number}",
            MAX_FILESIZE=str(number),
            UNKNOWN="x",
        )
        answers = [show(server, worker) for worker in range(WORKERS)]
        assert all(
            answer.startswith(f"Site {number} takes {number} bytes") for answer in answers
        ), answers
        seen |= {found for answer in answers for found in re.findall(r"process (\d+)", answer)}
    assert len(seen) == WORKERS
    for pid in seen:
        assert not [
            file for file in psutil.Process(int(pid)).open_files() if "site.db" in file.path
        ], "no connection stays open"


def test_a_shell_is_one_more_process(start: Start, flask: Flask) -> None:
    server = start()
    assert flask("set", "SITENAME=Gent").returncode == 0
    assert [show(server, worker)[:4] for worker in range(WORKERS)] == ["Gent"] * WORKERS


@pytest.mark.parametrize("converted", [True, False])
def test_what_flask_waffleconf_wrote(
    start: Start, flask: Flask, tmp_path: Path, converted: bool
) -> None:
    """It is served as it is, and ``import-legacy`` converts all of it at once."""
    assert flask("list").returncode == 0  # makes the table
    for path in (tmp_path / "instance").glob("waffle.watch.d"):
        shutil.rmtree(path)  # this host has never seen it
    connection = sqlite3.connect(tmp_path / "instance" / "site.db")
    with connection:
        connection.execute("DELETE FROM confs")
        for key, value in {"SITENAME": "Old", "MAX_FILESIZE": 7}.items():
            row = (key, base64.b64encode(pickle.dumps(value)).decode())
            connection.execute("INSERT INTO confs (key, value) VALUES (?, ?)", row)
    connection.close()
    if converted:
        done = flask("import-legacy")
        expected = 'MAX_FILESIZE: 7\nSITENAME: "Old"\n2 converted, revision 1\n'
        assert (done.returncode, done.stdout) == (0, expected), done.stderr
    server = start()
    assert [show(server, worker)[:17] for worker in range(WORKERS)] == [
        "Old takes 7 bytes"
    ] * WORKERS


class TestUsage:
    """The site with views and a store of its own."""

    @pytest.fixture
    def module(self) -> str:
        return "usage"

    @pytest.fixture
    def server(self, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Server:
        monkeypatch.setattr(Server, "read", lambda server, *, socket: fetch(server, socket, "/all"))
        return start_example(servers, "usage")

    def everywhere(self, server: Server, path: str) -> list[Any]:
        return [json.loads(fetch(server, worker, path)) for worker in range(WORKERS)]

    def test_an_update_in_one_worker_is_seen_in_the_others(self, server: Server) -> None:
        pids = {told["pid"] for told in self.everywhere(server, "/all")}
        assert len(pids) == WORKERS
        for number in range(20):
            told = fetch(
                server,
                number % WORKERS,
                "/update",
                SITENAME=f"Site {number}",
                MAX_FILESIZE=str(number),
                UNKNOWN="x",
            )
            assert json.loads(told) == {"SITENAME": f"Site {number}", "MAX_FILESIZE": number}
            expected = {"SITENAME": f"Site {number}", "DESCRIPTION": "", "MAX_FILESIZE": number}
            assert [told["values"] for told in self.everywhere(server, "/all")] == [
                expected
            ] * WORKERS
            assert self.everywhere(server, "/MAX_FILESIZE") == [{"MAX_FILESIZE": number}] * WORKERS

    def test_a_name_that_is_not_declared_is_not_found(self, server: Server) -> None:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(server, 0, "/SECRET_KEY")

    def test_a_shell_is_one_more_process(self, server: Server, flask: Flask) -> None:
        assert flask("set", "DESCRIPTION=New", "MAX_FILESIZE=7").returncode == 0
        assert flask("unset", "MAX_FILESIZE").returncode == 0
        expected = {"SITENAME": "Waffle", "DESCRIPTION": "New", "MAX_FILESIZE": 1000}
        assert [told["values"] for told in self.everywhere(server, "/all")] == [expected] * WORKERS
