"""Several applications in one database: ``WAFFLE_NAMESPACE``, and Redis keys for a Cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from redis.crc import key_slot

from uwsgi_waffle import RedisStore, SchemaError, SQLStore
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


def test_sqlite_knows_no_capitals(tmp_path: Path) -> None:
    shop, other = (SQLStore(f"sqlite:///{tmp_path}/waffle.db").within(n) for n in ("shop", "Shop"))
    shop.prepare()
    put(shop, A="1")
    assert other.load().values == {"A": "1"}


def test_the_names_of_tables() -> None:
    """Those of an installation without a namespace stay as they were."""
    assert sorted(tables_of("", mysql=False).metadata.tables) == [
        "waffle_history",
        "waffle_meta",
        "waffle_values",
    ]
    assert {
        name.removeprefix("shop_") for name in tables_of("shop", mysql=False).metadata.tables
    } == set(tables_of("", mysql=False).metadata.tables)


def test_an_application_names_its_own_table(tmp_path: Path) -> None:
    """So a namespace changes nothing there."""
    stores: list[Store] = [alchemy_store(tmp_path), peewee_store(tmp_path), OwnStore()]
    assert [store.within("shop") for store in stores] == stores


def test_two_namespaces_of_one_store_are_refused() -> None:
    """Which of them counts would be a guess, and the values would be in other tables."""
    store = SQLStore("sqlite:////srv/waffle.db", namespace="shop")
    assert store.within("shop").name == store.name
    with pytest.raises(SchemaError, match=r"'blog', and SQLStore was given namespace='shop'"):
        store.within("blog")


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
    engine = sa.create_engine(f"sqlite:///{tmp_path}/waffle.db", poolclass=sa.NullPool)
    with engine.connect() as connection:
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
