"""README.md, "Compared with": each row, as far as `tests.benchmarks` doesn't measure it."""

from __future__ import annotations

import http.client
import os
import pickle
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .page import ROOT
from .shell import wait_for

ROWS = {
    cells[0]: cells[1:]
    for line in re.findall(r"^\| (.*) \|$", (ROOT / "README.md").read_text(), re.M)
    if len(cells := line.split(" | ")) == 4
}
FLASK_WAFFLECONF = """
import os, threading, time
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_waffleconf import AlchemyWaffleStore, WaffleConf, WaffleMixin

app = Flask("site")
app.config.update(
    SQLALCHEMY_DATABASE_URI="sqlite:////{folder}/site.db",
    WAFFLE_CONFS={{"SITENAME": {{"desc": "", "default": "zero"}}}},
    WAFFLE_MULTIPROC=True,
    WAFFLE_WATCHER_FILE="{folder}/watch",
)
db = SQLAlchemy(app)

class Conf(db.Model, WaffleMixin):
    id = db.Column(db.Integer, primary_key=True)
    key = db.Column(db.String(255), unique=True)
    value = db.Column(db.Text)

asleep = []

def sleep(seconds):
    asleep.append((threading.current_thread() is threading.main_thread(), seconds))
    raise SystemExit

time.sleep = sleep
open("{folder}/watch", "w").close()
os.utime("{folder}/watch", (0, 0))  # else its thread dies, since it has no application context
waffle = WaffleConf(app, AlchemyWaffleStore(db=db, model=Conf))
with app.app_context():
    db.create_all()
    waffle.state.update_conf()
    waffle.state.update_db({{"SITENAME": "one"}})
    waffle.state.update_db({{"SITENAME": "two"}})
    [thread.join() for thread in threading.enumerate() if thread.daemon]
    print(asleep, app.config["SITENAME"], Conf.query.count(), *db.metadata.tables)
"""
CONSTANCE = """
import django
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=["constance"],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{folder}/db"}}}},
    CONSTANCE_BACKEND="constance.backends.database.DatabaseBackend",
    CONSTANCE_CONFIG={{"SITENAME": ("zero", "")}},
)
django.setup()
call_command("migrate", verbosity=0)
from constance import config
from django.db import connection
from django.test.utils import CaptureQueriesContext

config.SITENAME = "one"
config.SITENAME = "two"
with CaptureQueriesContext(connection) as queries:
    values = [config.SITENAME, config.SITENAME]
with connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM constance_constance")
    print(values, len(queries), cursor.fetchone()[0])
"""
PROVIDER = """
import sys
from openfeature import api
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

def read():
    print(api.get_client().get_string_value("SITENAME", "none"), flush=True)

read()
for value in sys.stdin.read().split():
    flag = InMemoryFlag("on", {"on": value})
    api.set_provider(InMemoryProvider({"SITENAME": flag}))
    read()
"""
APP = """
import os
from flask import Flask

app = Flask(__name__)
app.config.from_pyfile("settings.py")

@app.get("/")
def show():
    return f"{os.getpid()} {app.config['SITENAME']}"
"""


def test_dynaconf(tmp_path: Path) -> None:
    """A process has the new values when its code reloads them; that reads all files again."""
    dynaconf = pytest.importorskip("dynaconf")
    row = ["when your code reloads it", "your files'", "reading all files again"]
    assert ROWS["dynaconf"] == row
    files = [tmp_path / "one.toml", tmp_path / "two.toml"]

    def write(value: int) -> None:
        for file in files:
            file.write_text(f"{file.stem} = {value}\n")

    write(1)
    settings = dynaconf.Dynaconf(settings_files=list(map(str, files)))
    assert (settings.ONE, settings.TWO) == (1, 1)
    write(2)
    assert (settings.ONE, settings.TWO) == (1, 1)
    settings.reload()
    assert (settings.ONE, settings.TWO) == (2, 2)


def run(source: str, given: str = "") -> str:
    """Run a program in a process of its own, and return what it prints."""
    command = [sys.executable, "-W", "ignore", "-c", source]
    return subprocess.check_output(command, input=given, text=True)


def test_flask_waffleconf(tmp_path: Path) -> None:
    """Each process has a thread that looks every 10 s; the table holds the newest values only."""
    pytest.importorskip("flask_waffleconf")
    row = ["up to 10 s later", "no", "a thread in every process"]
    assert ROWS["polling, as Flask-WaffleConf"] == row
    found = run(FLASK_WAFFLECONF.format(folder=tmp_path))
    assert found == "[(False, 10)] two 1 conf\n"


def test_flask_waffleconf_reads_no_json() -> None:
    """So docs/coming-from-flask-waffleconf.md says to save the table first."""
    util = pytest.importorskip("flask_waffleconf.util")
    assert util.deserialize(util.serialize("Gent")) == "Gent"
    for text in ('"Gent"', "2000", "[1]", "null"):
        with pytest.raises((ValueError, pickle.UnpicklingError, EOFError)):
            util.deserialize(text)


def test_django_constance(tmp_path: Path) -> None:
    """Each read asks the database, which holds the newest values only."""
    pytest.importorskip("constance")
    row = ["at its next read", "no", "a store read per read, or a stale cache"]
    assert ROWS["django-constance"] == row
    assert run(CONSTANCE.format(folder=tmp_path)) == "['two', 'two'] 2 1\n"


def test_openfeature() -> None:
    """A process without a provider has no flags; it has a value when its own provider has it."""
    pytest.importorskip("openfeature")
    row = ["when its provider has it", "a provider's", "a provider per process"]
    assert ROWS["feature flags (OpenFeature)"] == row
    assert run(PROVIDER, "one two").split() == ["none", "one", "two"]
    assert run(PROVIDER).split() == ["none"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[int, Callable[[], dict[str, str]]]]:
    """A site with two workers: its first process, and what asks for each worker's value."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "settings.py").write_text("SITENAME = 'old'\n")
    log = tmp_path / "log"
    command = ["gunicorn", "--no-control-socket", "--workers=2", "--bind=127.0.0.1:0", "app:app"]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environ, stdout=file, stderr=file
        )

    def ask() -> dict[str, str]:
        found = re.search(r"Listening at: (http://\S+)", log.read_text())
        assert found
        answers: dict[str, str] = {}
        while len(answers) < 2:
            with suppress(OSError, http.client.HTTPException):  # a worker that ends need not answer
                with urllib.request.urlopen(found[1], timeout=30) as response:
                    pid, value = response.read().decode().split()
                answers[pid] = value
        return answers

    try:
        wait_for(lambda: log.read_text().count("Booting worker") == 2, log.read_text)
        yield server.pid, ask
    finally:
        server.terminate()
        server.wait()


@pytest.mark.live
def test_restarting(served: tuple[int, Callable[[], dict[str, str]]], tmp_path: Path) -> None:
    """A worker has a new value once it has started again, and each worker does."""
    assert ROWS["restarting"][::2] == ["once it has started again", "a cold start of every worker"]
    master, ask = served
    before = ask()
    (tmp_path / "settings.py").write_text("SITENAME = 'new'\n")
    assert ask() == before == dict.fromkeys(before, "old")
    os.kill(master, signal.SIGHUP)
    after: dict[str, str] = {}

    def have_started_again() -> bool:
        after.clear()
        after.update(ask())
        return not before.keys() & after.keys()

    wait_for(have_started_again, lambda: str(after))
    assert set(after.values()) == {"new"}
