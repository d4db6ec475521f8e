"""Do what a page says: write its files, run its Python and commands, compare the output."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest

from ..ports import free_ports
from .page import ROOT, PageError, Step
from .shell import Background, Command, Shell, commands, compare, normalized, pattern, wait_for

PORT = re.compile(
    r"(?P<before>(?:127\.0\.0\.1|localhost|0\.0\.0\.0):|--port[ =])(?P<port>\d{4,5})\b"
)
NOT_OURS = {"6379", "5432", "3306"}  # ports of servers that a page needs rather than starts
REDIS = re.compile(r"redis://[\w.]+\.example:6379(?:/(?P<db>\d+))?")
SQL = re.compile(r"(?P<driver>postgresql|mysql)(?:\+\w+)?://[\w:%.@-]*\.example(?::\d+)?/\w+")
SETTING_UP = re.compile(
    r"^(?:\S*python3? -m venv|(?:\S*python3? -m )?\S*pip install) ?(?P<rest>.*)$"
)
BIN = Path(sysconfig.get_path("scripts"))

Fresh = Callable[[], str]  # returns the URL of an empty store


def real_servers(request: pytest.FixtureRequest) -> dict[str, Fresh]:
    """Return what a page may need, by name; a server starts when the first page asks for it."""
    return {
        "redis": lambda: str(request.getfixturevalue("redis_server").url),
        "postgresql": lambda: str(request.getfixturevalue("postgresql_server").fresh()),
        "mariadb": lambda: str(request.getfixturevalue("mariadb_server").fresh()),
    }


class Runner:
    """Runs the steps of one page in ``folder``.

    Args:
        name: the page's, for messages.
        folder: an empty folder.
        servers: by name, what starts a server that a page needs and returns a URL in it.
    """

    def __init__(self, name: str, folder: Path, servers: dict[str, Fresh]) -> None:
        self.name = name
        self._base = folder
        self._servers = servers
        self._urls: dict[str, str] = {}
        self._ports: dict[str, str] = {}
        self._rooms = 0
        self._background: list[Background] = []
        self._fresh()

    def _fresh(self) -> None:
        self._rooms += 1
        room = self._base / str(self._rooms)
        self.folder, scratch, home = room / "site", room / "scratch", room / "home"
        for folder in (self.folder, scratch, home):
            folder.mkdir(parents=True)
        (self.folder / ".venv").symlink_to(sys.prefix)
        (home / ".curlrc").write_text("silent\nshow-error\n")  # as it is on a terminal
        environ = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "FLASK_RUN_PORT": self._port("5000"),
        }
        self._shell = Shell(self.folder, scratch, environ)
        self._module = ModuleType("page")
        self._module.__file__ = str(self.folder / "page.py")

    def run(self, steps: list[Step]) -> None:
        try:
            with self._as_main_module():
                for step in steps:
                    self._run_step(step)
        finally:
            self._leave()

    def _run_step(self, step: Step) -> None:
        if step.verb == "fresh":
            self._leave()
            self._fresh()
            os.chdir(self.folder)
            sys.modules["page"] = self._module
            return
        getattr(self, f"_do_{step.verb}")(step)

    def _leave(self) -> None:
        self._stop_servers()
        self._shell.close()
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or ""
            if file.startswith(f"{self._base}{os.sep}"):
                del sys.modules[name]

    @contextlib.contextmanager
    def _as_main_module(self) -> Iterator[None]:
        """Have the blocks run as a module whose file is in the page's folder."""
        before, path = Path.cwd(), list(sys.path)
        sys.modules["page"] = self._module
        sys.path.insert(0, "")
        os.chdir(self.folder)
        try:
            yield
        finally:
            os.chdir(before)
            sys.path[:] = path

    def _do_python(self, step: Step) -> None:
        text = self._substituted(step.text)
        importlib.invalidate_caches()
        if ">>> " in text:
            self._run_doctest(text, step.line)
        else:
            code = compile("\n" * (step.line - 1) + text, self.name, "exec", dont_inherit=True)
            exec(code, self._module.__dict__)

    def _run_doctest(self, text: str, line: int) -> None:
        namespace = self._module.__dict__
        parser = doctest.DocTestParser()
        test = parser.get_doctest(text, namespace, self.name, self.name, line - 1)
        test.globs = namespace  # it has made a copy
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        runner.run(test, out=report.append, clear_globs=False)
        assert not runner.failures, "".join(report)

    def _do_file(self, step: Step) -> None:
        path = self.folder / step.argument
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._substituted(step.text))

    def _do_append(self, step: Step) -> None:
        with (self.folder / step.argument).open("a") as file:
            file.write(self._substituted(step.text))

    def _do_console(self, step: Step) -> None:
        for command in commands(step.text):
            self._run_command(command, step)

    def _run_command(self, shown: Command, step: Step) -> None:
        command = Command(self._without_setting_up(shown.text), shown.output)
        if not command.text:
            return
        if command.interrupted:
            self._run_interrupted(command, step)
            return
        code, output = self._shell.run(self._substituted(command.text))
        output = self._as_documented(output)
        where = f"{self.name}, the block at line {step.line}: $ {command.text}"
        if command.output is None:
            assert code == 0, f"{where}\nended with {code}:\n{output}\n{self._logs()}"
        else:
            difference = compare(command.output, output)
            assert not difference, f"{where}\n{difference}\n{self._logs()}"

    def _run_interrupted(self, command: Command, step: Step) -> None:
        assert command.output is not None
        before, _, after = command.output.partition("^C")
        running = self._shell.start(self._substituted(command.text))
        try:
            wait_for(
                lambda: not compare(before, self._as_documented(running.output)),
                lambda: (
                    f"{self.name}, line {step.line}: {command.text}\n"
                    + compare(before, self._as_documented(running.output))
                ),
            )
        finally:
            running.stop()
        difference = compare(before + after, self._as_documented(running.output))
        assert not difference, f"{self.name}, line {step.line}: {command.text}\n{difference}"

    def _do_server(self, step: Step) -> None:
        *first, last = commands(step.text)
        for command in first:
            self._run_command(command, step)
        text = self._substituted(self._without_setting_up(last.text))
        server = self._shell.start(text)
        self._background.append(server)
        ready = self._readiness(last, text, server)
        wait_for(
            lambda: ready() or not server.alive,
            lambda: f"{self.name}, line {step.line}: it isn't ready: {text}\n{server.output}",
        )
        assert server.alive, f"{self.name}, line {step.line}: it has ended: {text}\n{server.output}"

    def _readiness(self, last: Command, text: str, server: Background) -> Callable[[], bool]:
        if last.output is not None:
            wanted = pattern(last.output)
            return lambda: bool(re.search(wanted, normalized(self._as_documented(server.output))))
        ports = [found["port"] for found in PORT.finditer(text)]
        for ini in re.findall(r"\S+\.ini\S*", text):
            ports += [found["port"] for found in PORT.finditer((self.folder / ini).read_text())]
        if not ports and re.search(r"\bflask\b.*\brun\b", text):
            ports = [self._port("5000")]
        if not ports:
            raise PageError(f"no port in {text!r}: show output that says that it is ready")
        # uWSGI listens before it has workers.
        workers = bool(re.search(r"\buwsgi\b", text)) and "daemonize" not in text
        return lambda: (
            all(map(_listens, ports)) and not (workers and "spawned uWSGI w" not in server.output)
        )

    def _do_stop(self, step: Step) -> None:
        self._stop_servers()

    def _do_clone(self, step: Step) -> None:
        ignored = shutil.ignore_patterns("instance", "__pycache__")
        shutil.copytree(ROOT / "examples", self.folder / "examples", ignore=ignored)
        ini = (ROOT / "uwsgi.ini.example").read_text()
        (self.folder / "uwsgi.ini.example").write_text(self._substituted(ini))

    def _do_needs(self, step: Step) -> None:
        what, _, name = step.argument.partition(" ")
        if what == "package":
            if importlib.util.find_spec(name) is None:
                (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} isn't installed")
        elif what in self._servers:
            self._urls.setdefault(what, self._servers[what]())
        else:
            raise PageError(f"line {step.line}: there is no server {what!r}")

    def _without_setting_up(self, command: str) -> str:
        """Return a command without ``python -m venv`` and ``pip install``: extras are checked."""
        parts = command.split(" && ")
        for part in parts:
            found = SETTING_UP.match(part)
            if found:
                _check_extras(found["rest"])
        return " && ".join(part for part in parts if not SETTING_UP.match(part))

    def _substituted(self, text: str) -> str:
        """Put free ports and the servers' real URLs in the place of those that the page shows."""

        def port(found: re.Match[str]) -> str:
            if found["port"] in NOT_OURS:
                return found[0]
            return found["before"] + self._port(found["port"])

        def sql(found: re.Match[str]) -> str:
            name = "postgresql" if found["driver"] == "postgresql" else "mariadb"
            return self._urls.get(name, found[0])

        text = PORT.sub(port, text)
        if "redis" in self._urls:
            url = self._urls["redis"]
            text = REDIS.sub(lambda found: f"{url}?db={found['db'] or 0}", text)
        return SQL.sub(sql, text)

    def _port(self, shown: str) -> str:
        if shown not in self._ports:
            (port,) = free_ports(1)
            self._ports[shown] = str(port)
        return self._ports[shown]

    def _as_documented(self, output: str) -> str:
        """Put the page's own ports into what was printed."""
        for shown, real in self._ports.items():
            output = re.sub(rf"\b{real}\b", shown, output)
        return output

    def _stop_servers(self) -> None:
        while self._background:
            self._background.pop().stop()

    def _logs(self) -> str:
        return "\n".join(f"a server's log:\n{s.output[-4000:]}" for s in self._background)


def _listens(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def _check_extras(arguments: str) -> None:
    """Fail if ``pip install`` names an extra of ours that doesn't exist."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    known = set(setup["options.extras_require"])
    for word in shlex.split(arguments):
        found = re.match(r"(?:uwsgi[_-]waffle|\.)\[([\w,-]+)\]", word)
        unknown = set(found[1].split(",")) - known if found else set()
        assert not unknown, f"setup.cfg has no extra {unknown}"
