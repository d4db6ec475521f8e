"""The fixture `waffle_server`, which starts a real uWSGI for a test.

In a conftest.py: ``pytest_plugins = ["uwsgi_waffle.testing.pytest_plugin"]``. A conftest may also
import from here, because nothing in this module needs pytest's assertion rewriting
(PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

__all__ = ["StartServer", "WaffleServer", "waffle_server"]

START_TIMEOUT = 60  # seconds until the test fails
STOP_TIMEOUT = 20  # seconds until uWSGI is killed
PAUSE = 0.02  # seconds between two looks at the log
OPTIONS = (
    "--master",
    "--die-on-term",
    "--need-app",
    "--no-orphans",
    "--single-interpreter",
    "--shared-import",
    "uwsgi_waffle",
    "--worker-reload-mercy",
    "10",
)
BOUND = re.compile(r"^uwsgi socket (\d+) bound to TCP address 127\.0\.0\.1:(\d+)", re.MULTILINE)
SPAWNED = re.compile(r"^spawned uWSGI worker (\d+) ", re.MULTILINE)
LOADED = re.compile(r"^WSGI app \d+ .* ready in ", re.MULTILINE)
MAX_LOG = 6000  # characters of the log that a failure shows

_numbers = itertools.count(1)


class WaffleServer:
    """A running uWSGI.

    Attributes:
        name: unique within the test run.
        folder: holds its store and its watch file, unless the environment names others.
        url: any free worker answers it.
    """

    def __init__(self, folder: Path, workers: int, command: Sequence[str], **popen: Any) -> None:
        self.folder, self.url, self.name = folder, "", f"uwsgi-{next(_numbers)}"
        self._workers, self._ports = workers, dict[int, str]()
        self._log = folder / f"{self.name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **popen,
            )

    @property
    def log(self) -> str:
        """All output of uWSGI and its workers so far."""
        return self._log.read_text(errors="replace")

    def worker_url(self, number: int) -> str:
        """Return the URL that only one worker answers; they count from 1."""
        if not 1 <= number <= self._workers:
            raise ValueError(f"There is no worker {number}, only the workers 1 to {self._workers}.")
        return f"http://127.0.0.1:{self._ports[number]}"

    def stop(self) -> None:
        """Stop uWSGI and wait until it has ended. May be called again."""
        self._process.terminate()  # the master ends its workers
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, watch_file: str, *, lazy: bool) -> None:
        end = time.monotonic() + START_TIMEOUT
        while not self._is_ready(lazy=lazy):
            if self._process.poll() is not None:
                self._fail(f"uWSGI didn't start, it ended with code {self._process.returncode}")
            if time.monotonic() > end:
                self._fail(f"uWSGI was not ready after {START_TIMEOUT} s")
            time.sleep(PAUSE)
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        folder = Path(f"{watch_file}.d")
        if folder.is_absolute() and not folder.exists():
            self._fail(
                f"The application doesn't use WAFFLE_WATCHER_FILE = {watch_file}. If its app.config"
                " sets another file, the test may change values that aren't its own. Set"
                " WAFFLE_WATCHER_FILE and WAFFLE_STORE_URL in the environment only"
            )

    def _is_ready(self, *, lazy: bool) -> bool:
        """Return whether all workers have loaded the application and all sockets are bound."""
        log = self.log
        self._ports = {int(number): port for number, port in BOUND.findall(log)}
        loaded = len(LOADED.findall(log)) >= (self._workers if lazy else 1)
        return (
            loaded
            and len(set(SPAWNED.findall(log))) == self._workers
            and len(self._ports) > self._workers
        )

    def _fail(self, reason: str) -> NoReturn:
        pytest.fail(f"{reason}.\n\n{self.log[-MAX_LOG:]}", pytrace=False)


class StartServer:
    """The type of the fixture `waffle_server`."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path, servers: ExitStack) -> None:
        self._request, self._folder, self._servers = request, folder, servers

    def __call__(
        self, app: str, workers: int = 4, *, options: Sequence[str] = (), **env: object
    ) -> WaffleServer:
        """Start uWSGI with a master, and wait until all its workers are ready.

        Args:
            app: the application as ``module:name``, importable like the tests' own modules.
            workers: the number of workers.
            options: further options of uWSGI, as on its command line.
            env: further environment variables. By default store and watch file are in the test's
                ``tmp_path``.
        """
        environ = _environ(self._folder, env)
        command = _command(app, workers, options)
        cwd, report = self._request.config.rootpath, self._request.node.add_report_section
        server = WaffleServer(self._folder, workers, command, cwd=cwd, env=environ)
        self._servers.callback(
            lambda: report("teardown", server.name, server.log if server.url else "")
        )
        self._servers.callback(server.stop)
        server._wait_until_ready(environ["WAFFLE_WATCHER_FILE"], lazy="--lazy-apps" in options)
        return server


@pytest.fixture
def waffle_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartServer]:
    """Start real uWSGI servers, and stop them after the test.

    The servers of one test share store and watch file, like the servers of one host.
    """
    with ExitStack() as servers:
        yield StartServer(request, tmp_path, servers)


def _command(app: str, workers: int, options: Sequence[str]) -> list[str]:
    # All workers answer the first socket, number 0.
    sockets = ["--http-socket", "127.0.0.1:0"] * (workers + 1)
    for number in range(1, workers + 1):
        sockets += ["--map-socket", f"{number}:{number}"]
    module = ["--module", app, "--processes", str(workers)]
    return [_uwsgi(), *OPTIONS, *module, *sockets, *options]


def _uwsgi() -> str:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which("uwsgi", path=path)
    if found is None:
        pytest.fail("There is no uWSGI. Run: pip install 'uwsgi_waffle[testing]'", pytrace=False)
    return found


def _environ(folder: Path, env: dict[str, Any]) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONUNBUFFERED": "1",
        "WAFFLE_STORE_URL": f"sqlite:///{folder / 'waffle.db'}",
        "WAFFLE_WATCHER_FILE": str(folder / "waffle.watch"),
        **{name: str(value) for name, value in env.items()},
    }
