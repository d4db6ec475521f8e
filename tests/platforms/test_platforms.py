"""`flask run` and `flask waffle` where Linux's means are missing, as on macOS and Windows."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..host import eventually
from . import HERE

ROOT = HERE.parents[1]
SITE = """
    from flask import Flask
    import uwsgi_waffle

    app = Flask(__name__)
    app.config["WAFFLE_CONFS"] = {"N": {"default": 0}}
    app.config.update(WAFFLE_POLL_INTERVAL=0.1, WAFFLE_RECONCILE_INTERVAL=3600)
    waffle = uwsgi_waffle.WaffleConf(app)
    heard = []


    @waffle.on_change("N")
    def hear(change):
        heard.append(change.new["N"])


    @app.get("/")
    def index():
        return {"value": app.config["N"], "heard": heard}


    @app.post("/<int:number>")
    def update(number):
        return {"revision": waffle.update({"N": number}).revision}
"""


class Project:
    """A folder with an application, used as on one platform."""

    def __init__(self, folder: Path, platform: str) -> None:
        self.folder, self.platform = folder, platform
        paths = [str(HERE / platform), str(folder), str(ROOT)]
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        self.program = shutil.which("flask", path=sysconfig.get_path("scripts")) or "flask"
        (folder / "app.py").write_text(textwrap.dedent(SITE))

    def flask(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end. Return what it prints."""
        done = subprocess.run(
            [self.program, *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    @contextmanager
    def running(self, name: str) -> Iterator[Callable[..., dict[str, object]]]:
        """Start `flask run`; give a function that asks it."""
        log = self.folder / f"{name}.log"
        command = [self.program, "--debug", "run", "--no-reload", "--port", "0"]
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=output, stderr=output
            ) as process,
        ):
            try:
                found = eventually(lambda: re.search(r"127\.0\.0\.1:(\d+)", log.read_text()))

                def ask(method: str = "GET", path: str = "/") -> dict[str, object]:
                    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
                    connection.request(method, path, headers={"Connection": "close"})
                    response = connection.getresponse()
                    raw = response.read()
                    connection.close()
                    assert response.status == 200, log.read_text()
                    return dict(json.loads(raw))

                yield ask
            finally:
                process.terminate()


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    return Project(tmp_path, request.param)


on = (
    pytest.mark.parametrize("project", ["macos"], indirect=True),
    pytest.mark.parametrize("project", ["windows"], indirect=True),
)
on_macos, on_windows = on


@on_macos
def test_macos_is_as_linux(project: Project) -> None:
    """Each request is fresh, hooks run, and `status` names both servers."""
    with project.running("one") as one, project.running("other") as other:
        for number in range(1, 6):
            one("POST", f"/{number}")
            assert (one()["value"], other()["value"]) == (number, number)
        assert "0 -> 7" not in project.flask("waffle", "set", "N=7", "--wait", "20")
        assert other() == {"value": 7, "heard": [1, 2, 3, 4, 5, 7]}
        assert project.flask("waffle", "status").count("flask run ") == 2
        assert "ok" in project.flask("waffle", "doctor")


@on_windows
def test_on_windows_each_process_compares_with_the_store(project: Project) -> None:
    """Processes don't see each other, share no files, and follow within the poll interval."""
    with project.running("one") as one, project.running("other") as other:
        one("POST", "/1")
        assert one()["value"] == 1
        eventually(lambda: other() == {"value": 1, "heard": [1]})
        project.flask("waffle", "set", "N=7")
        for server in (one, other):
            eventually(lambda ask=server: ask() == {"value": 7, "heard": [1, 7]})  # type: ignore[misc]  # of a default
        status = json.loads(project.flask("waffle", "status", "--json"))
        assert "processes don't see each other" in status["alone"]
        assert (status["processes"], status["revision"], status["store_error"]) == ([], 2, "")
        assert "or in WSL" in project.flask("waffle", "doctor")
    found = {path.name for path in (project.folder / "instance").iterdir()}
    assert found - {"waffle.db-shm", "waffle.db-wal"} == {"waffle.db"}


@on_windows
def test_on_windows_updates_that_meet_are_all_kept(project: Project) -> None:
    """The store's transaction is what they meet in."""
    code = "import app; [app.waffle.update({'N': app.waffle.values.N + 1}) for _ in range(20)]"
    programs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=project.folder, env=project.env)
        for _ in range(3)
    ]
    assert [program.wait(60) for program in programs] == [0, 0, 0]
    history = json.loads(project.flask("waffle", "history", "--limit", "100", "--json"))
    revisions = [row["revision"] for row in history]
    assert revisions == list(range(len(revisions), 0, -1))
    assert len(revisions) >= 20


@on_windows
def test_projects_without_the_package_are_left_in_peace(project: Project) -> None:
    """The entry point is loaded by `flask` of every project in the environment."""
    (project.folder / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    printed = project.flask("routes")
    assert "static" in printed
    assert "Error" not in printed


@on_windows
def test_what_windows_lacks_is_really_missing(project: Project) -> None:
    """A test of the test: without `unix` the package couldn't be imported."""
    code = "import uwsgi_waffle; import fcntl"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env=project.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'fcntl'" in done.stderr.splitlines()[-1]
