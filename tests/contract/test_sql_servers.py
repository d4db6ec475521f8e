"""What only a SQL database that is a server can meet: it is silent, it is killed, and it has
settings of its own.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from uwsgi_waffle import InvalidValue, SQLStore, StoreUnavailable
from uwsgi_waffle.stores import Commit, Stored
from uwsgi_waffle.stores.tables import TABLES_VERSION

from ..host import eventually
from ..sql_servers import PostgreSQL, SQLServer
from .conftest import put, writing

SERVERS = ["postgresql_server", "mariadb_server"]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> SQLServer:
    found: SQLServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def url(server: SQLServer) -> str:
    return server.fresh()


@pytest.fixture
def store(url: str) -> SQLStore:
    """A store that holds revision 1, A = 1, and waits for one second."""
    store = SQLStore(url, timeout=1)
    store.prepare()
    put(store, A="1")
    return store


@pytest.fixture
def stop(server: SQLServer) -> Iterator[Any]:
    """Stops the server until the end of the test, or for as long as the test wants."""
    yield lambda: server.send_signal(signal.SIGSTOP)
    server.send_signal(signal.SIGCONT)


@pytest.mark.slow
class TestSilence:
    def test_a_server_that_takes_connections_and_never_answers_is_an_error(
        self, store: SQLStore, server: SQLServer, stop: Any
    ) -> None:
        def told(call: Callable[[], Any]) -> str:
            with pytest.raises(StoreUnavailable) as caught:
                call()
            return str(caught.value)

        calls = [
            store.prepare,
            store.load,
            lambda: put(store, A="2"),
            lambda: store.history(1),
            lambda: store.values_at(1),
        ]
        with ThreadPoolExecutor(len(calls)) as pool:
            stop()
            try:
                assert all(
                    "Servers try again by themselves" in text for text in pool.map(told, calls)
                )
            finally:
                server.send_signal(
                    signal.SIGCONT
                )  # else the pool would wait for ever for a call that hangs
        assert store.load().values["A"] == "1"
        assert put(store, B="2") > 1

    def test_a_server_that_falls_silent_in_the_middle_is_an_error(
        self, store: SQLStore, server: SQLServer, stop: Any
    ) -> None:
        def build_commit(stored: Stored) -> Commit:
            stop()
            return Commit({"A": "2"})

        with pytest.raises(StoreUnavailable, match="Servers try again by themselves"):
            store.transact(build_commit)
        server.send_signal(signal.SIGCONT)
        assert store.load() == Stored(1, {"A": "1"})
        assert put(store, A="3") == 2, "the lock is free again"

    def test_a_writer_that_keeps_the_others_waiting_is_an_error_and_readers_go_on(
        self, store: SQLStore, url: str
    ) -> None:
        with writing(SQLStore(url)):
            with pytest.raises(StoreUnavailable):
                put(store, A="3")
            assert store.load() == Stored(1, {"A": "1"})
        assert store.load() == Stored(2, {"A": "2"})
        assert put(store, B="3") == 3
        assert store.load() == Stored(3, {"A": "2", "B": "3"}), "who gave up has changed nothing"

    @pytest.mark.parametrize("option", ["connect_timeout", "read_timeout", "write_timeout"])
    def test_what_the_url_says_of_time_holds(
        self, monkeypatch: pytest.MonkeyPatch, option: str
    ) -> None:
        def connect(**options: Any) -> NoReturn:
            given.update(options)
            raise pymysql.OperationalError(2003, "no")

        given: dict[str, Any] = {}
        monkeypatch.setattr(pymysql, "connect", connect)
        with pytest.raises(StoreUnavailable):
            SQLStore(f"mysql+pymysql://db.example/site?{option}=60", timeout=1).load()
        limits = {name: value for name, value in given.items() if name.endswith("_timeout")}
        assert limits == {"connect_timeout": 1, "read_timeout": 1, "write_timeout": 1, option: 60}


class TestKilled:
    @pytest.mark.slow
    @pytest.mark.filterwarnings(
        "ignore:unclosed <socket:ResourceWarning"
    )  # PyMySQL forgets its own if nobody listens
    def test_nothing_that_was_acknowledged_is_lost(self, server: SQLServer, url: str) -> None:
        store, writers = SQLStore(url), 4
        store.prepare()
        acknowledged: list[int] = []
        enough = threading.Event()

        def count(stored: Stored) -> Commit:
            return Commit({"N": str(int(stored.values.get("N", "0")) + 1)})

        def write() -> None:
            while True:
                try:
                    acknowledged.append(int(store.transact(count).values["N"]))
                except StoreUnavailable:
                    return
                if len(acknowledged) >= 40:
                    enough.set()

        with ThreadPoolExecutor(writers) as pool:
            running = [pool.submit(write) for _ in range(writers)]
            assert enough.wait(60)
            server.kill()
            for writer in running:
                writer.result()
        with pytest.raises(StoreUnavailable):
            store.load()
        server.start()
        stored = store.load()
        assert len(set(acknowledged)) == len(acknowledged) >= 40
        assert max(acknowledged) <= int(stored.values["N"]) <= max(acknowledged) + writers
        assert [row.revision for row in store.history(10**6)] == list(range(stored.revision, 0, -1))
        assert stored.revision == int(stored.values["N"])
        assert put(store, N="0") == stored.revision + 1
        gc.collect()  # what was forgotten is found here, not by a test that comes later


class TestSettings:
    def test_the_servers_own_isolation_level_does_not_count(
        self, server: SQLServer, url: str
    ) -> None:
        if isinstance(server, PostgreSQL):
            # would refuse whoever has waited for another
            url += "%20-cdefault_transaction_isolation%3Dserializable"
        else:
            # would show what isn't committed
            url += "&init_command=SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"
        store, seen = SQLStore(url), []
        store.prepare()

        def build_commit(stored: Stored) -> Commit:
            seen.append(store.load().revision - stored.revision)
            return Commit({"A": str(stored.revision)})

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: store.transact(build_commit), range(12)))
        assert store.load() == Stored(12, {"A": "11"})
        assert set(seen) == {0}

    def test_many_hosts_may_prepare_at_once(self, url: str) -> None:
        hosts = 6
        together = threading.Barrier(hosts)

        def prepare(store: SQLStore) -> int:
            store._connect()
            together.wait()
            store.prepare()
            return put(store, A="1")

        with ThreadPoolExecutor(hosts) as pool:
            assert sorted(pool.map(prepare, [SQLStore(url) for _ in range(hosts)])) == list(
                range(1, hosts + 1)
            )

    @pytest.mark.parametrize("code", [0, 0xD800, 0xDC80], ids=["NUL", "surrogate", "escaped byte"])
    @pytest.mark.parametrize("place", ["B", "note"])
    def test_what_it_cannot_hold_is_refused_by_its_name(
        self, store: SQLStore, server: SQLServer, code: int, place: str
    ) -> None:
        texts: dict[str, Any] = {"A": "2", place: f"a{chr(code)}b"}
        if code == 0 and not isinstance(server, PostgreSQL):
            assert put(store, **texts) == 2
            return
        with pytest.raises(InvalidValue) as caught:
            put(store, **texts)
        assert place in ", ".join(caught.value.problems)
        assert store.load() == Stored(1, {"A": "1"})
        assert len(store.history(10)) == 1

    def test_what_the_server_says_of_a_row_is_told_without_the_row(
        self, store: SQLStore, server: SQLServer, url: str
    ) -> None:
        column = '"key"' if isinstance(server, PostgreSQL) else "`key`"
        server.execute(
            f"ALTER TABLE waffle_values ADD CONSTRAINT not_you CHECK ({column} <> 'B')", url
        )
        with pytest.raises(StoreUnavailable, match="not_you") as caught:
            put(store, B='"geheim"')
        assert "geheim" not in str(caught.value)
        assert store.load() == Stored(1, {"A": "1"})

    def test_a_key_that_is_too_long_is_refused_by_its_name(self, store: SQLStore) -> None:
        with pytest.raises(InvalidValue) as caught:
            put(store, A="2", **{"k" * 256: "1"})
        assert list(caught.value.problems) == ["k" * 256]
        assert store.load() == Stored(1, {"A": "1"})


def test_a_writer_that_the_server_ends_for_another_begins_again(
    postgresql_server: PostgreSQL,
) -> None:
    """Somebody who edits by hand takes the locks in another order: that is a deadlock."""
    url = postgresql_server.fresh()
    store = SQLStore(url)
    store.prepare()
    put(store, A="1")
    editor = sa.create_engine(url, poolclass=NullPool)
    with ThreadPoolExecutor(1) as pool:
        with editor.begin() as connection:
            connection.exec_driver_sql("UPDATE waffle_values SET value = '2'")
            update = pool.submit(put, store, A="3")
            eventually(
                lambda: connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_locks WHERE NOT granted"
                ).scalar_one()
            )
            # The first to wait is the first to notice, and gives way.
            connection.exec_driver_sql("UPDATE waffle_meta SET revision = revision")
        assert update.result() == 2
    assert store.load() == Stored(2, {"A": "3"})


class TestNewer:
    """Tables of a later version of the package, which have another shape."""

    @pytest.fixture(autouse=True)
    def newer(self, store: SQLStore, server: SQLServer, url: str) -> None:
        server.execute(f"UPDATE waffle_meta SET version = {TABLES_VERSION + 1}", url)
        server.execute("DROP TABLE waffle_history", url)

    def test_they_are_neither_read_nor_written(
        self, store: SQLStore, server: SQLServer, url: str
    ) -> None:
        for call in (
            store.load,
            lambda: put(store, A="2"),
            lambda: store.values_at(1),
            store.prepare,
            lambda: store.history(1),
        ):
            with pytest.raises(StoreUnavailable, match="newer uwsgi_waffle; upgrade this one"):
                call()
        engine = store._connect()
        assert sorted(sa.inspect(engine).get_table_names()) == ["waffle_meta", "waffle_values"], (
            "nothing was made for them"
        )
        server.execute(f"UPDATE waffle_meta SET version = {TABLES_VERSION}", url)
        assert store.load() == Stored(1, {"A": "1"})
