# pyright: strict
"""What applications write of all that the package offers; it is checked, and never run."""

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta

from flask import Flask
from pydantic import BaseModel, Field
from typing_extensions import Any, assert_type

from uwsgi_waffle import (
    AlchemyWaffleStore,
    Change,
    HistoryEntry,
    MemoryStore,
    PeeweeWaffleStore,
    RedisStore,
    RevisionConflict,
    SQLStore,
    Update,
    UpdateResult,
    WaffleConf,
    WaffleError,
    WaffleMixin,
    WaffleStore,
    config_changed,
    config_updated,
)
from uwsgi_waffle.admin import admin_blueprint
from uwsgi_waffle.health import health_blueprint
from uwsgi_waffle.logging import RevisionFilter
from uwsgi_waffle.metrics import WaffleCollector
from uwsgi_waffle.openfeature import WaffleProvider
from uwsgi_waffle.testing import override
from uwsgi_waffle.testing.pytest_plugin import StartServer


class Limits(BaseModel):
    LOW: int = Field(1, title="Low", json_schema_extra={"group": "Limits"})
    NAME: str = "Waffle"


waffle: WaffleConf[Limits] = WaffleConf()
plain = WaffleConf()
stores = [
    SQLStore("sqlite:///waffle.db"),
    RedisStore("redis://cache.example"),
    AlchemyWaffleStore(db=None, model=None),
    PeeweeWaffleStore(model=None),
]


def create_app() -> Flask:
    app = Flask(__name__)
    app.config["WAFFLE_CONFS"] = Limits
    waffle.init_app(app)
    plain.init_app(Flask("other"), MemoryStore())
    app.register_blueprint(health_blueprint(plain))
    app.register_blueprint(health_blueprint(waffle, details=lambda: True))
    app.register_blueprint(
        admin_blueprint(waffle, authorize=lambda: "ann", may_change=lambda name: name != "LOW")
    )
    handler = logging.StreamHandler()
    handler.addFilter(RevisionFilter(waffle))
    WaffleCollector(waffle, hosts=True)
    WaffleProvider(waffle)
    return app


def read() -> Iterator[str]:
    yield waffle.values.NAME
    with waffle.snapshot() as values:
        yield values.NAME * waffle.latest.LOW
    with plain.snapshot() as anything:
        yield anything.NAME + plain.values["NAME"] + plain.latest.NAME


@waffle.on_change("NAME")
def renamed(change: Change) -> None:
    assert_type(change.new, Mapping[str, Any])
    print(change.revision, change.old["NAME"].upper(), change.new["NAME"].upper())


@waffle.on_change
def changed(change: Change) -> None:
    renamed(change)


@plain.on_change("LOW", "NAME")
async def awaited(change: Change) -> None:
    changed(change)


@waffle.on_update
def told(update: Update) -> None:
    assert_type(update.new, Mapping[str, Any])
    print(update.revision, update.old["NAME"].upper(), update.actor, update.note, update.at)


@plain.on_update("NAME")
def told_of_name(update: Update) -> None:
    told(update)


def heard(sender: Flask, change: Change) -> None:
    print(sender.name, change.revision)


config_changed.connect(heard)
config_updated.connect(heard)


def change(names: dict[str, str]) -> list[HistoryEntry]:
    try:
        result = waffle.update({"LOW": 2}, expect_revision=waffle.revision, actor="ann", note="why")
    except (RevisionConflict, WaffleError):
        result = waffle.update(names, expires=timedelta(minutes=30), wait=2.0, hosts=True)
    assert_type(result, UpdateResult)
    print(result.revision, [process.pid for process in result.pending], result.hosts[0].name)
    waffle.reset("LOW", "NAME", actor="ann")
    waffle.rollback(3, note="why")
    assert_type(waffle.refresh(), int)
    print(waffle.status(hosts=True)["hosts"])
    return waffle.history(limit=5, key="NAME")


def test_read(app: Flask, waffle_server: StartServer) -> None:
    @override(app, LOW=2)
    def low() -> int:
        return waffle.values.LOW

    with override(app, NAME="x"):
        assert_type(low(), int)
    server = waffle_server("app:app", workers=2)
    print(server.url, server.folder)


class Row(WaffleMixin):
    """A row of an application's own store."""


class OwnStore(WaffleStore):
    """An application's own store."""

    def commit(self) -> None:
        print("committed")

    def get(self, key: str) -> Row | None:
        return None

    def put(self, key: str, value: str) -> Row:
        return Row()

    def delete(self, key: str) -> Row | None:
        return None
