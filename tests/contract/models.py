"""Key/value models as an application has them, each in a SQLite file of its own, with `key` and
`value` as Flask-WaffleConf wants them.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peewee
import psutil
import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from playhouse.pool import PooledSqliteDatabase

from uwsgi_waffle import AlchemyWaffleStore, PeeweeWaffleStore, WaffleMixin, WaffleStore
from uwsgi_waffle.stores import Commit, Store


def alchemy_app(folder: Path, *, length: int | None = None, **settings: Any) -> SimpleNamespace:
    """Make an application with Flask-SQLAlchemy, its model, and the table."""
    app = Flask("site", instance_path=str(folder))
    app.config.update({"SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder / 'site.db'}", **settings})
    db = SQLAlchemy(app)

    class Conf(db.Model, WaffleMixin):  # type: ignore[name-defined, misc]  # made at run time
        __tablename__ = "confs"
        id = db.Column(db.Integer, primary_key=True)
        key = db.Column(db.String(255), unique=True)
        value = db.Column(db.String(length) if length else db.Text)

    with app.app_context():
        db.create_all()
        db.engine.dispose()
    return SimpleNamespace(app=app, db=db, model=Conf)


def alchemy_store(folder: Path, **options: Any) -> AlchemyWaffleStore:
    """Make a store of an application of its own."""
    site = alchemy_app(folder, **options)
    store = AlchemyWaffleStore(db=site.db, model=site.model)
    store._context = site.app.app_context  # and no names: the contract's rules are about all rows
    return store


def peewee_model(
    folder: Path, *, length: int | None = None, pooled: bool = False, create: bool = True
) -> Any:
    """Make a peewee model and its table; no connection stays open."""
    database = (PooledSqliteDatabase if pooled else peewee.SqliteDatabase)(str(folder / "site.db"))

    class Conf(peewee.Model, WaffleMixin):  # type: ignore[misc]  # peewee has no types
        key = peewee.CharField(unique=True, null=True)
        value = peewee.CharField(max_length=length) if length else peewee.TextField()

        class Meta:
            table_name = "confs"

    Conf._meta.set_database(database)
    if create:
        with database.connection_context():
            database.create_tables([Conf])
    return Conf


def peewee_store(folder: Path, **options: Any) -> PeeweeWaffleStore:
    """Make a store of a model of its own."""
    return PeeweeWaffleStore(model=peewee_model(folder, **options))


class Record(WaffleMixin):
    """What `OwnStore` returns."""

    def __init__(self, key: str, value: str) -> None:
        self.key, self.value = key, value


class OwnStore(WaffleStore):
    """A store as an application writes it, in a dictionary."""

    kept: dict[str, str]
    commits = 0

    def __init__(self) -> None:
        super().__init__()
        self.kept = {}

    def commit(self) -> None:
        self.commits += 1

    def delete(self, key: str) -> Record | None:
        value = self.kept.pop(key, None)
        return None if value is None else Record(key, value)

    def get(self, key: str) -> Record | None:
        return Record(key, self.kept[key]) if key in self.kept else None

    def put(self, key: str, value: str) -> Record:
        self.kept[key] = value
        return Record(key, value)


def use(store: Store) -> None:
    """Call all that a store has, with and without success."""
    store.prepare()
    store.transact(lambda stored: Commit({"A": "2", "B": "2"}))
    with pytest.raises(ZeroDivisionError):
        store.transact(lambda stored: Commit({"A": str(1 // 0)}))
    store.transact(lambda stored: None)
    store.load()
    store.history(10)
    store.values_at(1)


def opened(folder: Path) -> int:
    return sum(file.path.startswith(str(folder)) for file in psutil.Process().open_files())
