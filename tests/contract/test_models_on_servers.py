"""Stores over the application's own model, on database servers: what they hold, and a transaction of its own that is open meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peewee
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.pool import NullPool

from uwsgi_waffle import AlchemyWaffleStore, PeeweeWaffleStore, StoreUnavailable
from uwsgi_waffle.stores import Store, Stored

from .conftest import put


def alchemy(url: str, folder: Path) -> Store:
    app, db = Flask("site", instance_path=str(folder)), SQLAlchemy()
    app.config.update(SQLALCHEMY_DATABASE_URI=url, SQLALCHEMY_ENGINE_OPTIONS={"poolclass": NullPool})
    db.init_app(app)

    class Conf(db.Model):  # type: ignore[name-defined, misc]  # as Flask-SQLAlchemy's manual says
        __table_args__ = {"mysql_engine": "InnoDB"}  # noqa: RUF012  # as the manual says
        id = db.Column(db.Integer, primary_key=True)
        key = db.Column(db.String(190), unique=True)
        value = db.Column(db.Text)

    with app.app_context():
        db.create_all()
    return AlchemyWaffleStore(db=db, model=Conf).bind(frozenset({"A", "B"}), app.app_context)


def of_peewee(url: str, folder: Path) -> Store:
    parts = sa.make_url(url)
    user, query = parts.username, parts.query
    postgres = parts.get_backend_name() == "postgresql"
    if postgres:
        database: Any = peewee.PostgresqlDatabase(parts.database, user=user, host=query["host"], options=query["options"])
    else:
        database = peewee.MySQLDatabase(parts.database, user=user, unix_socket=query["unix_socket"], ssl_disabled=True)

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


@pytest.mark.parametrize("make", [alchemy, of_peewee])
@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
def test_a_transaction_of_the_applications_own_holds_an_update_off_for_seconds_only(
    request: pytest.FixtureRequest, name: str, make: Callable[[str, Path], Store], tmp_path: Path
) -> None:
    """On PostgreSQL it would be for ever, and the host's lock with it."""
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
