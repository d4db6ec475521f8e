"""The fixture `waffle_server`, which starts a real uWSGI for a test.

In a conftest.py: ``pytest_plugins = ["uwsgi_waffle.testing.pytest_plugin"]``. A conftest may also
import from here, because nothing in this module needs pytest's assertion rewriting
(PYTEST_DONT_REWRITE).
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import py
import pytest

try:
    from xprocess import ProcessStarter, XProcess
except ImportError as error:
    raise ImportError(
        "The fixture waffle_server needs pytest-xprocess. Run: pip install 'uwsgi_waffle[testing]'"
    ) from error

__all__ = ["StartServer", "WaffleServer", "waffle_server"]

START_TIMEOUT = 60  # seconds until the test fails
STOP_TIMEOUT = 20  # seconds until uWSGI is killed
OPTIONS = (
    "--master",
    "--die-on-term",
    "--need-app",
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

    def __init__(self, folder: Path, workers: int, xprocess: XProcess) -> None:
        self.folder, self.url = folder, ""
        self._workers, self._xprocess, self.name = workers, xprocess, f"uwsgi-{next(_numbers)}"
        self._info = xprocess.getinfo(self.name)
        self._ports: dict[int, str] = {}

    @property
    def log(self) -> str:
        """All output of uWSGI and its workers so far."""
        path = Path(self._info.logpath)
        return path.read_text(errors="replace") if path.exists() else ""

    def worker_url(self, number: int) -> str:
        """Return the URL that only one worker answers; they count from 1."""
        if not 1 <= number <= self._workers:
            raise ValueError(f"There is no worker {number}, only the workers 1 to {self._workers}.")
        return f"http://127.0.0.1:{self._ports[number]}"

    def stop(self) -> None:
        """Stop uWSGI and wait until it has ended. May be called again."""
        for resource in self._xprocess.resources:
            if resource.popen is not None and resource.info[0].name == self.name:
                if resource.popen.poll() is None:
                    # The master ends its workers. A signal while they exit could hang them.
                    resource.info[0].terminate(kill_proc_tree=False, timeout=STOP_TIMEOUT)
                resource.popen.wait()
                resource.release()
        # pytest-xprocess reads these files for its reports, and fails on a closed one.
        self._xprocess.config.__dict__.get("_extlogfiles", {}).pop(self.name, None)

    def _start(
        self, command: Sequence[str], cwd: Path, environ: dict[str, str], *, lazy: bool
    ) -> None:
        server = self

        class Starter(ProcessStarter):  # type: ignore[misc]  # it has no types
            args = command
            env = environ
            popen_kwargs = {"cwd": str(cwd)}  # noqa: RUF012  # as its base declares it
            timeout = START_TIMEOUT
            terminate_on_interrupt = True

            def startup_check(self) -> bool:
                return server._is_ready(self.process.resources[-1].popen, lazy=lazy)

        try:
            self._xprocess.ensure(self.name, Starter, restart=True)
        except TimeoutError:
            self._fail(f"uWSGI was not ready after {START_TIMEOUT} s")
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        folder = Path(environ["WAFFLE_WATCHER_FILE"] + ".d")
        if folder.is_absolute() and not folder.exists():
            self._fail(
                "The application doesn't use WAFFLE_WATCHER_FILE ="
                f" {environ['WAFFLE_WATCHER_FILE']}. If its app.config sets another file, the test"
                " may change values that aren't its own. Set WAFFLE_WATCHER_FILE and"
                " WAFFLE_STORE_URL in the environment only"
            )

    def _is_ready(self, process: subprocess.Popen[bytes], *, lazy: bool) -> bool:
        """Return whether all workers have loaded the application and all sockets are bound."""
        ended, log = process.poll(), self.log
        if ended is not None:
            self._fail(f"uWSGI didn't start, it ended with code {ended}")
        self._ports = {int(number): port for number, port in BOUND.findall(log)}
        loaded = len(LOADED.findall(log)) >= (self._workers if lazy else 1)
        return (
            loaded
            and len(set(SPAWNED.findall(log))) == self._workers
            and len(self._ports) > self._workers
        )

    def _fail(self, reason: str) -> None:
        pytest.fail(f"{reason}.\n\n{self.log[-MAX_LOG:]}", pytrace=False)


class StartServer(Protocol):
    """The type of the fixture `waffle_server`."""

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


@pytest.fixture
def waffle_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartServer]:
    """Start real uWSGI servers, and stop them after the test.

    The servers of one test share store and watch file, like the servers of one host.
    """
    xprocess = XProcess(
        request.config, py.path.local(tmp_path / "waffle_server"), log=logging.getLogger("xprocess")
    )
    with ExitStack() as servers:

        def start(
            app: str, workers: int = 4, *, options: Sequence[str] = (), **env: object
        ) -> WaffleServer:
            server = WaffleServer(tmp_path, workers, xprocess)
            servers.callback(
                lambda: request.node.add_report_section(
                    "teardown", server.name, server.log if server.url else ""
                )
            )
            servers.callback(server.stop)
            server._start(
                _command(app, workers, options),
                request.config.rootpath,
                _environ(tmp_path, env),
                lazy="--lazy-apps" in options,
            )
            return server

        yield start


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
