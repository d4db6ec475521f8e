"""Stores over the application's own model, on database servers: what they hold, and a transaction
of its own that is open meanwhile.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peewee
import psycopg
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from playhouse.postgres_ext import PostgresqlExtDatabase
from sqlalchemy.orm import declarative_base
from sqlalchemy.pool import NullPool

from uwsgi_waffle import AlchemyWaffleStore, InvalidValue, PeeweeWaffleStore, StoreUnavailable
from uwsgi_waffle.stores import Commit, Store, Stored, drivers
from uwsgi_waffle.stores import alchemy as stores_alchemy

from ..sql_servers import PostgreSQL, SQLServer
from .conftest import put
from .models import peewee_model


def alchemy(url: str, folder: Path, **options: Any) -> AlchemyWaffleStore:
    app, db = Flask("site", instance_path=str(folder)), SQLAlchemy()
    app.config.update(
        SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS={"poolclass": NullPool, **options}
    )
    db.init_app(app)

    class Conf(db.Model):  # type: ignore[name-defined, misc]  # as Flask-SQLAlchemy's manual says
        __table_args__ = {"mysql_engine": "InnoDB"}  # noqa: RUF012  # as the manual says
        id = db.Column(db.Integer, primary_key=True)
        key = db.Column(db.String(190), unique=True)
        value = db.Column(db.Text)

    with app.app_context():
        db.create_all()
    return AlchemyWaffleStore(db=db, model=Conf).bind(frozenset({"A", "B"}), app.app_context)


def of_peewee(url: str, folder: Path, **options: Any) -> PeeweeWaffleStore:
    parts = sa.make_url(url)
    user, query = parts.username, parts.query
    postgres = parts.get_backend_name() == "postgresql"
    if postgres:
        given = {name: query[name] for name in ("host", "port", "options") if name in query}
        options.update(given, prefer_psycopg3=parts.get_driver_name() == "psycopg")
        database: Any = peewee.PostgresqlDatabase(parts.database, user=user, **options)
    else:
        database = peewee.MySQLDatabase(
            parts.database,
            user=user,
            unix_socket=query["unix_socket"],
            ssl_disabled=True,
            **options,
        )

    class Conf(peewee.Model):
        key = peewee.CharField(190, unique=True)
        value = peewee.TextField()

        class Meta:
            table_name = "conf"
            table_settings = () if postgres else ("ENGINE=InnoDB",)

    Conf._meta.database = database
    with database.connection_context():
        database.create_tables([Conf])
    return PeeweeWaffleStore(model=Conf)


MAKERS = pytest.mark.parametrize("make", [alchemy, of_peewee])


@MAKERS
@pytest.mark.slow
@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_transaction_of_the_applications_own_holds_an_update_off_for_seconds_only(
    request: pytest.FixtureRequest,
    name: str,
    make: Callable[[str, Path], Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On PostgreSQL it would be for ever, and the host's lock with it."""
    monkeypatch.setattr(drivers, "TIMEOUT", 1.0)
    url = request.getfixturevalue(f"{name}_server").fresh()
    store = make(url, tmp_path)
    store.prepare()
    assert put(store, A="1", B='"x"') == 1
    engine = sa.create_engine(url, poolclass=NullPool)
    with engine.connect() as theirs:
        table = sa.table("conf", sa.column("key"), sa.column("value"))
        theirs.execute(table.update().where(table.c.key == "A").values(value="7"))
        with pytest.raises(StoreUnavailable):
            put(store, A="2")
        theirs.rollback()
    assert put(store, A="3") == 2
    assert store.load() == Stored(2, {"A": "3", "B": '"x"'})


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> SQLServer:
    found: SQLServer = request.getfixturevalue(f"{request.param}_server")
    return found


@MAKERS
class TestServers:
    def test_the_servers_own_isolation_level_does_not_count(
        self, server: SQLServer, make: Callable[..., Store], tmp_path: Path
    ) -> None:
        options: dict[str, Any] = {}
        url = server.fresh()
        if isinstance(server, PostgreSQL):
            # would refuse whoever has waited for another
            url += "%20-cdefault_transaction_isolation%3Dserializable"
        else:  # would show what isn't committed
            options = {"init_command": "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"}
        store = make(url, tmp_path, **({"connect_args": options} if make is alchemy else options))
        store.prepare()
        seen: set[int] = set()

        def build_commit(stored: Stored) -> Commit:
            seen.add(store.load().revision - stored.revision)
            return Commit({"A": str(stored.revision)})

        def look() -> None:
            while not all(writer.done() for writer in writers):
                stored = store.load()
                torn.append(stored.revision != int(stored.values.get("A", "-1")) + 1)

        torn: list[bool] = []
        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(store.transact, build_commit) for _ in range(12)]
            pool.submit(look).result()
        assert [writer.exception() for writer in writers] == [None] * 12
        assert store.load() == Stored(12, {"A": "11"})
        assert seen == {0}
        assert not any(torn)

    def test_many_hosts_may_prepare_at_once(
        self, server: SQLServer, make: Callable[..., Store], tmp_path: Path
    ) -> None:
        """Each of them may find the row of the revision missing, and on MySQL they all lock its
        place.
        """
        hosts, url = 6, server.fresh()
        stores = [make(url, tmp_path) for _ in range(hosts)]
        together = threading.Barrier(hosts)

        def prepare(store: Store) -> int:
            together.wait()
            store.prepare()
            return put(store, A="1")

        with ThreadPoolExecutor(hosts) as pool:
            assert sorted(pool.map(prepare, stores)) == list(range(1, hosts + 1))

    def test_what_the_server_says_of_a_row_is_told_without_the_row(
        self, server: SQLServer, make: Callable[..., Store], tmp_path: Path
    ) -> None:
        url = server.fresh()
        store = make(url, tmp_path)
        put(store, A="1")
        column = '"key"' if isinstance(server, PostgreSQL) else "`key`"
        server.execute(f"ALTER TABLE conf ADD CONSTRAINT not_you CHECK ({column} <> 'B')", url)
        with pytest.raises(StoreUnavailable, match="not_you") as caught:
            put(store, B='"geheim"')
        assert "geheim" not in str(caught.value)
        assert store.load() == Stored(1, {"A": "1"})


@MAKERS
def test_what_a_text_column_of_mysqls_takes_is_known_before_it_is_written(
    mariadb_server: SQLServer, make: Callable[..., Store], tmp_path: Path
) -> None:
    """A server that isn't strict would cut it off and say nothing."""
    url = mariadb_server.fresh()
    options: dict[str, Any] = {"init_command": "SET SESSION sql_mode = ''"}
    store = make(url, tmp_path, **({"connect_args": options} if make is alchemy else options))
    longest = f'"{"x" * (2**16 - 3)}"'
    assert put(store, A=longest) == 1
    with pytest.raises(InvalidValue, match=r"A: .*has 65536 characters, the column takes 65535"):
        put(store, B="1", A=longest.replace("x", "xx", 1))
    assert put(store, B="2") == 2
    assert store.load() == Stored(2, {"A": longest, "B": "2"})
    assert [row.key for row in store.history(10)] == ["B"], (
        "the earlier change has no room beside it"
    )


class Encoded(sa.types.TypeDecorator[str]):
    """A type of the application's own over text without a length."""

    impl = sa.String
    cache_ok = True


@pytest.mark.parametrize("column_type", [sa.String, Encoded])
def test_a_model_on_mysql_may_have_text_without_a_length(
    mariadb_server: SQLServer, tmp_path: Path, column_type: Any
) -> None:
    """SQLAlchemy can't make such a table; somebody else has."""
    url = mariadb_server.fresh()
    mariadb_server.execute(
        "CREATE TABLE conf (id INT PRIMARY KEY AUTO_INCREMENT, `key` VARCHAR(190) UNIQUE, "
        "value LONGTEXT) ENGINE=InnoDB",
        url,
    )
    app, db = Flask("site", instance_path=str(tmp_path)), SQLAlchemy()
    app.config.update(SQLALCHEMY_DATABASE_URI=url)
    db.init_app(app)

    class Conf(db.Model):  # type: ignore[name-defined, misc]  # as Flask-SQLAlchemy's manual says
        id = db.Column(db.Integer, primary_key=True)
        key = db.Column(db.String(190), unique=True)
        value = db.Column(column_type)

    store = AlchemyWaffleStore(db=db, model=Conf).bind(frozenset({"A"}), app.app_context)
    store.prepare()
    assert put(store, A="1") == 1
    assert store.load() == Stored(1, {"A": "1"})


class TestSilence:
    """A server that takes connections and never answers."""

    def test_the_limit_that_the_readme_names(self) -> None:
        assert drivers.TIMEOUT == 5.0

    @pytest.fixture
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(drivers, "TIMEOUT", 1.0)

    @pytest.fixture(params=["psycopg", "pymysql"])
    def driver(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def server(self, request: pytest.FixtureRequest, driver: str) -> SQLServer:
        found: SQLServer = request.getfixturevalue(
            "mariadb_server" if driver == "pymysql" else "postgresql_server"
        )
        return found

    @pytest.fixture
    def url(self, server: SQLServer, driver: str) -> str:
        return server.fresh().replace("+psycopg:", f"+{driver}:")

    @MAKERS
    @pytest.mark.slow
    @pytest.mark.timeout(60)
    @pytest.mark.usefixtures("impatient")
    def test_it_is_an_error_wherever_it_falls_silent(
        self, server: SQLServer, url: str, make: Callable[[str, Path], Store], tmp_path: Path
    ) -> None:
        def build_commit(stored: Stored) -> Commit:
            server.send_signal(signal.SIGSTOP)
            return Commit({"A": "2"})

        store, threads = make(url, tmp_path), threading.enumerate()
        store.prepare()
        put(store, A="1")
        with ThreadPoolExecutor(1) as pool:
            for call in (
                lambda: store.transact(build_commit),
                store.load,
                lambda: store.history(1),
            ):
                waiting = pool.submit(call)
                try:
                    assert isinstance(waiting.exception(20), StoreUnavailable)
                finally:
                    if not waiting.done():
                        server.send_signal(
                            signal.SIGCONT
                        )  # else the pool would wait for ever for a call that hangs
            server.send_signal(signal.SIGCONT)
        assert store.load() == Stored(1, {"A": "1"})
        assert put(store, A="3") == 2, "the lock is free again"
        assert threading.enumerate() == threads


@MAKERS
@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_the_time_limits_that_the_application_sets_hold_and_its_own_connections_have_no_others(
    request: pytest.FixtureRequest,
    name: str,
    make: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[dict[str, Any]] = []
    url = request.getfixturevalue(f"{name}_server").fresh()
    module, key = (
        (psycopg, "tcp_user_timeout") if name == "postgresql" else (peewee.mysql, "read_timeout")
    )
    genuine = module.connect
    mine = {"connect_timeout": 77}
    store = make(url, tmp_path, **({"connect_args": mine} if make is alchemy else mine))
    monkeypatch.setattr(
        module,
        "connect",
        lambda *args, **options: told.append(options) or genuine(*args, **options),
    )
    store.load()
    assert [(options["connect_timeout"], key in options) for options in told] == [(77, True)]
    told.clear()
    if make is alchemy:
        with store._app_engine().connect():
            pass
    else:
        with store.model._meta.database.connection_context():
            pass
    assert [(options["connect_timeout"], key in options) for options in told] == [(77, False)]


def test_every_engine_is_limited_also_one_in_the_place_of_a_former(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy knows an engine that is listened to by its `id`, which another may have had."""

    class Conf(declarative_base()):  # type: ignore[misc]  # made at run time
        __tablename__ = "confs"
        key = sa.Column(sa.String(190), primary_key=True)
        value = sa.Column(sa.Text)

    made: list[sa.Dialect] = []
    monkeypatch.setattr(
        stores_alchemy, "_connect_with_limits", lambda dialect, *_: made.append(dialect)
    )
    dialects = []
    for _ in range(100):
        engine = sa.create_engine(f"sqlite:///{tmp_path}/waffle.db")
        store = AlchemyWaffleStore(SimpleNamespace(engines={None: engine}), Conf)
        for _ in range(2):
            store._own_engine()
            store._engine = None  # as after a fork
        with engine.connect():
            pass
        engine.dispose()
        dialects.append(engine.dialect)  # as somebody's connection keeps it
        del engine, store
    assert made == dialects, "each once"


@pytest.mark.parametrize("make", [alchemy, of_peewee])
def test_a_table_is_found_wherever_the_search_path_finds_it(
    postgresql_server: SQLServer, make: Callable[..., Any], tmp_path: Path
) -> None:
    """Even if it isn't in the first schema: after an update the values must not be lost."""
    first, second = postgresql_server.fresh(), postgresql_server.fresh()
    make(second, tmp_path)
    place = first + "%2C" + second.rpartition("%3D")[2]
    store = make(place, tmp_path)
    if make is of_peewee:  # it has made one more
        postgresql_server.execute("DROP TABLE IF EXISTS conf", first)
    store.prepare()
    assert put(store, A="1") == 1
    assert store.load() == Stored(1, {"A": "1"})
    assert [row.key for row in store.history(9)] == ["A"]


def test_peewees_database_with_cursors_of_the_server_works(
    postgresql_server: SQLServer, tmp_path: Path
) -> None:
    url = sa.make_url(postgresql_server.fresh())
    model = peewee_model(tmp_path, create=False)
    model._meta.set_database(
        PostgresqlExtDatabase(
            url.database, user=url.username, server_side_cursors=True, **dict(url.query)
        )
    )
    with model._meta.database.connection_context():
        model.create_table()
    store = PeeweeWaffleStore(model=model)
    store.prepare()
    assert put(store, A="1") == 1
    assert store.load_after_pending_writes().values == {"A": "1"}
