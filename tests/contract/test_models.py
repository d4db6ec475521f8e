"""What the stores over an application's own model promise beyond the contract: they leave the
application's sessions and rows alone.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peewee
import psutil
import pytest
import sqlalchemy as sa
from flask import Flask
from playhouse.sqliteq import SqliteQueueDatabase
from sqlalchemy.orm import synonym
from sqlalchemy.orm.attributes import instance_state

from uwsgi_waffle import (
    AlchemyWaffleStore,
    InvalidValue,
    PeeweeWaffleStore,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    UnknownRevision,
    WaffleConf,
    WaffleMixin,
    WaffleStore,
    server,
)
from uwsgi_waffle.stores import Commit, Store, Stored
from uwsgi_waffle.stores.rows import HISTORY_ROWS, in_memory

from .conftest import put
from .models import OwnStore, Record, alchemy_app, alchemy_store, peewee_model, peewee_store

MakeStore = Callable[..., Any]


@pytest.fixture(params=[alchemy_store, peewee_store], ids=["alchemy", "peewee"])
def make(request: pytest.FixtureRequest) -> MakeStore:
    return request.param  # type: ignore[no-any-return]  # what it is, the line above says


@pytest.fixture
def store(make: MakeStore, tmp_path: Path) -> Store:
    store: Store = make(tmp_path)
    store.prepare()
    return store


@pytest.fixture
def sql(tmp_path: Path) -> Iterator[Callable[..., list[Any]]]:
    """Do something to the table behind the store's back."""
    connection = sqlite3.connect(tmp_path / "site.db", timeout=0, isolation_level=None)
    yield lambda statement, *parameters: connection.execute(statement, parameters).fetchall()
    connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """An application with Flask-SQLAlchemy, in its context, and a store over its model at revision
    1, A = 1.
    """
    site = alchemy_app(tmp_path, SQLALCHEMY_ENGINE_OPTIONS={"connect_args": {"timeout": 0.05}})
    with site.app.app_context():
        site.store = AlchemyWaffleStore(db=site.db, model=site.model)
        site.store.prepare()
        put(site.store, A="1")
        yield site
        site.db.session.remove()
        site.db.engine.dispose()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Any]:
    """A peewee model with an open connection, and a store over it at revision 1, A = 1."""
    model = peewee_model(tmp_path)
    model._meta.database._timeout = 0.05
    put(PeeweeWaffleStore(model=model), A="1")
    with model._meta.database.connection_context():
        yield model


def use(store: Store) -> None:
    """Call all that a store has, with and without success."""
    store.prepare()
    put(store, A="2", B="2")
    with pytest.raises(ZeroDivisionError):
        store.transact(lambda stored: Commit({"A": str(1 // 0)}))
    store.transact(lambda stored: None)
    store.load()
    store.history(10)
    store.values_at(1)


class TestTable:
    def test_the_revision_the_names_and_the_history_are_rows_like_the_values(
        self, store: Store, sql: Any
    ) -> None:
        put(store, A="1")
        assert sql("SELECT key FROM confs ORDER BY id") == [
            ("WAFFLE_REVISION",),
            ("WAFFLE_NAMES",),
            ("A",),
            ("WAFFLE_HISTORY",),
        ]
        assert sql("SELECT value FROM confs WHERE key = 'WAFFLE_REVISION'") == [("1",)]

    def test_it_is_not_changed(self, make: MakeStore, tmp_path: Path, sql: Any) -> None:
        store = make(tmp_path)
        before = sql("SELECT * FROM sqlite_master")
        use(store)
        assert sql("SELECT * FROM sqlite_master") == before

    def test_rows_that_are_there_already_are_values_of_revision_0(
        self, store: Store, sql: Any
    ) -> None:
        sql("INSERT INTO confs (key, value) VALUES ('A', '7')")
        assert store.load() == Stored(0, {"A": "7"})
        put(store, A="8", B="1")
        assert store.values_at(0) == {"A": "7"}

    def test_rows_that_no_variable_is_declared_for_may_be_anything_and_stay(
        self, store: Store, sql: Any
    ) -> None:
        sql(
            "INSERT INTO confs (key, value) VALUES ('THEIRS', 'no JSON'), ('A', 'neither'), "
            "('EMPTY', '')"
        )
        # both have it
        bound = store.bind(frozenset({"A"}), store._context)  # type: ignore[attr-defined]
        assert bound.load().values == {"A": "neither"}
        assert bound.rows() == {"THEIRS": "no JSON", "A": "neither", "EMPTY": ""}
        put(bound, A="1")
        assert sql("SELECT value FROM confs WHERE key IN ('THEIRS', 'EMPTY') ORDER BY id") == [
            ("no JSON",),
            ("",),
        ]

    def test_rows_of_the_applications_own_are_no_values_even_if_they_are_json(
        self, store: Store, sql: Any
    ) -> None:
        # both have it
        bound = store.bind(frozenset({"A"}), store._context)  # type: ignore[attr-defined]
        sql("INSERT INTO confs (key, value) VALUES ('COUNTER', '1')")
        put(bound, A="1")
        sql("UPDATE confs SET value = '2' WHERE key = 'COUNTER'")
        assert bound.load() == Stored(1, {"A": "1"})
        assert (bound.values_at(0), bound.values_at(1)) == ({}, {"A": "1"})
        assert put(bound, COUNTER=None) == 2, "not to be removed by who doesn't see it"
        assert sql("SELECT value FROM confs WHERE key = 'COUNTER'") == [("2",)]

    def test_what_another_version_of_the_application_has_written_counts(self, store: Store) -> None:
        # as `bind` has got it
        old, new = (store.bind(frozenset(names), store._context) for names in ({"A"}, {"A", "NEW"}))  # type: ignore[attr-defined]
        put(new, NEW="1")
        put(old, A="1")
        assert old.load() == new.load() == Stored(2, {"A": "1", "NEW": "1"})
        assert old.values_at(1) == {"NEW": "1"}
        put(new, NEW=None)
        put(new, NEW="2")
        assert old.load().values == {"A": "1", "NEW": "2"}

    def test_the_names_take_as_many_rows_as_they_need(
        self, make: MakeStore, tmp_path: Path, sql: Any
    ) -> None:
        store = make(tmp_path, length=60)
        for number in range(30):
            put(store, **{f"VARIABLE_{number}": str(number)})
        names = {
            name
            for (text,) in sql("SELECT value FROM confs WHERE key LIKE 'WAFFLE_NAMES%'")
            for name in text.split()
        }
        assert names == {f"VARIABLE_{number}" for number in range(30)}
        assert sql("SELECT max(length(value)) FROM confs")[0][0] <= 60
        assert len(store.bind(frozenset(), store._context).load().values) == 30

    def test_a_commit_without_the_row_of_the_revision_makes_it(
        self, make: MakeStore, tmp_path: Path
    ) -> None:
        assert put(make(tmp_path), A="1") == 1

    @pytest.mark.parametrize("text", ["new", "-1", "1.5", "²", "9" * 20])
    def test_a_revision_that_is_none_is_told(self, store: Store, sql: Any, text: str) -> None:
        sql("UPDATE confs SET value = ? WHERE key = 'WAFFLE_REVISION'", text)
        for call in (
            store.load,
            lambda: put(store, A="1"),
            lambda: store.history(1),
            lambda: store.values_at(0),
        ):
            with pytest.raises(StoreUnavailable, match=f"WAFFLE_REVISION holds '{text}'"):
                call()

    def test_a_row_without_a_key_is_none_of_ours(self, store: Store, sql: Any) -> None:
        sql("INSERT INTO confs (key, value) VALUES (NULL, 'x')")
        use(store)
        assert None not in store.rows()

    def test_the_names_are_written_only_when_there_are_new_ones(
        self, store: Store, sql: Any
    ) -> None:
        put(store, A="1")
        sql(
            "CREATE TRIGGER no BEFORE UPDATE ON confs WHEN NEW.key = 'WAFFLE_NAMES' BEGIN "
            "SELECT RAISE(ABORT, 'again'); END"
        )
        assert put(store, A="2") == 2

    @pytest.mark.parametrize(
        "text",
        ["", "{}", "[]", "1", '{"since":0,"rows":[{}]}', '{"since":0,"rows":[1]}', "[" * 100_000],
    )
    def test_a_history_that_is_none_is_a_new_one(self, store: Store, sql: Any, text: str) -> None:
        put(store, A="1")
        put(store, A="2")
        sql("UPDATE confs SET value = ? WHERE key = 'WAFFLE_HISTORY'", text)
        assert store.history(10) == []
        assert put(store, A="3") == 3
        assert [row.revision for row in store.history(10)] == [3]
        assert store.values_at(2) == {"A": "2"}
        with pytest.raises(UnknownRevision, match="lead back to revision 2"):
            store.values_at(1)

    def test_a_history_that_leads_beyond_the_revision_is_none(self, store: Store, sql: Any) -> None:
        for number in range(3):
            put(store, A=str(number))
        sql("UPDATE confs SET value = '1' WHERE key = 'WAFFLE_REVISION'")
        assert store.history(10) == []
        assert store.values_at(1) == {"A": "2"}

    def test_a_table_that_is_yet_to_be_made_is_an_empty_store_until_then(
        self, make: MakeStore, tmp_path: Path, sql: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A command that makes the tables has to load the application first."""
        store = make(tmp_path)
        (made,) = sql("SELECT sql FROM sqlite_master WHERE name = 'confs'")
        sql("DROP TABLE confs")
        with pytest.raises(StoreUnavailable, match="no such table"):
            store.load()
        store.prepare()
        assert "there is no such table yet" in caplog.text
        assert store.load() == Stored(0, {})
        assert store.history(10) == []
        with pytest.raises(StoreUnavailable, match=r"no such table: confs.*has the table"):
            put(store, A="1")
        sql(made[0])
        assert put(store, A="1") == 1
        assert store.load() == Stored(1, {"A": "1"})
        sql("DROP TABLE confs")
        with pytest.raises(StoreUnavailable, match="no such table"):
            store.load()


class TestVersions:
    """Applications on one host that share a table, and each other's snapshots."""

    @pytest.fixture
    def start(
        self, make: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., WaffleConf]:
        monkeypatch.setattr(server.thread, "ensure_running", lambda member: None)

        def start(**defaults: int) -> WaffleConf:
            site = alchemy_app(
                tmp_path,
                WAFFLE_CONFS={name: {"default": default} for name, default in defaults.items()},
            )
            store = (
                AlchemyWaffleStore(db=site.db, model=site.model)
                if make is alchemy_store
                else make(tmp_path)
            )
            return WaffleConf(site.app, store)

        return start

    def test_a_counter_of_the_applications_own_makes_no_revision(
        self, start: Callable[..., WaffleConf], sql: Any
    ) -> None:
        waffle = start(A=0)
        waffle.update({"A": 1})
        sql("INSERT INTO confs (key, value) VALUES ('COUNTER', '0')")
        for number in range(3):
            sql("UPDATE confs SET value = ? WHERE key = 'COUNTER'", str(number))
            assert waffle.refresh() == 1
        assert [entry.key for entry in waffle.history()] == ["A"]

    def test_a_variable_that_only_the_newer_one_declares_keeps_its_value_while_both_run(
        self, start: Callable[..., WaffleConf], sql: Any
    ) -> None:
        old, new = start(A=0), start(A=0, B=0, C=0)
        new.update({"B": 1})
        sql("INSERT INTO confs (key, value) VALUES ('C', '1')")
        assert new.refresh() == 2, "an edit from outside"
        old.update({"A": 1})
        assert old.refresh() == new.refresh() == old.refresh() == 3
        assert new.values.model_dump() == {"A": 1, "B": 1, "C": 1}
        assert [entry.actor for entry in new.history()] == [None, "outside", None]

    def test_a_row_that_was_the_applications_own_before_it_was_declared_is_its_value_then(
        self, start: Callable[..., WaffleConf], sql: Any
    ) -> None:
        old = start(A=0)
        sql("INSERT INTO confs (key, value) VALUES ('B', '7')")
        old.update({"A": 1})
        new = start(A=0, B=0)
        assert (new.values.B, new.revision) == (7, 2)
        assert [old.refresh(), new.refresh(), old.refresh()] == [2, 2, 2]


class TestHistory:
    def test_it_keeps_the_newest_changes_and_says_when_it_is_asked_for_more(
        self, store: Store
    ) -> None:
        for number in range(1, HISTORY_ROWS + 4):
            put(store, A=str(number))
        assert [row.new for row in store.history(1000)] == [
            str(number) for number in range(HISTORY_ROWS + 3, 3, -1)
        ]
        assert store.values_at(3) == {"A": "3"}
        with pytest.raises(
            UnknownRevision, match=f"newest {HISTORY_ROWS} changes.*lead back to revision 3"
        ):
            store.values_at(2)

    def test_a_commit_that_is_longer_than_the_history_is_carried_out(self, store: Store) -> None:
        put(store, A="1")
        put(store, **{f"K{number}": "1" for number in range(HISTORY_ROWS + 1)})
        assert len(store.load().values) == HISTORY_ROWS + 2
        assert len(store.history(1000)) == HISTORY_ROWS
        with pytest.raises(UnknownRevision):
            store.values_at(1)
        assert store.values_at(2) == store.load().values

    def test_it_keeps_what_its_column_takes(
        self, make: MakeStore, tmp_path: Path, sql: Any
    ) -> None:
        store = make(tmp_path, length=600)
        for number in range(20):
            put(store, A=str(number), note="n" * 40)
        kept = store.history(100)
        assert 2 < len(kept) < 6
        assert kept[0].new == "19"
        assert sql("SELECT max(length(value)) FROM confs")[0][0] <= 600


@pytest.mark.parametrize("length", [20, 200])
def test_a_value_that_is_too_long_for_the_column_is_invalid_and_changes_nothing(
    make: MakeStore, tmp_path: Path, length: int
) -> None:
    store = make(tmp_path, length=length)
    with pytest.raises(
        InvalidValue, match=f"B: .*has {length + 1} characters, the column takes {length}"
    ):
        put(store, A="1", B="1" * (length + 1))
    with pytest.raises(InvalidValue, match="the name: it has 256 characters"):
        put(store, **{"K" * 256: "1"})
    assert store.load() == Stored(0, {})
    assert put(store, B="1" * length) == 1


def test_what_the_table_refuses_is_told_without_the_values(
    make: MakeStore, tmp_path: Path, sql: Any
) -> None:
    store = make(tmp_path)
    sql(
        "CREATE TRIGGER no BEFORE INSERT ON confs WHEN NEW.key = 'B' BEGIN SELECT RAISE(ABORT, "
        "'not you'); END"
    )
    with pytest.raises(StoreUnavailable, match="refuses the row: not you") as caught:
        put(store, A="1", B="".join(('"ge', 'heim"')))
    assert "geheim" not in "".join(traceback.format_exception(caught.value))
    assert store.load() == Stored(0, {})


class TestConnections:
    def test_none_is_open_between_calls_so_none_crosses_a_fork(
        self, make: MakeStore, tmp_path: Path
    ) -> None:
        store = make(tmp_path)
        before = opened(tmp_path)
        use(store)
        assert opened(tmp_path) == before

    def test_a_forked_process_makes_an_engine_of_its_own(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = alchemy_store(tmp_path)
        parents = store._connect()
        assert store._connect() is parents
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert store._connect() is not parents

    def test_nor_with_a_pool_of_peewees(self, tmp_path: Path) -> None:
        store = PeeweeWaffleStore(model=peewee_model(tmp_path, pooled=True))
        store.model._meta.database.close_all()
        use(store)
        assert opened(tmp_path) == 0
        assert store.model._meta.database._in_use == {}

    def test_a_read_only_database_is_told(self, make: MakeStore, tmp_path: Path) -> None:
        make(tmp_path)
        if make is alchemy_store:
            store = make(
                tmp_path,
                SQLALCHEMY_DATABASE_URI=f"sqlite:///file:{tmp_path}/site.db?mode=ro&uri=true",
            )
        else:
            store = make(tmp_path)
            store.model._meta.database._pragmas = [("query_only", 1)]
        with pytest.raises(StoreReadOnly, match="refuses to be written"):
            put(store, A="1")


def opened(folder: Path) -> int:
    return sum(file.path.startswith(str(folder)) for file in psutil.Process().open_files())


class TestSessionOfAlchemys:
    def test_what_is_pending_stays_pending_and_nothing_is_expired(
        self, site: SimpleNamespace, sql: Any
    ) -> None:
        session = site.db.session
        loaded = session.scalars(sa.select(site.model).where(site.model.key == "A")).one()
        added = site.model(key="MINE", value="1")
        session.add(added)
        told: list[str] = []
        for name in ("before_commit", "after_rollback", "before_flush"):
            sa.event.listen(session.registry(), name, lambda *_, name=name: told.append(name))
        use(site.store)
        assert told == []
        assert list(session.new) == [added]
        assert instance_state(loaded).expired_attributes == set()
        assert loaded.value == "1", "what it had read it still has"
        assert sql("SELECT * FROM confs WHERE key = 'MINE'") == []
        session.rollback()

    def test_what_it_has_written_and_not_committed_stays_so_and_holds_an_update_off(
        self, site: SimpleNamespace, sql: Any
    ) -> None:
        site.db.session.add(site.model(key="MINE", value="1"))
        site.db.session.flush()
        assert site.store.load() == Stored(1, {"A": "1"})
        with pytest.raises(StoreUnavailable, match="locked"):
            put(site.store, A="2")
        assert sql("SELECT * FROM confs WHERE key = 'MINE'") == []
        site.db.session.commit()
        assert sql("SELECT value FROM confs WHERE key = 'MINE'") == [("1",)]
        assert put(site.store, A="2") == 2

    def test_its_connections_are_not_ours(self, site: SimpleNamespace) -> None:
        pool = site.db.engine.pool
        checkouts: list[object] = []
        sa.event.listen(pool, "checkin", lambda *_: checkouts.append(_))
        use(site.store)
        assert checkouts == []

    @pytest.mark.parametrize(
        "options",
        [{"isolation_level": "AUTOCOMMIT"}, {"poolclass": sa.StaticPool}, {"pool_size": 1}],
    )
    def test_an_update_is_one_transaction_whatever_the_engine_is_set_to(
        self, tmp_path: Path, options: dict[str, Any], sql: Any
    ) -> None:
        store = alchemy_store(tmp_path, SQLALCHEMY_ENGINE_OPTIONS=options)
        sql(
            "CREATE TRIGGER no BEFORE INSERT ON confs WHEN NEW.key = 'B' BEGIN SELECT "
            "RAISE(ABORT, 'not you'); END"
        )
        with pytest.raises(StoreUnavailable, match="not you"):
            put(store, A="1", B="1")
        assert store.load() == Stored(0, {})

    def test_an_engine_that_begins_by_an_event_is_still_one_transaction(
        self, site: SimpleNamespace, sql: Any
    ) -> None:
        """The recipe that SQLAlchemy gives for savepoints on SQLite."""
        sa.event.listen(
            site.db.engine, "connect", lambda raw, record: setattr(raw, "isolation_level", None)
        )
        sa.event.listen(
            site.db.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN")
        )
        store = AlchemyWaffleStore(db=site.db, model=site.model)
        sql(
            "CREATE TRIGGER no BEFORE INSERT ON confs WHEN NEW.key = 'B' BEGIN SELECT "
            "RAISE(ABORT, 'not you'); END"
        )
        with pytest.raises(StoreUnavailable, match="not you"):
            put(store, A="2", B="2")
        assert store.load() == Stored(1, {"A": "1"})

    def test_a_model_of_another_bind_is_found_there(self, tmp_path: Path) -> None:
        site = alchemy_app(
            tmp_path, SQLALCHEMY_BINDS={"other": f"sqlite:///{tmp_path / 'other.db'}"}
        )

        class Conf(site.db.Model):  # type: ignore[name-defined, misc]  # made at run time
            __bind_key__ = "other"
            key = site.db.Column("conf_key", site.db.String(99), primary_key=True)
            value = site.db.Column("conf_value", site.db.Text)

        with site.app.app_context():
            site.db.create_all()
            store = AlchemyWaffleStore(db=site.db, model=Conf)
            put(store, A="1")
            assert store.load() == Stored(1, {"A": "1"})
            assert store.name.endswith("/other.db (conf)")

    def test_one_store_for_two_applications_is_the_table_of_each(self, tmp_path: Path) -> None:
        site = alchemy_app(tmp_path)
        second = Flask("second", instance_path=str(tmp_path / "second"))
        second.config.update(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'second.db'}")
        site.db.init_app(second)
        with second.app_context():
            site.db.create_all()
            site.db.engine.dispose()
        waffle = WaffleConf(configstore=AlchemyWaffleStore(db=site.db, model=site.model))
        for number, app in enumerate((site.app, second)):
            app.config.update(WAFFLE_CONFS={"A": {"default": 0}}, WAFFLE_MULTIPROC=False)
            waffle.init_app(app)
            app.extensions["waffleconf"].update_db({"A": number + 1})
        assert (site.app.config["A"], second.config["A"]) == (1, 2)
        assert [
            app.extensions["waffleconf"].state.store.load().values for app in (site.app, second)
        ] == [{"A": "1"}, {"A": "2"}]

    def test_with_an_application_it_works_in_a_thread_that_has_no_context(
        self, tmp_path: Path
    ) -> None:
        site = alchemy_app(tmp_path, WAFFLE_CONFS={"A": {"default": 0}})
        waffle = WaffleConf(site.app, AlchemyWaffleStore(db=site.db, model=site.model))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(waffle.update, {"A": 5}).result().revision == 1
            assert pool.submit(waffle.refresh).result() == 1
        assert waffle.values.A == 5

    def test_outside_an_application_it_says_what_to_do(self, tmp_path: Path) -> None:
        site = alchemy_app(tmp_path)
        with pytest.raises(StoreUnavailable, match="give the store to WaffleConf"):
            AlchemyWaffleStore(db=site.db, model=site.model).load()


class TestTransactionOfPeewees:
    def test_what_it_has_written_stays_uncommitted_and_can_be_rolled_back(
        self, model: Any, sql: Any
    ) -> None:
        database = model._meta.database
        store = PeeweeWaffleStore(model=model)
        with database.atomic() as transaction:
            model.create(key="MINE", value="1")
            assert store.load() == Stored(1, {"A": "1"})
            with pytest.raises(StoreUnavailable, match="locked"):
                put(store, A="2")
            assert database.in_transaction()
            assert sql("SELECT * FROM confs WHERE key = 'MINE'") == []
            transaction.rollback()
        assert sql("SELECT * FROM confs WHERE key = 'MINE'") == []
        assert put(store, A="2") == 2

    def test_a_transaction_that_has_only_read_goes_on(self, model: Any) -> None:
        database = model._meta.database
        model._meta.database.execute_sql("PRAGMA journal_mode = WAL")
        connection = database.connection()
        with database.atomic():
            assert model.get(model.key == "A").value == "1"
            use(PeeweeWaffleStore(model=model))
            assert database.in_transaction()
            assert model.get(model.key == "A").value == "1", "it still sees what it saw"
        assert database.connection() is connection
        assert model.get(model.key == "A").value == "2"

    def test_a_thread_without_a_connection_is_given_none(self, tmp_path: Path) -> None:
        store = peewee_store(tmp_path)
        use(store)
        assert store.model._meta.database.is_closed()

    def test_a_proxy_is_what_it_stands_for(self, tmp_path: Path) -> None:
        model = peewee_model(tmp_path)
        database = model._meta.database
        proxy = peewee.DatabaseProxy()
        model._meta.set_database(proxy)
        store = PeeweeWaffleStore(model=model)
        with pytest.raises(StoreUnavailable, match="isn't initialized yet"):
            store.load()
        proxy.initialize(database)
        use(store)
        assert store.name == PeeweeWaffleStore(model=peewee_model(tmp_path)).name

    def test_a_deferred_database_is_told_until_it_is_there(self, tmp_path: Path) -> None:
        model = peewee_model(tmp_path)
        path = model._meta.database.database
        deferred = peewee.SqliteDatabase(None)
        model._meta.set_database(deferred)
        store = PeeweeWaffleStore(model=model)
        with pytest.raises(StoreUnavailable, match="isn't initialized yet"):
            store.load()
        deferred.init(path)
        use(store)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:geheim@db.example/site", "postgresql://***@db.example/site"),
        ("postgresql://ann:ge@heim@db1:1,db2:2/site", "postgresql://***@db1:1,db2:2/site"),
        (
            "postgresql://db.example/site?user=ann&password=geheim&x=1",
            "postgresql://db.example/site?user=ann&password=***&x=1",
        ),
        ("site", "site"),
    ],
)
def test_a_url_of_peewees_is_shown_without_its_password(
    tmp_path: Path, url: str, shown: str
) -> None:
    model = peewee_model(tmp_path)
    model._meta.set_database(peewee.PostgresqlDatabase(url))
    assert PeeweeWaffleStore(model=model).name == f"PostgresqlDatabase {shown} (confs)"


def text(number: int = 255, **options: Any) -> Any:
    return sa.Column(sa.String(number), **options)


class TestKindsOfModels:
    """Models that are more than a key and a value: they work, or they are refused by what is the
    matter.
    """

    @pytest.fixture
    def bare(self, tmp_path: Path) -> Iterator[SimpleNamespace]:
        site = alchemy_app(tmp_path)
        with site.app.app_context():
            yield site
            site.db.session.remove()
            site.db.engine.dispose()

    def declared(self, site: SimpleNamespace, base: Any = None, **attributes: Any) -> Any:
        attributes.setdefault("id", sa.Column(sa.Integer, primary_key=True))
        return type("Kind", (base or site.db.Model,), {"__module__": __name__, **attributes})

    def store_of(self, site: SimpleNamespace, **attributes: Any) -> AlchemyWaffleStore:
        store = AlchemyWaffleStore(db=site.db, model=self.declared(site, **attributes))
        site.db.create_all()
        use(store)
        return store

    @pytest.mark.parametrize(
        "more",
        [
            {"made": sa.Column(sa.DateTime, default=sa.func.now(), nullable=False)},
            {"made": sa.Column(sa.Integer, server_default="7", nullable=False)},
            {"made": sa.Column(sa.Integer, default=lambda: 7, nullable=False)},
            {"made": sa.Column(sa.Integer)},
            {"made": sa.Column(sa.Integer, sa.Computed("1"), nullable=False)},
        ],
        ids=["default", "server's default", "function", "nullable", "computed"],
    )
    def test_columns_that_are_filled_work(
        self, bare: SimpleNamespace, more: dict[str, Any]
    ) -> None:
        self.store_of(bare, key=text(), value=sa.Column(sa.Text), **more)

    def test_synonyms_work(self, bare: SimpleNamespace) -> None:
        site = bare
        store = self.store_of(
            site,
            name=text(unique=True),
            content=sa.Column(sa.Text),
            key=synonym("name"),
            value=synonym("content"),
        )
        assert {row.name for row in site.db.session.scalars(sa.select(store.model))} >= {
            "A",
            "WAFFLE_REVISION",
        }

    def test_a_type_of_the_applications_own_works(self, bare: SimpleNamespace) -> None:
        class Reversed(sa.types.TypeDecorator[str]):
            impl = sa.LargeBinary
            cache_ok = True

            def process_bind_param(self, value: str | None, dialect: object) -> bytes | None:
                return None if value is None else value[::-1].encode()

            def process_result_value(self, value: bytes | None, dialect: object) -> str | None:
                return None if value is None else value.decode()[::-1]

        self.store_of(bare, key=text(), value=sa.Column(Reversed))

    def test_a_schema_that_the_engine_translates_is_translated(
        self, tmp_path: Path, sql: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        translated = {"execution_options": {"schema_translate_map": {"tenant": "main"}}}
        site = alchemy_app(tmp_path, SQLALCHEMY_ENGINE_OPTIONS=translated)
        model = self.declared(
            site,
            key=text(unique=True),
            value=sa.Column(sa.Text),
            __table_args__={"schema": "tenant"},
        )
        with site.app.app_context():
            site.db.create_all()
            site.db.engine.dispose()
            use(AlchemyWaffleStore(db=site.db, model=model))
        assert ("A", "2") in sql("SELECT key, value FROM kind")
        assert "no such table" not in caplog.text

    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            (
                {"value": sa.Column(sa.LargeBinary)},
                r"the column 'value' has the type LargeBinary\(\), and not one for text",
            ),
            ({"value": sa.Column(sa.JSON)}, "'value' has the type JSON"),
            ({"key": sa.Column(sa.Integer)}, "'key' has the type Integer"),
            ({"key": sa.Column(sa.Enum("A", "B"))}, "'key' has the type Enum"),
            ({"kind": text(nullable=False)}, "its column 'kind' is required and has no default"),
            ({"id": text(primary_key=True)}, "its column 'id' is required"),
            (
                {"kind": text(), "__mapper_args__": {"polymorphic_on": "kind"}},
                "holds the rows of more than one model",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_does_not_work_is_refused(
        self, bare: SimpleNamespace, columns: dict[str, Any], told: str
    ) -> None:
        model = self.declared(bare, **{"key": text(), "value": sa.Column(sa.Text), **columns})
        with pytest.raises(SchemaError, match=f"in Kind: .*{told}.*Give it a model of their own"):
            AlchemyWaffleStore(db=bare.db, model=model)

    def test_inheritance_of_either_kind_is_refused(self, bare: SimpleNamespace) -> None:
        base = self.declared(bare, key=text(), value=sa.Column(sa.Text))
        single = type("Single", (base,), {"__module__": __name__})
        joined = {
            "id": sa.Column(sa.ForeignKey("kind.id"), primary_key=True),
            "__tablename__": "joined",
        }
        for model in (single, type("Joined", (base,), {"__module__": __name__, **joined})):
            with pytest.raises(SchemaError, match="holds the rows of more than one model"):
                AlchemyWaffleStore(db=bare.db, model=model)

    def test_a_model_over_a_query_is_refused(self, bare: SimpleNamespace) -> None:
        rows = sa.select(bare.model.id, bare.model.key, bare.model.value).subquery()
        with pytest.raises(SchemaError, match="aren't columns of one table"):
            AlchemyWaffleStore(
                db=bare.db,
                model=type("Kind", (bare.db.Model,), {"__module__": __name__, "__table__": rows}),
            )

    def peewee_kind(self, folder: Path, database: Any = None, **fields: Any) -> Any:
        fields = {"key": peewee.CharField(unique=True), "value": peewee.TextField(), **fields}
        kind = type("Kind", (peewee.Model,), fields)
        kind._meta.set_database(database or peewee.SqliteDatabase(str(folder / "site.db")))
        return kind

    @pytest.mark.parametrize(
        "field",
        [
            peewee.IntegerField(default=lambda: 7),
            peewee.IntegerField(null=True),
            peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 7")]),
            peewee.BigAutoField(),
        ],
        ids=["default", "nullable", "server's default", "counted"],
    )
    def test_fields_that_are_filled_work(self, tmp_path: Path, field: Any) -> None:
        model = self.peewee_kind(tmp_path, made=field)
        with model._meta.database.connection_context():
            model.create_table()
        use(PeeweeWaffleStore(model=model))

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            (
                {"value": peewee.BlobField()},
                "the field 'value' is a BlobField, and not one for text",
            ),
            ({"key": peewee.IntegerField()}, "the field 'key' is a IntegerField"),
            ({"kind": peewee.CharField()}, "its field 'kind' is required and has no default"),
            ({"kind": peewee.CharField(primary_key=True)}, "its field 'kind' is required"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_does_not_work_with_peewee_is_refused(
        self, tmp_path: Path, fields: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(SchemaError, match=f"in Kind: {told}"):
            PeeweeWaffleStore(model=self.peewee_kind(tmp_path, **fields))

    def test_a_database_with_a_queue_works_past_it(self, tmp_path: Path) -> None:
        database = SqliteQueueDatabase(str(tmp_path / "site.db"))
        model = self.peewee_kind(tmp_path, database)
        model.create_table()
        try:
            model.create(key="MINE", value="1")
            use(PeeweeWaffleStore(model=model))
            assert {row.key for row in model.select()} >= {"A", "MINE", "WAFFLE_REVISION"}
            assert database.queue_size() == 0
        finally:
            database.stop()
            database.close()


class TestDeclaration:
    @pytest.mark.parametrize("kind", [AlchemyWaffleStore, PeeweeWaffleStore])
    @pytest.mark.parametrize("model", [None, object, Path, Store])
    def test_what_is_no_such_model_is_refused(self, kind: Any, model: object) -> None:
        with pytest.raises(SchemaError, match="key and value"):
            kind(db=None, model=model)

    @pytest.mark.parametrize("place", [":memory:", "file::memory:?uri=true"])
    def test_a_database_in_memory_is_refused(self, tmp_path: Path, place: str) -> None:
        site = alchemy_app(tmp_path, SQLALCHEMY_DATABASE_URI=f"sqlite:///{place}")
        model = peewee_model(tmp_path)
        model._meta.set_database(peewee.SqliteDatabase(place, uri=True))
        with site.app.app_context():
            for store in (
                AlchemyWaffleStore(db=site.db, model=site.model),
                PeeweeWaffleStore(model=model),
            ):
                with pytest.raises(StoreUnavailable, match="in memory"):
                    store.load()
            site.db.engine.dispose()

    @pytest.mark.parametrize(
        ("database", "mode"),
        [
            (None, None),
            ("", None),
            ("file:shared?mode=memory&cache=shared", None),
            ("file:x", "memory"),
        ],
    )
    def test_a_shared_one_is_in_memory_too(self, database: str | None, mode: str | None) -> None:
        assert in_memory(database, mode)
        assert not in_memory("site.db", "rw")

    def test_without_peewee_the_error_is_the_install_command(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "peewee", None)
        with pytest.raises(SchemaError, match=r"pip install 'uwsgi_waffle\[peewee\]'"):
            PeeweeWaffleStore(model=None)


class TestOwn:
    """A store that the application writes itself."""

    def test_it_works_by_get_put_delete_and_commit(self) -> None:
        store = OwnStore()
        store.kept["B"] = "7"
        bound = store.bind(frozenset({"A", "B"}), store._context)
        assert bound.load() == Stored(0, {"B": "7"})
        assert put(bound, A="1", LATER="2") == 1
        assert put(bound, B=None) == 2
        assert store.bind(frozenset({"A"}), store._context).load() == Stored(
            2, {"A": "1", "LATER": "2"}
        ), "a name that another declares"
        assert bound.values_at(0) == {"B": "7"}
        assert [row.key for row in bound.history(10)] == ["B", "LATER", "A"]

    def test_what_only_reads_commits_nothing(self) -> None:
        store = OwnStore()
        store.load()
        store.history(1)
        assert store.commits == 0
        put(store, A="1")
        assert store.commits == 1

    def test_what_raises_before_it_writes_commits_nothing(self) -> None:
        store = OwnStore()
        with pytest.raises(ZeroDivisionError):
            store.transact(lambda stored: Commit({"A": str(1 // 0)}))
        assert "A" not in store.kept

    def test_a_put_that_returns_none_has_failed_unless_it_has_not(self) -> None:
        class Forgetful(OwnStore):
            # that is its mistake
            def put(self, key: str, value: str) -> None:  # type: ignore[override]
                super().put(key, value)

        class Failing(OwnStore):
            # as the manual allows
            def put(self, key: str, value: str) -> None:  # type: ignore[override]
                pass

        assert put(Forgetful(), A="1") == 1
        with pytest.raises(StoreUnavailable, match="returned None, which says that it failed"):
            put(Failing(), A="1")

    def test_what_its_methods_raise_is_told_without_the_values(self) -> None:
        class Failing(OwnStore):
            error: Exception = RuntimeError("can't put geheim")

            def put(self, key: str, value: str) -> Record:
                raise self.error

        store = Failing()
        with pytest.raises(
            StoreUnavailable, match=r"Failing\.put failed with RuntimeError\. It is tried again"
        ) as caught:
            put(store, A="1")
        assert "geheim" not in str(caught.value)
        store.error = StoreReadOnly("not today")
        with pytest.raises(StoreReadOnly, match="not today"):
            put(store, A="1")

    @pytest.mark.parametrize("call", ["commit", "delete", "get", "put"])
    def test_what_it_doesnt_have_it_says(self, call: str) -> None:
        arguments = {"delete": ["A"], "get": ["A"], "put": ["A", "1"]}.get(call, [])
        with pytest.raises(NotImplementedError):
            getattr(WaffleStore(), call)(*arguments)

    def test_over_a_session_of_the_applications_it_has_a_session_of_its_own(
        self, tmp_path: Path
    ) -> None:
        """As Flask-WaffleConf's own store did it: that a request's session is spared is the
        context's doing.
        """
        site = alchemy_app(tmp_path, WAFFLE_CONFS={"A": {"default": 1}}, WAFFLE_MULTIPROC=False)

        class Classic(WaffleStore):
            def commit(self) -> None:
                self.db.session.commit()

            def get(self, key: str) -> Any:
                return self.db.session.execute(
                    self.db.select(self.model).filter_by(key=key)
                ).scalar_one_or_none()

            def put(self, key: str, value: str) -> Any:
                record = self.get(key) or self.model(key=key)
                record.value = value
                self.db.session.add(record)
                return record

        waffle = WaffleConf(site.app, Classic(db=site.db, model=site.model))
        with site.app.app_context():
            site.db.session.add(site.model(key="MINE", value="1"))
            assert waffle.update({"A": 2}).revision == 1
            assert len(site.db.session.new) == 1
            site.db.session.rollback()
            assert {row.key for row in site.db.session.scalars(site.db.select(site.model))} >= {
                "A",
                "WAFFLE_REVISION",
            }
            assert (
                site.db.session.scalars(site.db.select(site.model).filter_by(key="MINE")).all()
                == []
            )
            site.db.session.remove()
            site.db.engine.dispose()


def test_the_mixin_gives_key_and_value() -> None:
    class Record(WaffleMixin):
        key, value = "A", "1"

    assert (Record().get_key(), Record().get_value()) == ("A", "1")
    with pytest.raises(AttributeError):
        WaffleMixin().get_key()
