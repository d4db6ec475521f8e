"""Two applications that use the same store: refused if their declarations contradict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from flask import Flask
from pydantic import RootModel, WithJsonSchema

from uwsgi_waffle import RedisStore, SchemaError, SQLStore, StoreUnavailable, WaffleConf
from uwsgi_waffle.stores import Commit, Store

from ..redis_server import RedisServer


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return SQLStore(f"sqlite:///{tmp_path}/common.db")
    server: RedisServer = request.getfixturevalue("redis_server")
    return RedisStore(server.url)


@pytest.fixture
def make(tmp_path: Path, store: Store) -> Iterator[Any]:
    apps: list[Flask] = []  # a WaffleConf forgets an application that nobody else refers to

    def make(
        name: str, *, folder: str = "", namespace: str = "", types: Any = (), **defaults: Any
    ) -> WaffleConf:
        app = Flask(name, instance_path=str(tmp_path / (folder or name)))
        confs = {key: {"default": default} for key, default in defaults.items()}
        confs.update({key: {"default": None, "type": kind} for key, kind in dict(types).items()})
        app.config.update(WAFFLE_CONFS=confs, WAFFLE_NAMESPACE=namespace)
        apps.append(app)
        return WaffleConf(app, store)

    yield make
    apps.clear()


def test_a_contradiction_is_refused_at_the_start(make: Any) -> None:
    """The sentence names the variable, the other application and the setting."""
    make("shop", SITENAME="Shop", LIMIT=10).update({"SITENAME": "My shop"})
    with pytest.raises(SchemaError, match=r"LIMIT is .*string here.*integer.*'shop'.*_NAMESPACE"):
        make("blog", SITENAME="Blog", LIMIT="none")


def test_a_contradiction_is_refused_at_an_update(make: Any) -> None:
    """Also if the other application has written nothing before this one's start."""
    blog, shop = make("blog", LIMIT="none", THEME="dark"), make("shop", LIMIT=10)
    shop.update({"LIMIT": 11})
    with pytest.raises(SchemaError, match="WAFFLE_NAMESPACE"):
        blog.update({"THEME": "light"})
    assert blog.values.LIMIT == "none", "the last good values are served"
    assert shop.refresh() == 1, "nothing was changed"
    assert shop.update({"LIMIT": 12}).revision == 2


def test_a_namespace_ends_it(make: Any) -> None:
    shop = make("shop", LIMIT=10)
    shop.update({"LIMIT": 11})
    blog = make("blog", namespace="blog", LIMIT="none")
    blog.update({"LIMIT": "many"})
    shop.refresh()
    assert (shop.values.LIMIT, blog.values.LIMIT) == (11, "many")


def test_parts_of_one_application_share(make: Any) -> None:
    """Under whatever names, if they declare alike; what one doesn't declare is kept."""
    web, worker = make("web", SITENAME="Shop", LIMIT=10), make("worker", LIMIT=20, QUEUE="q")
    for number in range(2):
        web.update({"SITENAME": f"Shop {number}", "LIMIT": number})
        worker.refresh()
        worker.update({"QUEUE": f"q{number}"})
        web.refresh()
    assert (web.values.SITENAME, worker.values.LIMIT, worker.values.QUEUE) == ("Shop 1", 1, "q1")
    assert len(web.history()) == 6


def test_a_new_release_may_change_a_type(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is warned until it writes, in case it is another application of that name."""
    make("app", LIMIT=10, SITENAME="Shop").update({"SITENAME": "My shop"})
    caplog.clear()
    release = make("app", folder="second", LIMIT="10", SITENAME="Shop")
    assert "LIMIT is declared as string, and integer was when" in caplog.text
    release.update({"LIMIT": "11"})
    caplog.clear()
    make("app", folder="third", LIMIT="10", SITENAME="Shop")
    assert caplog.text == ""


@pytest.mark.parametrize("note", ["{", "[]", '{"LIMIT": 1}', "[" * 100_000, '"\u00e9"'])
def test_a_damaged_note_is_an_empty_one(make: Any, tmp_path: Path, note: str, store: Store) -> None:
    """It keeps nobody from the values, and the next update writes it anew."""
    make("shop", LIMIT=10).update({"LIMIT": 11})
    store.transact(lambda stored: Commit({}, declared=note))
    shop = make("shop", folder="second", LIMIT=10)
    shop.update({"LIMIT": 12})
    with pytest.raises(SchemaError):
        make("blog", LIMIT="none")


def test_a_model_of_several_types_contradicts_too(make: Any) -> None:
    """Also beside others: an option of a type may be one of several options."""
    make("shop", types={"SIZE": RootModel[int | str] | None}, LIMIT=10).update({"LIMIT": 11})
    with pytest.raises(SchemaError, match="as integer or null or string by"):
        make("blog", SIZE=["S"])


def test_a_declaration_may_describe_its_type_by_itself(make: Any) -> None:
    """JSON Schema knows a list of types."""
    kind = Annotated[int | None, WithJsonSchema({"type": ["integer", "null"]})]
    make("shop", types={"LIMIT": kind}).update({"LIMIT": 11})
    assert make("blog", LIMIT=10).values.LIMIT == 11


def test_any_json_contradicts_nothing(make: Any) -> None:
    """What no type is known of is left out."""
    make("shop", LIMIT=None, SIZES={"S": 1}).update({"LIMIT": "11"})
    assert make("blog", LIMIT="none", SIZES={}).values.SIZES == {}


def test_the_same_setting_for_the_application_and_the_channel(tmp_path: Path) -> None:
    """A store that is down is still named with its namespace."""
    store = RedisStore(f"unix://{tmp_path}/none").within("shop")
    with pytest.raises(StoreUnavailable, match="shop_waffle"):
        store.load()
