"""`flask waffle doctor` beside real servers: what it finds in how they were started, and in how
they are.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle.doctor import read_ini

from ..redis_server import RedisServer
from .servers import ALWAYS, ROOT, SITE, Server, Servers, script
from .test_examples import AS_IT_IS, get, processes

pytestmark = pytest.mark.timeout(600)  # each starts several processes one after the other

BASE = (
    "http-socket = 127.0.0.1:0",
    f"module = {SITE}",
    "need-app = true",
    "die-on-term = true",
    "worker-reload-mercy = 40",
    "processes = 2",
)
MASTER = "master = true"
MULE = "mule = uwsgi_waffle.mule"

Start = Callable[..., Server]


@pytest.fixture
def start(servers: Servers, tmp_path: Path) -> Start:
    """Start uWSGI with an ini that has the base lines and the given ones, and wait until all its
    workers are in the table.
    """

    def start(*lines: str, workers: int = 2) -> Server:
        left_out = {
            1: "processes",
            2: "module" if any(line.startswith("mount") for line in lines) else "",
        }[workers]
        base = [line for line in BASE if line.partition(" ")[0] != left_out]
        (tmp_path / "uwsgi.ini").write_text("\n".join(["[uwsgi]", *base, *lines, ""]))
        server = servers.start(["uwsgi", "--ini", "uwsgi.ini"], cwd=tmp_path, PWD=str(tmp_path))
        server.eventually(
            lambda: (
                len(
                    [
                        kind
                        for kind in server.table().values()
                        if kind.startswith(("worker", "uwsgi"))
                    ]
                )
                == workers
            )
        )
        return server

    return start


def doctor(
    server: Server, *words: str, app: str = SITE, **environ: str
) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the findings; the command has the server's application and no more."""
    command = [script("flask"), "--app", app, "waffle", "doctor", "--json", *words]
    env = {**os.environ, **ALWAYS, "SITE_FOLDER": str(server.folder), **environ}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)["findings"]


def wrong(findings: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (found["level"], found["check"], found["change"])
        for found in findings
        if found["level"] != "ok"
    ]


@pytest.mark.parametrize(
    ("lines", "workers", "expected"),
    [
        ([MASTER, "chdir = /"], 2, None),
        ([MASTER, "lazy-apps = true", "shared-import = uwsgi_waffle"], 2, None),
        (
            [MASTER, "lazy-apps = true"],
            2,
            ("error", "master", "Add to the ini: shared-import = uwsgi_waffle"),
        ),
        ([], 1, ("error", "master", "Add to the ini: master = true")),
        (
            [MASTER, "enable-threads = true"],
            2,
            ("warning", "threads", "Remove from the ini: enable-threads"),
        ),
    ],
    ids=[
        "as it should be",
        "lazy-apps as it should be",
        "lazy-apps",
        "no master",
        "enable-threads",
    ],
)
def test_the_lines_of_a_running_ini(
    start: Start, lines: list[str], workers: int, expected: tuple[str, str, str] | None
) -> None:
    """It finds the ini by itself, from another folder; and the server does warn of what the doctor
    calls an error.
    """
    server = start(*lines, workers=workers)
    code, findings = doctor(server)
    assert findings[0]["text"].startswith(f"{server.folder}/uwsgi.ini (runs, pid ")
    assert wrong(findings) == ([expected] if expected else [])
    error = expected is not None and expected[0] == "error"
    assert code == error
    assert ("can't wake the workers" in server.log) == error


def test_a_process_that_has_another_name(start: Start) -> None:
    """What can't be seen isn't judged, and is said once for all workers."""
    code, findings = doctor(start(MASTER, "auto-procname = true"))
    assert (code, wrong(findings)) == (
        0,
        [("warning", "ini", "Name an ini with --ini that holds them all.")],
    )


def test_a_mule_without_redis(start: Start) -> None:
    code, findings = doctor(start(MASTER, MULE))
    ((level, check, change),) = wrong(findings)
    assert (code, level, check) == (0, "warning", "mule")
    assert change.endswith(f"remove from the ini: {MULE}")


@pytest.mark.parametrize("lazy", [False, True], ids=["prefork", "lazy-apps"])
def test_redis_with_a_mule_and_without(
    start: Start, redis_server: RedisServer, tmp_path: Path, lazy: bool
) -> None:
    """The settings are in the ini's environment only: the doctor judges by what the server has."""
    settings = [
        f"env = WAFFLE_WATCHTYPE=redis\nenv = WAFFLE_REDIS_URL={redis_server.url}\nenv = WAFFLE_WATCHER_FILE={watch_file(tmp_path)}"
    ]
    settings += ["lazy-apps = true", "shared-import = uwsgi_waffle"] if lazy else []
    server = start(MASTER, *settings)
    assert wrong(doctor(server)[1]) == [("warning", "mule", f"Add to the ini: {MULE}")]
    server.stop()
    server = start(MASTER, MULE, *settings)
    code, findings = doctor(server)
    assert (code, wrong(findings)) == (0, [])
    assert "1 listening to the channel 'waffleconf'" in next(
        found["text"] for found in findings if found["check"] == "redis"
    )
    redis_server.kill()
    code, findings = doctor(server)
    assert (code, wrong(findings)) == (
        1,
        [("error", "redis", "Start Redis, or correct WAFFLE_REDIS_URL.")],
    )


def watch_file(folder: Path) -> Path:
    return folder / "instance" / "waffle.watch"


def test_a_mule_under_lazy_apps_that_does_not_know_where_to_listen(
    start: Start, redis_server: RedisServer
) -> None:
    settings = [f"env = WAFFLE_WATCHTYPE=redis\nenv = WAFFLE_REDIS_URL={redis_server.url}"]
    server = start(MASTER, MULE, *settings, "lazy-apps = true", "shared-import = uwsgi_waffle")
    ((level, check, change),) = wrong(doctor(server)[1])
    assert (level, check) == ("warning", "mule")
    assert f"env = WAFFLE_WATCHER_FILE={watch_file(server.folder)}" in change
    server.eventually(lambda: "this mule has no application" in server.log)


def test_several_applications_without_a_single_interpreter(start: Start) -> None:
    """uWSGI starts without the second."""
    server = start(MASTER, f"mount = /a={SITE}:application", f"mount = /b={SITE}:application")
    assert "unable to load app 1 (mountpoint='/b')" in server.log
    code, findings = doctor(server)
    assert (code, wrong(findings)) == (
        1,
        [("error", "interpreter", "Add to the ini: single-interpreter = true")],
    )


def test_options_of_the_command_line_and_of_the_environment(
    servers: Servers, tmp_path: Path
) -> None:
    """No ini at all, and a folder of its own."""
    words = [
        "uwsgi",
        "--http-socket=127.0.0.1:0",
        "-w",
        SITE,
        "--die-on-term",
        "-T",
        "--lazy-apps",
        "--worker-reload-mercy",
        "40",
    ]
    server = servers.start([*words, "--chdir", str(tmp_path), "-p", "2"], UWSGI_MASTER="true")
    server.eventually(lambda: len(server.table()) == 2)
    _, findings = doctor(server)
    assert findings[0]["text"].startswith("the command line (runs, pid ")
    assert [found[:2] for found in wrong(findings)] == [("error", "master"), ("warning", "threads")]


def test_the_ini_is_read_as_uwsgi_reads_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uWSGI prints the options that it has found; they are the same, in the same order."""
    monkeypatch.setenv("SITE_FOLDER", str(tmp_path))
    (tmp_path / "more.ini").write_text(
        "[uwsgi]\nset-ph = more=%(base)\n[late]\nenv = LATE=%n\n[uwsgi]\nenv = "
        "MORE=$(SITE_FOLDER)/%(more)\n"
    )
    lines = [
        "; env = A=1",
        "  # env = B=1",
        "base=%d%n.%e",
        "env =  C=%(base) ; no comment # either  ",
        "env = D=%(late)",
        "late = 100%%",
        "ini = more.ini",
        "ini = more.ini:late",
        "env =",
        "show-config",
        MASTER,
        "[other]",
        "master = false",
        "[uwsgi]",
        "env = E=%c %s %p",
    ]
    server = start(*lines)
    told = server.log.partition(";uWSGI instance configuration\n[uwsgi]\n")[2].partition(
        ";end of configuration"
    )[0]
    shown = [
        tuple(part.strip() for part in line.partition("=")[::2])
        for line in told.splitlines()
        if line
    ]
    ours = [(key, value.strip()) for key, value in read_ini(tmp_path / "uwsgi.ini").pairs]
    assert ("env", "D=100%") in ours
    names = (
        "ini",
        "set-ph",
        "more",
    )  # a placeholder that `set-ph` made is filled in where it is used
    assert [pair for pair in ours if pair[0] not in names] == [
        pair for pair in shown if pair[0] not in names
    ]


def test_a_worker_that_was_stopped_lags(start: Start) -> None:
    server = start(MASTER)
    stopped = server.workers()[2]
    os.kill(stopped, signal.SIGSTOP)
    try:
        server.update(1)
        code, findings = doctor(server, "--patience", "0.5")
    finally:
        os.kill(stopped, signal.SIGCONT)
    ((level, check, _),) = wrong(findings)
    assert (code, level, check) == (1, "error", "processes")
    assert f"worker 2 (pid {stopped}) is on revision 0, and the host on 1" in [
        found["text"] for found in findings
    ]
    server.eventually(lambda: doctor(server), until=lambda told: told[0] == 0, deadline=60)


def test_the_example_prints_ok_and_nothing_else(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person starts it, with the text that a person reads."""
    monkeypatch.setattr(
        Server, "read", lambda server, **_: get(server)
    )  # this application answers with a page
    ini = tmp_path / "uwsgi.ini"
    ini.write_text(re.sub(*AS_IT_IS, (ROOT / "uwsgi.ini.example").read_text()))
    environ = {
        "WAFFLE_STORE_URL": f"sqlite:///{tmp_path}/waffle.db",
        "WAFFLE_WATCHER_FILE": f"{tmp_path}/waffle.watch",
    }
    server = servers.start(["uwsgi", "--ini", str(ini)], **environ)
    server.eventually(
        lambda: processes(server),
        until=lambda told: told.keys() >= {f"worker {n}" for n in (1, 2, 3, 4)},
    )
    command = [script("flask"), "--app", "examples/quickstart/app.py", "waffle", "doctor"]
    env = {**os.environ, **ALWAYS, **environ}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}
    assert "4 on this host, all on revision 0" in done.stdout
