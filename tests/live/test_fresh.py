"""P1 and P2: no request sees an old value after an update, and none sees half of one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .hammer import hammer
from .servers import ALWAYS, CHEAPER, GUNICORN, ROOT, SITE, UWSGI, Servers, script

PREFORK = ["--master", "--processes", "4"]
MODES = {
    "prefork": [*UWSGI, *PREFORK],
    "lazy-apps": [*UWSGI, *PREFORK, "--lazy-apps"],
    "lazy-apps, shared-import": [
        *UWSGI,
        *PREFORK,
        "--lazy-apps",
        "--shared-import",
        "uwsgi_waffle",
    ],
    "threads": [*UWSGI, "--master", "--processes", "2", "--threads", "4"],
    "gevent": [*UWSGI, "--master", "--processes", "2", "--gevent", "20", "--gevent-monkey-patch"],
    "gevent without monkey patch": [*UWSGI, "--master", "--processes", "2", "--gevent", "20"],
    "cheaper": [*UWSGI, *PREFORK, *CHEAPER],
    "no master": [*UWSGI],
    "gunicorn": [*GUNICORN, "--workers", "3"],
    "gunicorn --preload": [*GUNICORN, "--preload", "--workers", "3"],
    "flask run": ["flask", "--app", f"{SITE}:application", "run", "--port", "0"],
}


@pytest.fixture
def updates(thorough: bool) -> int:
    return 300 if thorough else 15


@pytest.mark.parametrize("mode", MODES)
def test_nothing_stale_and_nothing_torn(servers: Servers, mode: str, updates: int) -> None:
    """Readers hammer all workers while two variables are updated together."""
    fifo = servers.folder / "fifo"
    late = ["--master-fifo", str(fifo)] if mode == "cheaper" else []
    server = servers.start([*MODES[mode], *late])

    def write(number: int) -> None:
        if late and number % 50 == 10:  # one more worker is forked amid all this
            server.eventually(fifo.is_fifo)  # the master makes it after the first workers
            fifo.write_text("+")
        # The request that updates goes on with what it wrote.
        assert set(server.update(number)["seen"]["all"]) == {number}

    processes = 1 if mode in ("no master", "flask run") else 2
    hammer([server], write, updates=updates, processes=processes)


def test_two_instances_on_one_host(servers: Servers, updates: int) -> None:
    """Updates come from alternating instances that share the watch file."""
    pair = [servers.uwsgi(workers=2), servers.uwsgi(workers=2)]
    hammer(pair, lambda n: pair[n % 2].update(n), updates=updates, processes=4)


def test_a_process_outside_the_server_writes(servers: Servers, updates: int) -> None:
    """As a script or a Celery worker would, that uWSGI knows nothing of."""
    server = servers.uwsgi(workers=4)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.live.writer"],
        cwd=ROOT,
        env={**os.environ, **ALWAYS, "SITE_FOLDER": str(server.folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None

        def write(number: int) -> None:
            writer.stdin.write(f"{number}\n")
            assert writer.stdout.readline() == f"{number}\n"

        hammer([server], write, updates=updates, processes=2)
        writer.stdin.close()
        assert writer.wait(20) == 0


@pytest.mark.timeout(600)
def test_a_shell_writes(servers: Servers, thorough: bool) -> None:
    """Each ``flask waffle set`` changes two variables in one update, and is a new process."""
    server = servers.uwsgi(workers=4)
    environ = {"SITE_FOLDER": str(server.folder), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [script("flask"), "--app", f"{SITE}:application", "waffle", "set"]

    def write(number: int) -> None:
        done = subprocess.run(
            [*command, f"A={number}", f"B={number}"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"A: {number - 1} -> {number}" in done.stdout

    # More readers would leave the shells no processor.
    hammer([server], write, updates=100 if thorough else 5, processes=2, readers=1)
