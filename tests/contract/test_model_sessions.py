"""The stores over an application's own model leave its sessions and connections alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peewee
import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm.attributes import instance_state

from uwsgi_waffle import (
    AlchemyWaffleStore,
    PeeweeWaffleStore,
    StoreReadOnly,
    StoreUnavailable,
    WaffleConf,
)
from uwsgi_waffle.stores import Stored

from .conftest import MakeStore, put
from .models import (
    alchemy_app,
    alchemy_store,
    opened,
    peewee_model,
    peewee_store,
    use,
)


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
        parents = store._own_engine()
        assert store._own_engine() is parents
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert store._own_engine() is not parents

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
            for engine in site.db.engines.values():
                engine.dispose()
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
        assert [app.extensions["waffleconf"].store.load().values for app in (site.app, second)] == [
            {"A": "1"},
            {"A": "2"},
        ]

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

    @pytest.mark.parametrize("how", ["a proxy", "deferred"])
    def test_a_database_that_is_named_later(self, tmp_path: Path, how: str) -> None:
        """Until then the error says so; then the store is the same as with a database at once."""
        model = peewee_model(tmp_path)
        database = model._meta.database
        later: Any = peewee.DatabaseProxy() if how == "a proxy" else peewee.SqliteDatabase(None)
        model._meta.set_database(later)
        store = PeeweeWaffleStore(model=model)
        with pytest.raises(StoreUnavailable, match="isn't initialized yet"):
            store.load()
        if how == "a proxy":
            later.initialize(database)
        else:
            later.init(database.database)
        use(store)
        assert store.name == PeeweeWaffleStore(model=peewee_model(tmp_path)).name
