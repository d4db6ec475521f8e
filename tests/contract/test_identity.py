"""Which stores are the same, whoever connects and however a path is spelled."""

from __future__ import annotations

from pathlib import Path

import peewee
import pytest

from uwsgi_waffle import MemoryStore, PeeweeWaffleStore, RedisStore, SchemaError, SQLStore
from uwsgi_waffle.stores import Store, open_store

from .models import OwnStore, alchemy_app, alchemy_store, peewee_model, peewee_store


def test_a_path_is_the_same_by_whichever_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "releases").mkdir()
    (tmp_path / "current").symlink_to("releases")
    monkeypatch.chdir(tmp_path)
    urls = [
        "sqlite:///releases/waffle.db",
        "sqlite:///current/waffle.db",
        f"sqlite:///{tmp_path}/current/../releases/waffle.db",
        f"sqlite:///file:{tmp_path}/current/waffle.db?mode=ro&uri=true",
    ]
    assert {SQLStore(url).identity for url in urls} == {f"sqlite:///{tmp_path}/releases/waffle.db"}


@pytest.mark.parametrize(
    ("urls", "number"),
    [
        (["postgresql+psycopg://ann:a@db/site", "postgresql+psycopg2://bob@db:5432/site"], 1),
        (["mysql+pymysql://ann@db/site", "mariadb+mysqldb://db:3306/site"], 1),
        (["postgresql://db/site", "postgresql://db/other", "postgresql://db:1/site"], 3),
        (["postgresql:///site?host=/a", "postgresql:///site?host=/b"], 2),
        (["postgresql:///site?connect_timeout=1", "postgresql:///site"], 1),
        (["postgresql://db/x?options=-csearch_path%3Da", "postgresql://db/x"], 2),
        (["postgresql://ann@db", "postgresql://bob@db"], 2),
        (["redis://cache", "redis://:secret@cache:6379/0"], 1),
        (["redis://cache", "redis://cache/1", "redis://other"], 3),
        (["unix:///run/s", "unix:///run/../run/s?db=0", "unix:///run/s?db=1"], 2),
    ],
)
def test_only_the_place_counts(urls: list[str], number: int) -> None:
    identities = {open_store(url).identity for url in urls}
    assert len(identities) == number
    assert "secret" not in "".join(identities)


def test_the_table_or_prefix_counts(tmp_path: Path) -> None:
    model = peewee_model(tmp_path)
    stores: list[Store] = [
        alchemy_store(tmp_path),
        peewee_store(tmp_path),
        SQLStore(f"sqlite:///{tmp_path}/site.db"),
        RedisStore("redis://cache"),
        RedisStore("redis://cache", prefix="other"),
        OwnStore(),
        MemoryStore(),
    ]
    assert len({store.identity for store in stores}) == len(stores)
    assert alchemy_store(tmp_path).identity.endswith("/site.db confs")
    assert PeeweeWaffleStore(model=model).identity == peewee_store(tmp_path).identity


def test_a_password_is_in_none(tmp_path: Path) -> None:
    model = peewee_model(tmp_path)
    model._meta.set_database(
        peewee.PostgresqlDatabase("site", host="db", user="ann", password="geheim")
    )
    site = alchemy_app(tmp_path)
    stores = [
        PeeweeWaffleStore(model=model),
        SQLStore("postgresql://ann:geheim@db/site?password=geheim"),
        SQLStore("mysql+pymysql://db/site?user=ann&passwd=geheim"),
    ]
    with site.app.app_context():
        assert "geheim" not in "".join(store.identity + store.name for store in stores)
    assert stores[0].identity == "postgresql db/site (confs)"


@pytest.mark.parametrize("url", ["postgresql://ann:ge@heim@db/site", "postgresql://ann:geheim"])
def test_an_odd_password_is_not_quoted(url: str) -> None:
    try:
        text = SQLStore(url).name
    except SchemaError as error:
        text = str(error)
    assert "heim" not in text


def test_a_token_in_a_redis_url_is_not_shown() -> None:
    assert RedisStore("redis://TOKEN@cache").name == "redis://:***@cache"


def test_the_url_of_tests_and_image_builds() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    with pytest.raises(SchemaError, match=r"no store for 'mongo' URLs; use one of .*memory"):
        open_store("mongo://x")
