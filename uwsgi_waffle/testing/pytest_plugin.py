"""A fixture that starts a real uWSGI for a test; in a conftest.py: ``pytest_plugins =
["uwsgi_waffle.testing.pytest_plugin"]``.

A conftest may import from here, too: no assertion waits for pytest's rewriting
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

START_TIMEOUT, STOP_TIMEOUT = 60, 20  # seconds; then a test fails, then uWSGI is killed
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
SHOWN = 6000  # characters of the log in a failure

_numbers = itertools.count(1)


class WaffleServer:
    """A running uWSGI.

    Attributes:
        name: tells it from others of the same test run.
        folder: where its store and its watch file are, unless the environment says otherwise.
        url: answered by whichever worker is free.
    """

    def __init__(self, folder: Path, workers: int, xprocess: XProcess) -> None:
        self.folder, self.url = folder, ""
        self._workers, self._xprocess, self.name = workers, xprocess, f"uwsgi-{next(_numbers)}"
        self._info = xprocess.getinfo(self.name)
        self._ports: dict[int, str] = {}

    @property
    def log(self) -> str:
        """What uWSGI and its workers have written until now."""
        path = Path(self._info.logpath)
        return path.read_text(errors="replace") if path.exists() else ""

    def worker_url(self, number: int) -> str:
        """Return the URL that is answered by one worker alone; the first has the number 1."""
        if not 1 <= number <= self._workers:
            raise ValueError(f"There are the workers 1 to {self._workers}, and no worker {number}.")
        return f"http://127.0.0.1:{self._ports[number]}"

    def stop(self) -> None:
        """Stop it and wait until it is gone; once more does nothing."""
        for resource in self._xprocess.resources:
            if resource.popen is not None and resource.info[0].name == self.name:
                if resource.popen.poll() is None:
                    # The master ends its workers; a signal to them on their way out could hang
                    # them.
                    resource.info[0].terminate(kill_proc_tree=False, timeout=STOP_TIMEOUT)
                resource.popen.wait()
                resource.release()
        # The reports of pytest-xprocess read what is noted here, and can't read a closed file.
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
                f"The application doesn't use WAFFLE_WATCHER_FILE = {environ['WAFFLE_WATCHER_FILE']}. If its app.config sets another, "
                "it may be about to change what isn't the test's: let the environment say it, "
                "and likewise WAFFLE_STORE_URL"
            )

    def _is_ready(self, process: subprocess.Popen[bytes], *, lazy: bool) -> bool:
        """Tell whether all workers are there with the application and all sockets."""
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

    def _fail(self, what: str) -> None:
        pytest.fail(f"{what}.\n\n{self.log[-SHOWN:]}", pytrace=False)


class StartServer(Protocol):
    """What the fixture `waffle_server` gives."""

    def __call__(
        self, app: str, workers: int = 4, *, options: Sequence[str] = (), **env: object
    ) -> WaffleServer:
        """Start a uWSGI with a master, and wait until all its workers are ready.

        Args:
            app: the application, as ``module:name``; found where the tests' own modules are found.
            workers: how many.
            options: more of uWSGI's, as on its command line.
            env: more of the environment. Store and watch file are in the test's ``tmp_path`` if
                nothing else is said here.
        """


@pytest.fixture
def waffle_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartServer]:
    """Start real uWSGI servers; they are stopped after the test. Those of one test are one host:
    they share store and watch file.
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
            sockets = ["--http-socket", "127.0.0.1:0"] * (workers + 1)
            for number in range(1, workers + 1):  # the first socket is for all
                sockets += ["--map-socket", f"{number}:{number}"]
            command = [
                _uwsgi(),
                *OPTIONS,
                "--module",
                app,
                "--processes",
                str(workers),
                *sockets,
                *options,
            ]
            server._start(
                command,
                request.config.rootpath,
                _environ(tmp_path, env),
                lazy="--lazy-apps" in options,
            )
            return server

        yield start


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
