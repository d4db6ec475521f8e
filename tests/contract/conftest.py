"""Every store once; a further one is one more entry of ``STORES``."""

from __future__ import annotations

import gc
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle.stores import Commit, MemoryStore, RedisStore, SQLStore, Store, Stored

from ..host import eventually, listeners
from ..sql_servers import PATH, PostgreSQL
from .models import alchemy_store, peewee_store

OpenStore = Callable[[], Store]
MakeStore = Callable[..., Any]


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'waffle.db'}"


RULE = re.compile(
    r"tests/contract/test_(?:store\.py::Test(?P<group>\w+)|(?P<model>model)\.py)::\w+\[(?P<store>\w+)"
)

#: By name: how to open a store in a folder; each call gives one more object on the same data, if
#: the store is shared.
STORES: dict[str, Callable[[pytest.FixtureRequest, Path], OpenStore]] = {
    "memory": lambda request, folder: MemoryStore,
    "sqlite": lambda request, folder: partial(SQLStore, sqlite_url(folder)),
    "alchemy": lambda request, folder: partial(alchemy_store, folder),
    "peewee": lambda request, folder: partial(peewee_store, folder),
    "postgresql": lambda request, folder: partial(
        SQLStore, request.getfixturevalue("postgresql_server").fresh()
    ),
    "mariadb": lambda request, folder: partial(
        SQLStore, request.getfixturevalue("mariadb_server").fresh()
    ),
    "redis": lambda request, folder: partial(
        RedisStore, request.getfixturevalue("redis_server").url
    ),
}


@pytest.fixture(params=list(STORES))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    return STORES[request.param](request, tmp_path)


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """A store that is ready and empty."""
    store = open_store()
    store.prepare()
    return store


@pytest.fixture(params=["redis", "postgres"])
def meeting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where hosts meet: a `channels.Meeting`. Listeners notice soon that they are to end."""
    from .channels import OverPostgreSQL, OverRedis

    monkeypatch.setattr("uwsgi_waffle.wake.channel.CHECK_INTERVAL", 0.02)
    gc.collect()  # forgotten applications of tests before are ticked, and may listen
    if request.param == "redis":
        yield OverRedis(request.getfixturevalue("redis_server"))
        return
    opened = OverPostgreSQL(request.getfixturevalue("postgresql_server"))
    try:
        eventually(lambda: listeners(opened.channel) == 0)  # a session ends after its client
        yield opened
    finally:
        opened.end()


@pytest.fixture
def sqlite(tmp_path: Path) -> SQLStore:
    """A SQLite store that holds revision 1, A = 1."""
    store = SQLStore(sqlite_url(tmp_path))
    store.prepare()
    put(store, A="1")
    return store


@pytest.fixture
def sqlite_file(sqlite: SQLStore, tmp_path: Path) -> Path:
    """The database of `sqlite`, checkpointed and closed: all of it is in this one file."""
    return tmp_path / "waffle.db"


def put(
    store: Store, *, actor: str | None = None, note: str | None = None, **changes: str | None
) -> int:
    """Commit ``changes`` and return the revision that they made."""
    return store.transact(lambda stored: Commit(changes, actor, note)).revision


@contextmanager
def writing(store: Store) -> Iterator[threading.Event]:
    """Keep a transaction open, with its lock, until the event is set or the block ends."""
    begun, end = threading.Event(), threading.Event()

    def build_commit(stored: Stored) -> Commit:
        begun.set()
        end.wait(60)
        return Commit({"A": "2"})

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(store.transact, build_commit)
        try:
            assert begun.wait(60)
            yield end
        finally:
            end.set()
            writer.exception()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print which store keeps which group of rules: how many were tried, and how many hold."""
    tried: dict[tuple[str, str], list[bool]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            match = RULE.search(report.nodeid)
            if match and report.when == "call" and match["store"] in STORES:
                tried.setdefault((match["group"] or match["model"], match["store"]), []).append(
                    outcome == "passed"
                )
    if not tried:
        return
    terminalreporter.section("stores and the rules that they keep, of those that were tried")
    groups = sorted({group for group, _ in tried})
    terminalreporter.write_line(f"{'':<14}" + "".join(f"{store:>12}" for store in STORES))
    for group in groups:
        counts = [tried.get((group, store), []) for store in STORES]
        terminalreporter.write_line(
            f"{group:<14}"
            + "".join(f"{f'{sum(held)}/{len(held)}' if held else '-':>12}" for held in counts)
        )


@pytest.fixture(params=[alchemy_store, peewee_store], ids=["alchemy", "peewee"])
def make(request: pytest.FixtureRequest) -> MakeStore:
    return request.param  # type: ignore[no-any-return]  # what it is, the line above says


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[Callable[..., list[Any]]]:
    """Do something to the table behind the store's back."""
    connection = sqlite3.connect(tmp_path / "site.db", timeout=0, isolation_level=None)
    yield lambda statement, *parameters: connection.execute(statement, parameters).fetchall()
    connection.close()


@pytest.fixture
def pooled(request: pytest.FixtureRequest, postgresql_server: PostgreSQL) -> Iterator[str]:
    """The URL of a PgBouncer, which leads to a schema without tables.

    It is in transaction mode, if the test doesn't ask for another one.
    """
    binary = shutil.which("pgbouncer", path=PATH)
    if binary is None:
        pytest.skip("there is no pgbouncer: apt-get install pgbouncer")
    folder = postgresql_server.folder / "pooler"
    folder.mkdir()
    schema = postgresql_server.fresh().rpartition("%3D")[2]
    (folder / "ini").write_text(
        f"[databases]\npostgres = host={postgresql_server.folder} user=postgres"
        f" connect_query='SET search_path = {schema}'\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 6432\nauth_type = any\n"
        f"pool_mode = {getattr(request, 'param', 'transaction')}\ndefault_pool_size = 2\n"
    )
    folder.chmod(0o777)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, str(folder / "ini")], stdout=log, stderr=log, **postgresql_server.options
        )

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(folder / ".s.PGSQL.6432")) == 0

    try:
        eventually(listens)
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}&port=6432"
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)
