"""Which stores are the same, whoever connects and however a path is spelled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

import peewee
import pytest
import sqlalchemy as sa

from uwsgi_waffle import MemoryStore, PeeweeWaffleStore, RedisStore, SchemaError, SQLStore
from uwsgi_waffle.identity import same_place, same_store
from uwsgi_waffle.stores import Store, open_store

from .conftest import put
from .models import OwnStore, alchemy_app, alchemy_store, peewee_model, peewee_store

SET = "-c%20search_path="


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
        f"sqlite:///file://{tmp_path}/curr%65nt/waffle%2Edb?uri=true",
        f"sqlite:///file://localhost{tmp_path}/current/waffle.db?uri=true",
        "sqlite:///file:curr%65nt/waffle.db?uri=true",
    ]
    (identity,) = {SQLStore(url).identity for url in urls}
    assert same_place(identity, f"sqlite:///{tmp_path}/releases/waffle.db")


@pytest.mark.parametrize("name", ["a b%", "a#b?c"])
def test_a_uri_names_the_file_that_its_percent_signs_mean(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    path = f"{tmp_path}/{name}/waffle.db"
    uri = sa.URL.create("sqlite", database=f"file:{quote(path)}", query={"uri": "true"})
    plain, by_uri = SQLStore(sa.URL.create("sqlite", database=path)), SQLStore(uri)
    plain.prepare()
    put(plain, A="1")
    assert by_uri.load().values == {"A": "1"}
    assert plain.identity == by_uri.identity


def test_no_character_of_a_path_ends_it(tmp_path: Path) -> None:
    """Whatever two paths have in common behind it."""
    for character in map(chr, {*range(1, 256)} - {ord("/")}):
        urls = (
            sa.URL.create("sqlite", database=f"{tmp_path}/{name}{character}same")
            for name in ("one", "two")
        )
        one, two = (SQLStore(url).identity for url in urls)
        assert not same_store(one, two), repr(character)
        assert not same_place(one, two), repr(character)
        assert same_store(one, one)


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
        (["postgresql://ann@db", "postgresql://db?user=ann", "postgresql://db/ann"], 1),
        (["postgresql://db/x", "postgresql://db/y?dbname=x", "postgresql:///?host=db&dbname=x"], 1),
        (["postgresql://db/x?host=a", "postgresql://db/x?host=b", "postgresql://db/x?port=1"], 3),
        (["postgresql:///x?host=/run/pg", "postgresql:///?host=/run/./pg&dbname=x&port=5432"], 1),
        ([f"postgresql://db/x?options={SET}{name}" for name in ("a", "b")], 2),
        (["postgresql://localhost/x", "postgresql://127.0.0.1:5432/x", "postgresql://[::1]/x"], 1),
        (["postgresql:///x", "postgresql://LOCALHOST/x", "postgresql:///x?host=localhost"], 1),
        (["postgresql://localhost/x", "postgresql:///x?host=/run/postgresql"], 2),
        (["mysql://root@localhost/x?unix_socket=/run/s", "mysql:///x?unix_socket=/run/./s"], 1),
        (["redis://localhost", "redis://127.0.0.1/0", "redis://[::1]:6379"], 1),
        (["redis://Cache", "redis://cache"], 1),
        (["redis://cache", "redis://:secret@cache:6379/0"], 1),
        (["redis://cache", "redis://cache/1", "redis://other"], 3),
        (["unix:///run/s", "unix:///run/../run/s?db=0", "unix:///run/s?db=1"], 2),
    ],
)
def test_only_the_place_counts(urls: list[str], number: int) -> None:
    identities = {open_store(url).identity for url in urls}
    assert len(identities) == number
    assert "secret" not in "".join(identities)


@pytest.mark.parametrize(
    ("variable", "value", "url"),
    [
        ("PGHOST", "db", "postgresql://db/x"),
        ("PGPORT", "1", "postgresql://localhost:1/x"),
        ("PGDATABASE", "x", "postgresql://localhost/x"),
        ("PGUSER", "ann", "postgresql://ann@localhost"),
        ("PGOPTIONS", "-c search_path=a", f"postgresql://localhost/x?options={SET}a"),
    ],
)
def test_libpq_reads_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, url: str
) -> None:
    """Two processes with the same URL may mean two databases."""
    short = "postgresql://" if variable in ("PGDATABASE", "PGUSER") else "postgresql:///x"
    before, wanted = SQLStore(short).identity, SQLStore(url).identity
    monkeypatch.setenv(variable, value)
    assert SQLStore(short).identity == wanted != before


def test_what_the_url_names_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [f"postgresql://db.example/{name}" for name in ("shop", "blog")]
    before = [SQLStore(url).identity for url in urls]
    monkeypatch.setenv("PGDATABASE", "x")
    assert [SQLStore(url).identity for url in urls] == before


IDENTITIES = """
import sys
from uwsgi_waffle.stores import open_store
print(*(open_store(url).identity for url in sys.argv[1:]), sep="\\n")
"""


def identities(prelude: str, *urls: str) -> list[str]:
    """Return those that a process finds in namespaces of its own."""
    script = f'{prelude} exec "$0" -c "$@"'
    command = ["unshare", "--mount", "--net", "sh", "-ec", script, sys.executable, IDENTITIES]
    done = subprocess.run([*command, *urls], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not hasattr(os, "listxattr"), reason="namespaces are Linux's")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces")
class TestContainers:
    """Namespaces of mounts and of the network, as containers have them."""

    @pytest.mark.parametrize(
        "url", ["postgresql://localhost/site", "redis://127.0.0.1", "mysql:///x"]
    )
    def test_localhost(self, url: str) -> None:
        """It is another server in another container."""
        here, (there,) = open_store(url).identity, identities("", url)
        assert not same_store(here, there)
        assert same_place(here, there)

    def test_the_same_path(self, tmp_path: Path) -> None:
        """It is another file where another volume is mounted, or another socket."""
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        urls = [f"sqlite:///{tmp_path}/one/waffle.db", f"unix://{tmp_path}/one/s"]
        there = identities(f"mount --bind {tmp_path}/two {tmp_path}/one;", *urls)
        for url, identity in zip(urls, there, strict=True):
            assert not same_store(open_store(url).identity, identity)

    def test_one_volume_at_two_places(self, tmp_path: Path) -> None:
        """It is the same file, also where the place has odd characters."""
        volume, place = tmp_path / "volume", tmp_path / "a b#c"
        for folder in (volume, place):
            folder.mkdir()
        store = SQLStore(f"sqlite:///{volume}/data/waffle.db")
        url = f"sqlite:///{tmp_path}/a b#c/data/waffle.db"
        (there,) = identities(f"mount --bind {volume} '{place}';", url)
        assert same_store(store.identity, there)
        assert not same_place(store.identity, there)


def test_the_table_or_prefix_counts(tmp_path: Path) -> None:
    model = peewee_model(tmp_path)
    stores: list[Store] = [
        peewee_store(tmp_path),
        SQLStore(f"sqlite:///{tmp_path}/site.db"),
        RedisStore("redis://cache"),
        RedisStore("redis://cache", prefix="other"),
        OwnStore(),
        MemoryStore(),
    ]
    assert len({store.identity for store in stores}) == len(stores)
    assert alchemy_store(tmp_path).identity == peewee_store(tmp_path).identity
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
    assert stores[0].identity == "postgresql://db:5432/site confs"


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
    with pytest.raises(SchemaError, match=r"no store for 'mongo' URLs; use one of .*redis:.*"):
        open_store("mongo://x")


def test_a_forgotten_colon_is_in_the_error() -> None:
    with pytest.raises(SchemaError, match=r"'memory' URLs; use one of sqlite:, .*, memory:\."):
        open_store("memory")


@pytest.mark.parametrize("url", ["sqlite:////srv/site.db", "redis://localhost"])
def test_without_proc_what_is_written_counts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in a chroot uses the same store as one that sees /proc."""
    known = open_store(url).identity

    def missing(*_: object) -> NoReturn:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", missing)
    assert same_store(open_store(url).identity, known)
