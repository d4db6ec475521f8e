"""The hooks of ``examples/on_change``, in workers that get no request."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from uwsgi_waffle.testing.pytest_plugin import StartServer, WaffleServer

from .servers import ROOT, Server, Servers, eventually, script

pytest_plugins = ["uwsgi_waffle.testing.pytest_plugin"]

WORKERS = (1, 2, 3, 4)
SOURCE = (ROOT / "examples/on_change/app.py").read_text()
(COMMAND,) = re.findall(r"^    (flask --app examples/on_change/app\.py .*)$", SOURCE, re.MULTILINE)


@pytest.fixture(params=[(), ("--lazy-apps",)], ids=["prefork", "lazy-apps"])
def server(waffle_server: StartServer, request: pytest.FixtureRequest) -> WaffleServer:
    """The example with four workers; its hooks have run nowhere yet."""
    return waffle_server(
        "app",
        len(WORKERS),
        options=["--pythonpath", str(ROOT / "examples/on_change"), *request.param],
    )


@pytest.fixture
def change(server: WaffleServer) -> Callable[..., None]:
    """Change a variable by the command in its source, the one there if none is given."""

    def change(assignment: str = "LOG_LEVEL=DEBUG") -> None:
        program, *arguments = shlex.split(COMMAND)
        arguments[arguments.index("LOG_LEVEL=DEBUG")] = assignment
        folder = server.folder
        environ = {
            "WAFFLE_STORE_URL": f"sqlite:///{folder / 'waffle.db'}",
            "WAFFLE_WATCHER_FILE": str(folder / "waffle.watch"),
        }
        subprocess.run(
            [script(program), *arguments],
            cwd=ROOT,
            env={**os.environ, **environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )

    return change


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def told(server: WaffleServer, line: str) -> set[str]:
    """Return the processes that have logged a line."""
    return set(re.findall(rf"^(\d+) WARNING {line}$", server.log, re.MULTILINE))


def test_the_readmes_command_sets_the_log_level_of_idle_workers(
    server: WaffleServer, change: Callable[..., None]
) -> None:
    assert get(server.worker_url(2)) == (200, "Hello\n")
    assert "DEBUG" not in server.log
    change()
    eventually(
        lambda: told(server, "the log level is DEBUG"),
        until=lambda pids: len(pids) == len(WORKERS),
        log=lambda: server.log,
    )
    for worker in WORKERS:
        get(server.worker_url(worker))
    eventually(
        lambda: (
            len(set(re.findall(r"^(\d+) DEBUG somebody", server.log, re.MULTILINE))) == len(WORKERS)
        ),
        log=lambda: server.log,
    )


def test_a_switched_feature_is_ready_before_the_first_request_for_it(
    server: WaffleServer, change: Callable[..., None]
) -> None:
    assert {get(f"{server.worker_url(worker)}/suggest?q=ge")[0] for worker in WORKERS} == {404}
    change("SUGGESTIONS=true")
    ready = r"suggestions for \d+ beginnings are ready"
    eventually(
        lambda: told(server, ready),
        until=lambda pids: len(pids) == len(WORKERS),
        log=lambda: server.log,
    )
    for worker in WORKERS:
        status, text = get(f"{server.worker_url(worker)}/suggest?q=ge")
        assert (status, json.loads(text)) == (200, ["Gent", "Genk", "Geel"])
    change("SUGGESTIONS=false")
    assert {get(f"{server.worker_url(worker)}/suggest?q=ge")[0] for worker in WORKERS} == {404}


def test_a_changed_rate_goes_on_from_what_was_used(
    server: WaffleServer, change: Callable[..., None]
) -> None:
    change("RATE=2")
    eventually(
        lambda: told(server, "the rate is 2"),
        until=lambda pids: len(pids) == len(WORKERS),
        log=lambda: server.log,
    )
    busy, idle = server.worker_url(2), server.worker_url(3)
    assert [get(busy)[0] for _ in range(3)] == [200, 200, 429]
    change("RATE=3")
    eventually(
        lambda: told(server, "the rate is 3"),
        until=lambda pids: len(pids) == len(WORKERS),
        log=lambda: server.log,
    )
    assert [get(busy)[0] for _ in range(2)] == [200, 429]
    assert [get(idle)[0] for _ in range(4)] == [200, 200, 200, 429]


def test_the_way_to_start_it(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts, and every worker is woken by uWSGI's signal."""
    monkeypatch.setattr(
        Server, "read", lambda server, **_: get(f"http://127.0.0.1:{server.ports[0]}/")
    )
    (command,) = re.findall(r"^    (uwsgi .*examples/on_change/app\.py)$", SOURCE, re.MULTILINE)
    folder = servers.folder
    environ = {
        "WAFFLE_STORE_URL": f"sqlite:///{folder / 'waffle.db'}",
        "WAFFLE_WATCHER_FILE": str(folder / "waffle.watch"),
    }
    words = shlex.split(command.replace("127.0.0.1:8000", "127.0.0.1:0"))
    server = servers.start([*words, "--die-on-term"], **environ)
    assert server.read() == (200, "Hello\n")
    assert "uwsgi_waffle:" not in server.log
