"""Start real servers, talk to them, and wait for what they do."""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import os
import re
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import psutil
import py
from xprocess import ProcessStarter, XProcess

from uwsgi_waffle.host import HostFiles

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))
SITE = "tests.live.site"
UWSGI = (
    "uwsgi",
    "--die-on-term",
    "--need-app",
    "--http-socket",
    "127.0.0.1:0",
    "--module",
    SITE,
    "--worker-reload-mercy",
    "40",
)
BOUND = re.compile(
    r"(?:bound to TCP address|Listening at: http://|Running on http://)\s*127\.0\.0\.1:(\d+)"
)

# One worker, and more when somebody says so.
CHEAPER = ("--cheaper", "1", "--cheaper-initial", "1", "--cheaper-algo", "manual")
GUNICORN = ("gunicorn", "--no-control-socket", "--bind", "127.0.0.1:0", f"{SITE}:application")

# No process compares with the store of its own accord: who is told of a change is told of it by
# what is tested.
ALWAYS = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), "WAFFLE_RECONCILE_INTERVAL": "3600"}

_numbers = itertools.count(1)


def script(name: str) -> str:
    """Return the path of a program of this virtual environment; a path as it is."""
    if os.path.isabs(name):
        return name
    found = shutil.which(name, path=str(SCRIPTS))
    assert found, f"{name} is not installed beside {sys.executable}"
    return found


def eventually(
    look: Callable[[], T],
    *,
    until: Callable[[T], bool] = bool,
    deadline: float = 60.0,
    log: Callable[[], str] = str,
) -> T:
    """Look every few milliseconds until what is seen is as wanted; at the deadline show what was
    seen last.
    """
    end = time.monotonic() + deadline
    while True:
        try:
            value = look()
            if until(value):
                return value
            last: object = value
        except (OSError, http.client.HTTPException, ValueError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline} s; last seen: {last!r}\n{log()[-6000:]}")
        time.sleep(0.005)


@dataclass
class Server:
    """A running server and the folder that its processes share."""

    folder: Path
    log_path: Path
    process: psutil.Process
    stop: Callable[[], object]
    ports: list[int] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def have_loaded(self) -> bool:
        """Return whether as many workers have loaded an application as were started."""
        return self.log.count("WSGI app 0 ") >= self.log.count("spawned uWSGI worker ")

    def find_ports(self, sockets: int) -> bool:
        """Read from the log where the server listens now; a reload that starts uWSGI anew changes
        it.
        """
        self.ports = [int(port) for port in BOUND.findall(self.log)][-sockets:]
        return len(self.ports) == sockets

    def request(
        self, method: str, path: str, body: object = None, *, socket: int = 0, timeout: float = 30.0
    ) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[socket], timeout=timeout)
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise AssertionError(f"{method} {path}: {response.status} {raw!r}\n{self.log[-6000:]}")
        return json.loads(raw)

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str, body: object = None, **options: Any) -> Any:
        return self.request("POST", path, body, **options)

    def read(self, **options: Any) -> Any:
        return self.get("/read", **options)

    def update(self, number: int, *, wait: float | None = None, **options: Any) -> Any:
        return self.post(f"/update?n={number}" + (f"&wait={wait}" if wait else ""), **options)

    def children(self) -> list[int]:
        return [child.pid for child in self.process.children()]

    def workers(self) -> dict[int, int]:
        """Return the pid of each worker by its number, as one of them tells."""
        found = self.get("/status")["processes"]
        return {
            int(p["kind"].split()[1]): p["pid"] for p in found if p["kind"].startswith("worker")
        }

    def table(self) -> dict[int, str]:
        """Return the kind of each process by its pid, from its file: no process is asked."""
        files = HostFiles(self.folder / "instance" / "waffle.watch")
        return {process.pid: process.kind for process in files.processes}

    def eventually(
        self, look: Callable[[], T], *, until: Callable[[T], bool] = bool, deadline: float = 60.0
    ) -> T:
        return eventually(look, until=until, deadline=deadline, log=lambda: self.log)

    def records(self, kind: str) -> list[list[str]]:
        path = self.folder / f"{kind}.log"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


class Servers:
    """Starts servers whose files are all in one folder, and stops them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._xprocess = XProcess(
            SimpleNamespace(), py.path.local(folder / "xprocess"), log=logging.getLogger("xprocess")
        )
        self._names: dict[str, str] = {}

    def start(
        self,
        command: Iterable[str],
        *,
        sockets: int = 1,
        folder: Path | None = None,
        cwd: Path = ROOT,
        **environ: str,
    ) -> Server:
        """Start a server and wait until it listens on all its sockets."""
        folder = folder or self.folder
        program, *arguments = command
        name = f"server-{next(_numbers)}"

        class Starter(ProcessStarter):
            pattern = "spawned|Listening at|Running on|worker"
            timeout = 60
            max_read_lines = 5000
            args: ClassVar = [script(program), *arguments]
            popen_kwargs: ClassVar = {"cwd": str(cwd), "text": True}
            env: ClassVar = {**os.environ, **ALWAYS, "SITE_FOLDER": str(folder), **environ}
            terminate_on_interrupt = True

        pid, log_path = self._xprocess.ensure(name, Starter, restart=True)
        self._names[name] = program
        info = self._xprocess.getinfo(name)
        server = Server(
            folder, Path(log_path), psutil.Process(pid), lambda: self._stop(name, info, program)
        )
        server.eventually(lambda: server.find_ports(sockets))
        for socket in range(sockets):
            server.eventually(lambda at=socket: server.read(socket=at))
        if "--lazy-apps" in arguments:  # a worker that still loads its application can't be stopped
            server.eventually(server.have_loaded)
        return server

    def uwsgi(
        self,
        *options: str,
        workers: int = 4,
        addressed: bool = False,
        folder: Path | None = None,
        **environ: str,
    ) -> Server:
        """Start uWSGI with a master; ``addressed`` gives each worker a socket of its own,
        ``socket=n`` for worker n + 1.
        """
        extra = [*options]
        if addressed:
            extra += ["--http-socket", "127.0.0.1:0"] * (workers - 1)
            for number in range(workers):
                extra += ["--map-socket", f"{number}:{number + 1}"]
        command = [*UWSGI, "--master", "--processes", str(workers), *extra]
        return self.start(command, sockets=workers if addressed else 1, folder=folder, **environ)

    def _stop(self, name: str, info: Any, program: str) -> None:
        if name in self._names:
            del self._names[name]
            pid = info.pid
            # uWSGI's master ends its workers; a second signal on their way out can hang them.
            info.terminate(timeout=60, kill_proc_tree=program != "uwsgi")
            for resource in self._xprocess.resources:
                if resource.popen.pid == pid:
                    resource.popen.wait(20)
                    resource.release()
            assert "NO MERCY" not in Path(info.logpath).read_text(errors="replace"), (
                "a worker did not end when it was told to"
            )

    def stop_all(self) -> None:
        """Stop each, also if another doesn't end as it should."""
        with ExitStack() as stack:
            for name, program in self._names.items():
                stack.callback(self._stop, name, self._xprocess.getinfo(name), program)


def kill(pid: int) -> None:
    """Kill as the kernel's out-of-memory killer does: nothing of the process runs any more."""
    os.kill(pid, signal.SIGKILL)
