"""What a database server does for a client that has vanished, and how readers wait for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peewee
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from uwsgi_waffle import PeeweeWaffleStore, SQLStore, StoreReadOnly, StoreUnavailable
from uwsgi_waffle.stores import Commit, Store, Stored, drivers

from ..host import eventually
from ..sql_servers import PostgreSQL, SQLServer
from .conftest import put, writing
from .models import peewee_model
from .test_models_on_servers import alchemy, of_peewee

MAKERS: dict[str, Callable[[str, Path], Store]] = {
    "SQLStore": lambda url, folder: SQLStore(url, timeout=drivers.TIMEOUT),
    "alchemy": alchemy,
    "peewee": of_peewee,
}


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> SQLServer:
    found: SQLServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture(params=list(MAKERS))
def make(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Store]:
    monkeypatch.setattr(drivers, "TIMEOUT", 1.0)
    maker = MAKERS[request.param]
    return lambda url: maker(url, tmp_path)


@pytest.fixture
def url(server: SQLServer) -> str:
    return server.fresh()


@pytest.fixture
def store(make: Callable[[str], Store], url: str) -> Store:
    """A store that holds revision 1, A = 1, and waits for one second."""
    store = make(url)
    store.prepare()
    put(store, A="1")
    return store


@pytest.mark.slow
def test_the_server_ends_the_transaction_of_a_writer_that_has_vanished(store: Store) -> None:
    """Its row lock would keep all other hosts from writing."""
    with writing(store):
        deadline = time.monotonic() + 60
        while True:
            try:
                assert put(store, A="3") == 2
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline, "the lock is still held"
    assert store.load() == Stored(2, {"A": "3"})


@pytest.mark.slow
def test_a_refused_update_leaves_no_session_behind(
    store: Store, server: SQLServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that wait for a lock would use up the server's connections."""
    engine = sa.create_engine(url, poolclass=NullPool)
    # In a transaction PostgreSQL would count once, and answer the same ever after.
    watching = engine.execution_options(isolation_level="AUTOCOMMIT")
    table = "waffle_meta" if isinstance(store, SQLStore) else "conf"
    count = "SELECT count(*) FROM information_schema.processlist WHERE command <> 'Daemon'"
    if isinstance(server, PostgreSQL):
        count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    with engine.connect() as other, watching.connect() as watcher:
        other.exec_driver_sql(f"SELECT * FROM {table} FOR UPDATE").all()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                put(store, A="2")
        # Those that are about to end may still be listed for a moment.
        eventually(lambda: watcher.exec_driver_sql(count).scalar() == 2)


class TestAfterPendingWrites:
    def test_it_reads_what_load_reads(self, store: Store) -> None:
        assert store.load_after_pending_writes() == store.load() == Stored(1, {"A": "1"})

    def test_it_waits_for_a_commit_that_is_under_way(
        self,
        make: Callable[[str], Store],
        store: Store,
        server: SQLServer,
        url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(drivers, "TIMEOUT", 60.0)  # whatever else this machine does
        patient = make(url)
        with writing(patient) as end, ThreadPoolExecutor(1) as pool:
            assert store.load() == Stored(1, {"A": "1"})
            reader = pool.submit(patient.load_after_pending_writes)
            eventually(lambda: waits_for_a_lock(server, url))
            assert not reader.done()
            end.set()
            assert reader.result() == Stored(2, {"A": "2"})

    def test_it_leaves_nothing_to_clean_up(self, store: Store, server: SQLServer, url: str) -> None:
        if not isinstance(server, PostgreSQL):
            pytest.skip("only PostgreSQL keeps dead rows")
        table = "waffle_meta" if isinstance(store, SQLStore) else "conf"
        where = "" if isinstance(store, SQLStore) else " WHERE key = 'WAFFLE_REVISION'"
        engine = sa.create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            place = f"SELECT ctid::text FROM {table}{where}"
            before = connection.exec_driver_sql(place).scalar()
            connection.rollback()
            for _ in range(3):
                store.load_after_pending_writes()
            assert connection.exec_driver_sql(place).scalar() == before
            connection.rollback()
            store.transact(lambda stored: Commit({}))
            assert connection.exec_driver_sql(place).scalar() != before, "a test of the test"

    def test_a_read_only_server_is_read_only(
        self, make: Callable[[str], Store], store: Store, server: SQLServer, url: str
    ) -> None:
        if not isinstance(server, PostgreSQL) or not isinstance(store, SQLStore):
            pytest.skip("the others can't be told so by their URL")
        replica = make(f"{url}%20-cdefault_transaction_read_only%3Don")
        assert replica.load() == Stored(1, {"A": "1"})
        for call in (replica.load_after_pending_writes, lambda: put(replica, A="2")):
            with pytest.raises(StoreReadOnly, match="refuses to be written"):
                call()


def waits_for_a_lock(server: SQLServer, url: str) -> bool:
    """Return whether a session of the server waits for another's lock."""
    waiting = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    if isinstance(server, PostgreSQL):
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with sa.create_engine(url, poolclass=NullPool).connect() as connection:
        return bool(connection.exec_driver_sql(waiting).scalar())


def test_no_statement_is_prepared(store: Store, server: SQLServer, url: str) -> None:
    """PgBouncer may give the next statement to another session, which doesn't know it."""
    if not isinstance(server, PostgreSQL):
        pytest.skip("PgBouncer is for PostgreSQL")
    found: list[object] = []

    def build_commit(stored: Stored) -> Commit:
        return Commit({f"K{number}": "1" for number in range(20)})

    if isinstance(store, SQLStore):
        engine = store._connect()
        sa.event.listen(engine, "commit", lambda connection: found.extend(prepared(connection)))
        store.transact(build_commit)
        assert found == []
    raw = drivers.connect_limits("psycopg", 1.0)
    assert raw["prepare_threshold"] is None


def prepared(connection: sa.Connection) -> list[Any]:
    return list(connection.exec_driver_sql("SELECT name FROM pg_prepared_statements").all())


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_behind_a_pooler(make: Callable[[str], Store], pooled: str, driver: str) -> None:
    """PgBouncer in transaction mode: each call may get another session, after somebody else's."""
    url = pooled.replace("psycopg", driver)
    engine = sa.create_engine(url, poolclass=NullPool)
    stores = [make(url), make(url)]
    stores[0].prepare()
    for number in range(1, 16):
        with engine.connect() as other:
            other.exec_driver_sql("SELECT 1")  # a transaction that keeps one of the two sessions
            assert put(stores[number % 2], A=str(number)) == number
            for store in stores:
                assert store.load() == store.load_after_pending_writes()
                assert store.load() == Stored(number, {"A": str(number)})
                assert len(store.history(3)) == min(number, 3)


def test_a_black_hole_in_the_network_is_given_up(tmp_path: Path) -> None:
    """A proxy that accepts, and swallows everything: the machine answers, the server doesn't."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        address = {"host": "127.0.0.1", "port": port, "user": "ann", "password": "x"}
        model = peewee_model(tmp_path)
        model._meta.set_database(peewee.MySQLDatabase("site", **address))
        schemes = ("postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql")
        stores: list[Store] = [
            SQLStore(f"{scheme}://ann:x@127.0.0.1:{port}/site") for scheme in schemes
        ]
        stores.append(PeeweeWaffleStore(model=model))
        with ThreadPoolExecutor(len(stores)) as pool:
            waiting = [pool.submit(store.load) for store in stores]
        assert {type(each.exception()) for each in waiting} == {StoreUnavailable}


@pytest.mark.slow
@pytest.mark.parametrize("maker", [SQLStore, alchemy, of_peewee])
def test_an_answer_may_take_longer_than_connecting(
    mariadb_server: SQLServer, tmp_path: Path, maker: Callable[..., Store]
) -> None:
    url = mariadb_server.fresh()
    store = maker(url) if maker is SQLStore else maker(url, tmp_path)
    store.prepare()
    put(store, A="1")
    with writing(store) as end, ThreadPoolExecutor(1) as pool:
        reader = pool.submit(store.load_after_pending_writes)
        threading.Timer(drivers.CONNECT_TIMEOUT + 0.5, end.set).start()
        assert reader.result() == Stored(2, {"A": "2"})
