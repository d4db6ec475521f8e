"""Hosts that meet in PostgreSQL: which settings and stores will do; nothing is connected here."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict

from uwsgi_waffle import MemoryStore, RedisStore, SchemaError
from uwsgi_waffle.settings import Settings, Watching
from uwsgi_waffle.stores import Store
from uwsgi_waffle.stores.engines import libpq_url
from uwsgi_waffle.wake import open_channel

from .conftest import Host


@pytest.mark.parametrize("store", [None, MemoryStore(), RedisStore("redis://cache.example")])
def test_a_store_that_cannot_notify_is_refused(host: Host, store: Store | None) -> None:
    """The error says which can; where nothing is shared nobody is to be notified."""
    if store is not None and not store.shared:
        assert host.start(store, WATCHTYPE="postgres").state.listener is None
        return
    with pytest.raises(SchemaError, match="SQLStore and AlchemyWaffleStore can, on PostgreSQL"):
        host.start(store, WATCHTYPE="postgres")


class TestMule:
    """A mule without the application reads the environment."""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAFFLE_WATCHTYPE", "postgres")
        monkeypatch.setenv("WAFFLE_WATCHER_FILE", "/srv/bell")

    def url(self) -> str | None:
        found = Watching.from_environment()
        return None if found is None else found.channel_url

    def test_it_listens_to_the_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAFFLE_STORE_URL", "postgresql+psycopg://db.example/site")
        assert self.url() == "postgresql://db.example/site"
        url = "postgresql://u@/site?host=one:1&host=two:2&options=-c+a=b"
        monkeypatch.setenv("WAFFLE_STORE_URL", url)
        assert conninfo_to_dict(self.url()) == {
            **{"user": "u", "dbname": "site", "options": "-c a=b"},
            **{"host": "one,two", "port": "1,2"},
        }
        monkeypatch.setenv("WAFFLE_LISTEN_URL", "postgresql://direct.example/site")
        assert self.url() == "postgresql://direct.example/site"

    @pytest.mark.parametrize("store", ["", "sqlite:////srv/waffle.db"])
    def test_without_either_it_knows_nothing(
        self, monkeypatch: pytest.MonkeyPatch, store: str
    ) -> None:
        monkeypatch.setenv("WAFFLE_STORE_URL", store)
        assert self.url() is None

    def test_the_application_says_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else a worker would take the mule for one that knows nothing."""
        url = "postgresql+psycopg://db.example/site"
        monkeypatch.setenv("WAFFLE_STORE_URL", url)
        watching = Watching.of(Settings.read({}), Path("/srv"))
        assert watching.beside_store(url) == Watching.from_environment()


@pytest.mark.parametrize("url", ["postgresql://:geheim@/site?x=1", "http://geheim@db.example"])
def test_a_bad_url_is_refused_by_the_settings_name_and_without_its_password(url: str) -> None:
    with pytest.raises(SchemaError, match="WAFFLE_LISTEN_URL can't be used") as caught:
        open_channel("postgres", url, "waffleconf")
    assert "geheim" not in str(caught.value)


def test_a_name_that_postgresql_would_cut_is_refused() -> None:
    open_channel("postgres", "postgresql://", "x" * 56)
    with pytest.raises(SchemaError, match="shorten WAFFLE_REDIS_CHANNEL"):
        open_channel("postgres", "postgresql://", "x" * 57)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        (
            "postgresql+psycopg2://ann:p%40ss+w@db.example:5433/site",
            {"user": "ann", "password": "p@ss+w", "host": "db.example", "port": "5433"},
        ),
        (
            "postgresql+psycopg://postgres@/site?host=/run/my%20pg&options=-c+search_path%3Dshop",
            {"host": "/run/my pg", "options": "-c search_path=shop"},
        ),
        (
            "postgresql+psycopg://ann@/site?host=one:5433&host=two.example&connect_timeout=3",
            {"host": "one,two.example", "port": "5433,", "connect_timeout": "3"},
        ),
        ("postgresql+psycopg://ann@/site?host=one:5433", {"host": "one", "port": "5433"}),
        ("postgresql://ann@/site?host=one,two&port=1,2", {"host": "one,two", "port": "1,2"}),
        ("postgresql://ann@/site?host=one&port=5433", {"host": "one", "port": "5433"}),
    ],
)
def test_libpq_reads_the_url_of_a_store_as_sqlalchemy_does(url: str, parts: dict[str, str]) -> None:
    found = conninfo_to_dict(libpq_url(sa.make_url(url)))
    assert parts.items() <= found.items()
    assert found["dbname"] == "site"
