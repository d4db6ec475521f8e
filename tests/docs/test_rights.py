"""The rights that docs/stores.md names are enough: each store is used with exactly those."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from uwsgi_waffle import RedisStore, SQLStore, StoreUnavailable, WaffleConf
from uwsgi_waffle.stores import Store
from uwsgi_waffle.wake import open_channel
from uwsgi_waffle.wake.channel import listen

from ..redis_server import RedisServer
from ..sql_servers import MariaDB, PostgreSQL

PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()
POSTGRESQL, MARIADB = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ACLS = [
    line.replace("\n", " ").split()
    for line in re.findall(r"^```text\n(ACL .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
]


APPS: list[Flask] = []  # a WaffleConf forgets an application that nobody else refers to


@pytest.fixture(autouse=True)
def forget_applications() -> Iterator[None]:
    yield
    APPS.clear()


def site(folder: Path, store: Store) -> WaffleConf:
    app = Flask("site", instance_path=str(folder))
    app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
    APPS.append(app)
    return WaffleConf(app, store)


def use(folder: Path, store: Store) -> None:
    """Do all that an application and its operators do."""
    folder.mkdir()
    waffle = site(folder, store)
    first = waffle.update({"SITENAME": "Gent"}, actor="ann").revision
    waffle.update({"SITENAME": "Brugge"})
    waffle.reset("SITENAME")
    waffle.rollback(first)
    waffle.refresh()
    assert waffle.values.SITENAME == "Gent"
    assert [entry.actor for entry in waffle.history(limit=4)][-1] == "ann"


def without(rights: str, line: int) -> list[str]:
    """Return the statements but one."""
    statements = rights.strip().splitlines()
    return statements[:line] + statements[line + 1 :]


class TestPostgreSQL:
    @pytest.mark.parametrize("line", range(len(POSTGRESQL.splitlines()) + 1))
    def test_they_are_enough_and_each_is_needed(
        self, postgresql_server: PostgreSQL, tmp_path: Path, line: int
    ) -> None:
        """With one line less (the last round: with all) an update fails."""
        user, schema = f"waffle_{line}", f"site_{line}"
        postgresql_server.execute(f"CREATE SCHEMA {schema}")
        owner = f"{postgresql_server.url}&options=-csearch_path%3D{schema}"
        SQLStore(owner).prepare()
        postgresql_server.execute(f"CREATE USER {user}")
        for statement in without(POSTGRESQL, line):
            mine = statement.replace("site", schema).replace("TO waffle", f"TO {user}")
            postgresql_server.execute(mine)
        store = SQLStore(owner.replace("//postgres@", f"//{user}@"))
        if line == len(POSTGRESQL.splitlines()):
            channel = open_channel("postgres", store.libpq_url, "waffleconf")
            messages = listen(
                channel, own_id=lambda: 7, should_continue=lambda: True, answer=lambda: ""
            )
            next(messages)
            use(tmp_path / "instance", store.notifying("waffleconf", lambda: "8"))
            next(messages)  # every user may listen and notify, says docs/hosts.md
            messages.close()
        else:
            with pytest.raises(StoreUnavailable):
                use(tmp_path / "instance", store)


class TestMariaDB:
    @pytest.mark.parametrize("line", range(len(MARIADB.splitlines()) + 1))
    def test_they_are_enough_and_each_is_needed(
        self, mariadb_server: MariaDB, tmp_path: Path, line: int
    ) -> None:
        """With one line less (the last round: with all) an update fails."""
        user, place = f"waffle_{line}", mariadb_server.fresh()
        database = place.partition("localhost/")[2].partition("?")[0]
        SQLStore(place).prepare()
        mariadb_server.execute(f"CREATE USER {user}")
        for statement in without(MARIADB, line):
            mine = statement.replace("site.", f"{database}.").replace("TO waffle", f"TO {user}")
            mariadb_server.execute(mine)
        store = SQLStore(place.replace("//root@", f"//{user}@"))
        if line == len(MARIADB.splitlines()):
            use(tmp_path / "instance", store)
        else:
            with pytest.raises(StoreUnavailable):
                use(tmp_path / "instance", store)


class TestRedis:
    def url(self, server: RedisServer, acl: list[str]) -> str:
        with server.client() as client:
            client.execute_command(*acl)
        return server.url.replace("unix://", f"unix://{acl[2]}:password@")

    def test_the_store(self, redis_server: RedisServer, tmp_path: Path) -> None:
        """The first user has two keys."""
        use(tmp_path / "instance", RedisStore(self.url(redis_server, ACLS[0])))

    @pytest.mark.parametrize("right", [word for word in ACLS[0] if word.startswith("+")])
    def test_each_is_needed(self, redis_server: RedisServer, tmp_path: Path, right: str) -> None:
        """With one right less something fails."""
        acl = [word for word in ACLS[0] if word != right]
        if right == "+@connection":
            return  # for `database` in the URL and for what redis-py says of itself
        with pytest.raises(StoreUnavailable):
            use(tmp_path / "instance", RedisStore(self.url(redis_server, acl)))

    def test_the_messages(self, redis_server: RedisServer, tmp_path: Path) -> None:
        """The second user has two channels and no key."""
        waffle = listening(tmp_path, self.url(redis_server, ACLS[1]))
        end = time.monotonic() + 60
        while not waffle.status(hosts=True)["hosts"]:
            assert time.monotonic() < end, waffle.status()["redis"]
        waffle.update({"SITENAME": "Gent"})
        assert waffle.status()["redis"]["error"] == ""

    @pytest.mark.parametrize("right", [word for word in ACLS[1] if word[0] in "+&"])
    def test_each_is_needed_for_messages(
        self, redis_server: RedisServer, tmp_path: Path, right: str
    ) -> None:
        """With one right less the listener or the roll call fails."""
        if right in ("+@connection", "+unsubscribe"):
            return  # for a password in the URL, and for an end in order
        acl = [word for word in ACLS[1] if word != right]
        waffle = listening(tmp_path, self.url(redis_server, acl))
        end = time.monotonic() + 60
        while not waffle.status()["redis"]["error"]:
            if waffle.status(hosts=True)["hosts_error"]:
                return
            assert time.monotonic() < end


def listening(folder: Path, url: str) -> WaffleConf:
    app = Flask("site", instance_path=str(folder / "instance"))
    app.config.update(
        WAFFLE_CONFS={"SITENAME": {"default": "Waffle"}},
        WAFFLE_WATCHTYPE="redis",
        WAFFLE_REDIS_URL=url,
    )
    APPS.append(app)
    return WaffleConf(app)
