"""The floors of the house: imports go down only, each neighbour has one door, nothing is long."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import uwsgi_waffle

PACKAGE = Path(uwsgi_waffle.__file__).parent
FLOORS = (
    {"text"},
    {"errors", "snapshot", "legacy", "unix", "urls"},
    {"identity", "privileges", "variable", "redis_client", "frozen", "formats"},
    {"pins", "declarations"},
    {"schema"},
    {"stores", "host"},
    {"wake"},
    {"changes", "conflicts", "expiry"},
    {"served"},
    {"overlay"},
    {"fetch"},
    {"sync"},
    {"update"},
    {"barrier", "ending", "hooks", "settings", "config", "view"},
    {"on_update"},
    {"state"},
    {"history"},
    {"report", "documents", "applications"},
    {"extension"},
    {"doctor"},
    {"cli", "mule", "admin", "testing", "health", "metrics", "logging", "openfeature"},
    {"__init__"},
)
#: What only these files may import; the rest of the package doesn't know that it exists.
DOORS = {
    "uwsgi": set(),  # it is there, or it isn't
    "uwsgidecorators": set(),
    "sqlalchemy": {"stores/"},
    "sqlite3": {"stores/"},
    "redis": {"redis_client.py", "stores/redis.py", "wake/redis.py"},
    "psycopg": {"stores/drivers.py", "wake/postgres.py"},
    "peewee": {"stores/peewee.py"},
    "playhouse": set(),
    "flask_sqlalchemy": set(),  # a user's object is given to us
    "fcntl": {"unix.py"},
    "pwd": {"unix.py"},
    "ctypes": {"unix.py", "wake/inotify.py"},
    "mmap": {"wake/uwsgi.py"},
    "flask": {
        "wake/thread.py",
        "config.py",
        "settings.py",
        "hooks.py",
        "state.py",
        "view.py",
        "applications.py",
        "extension.py",
        "cli/",
        "admin/",
        "testing/",
        "health.py",
    },
    "blinker": {"hooks.py"},
    "click": {"wake/", "cli/"},
    "prometheus_client": {"metrics.py"},
    "openfeature": {"openfeature.py"},
    "pytest": {"testing/pytest_plugin.py"},
    "xprocess": {"testing/pytest_plugin.py"},
    "wtforms": {"admin/"},
    "flask_wtf": {"admin/"},
    "pickle": {"legacy.py"},
    "pickletools": {"legacy.py"},
}
LONGEST_MODULE, LONGEST_FUNCTION, LONGEST_LINE = 300, 40, 100
LONGEST_TEST_MODULE = 500
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """Return the room that a file belongs to: the first part of its path within the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imports(path: Path) -> list[str]:
    """Return the full names of all that a file imports, wherever in it."""
    return list(imports_in(path.read_text(), path))


def imports_in(source: str, path: Path) -> Iterator[str]:
    package = ["uwsgi_waffle", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_of(path: Path) -> set[str]:
    """Return the rooms of the package that a file imports, without its own."""
    inside = (name.split(".") for name in imports(path) if name.split(".")[0] == "uwsgi_waffle")
    return {parts[1] if len(parts) > 1 else "__init__" for parts in inside} - {room(path)}


every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


@every_file
def test_imports_go_down_only(path: Path) -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert room(path) in floor, "a new room: give it a floor"
    upwards = {name for name in rooms_of(path) if floor.get(name, len(FLOORS)) >= floor[room(path)]}
    assert upwards == set()


@every_file
def test_the_measures_of_the_house(path: Path) -> None:
    """What is longer is two things."""
    source = path.read_text()
    lines = source.splitlines()
    functions = {
        f"{node.name}, {length} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert functions == set()
    assert [number for number, line in enumerate(lines, 1) if len(line) > LONGEST_LINE] == []
    assert len(lines) <= LONGEST_MODULE


def test_no_test_module_is_longer_than_is_read_at_once() -> None:
    lengths = {
        path.name: len(path.read_text().splitlines())
        for path in Path(__file__).parents[1].rglob("*.py")
    }
    assert {name for name, length in lengths.items() if length > LONGEST_TEST_MODULE} == set()


@pytest.mark.parametrize("neighbour", DOORS)
def test_each_neighbour_has_its_door(neighbour: str) -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.split(".")[0] == neighbour for name in imports(path))
    }
    assert {user for user in users if not user.startswith(tuple(DOORS[neighbour]))} == set()


def test_the_reader_of_imports_sees_them_all() -> None:
    """A test of the test: what it doesn't see it can't refuse."""
    source = (
        "import a.b\nfrom . import c\nfrom ..errors import D\n"
        "def f():\n    from uwsgi_waffle.state import E\n"
    )
    found = list(imports_in(source, PACKAGE / "stores" / "sample.py"))
    assert found == [
        "a.b",
        "uwsgi_waffle.stores.c",
        "uwsgi_waffle.errors.D",
        "uwsgi_waffle.state.E",
    ]


#: What is loaded for one store only, and how a program makes that store.
STORES = {
    "memory": (set[str](), "store = uwsgi_waffle.MemoryStore()"),
    "sqlite": ({"sqlalchemy", "uwsgi_waffle.stores.sql"}, "store = None"),
    "redis": (
        {"redis", "uwsgi_waffle.stores.redis"},
        "store = uwsgi_waffle.RedisStore('unix:///nowhere')",
    ),
    "peewee": (
        {"peewee", "uwsgi_waffle.stores.peewee"},
        """
import peewee
class Row(uwsgi_waffle.WaffleMixin, peewee.Model):
    key = peewee.CharField(unique=True)
    value = peewee.TextField()
    class Meta:
        database = peewee.SqliteDatabase("rows.db")
Row.create_table()
store = uwsgi_waffle.PeeweeWaffleStore(model=Row)
""",
    ),
}
USE = """
app = flask.Flask("site", instance_path=os.getcwd())
app.config["WAFFLE_CONFS"] = {"LIMIT": {"default": 10}}
try:
    uwsgi_waffle.WaffleConf(app, store).update({"LIMIT": 20})
    assert app.config["LIMIT"] == 20
except uwsgi_waffle.StoreUnavailable:
    assert store.shared
"""
#: What neither the import nor a store loads. Redis and peewee load more of their own.
ON_DEMAND = {
    *(f"uwsgi_waffle.{name}" for name in ("admin", "cli", "doctor", "testing")),
    *(f"uwsgi_waffle.wake.{name}" for name in ("postgres", "redis")),
    *("flask_sqlalchemy", "tomllib", "wtforms", "flask_wtf", "gevent"),
    *("prometheus_client", "openfeature", "pytest", "xprocess", "sqlalchemy.dialects.mysql"),
}


def loaded(program: str, folder: Path) -> set[str]:
    """Return the modules that a program has loaded, but those that any program has here."""
    begin = "import sys\nbefore = {*sys.modules}\nimport os, flask, uwsgi_waffle"
    program = f"{begin}\n{program}\nprint(*{{*sys.modules}} - before)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_no_store_and_no_channel(tmp_path: Path) -> None:
    """Neither their libraries nor what few processes need: ctypes and the reader of pickles."""
    found = loaded("", tmp_path)
    of_stores = set[str]().union(*(of_store for of_store, _ in STORES.values()))
    rare = {"ctypes", "pickletools", "psycopg", "pymysql", "playhouse", "uwsgi_waffle.legacy"}
    assert found & (ON_DEMAND | of_stores | rare) == set()


@pytest.mark.parametrize("name", STORES)
def test_a_store_loads_what_it_needs(name: str, tmp_path: Path) -> None:
    """An application with one store has nothing of the others in its memory."""
    own, making = STORES[name]
    found = loaded(making + USE, tmp_path)
    others = set[str]().union(*(of_store for of_store, _ in STORES.values())) - own
    assert own <= found
    assert found & (ON_DEMAND | others) == set()


def test_every_public_name_exists() -> None:
    assert sorted(uwsgi_waffle.__all__) == list(uwsgi_waffle.__all__)
    assert all(hasattr(uwsgi_waffle, name) for name in uwsgi_waffle.__all__)


def test_each_exception_from_a_rule_says_why() -> None:
    """``noqa`` and ``type: ignore`` name the rule, then the reason."""
    root, mark = PACKAGE.parent, re.compile(r"# (noqa|type: ignore)\b")
    reasoned = re.compile(r"# (noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])  # \w")
    bare = [
        f"{path.relative_to(root)}:{number}"
        for folder in ("uwsgi_waffle", "tests", "examples", "docs")
        for path in (root / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if mark.search(line) and not reasoned.search(line)
    ]
    assert bare == []
