"""What README.md tells a newcomer to type, typed."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from ..docs.page import ROOT, Step, steps
from ..docs.runner import Runner, real_servers
from ..docs.shell import Background, Shell, wait_for
from ..redis_server import RedisServer
from .servers import SCRIPTS

pytestmark = pytest.mark.live
README = (ROOT / "README.md").read_text()
SKIP = "<!-- test: skip, tests/live/test_readme.py runs it on two hosts -->\n"
CLONE = Step(1, "clone", "", "")


def block(start: str, language: str) -> str:
    """Return the README's block that begins so."""
    found = re.search(rf"^```{language}\n({re.escape(start)}.*?)^```$", README, re.M | re.DOTALL)
    assert found, f"the README has no {language} block that begins with {start!r}"
    return found[1]


@pytest.mark.timeout(300)
def test_all_of_it(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its commands, files and Python do in a clone what it shows."""
    Runner("README.md", tmp_path, real_servers(request)).run([CLONE, *steps(README)])


def test_two_hosts(tmp_path: Path, redis_server: RedisServer) -> None:
    """Its application on two hosts, with its three settings and its one line, hears of the other's
    update.
    """
    settings = block('app.config["WAFFLE_STORE_URL"]', "python")
    assert SKIP in README
    for number in (0, 1):
        real = f"{redis_server.url}?db={number}"
        settings = settings.replace(f"redis://cache.example:6379/{number}", real)
    app = block("from flask import Flask", "python").replace("waffle = ", f"{settings}waffle = ")
    (mule,) = re.findall(r"`(mule = .*?)`", README)
    ini = block("[uwsgi]", "ini").replace("127.0.0.1:8001", "127.0.0.1:0") + f"{mule}\n"
    hosts = [Host(tmp_path / name, app, ini) for name in ("left", "right")]
    try:
        for host in hosts:
            host.start()
        left, right = hosts
        for number in range(3):
            assert left.flask("waffle set", f"SITENAME=name-{number}", "--wait", "20")[0] == 0
            wait_for(lambda n=number: f"name-{n} takes" in right.page(), right.log)
    finally:
        for host in hosts:
            host.stop()


class Host:
    """The README's application with its uWSGI, in a folder of its own."""

    def __init__(self, folder: Path, app: str, ini: str) -> None:
        site, scratch = folder / "site", folder / "scratch"
        for path in (site, scratch):
            path.mkdir(parents=True)
        (site / "app.py").write_text(app)
        (site / "uwsgi.ini").write_text(ini)
        environ = {
            "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
        }
        self._shell = Shell(site, scratch, environ)
        self._server: Background | None = None

    def start(self) -> None:
        self._server = self._shell.start("uwsgi uwsgi.ini")
        wait_for(lambda: self.log().count("spawned uWSGI worker") == 4, self.log)
        listens = re.compile(r"^Redis: .*, listener (?!none)", re.MULTILINE)
        wait_for(lambda: bool(listens.search(self.flask("waffle status")[1])), self.log)

    def log(self) -> str:
        return self._server.output if self._server else ""

    def page(self) -> str:
        found = re.search(r"bound to TCP address (127\.0\.0\.1:\d+)", self.log())
        assert found
        return self._shell.run(f"curl --silent http://{found[1]}/")[1]

    def flask(self, *words: str) -> tuple[int, str]:
        return self._shell.run(" ".join(["flask", *words]))

    def stop(self) -> None:
        if self._server:
            self._server.stop()
        self._shell.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_newcomer(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a clone, with nothing installed, its two commands work as they stand there."""
    if not request.config.getoption("--thorough", default=False):
        pytest.skip("it installs from the package index: pytest --thorough")
    run_example, run_tests = re.findall(r"^python3 -m venv \.venv && .*$", README, re.M)
    clone = tmp_path / "clone"
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "instance", "build")
    shutil.copytree(ROOT, clone, ignore=ignored)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environ["PATH"] = f"{Path(sys.executable).resolve().parent}:{environ['PATH']}"
    # The tests that are run within this one are few, for all the others are run beside it.
    environ["PYTEST_ADDOPTS"] = "tests/unit/test_readme.py tests/unit/test_schema.py"
    shell = Shell(clone, tmp_path, environ)
    try:
        ini = clone / "uwsgi.ini.example"
        ini.write_text(ini.read_text().replace("127.0.0.1:8000", "127.0.0.1:0"))
        server = shell.start(run_example)
        wait_for(
            lambda: server.output.count("spawned uWSGI worker") == 4,
            lambda: server.output,
            patience=300,
        )
        server.stop()
        code, output = shell.run(run_tests, patience=300)
        assert code == 0, output
        assert " passed" in output
    finally:
        shell.close()


def test_ci_runs_what_it_says() -> None:
    """The command for the tests is the one that CI runs."""
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install --quiet '.[test]'\npytest" in ci
    assert "pip install '.[test]' && .venv/bin/pytest\n" in README
