"""`flask waffle doctor` beside real servers: what it finds in what they report."""

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

from ..redis_server import RedisServer
from .servers import ALWAYS, ROOT, SITE, Server, Servers, script
from .test_examples import AS_IT_IS, get, processes

pytestmark = pytest.mark.timeout(600)  # each starts several processes one after the other

BASE = (
    "http-socket = 127.0.0.1:0",
    "need-app = true",
    "die-on-term = true",
    "worker-reload-mercy = 40",
)
MASTER = "master = true"
MULE = "mule = uwsgi_waffle.mule"
LAZY = "lazy-apps = true"
SHARED_IMPORT = "shared-import = uwsgi_waffle"

Start = Callable[..., Server]


@pytest.fixture
def start(servers: Servers, tmp_path: Path) -> Start:
    """Start uWSGI with an ini of the base lines and the given ones; wait for all its workers."""

    def start(*lines: str, workers: int = 2) -> Server:
        base = [*BASE, f"processes = {workers}"]
        if not any(line.startswith("mount") for line in lines):
            base.append(f"module = {SITE}")
        (tmp_path / "uwsgi.ini").write_text("\n".join(["[uwsgi]", *base, *lines, ""]))
        server = servers.start(["uwsgi", "--ini", "uwsgi.ini"], cwd=tmp_path)
        wait_for_workers(server, workers)
        return server

    return start


def wait_for_workers(server: Server, count: int) -> None:
    def workers() -> list[str]:
        return [kind for kind in server.table().values() if kind.startswith(("worker", "uwsgi"))]

    server.eventually(lambda: len(workers()) == count)


def wait_for_listener(server: Server, redis: RedisServer) -> None:
    with redis.client() as client:
        server.eventually(lambda: client.pubsub_numsub("waffleconf")[0][1] == 1)


def doctor(server: Server, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the findings; the command has the server's application, no more."""
    command = [script("flask"), "--app", SITE, "waffle", "doctor", "--json", *words]
    env = {**os.environ, **ALWAYS, "SITE_FOLDER": str(server.folder)}
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
        ([MASTER, LAZY, SHARED_IMPORT], 2, None),
        ([MASTER, LAZY], 2, ("warning", "master", f"Add to the ini: {SHARED_IMPORT}")),
        ([], 1, ("warning", "master", f"Add to the ini: {MASTER}")),
        (
            [MASTER, "enable-threads = true"],
            2,
            ("warning", "threads", "Remove from the ini: enable-threads"),
        ),
    ],
    ids=["as it should be", "lazy-apps as it should be", "lazy-apps", "no master", "threads"],
)
def test_the_lines_of_a_running_ini(
    start: Start, lines: list[str], workers: int, expected: tuple[str, str, str] | None
) -> None:
    """The log warns of what the doctor says."""
    server = start(*lines, workers=workers)
    code, findings = doctor(server)
    assert (code, wrong(findings)) == (0, [expected] if expected else [])
    assert "uWSGI 2." in next(found["text"] for found in findings if found["check"] == "server")
    warned = expected is not None and expected[1] == "master"
    assert ("can't wake the workers" in server.log) == warned


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may chroot")
@pytest.mark.parametrize("lazy", [[], [LAZY, SHARED_IMPORT]], ids=["", "lazy-apps"])
def test_a_chroot_is_told(start: Start, lazy: list[str]) -> None:
    """One line of the log and one finding, and all else is as it should be."""
    server = start(MASTER, "chroot = /", *lazy)
    _, findings = doctor(server)
    assert [found[:2] for found in wrong(findings)] == [("warning", "chroot")]
    assert server.log.count("runs in a chroot") == 1
    assert server.update(1, wait=20.0)["pending"] == []


def test_options_of_the_command_line_and_of_the_environment(
    servers: Servers, tmp_path: Path
) -> None:
    words = ["uwsgi", "--http-socket=127.0.0.1:0", "-w", SITE, "--die-on-term", "-T", "-p", "2"]
    server = servers.start([*words, "--lazy-apps"], UWSGI_MASTER="true")
    wait_for_workers(server, 2)
    _, findings = doctor(server)
    assert [found[:2] for found in wrong(findings)] == [
        ("warning", "master"),
        ("warning", "threads"),
    ]


def test_nothing_runs(start: Start) -> None:
    server = start(MASTER)
    server.stop()
    code, findings = doctor(server)
    ((level, check, _),) = wrong(findings)
    assert (code, level, check) == (0, "warning", "server")


def test_a_mule_without_redis(start: Start) -> None:
    code, findings = doctor(start(MASTER, MULE))
    ((level, check, change),) = wrong(findings)
    assert (code, level, check) == (0, "warning", "mule")
    assert change.endswith(f"remove from the ini: {MULE}")


def redis_settings(redis_server: RedisServer, folder: Path | None = None) -> list[str]:
    lines = ["env = WAFFLE_WATCHTYPE=redis", f"env = WAFFLE_REDIS_URL={redis_server.url}"]
    return lines + ([f"env = WAFFLE_WATCHER_FILE={watch_file(folder)}"] if folder else [])


def watch_file(folder: Path) -> Path:
    return folder / "instance" / "waffle.watch"


@pytest.mark.parametrize("lazy", [False, True], ids=["prefork", "lazy-apps"])
def test_redis_with_a_mule_and_without(
    start: Start,
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lazy: bool,
) -> None:
    """The settings are in the environment of the server, and of the shell."""
    settings = redis_settings(redis_server, tmp_path) + ([LAZY, SHARED_IMPORT] if lazy else [])
    monkeypatch.setenv("WAFFLE_WATCHTYPE", "redis")
    monkeypatch.setenv("WAFFLE_REDIS_URL", redis_server.url)
    server = start(MASTER, *settings)
    wait_for_listener(server, redis_server)
    assert wrong(doctor(server)[1]) == [("warning", "mule", f"Add to the ini: {MULE}")]
    server.stop()
    server = start(MASTER, MULE, *settings)
    wait_for_listener(server, redis_server)
    code, findings = doctor(server)
    assert (code, wrong(findings)) == (0, [])
    (text,) = [found["text"] for found in findings if found["check"] == "redis"]
    assert "1 listening to the channel 'waffleconf'" in text
    redis_server.kill()
    code, findings = doctor(server)
    assert code == 1
    assert wrong(findings) == [("error", "redis", "Start Redis, or correct WAFFLE_REDIS_URL.")]


def test_a_shell_without_the_settings_of_the_server(
    start: Start, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Other hosts would hear late of what this shell changes."""
    server = start(MASTER, MULE, *redis_settings(redis_server, tmp_path))
    code, findings = doctor(server)
    ((level, check, change),) = wrong(findings)
    assert (code, level, check) == (0, "warning", "settings")
    assert change.startswith("Export WAFFLE_WATCHTYPE and what belongs to it here")
    redis_server.kill()
    server.eventually(lambda: ("error", "redis") in [f[:2] for f in wrong(doctor(server)[1])])


def test_a_mule_under_lazy_apps_that_does_not_know_where_to_listen(
    start: Start, redis_server: RedisServer
) -> None:
    server = start(MASTER, MULE, *redis_settings(redis_server), LAZY, SHARED_IMPORT)
    (change,) = [change for _, check, change in wrong(doctor(server)[1]) if check == "mule"]
    assert f"env = WAFFLE_WATCHER_FILE={watch_file(server.folder)}" in change
    server.eventually(lambda: "this mule has no application" in server.log)


def test_several_applications_without_a_single_interpreter(start: Start) -> None:
    """uWSGI starts without the second."""
    server = start(MASTER, f"mount = /a={SITE}:application", f"mount = /b={SITE}:application")
    assert "unable to load app 1 (mountpoint='/b')" in server.log
    code, findings = doctor(server)
    change = "Add to the ini: single-interpreter = true"
    assert (code, wrong(findings)) == (1, [("error", "interpreter", change)])


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
    text = f"worker 2 (pid {stopped}) is on revision 0, and the host on 1"
    assert text in [found["text"] for found in findings]
    server.eventually(lambda: doctor(server), until=lambda result: result[0] == 0, deadline=60)


def test_the_example_prints_ok_and_nothing_else(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a person starts it, with the text that a person reads."""
    # This application answers with a page.
    monkeypatch.setattr(Server, "read", lambda server, **_: get(server))
    ini = tmp_path / "uwsgi.ini"
    ini.write_text(re.sub(*AS_IT_IS, (ROOT / "uwsgi.ini.example").read_text()))
    environ = {
        "WAFFLE_STORE_URL": f"sqlite:///{tmp_path}/waffle.db",
        "WAFFLE_WATCHER_FILE": f"{tmp_path}/waffle.watch",
    }
    server = servers.start(["uwsgi", "--ini", str(ini)], **environ)
    workers = {f"worker {n}" for n in (1, 2, 3, 4)}
    server.eventually(lambda: processes(server), until=lambda seen: seen.keys() >= workers)
    command = [script("flask"), "--app", "examples/quickstart/app.py", "waffle", "doctor"]
    env = {**os.environ, **ALWAYS, **environ}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}
    assert "4 on this host, all on revision 0" in done.stdout
