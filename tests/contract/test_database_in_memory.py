"""The application's own model, where its database is in memory, as in its tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import peewee
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from uwsgi_waffle import (
    AlchemyWaffleStore,
    InvalidValue,
    PeeweeWaffleStore,
    WaffleConf,
)
from uwsgi_waffle.stores import Commit

from .conftest import put

CONFS = {"SITENAME": {"default": "Waffle"}, "LIMIT": {"default": 10}}


def alchemy_site(folder: Path) -> SimpleNamespace:
    app, db = Flask("site", instance_path=str(folder / "instance")), SQLAlchemy()
    app.config.update(
        WAFFLE_CONFS=CONFS,
        SQLALCHEMY_DATABASE_URI="sqlite://",
    )
    db.init_app(app)

    class Conf(db.Model):  # type: ignore[name-defined, misc]  # made at run time
        id = db.Column(db.Integer, primary_key=True)
        key = db.Column(db.String(255), unique=True)
        value = db.Column(db.Text)

    def rename() -> None:
        row = db.session.query(Conf).filter_by(key="MINE").one()
        row.value = "changed"
        db.session.flush()

    def close() -> None:
        db.session.remove()
        db.engine.dispose()

    def add() -> None:
        db.session.add(Conf(key="MINE", value="1"))
        db.session.commit()

    return SimpleNamespace(
        app=app,
        store=AlchemyWaffleStore(db=db, model=Conf),
        create=db.create_all,
        add=add,
        change=rename,
        rollback=db.session.rollback,
        mine=lambda: db.session.query(Conf).filter_by(key="MINE").one().value,
        close=close,
    )


def peewee_site(folder: Path) -> SimpleNamespace:
    app = Flask("site", instance_path=str(folder / "instance"))
    app.config["WAFFLE_CONFS"] = CONFS
    database = peewee.SqliteDatabase(":memory:")

    class Conf(peewee.Model):  # type: ignore[misc]  # peewee has no types
        key = peewee.CharField(unique=True)
        value = peewee.TextField()

    Conf._meta.set_database(database)
    database.connect()

    def change() -> None:
        database.session_start()
        Conf.update(value="changed").where(Conf.key == "MINE").execute()

    return SimpleNamespace(
        app=app,
        store=PeeweeWaffleStore(model=Conf),
        create=lambda: database.create_tables([Conf]),
        add=lambda: Conf.create(key="MINE", value="1"),
        change=change,
        rollback=database.session_rollback,
        mine=lambda: Conf.get(Conf.key == "MINE").value,
        connect=database.connect,
        close=database.close,
    )


@pytest.fixture(params=[alchemy_site, peewee_site], ids=["alchemy", "peewee"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimpleNamespace]:
    site = request.param(tmp_path)
    with site.app.app_context():
        yield site
        site.close()


@pytest.mark.parametrize("first", ["table", "extension"])
def test_it_is_used_by_this_process_alone(
    site: SimpleNamespace, tmp_path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No file, no thread; the table may be made before or after."""
    threads = threading.active_count()
    if first == "table":
        site.create()
    waffle = WaffleConf(site.app, site.store)
    if first == "extension":
        assert "the table does not exist yet; using defaults" in caplog.text
        site.create()
    assert waffle.values.SITENAME == "Waffle"
    assert waffle.update({"SITENAME": "Gent"}).revision == 1
    waffle.update({"LIMIT": 20})
    with pytest.raises(InvalidValue):
        waffle.update({"LIMIT": "many"})
    waffle.rollback(1)
    waffle.refresh()
    assert (waffle.values.SITENAME, waffle.values.LIMIT, waffle.revision) == ("Gent", 10, 3)
    assert len(waffle.history()) == 3
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def test_what_the_application_has_not_committed_stays_so(site: SimpleNamespace) -> None:
    """Neither a read nor an update commits or undoes it; undoing it undoes the update, too."""
    site.create()
    site.add()
    waffle = WaffleConf(site.app, site.store)
    waffle.update({"SITENAME": "Gent"})
    site.change()
    waffle.refresh()
    waffle.update({"SITENAME": "Brugge"})
    with pytest.raises(ZeroDivisionError):
        waffle.state.store.transact(lambda stored: Commit({"A": str(1 // 0)}))
    assert (site.mine(), waffle.values.SITENAME) == ("changed", "Brugge")
    site.rollback()
    assert site.mine() == "1"
    waffle.refresh()
    assert (waffle.values.SITENAME, waffle.revision) == ("Gent", 1)


def test_peewees_is_left_to_the_application_to_connect(tmp_path: Path) -> None:
    """Its `connect` after the extension's start, as in a test's set-up, finds none open."""
    site = peewee_site(tmp_path)
    site.close()
    waffle = WaffleConf(site.app, site.store)
    site.connect()
    site.create()
    assert waffle.update({"SITENAME": "Gent"}).revision == 1
    site.close()


def test_it_may_be_replaced(tmp_path: Path) -> None:
    """As in tests that begin with a fresh database."""
    site = alchemy_site(tmp_path)
    with site.app.app_context():
        site.create()
        store = site.store.bind(frozenset({"A"}), site.app.app_context)
        store.prepare()
        put(store, A="1")
        site.close()
        site.create()
        assert store.load().revision == 0
        assert put(store, A="2") == 1
        site.close()
