"""A host that vanishes in the middle of an update keeps the others waiting for seconds only.

The host is a network namespace; its link goes down while a process in it holds the store's lock.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from uwsgi_waffle import SQLStore, StoreUnavailable
from uwsgi_waffle.stores import Commit

from ..host import eventually
from ..ports import free_ports
from ..sql_servers import MariaDB, PostgreSQL

HOLDER = """
import sys
from uwsgi_waffle.stores import Commit, SQLStore

def hold(stored):
    print("holding", flush=True)
    sys.stdin.readline()
    return Commit({"A": '"of the host that vanished"'})

try:
    SQLStore(sys.argv[1], timeout=2).transact(hold)
    print("committed", flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
"""
PATIENCE = 60  # seconds, for a busy machine


def why_not() -> str:
    """Return why no network namespace can be made here, ``""`` if it can."""
    if os.geteuid() != 0:
        return "only root can make a network namespace"
    if not shutil.which("ip"):
        return "there is no ip: apt-get install iproute2"
    name = f"waffle-try-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return done.stderr.strip()


pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


class Link:
    """A network namespace, and the link to it.

    Attributes:
        namespace: its name.
        address: ours, as seen from there.
    """

    def __init__(self, stack: ExitStack) -> None:
        number = os.getpid() % 2**14
        network = f"10.{192 + number // 2**8}.{number % 2**8}"
        self.namespace, self.address = f"waffle-{os.getpid()}", f"{network}.1"
        self._device = f"wf{number}"
        run("ip", "netns", "add", self.namespace)
        stack.callback(run, "ip", "netns", "delete", self.namespace)
        inside = ("ip", "-n", self.namespace)
        peer = ("peer", "name", "wf0", "netns", self.namespace)
        run("ip", "link", "add", self._device, "type", "veth", *peer)
        run("ip", "address", "add", f"{network}.1/30", "dev", self._device)
        run(*inside, "address", "add", f"{network}.2/30", "dev", "wf0")
        run("ip", "link", "set", self._device, "up")
        run(*inside, "link", "set", "wf0", "up")

    def cut(self) -> None:
        """Let the host vanish: neither side gets another packet."""
        run("ip", "-n", self.namespace, "link", "set", "wf0", "down")


@pytest.fixture
def link() -> Iterator[Link]:
    with ExitStack() as stack:
        yield Link(stack)


class PostgreSQLOnNetwork(PostgreSQL):
    """PostgreSQL that takes connections from everywhere."""

    sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        super().__init__(folder)

    def command(self) -> list[str]:
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all trust\n")
        return [*super().command()[:-1], "*", "-c", f"port={self.port}"]

    @property
    def socket(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    @property
    def url(self) -> str:
        return f"{super().url}&port={self.port}"

    def remote(self, url: str, address: str) -> str:
        """Return the URL of the same place for another host."""
        return url.replace(f"host={self.folder}", f"host={address}")


class MariaDBOnNetwork(MariaDB):
    """MariaDB that takes connections from everywhere."""

    sessions = "SELECT count(*) FROM information_schema.processlist WHERE command <> 'Daemon'"

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        super().__init__(folder)

    def command(self) -> list[str]:
        words = [word for word in super().command() if word != "--skip-networking"]
        return [*words, "--bind-address=0.0.0.0", f"--port={self.port}"]

    def remote(self, url: str, address: str) -> str:
        """Return the URL of the same place for another host."""
        self.execute("CREATE USER host")
        self.execute("GRANT ALL ON *.* TO host")
        place = url.partition("localhost/")[2].partition("?")[0]
        return f"mysql+pymysql://host@{address}:{self.port}/{place}"


Server = PostgreSQLOnNetwork | MariaDBOnNetwork


@pytest.fixture(params=[PostgreSQLOnNetwork, MariaDBOnNetwork], ids=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    missing = MariaDB.missing() if request.param is MariaDBOnNetwork else None
    if missing or importlib.util.find_spec("pgserver") is None:
        pytest.skip(missing or "pgserver, which brings PostgreSQL, has no wheel for this Python")
    with tempfile.TemporaryDirectory(prefix="waffle-") as folder:  # pytest's is root's alone
        server: Server = request.param(Path(folder))
        yield server
        server.kill()


def sessions(server: Server) -> int:
    """Return how many sessions there are beside the one that asks."""
    engine = sa.create_engine(server.url, poolclass=NullPool)
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(server.sessions).scalar_one()) - 1


def test_a_host_that_vanishes_in_an_update(server: Server, link: Link) -> None:
    """The server ends its transaction; others write again, and no session is left behind."""
    url = server.fresh()
    store = SQLStore(url, timeout=2)
    store.prepare()
    store.transact(lambda stored: Commit({"A": "1"}))
    remote = server.remote(url, link.address)
    command = ["ip", "netns", "exec", link.namespace, sys.executable, "-c", HOLDER, remote]
    host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert host.stdout is not None
        assert host.stdin is not None
        assert host.stdout.readline() == "holding\n"
        link.cut()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                store.transact(lambda stored: Commit({"A": "2"}))
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline, "the lock is still held"
                eventually(lambda: sessions(server) <= 2)  # refused updates don't pile up
        assert store.load().values == {"A": "2"}
        eventually(lambda: not sessions(server))
        host.stdin.write("\n")
        host.stdin.flush()
        assert host.stdout.readline() == "StoreUnavailable\n"
        assert store.load().revision == 2
    finally:
        host.kill()
        host.communicate()
