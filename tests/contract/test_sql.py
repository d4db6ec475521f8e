"""What `SQLStore` promises beyond the contract."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from uwsgi_waffle import (
    InvalidValue,
    SQLStore,
    StoreReadOnly,
    StoreUnavailable,
    UnknownRevision,
    WaffleError,
)
from uwsgi_waffle.stores import Commit, Store, Stored, drivers
from uwsgi_waffle.stores.sqlite_file import SQLiteFile

from .conftest import put, sqlite_url, writing

PASSWORD = "geheim"
NOISE = bytes(range(256)) * 64


def execute(database: Path, statement: str) -> None:
    """Do something to the database behind the store's back."""
    connection = sqlite3.connect(database)
    try:
        with connection:
            connection.execute(statement)
    finally:
        connection.close()


def every_call(store: Store) -> list[Any]:
    return [
        store.load,
        lambda: put(store, A="2"),
        lambda: store.history(1),
        lambda: store.values_at(1),
    ]


class TestConnections:
    def test_none_is_open_between_calls_so_none_crosses_a_fork(
        self, sqlite: SQLStore, sqlite_file: Path
    ) -> None:
        for call in every_call(sqlite):
            call()
            assert not [
                file
                for file in psutil.Process().open_files()
                if file.path.startswith(str(sqlite_file))
            ]

    def test_none_is_open_after_an_error(self, sqlite: SQLStore, sqlite_file: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            sqlite.transact(lambda stored: Commit({"A": str(1 // 0)}))
        with pytest.raises(UnknownRevision):
            sqlite.values_at(-1)
        assert not [
            file for file in psutil.Process().open_files() if file.path.startswith(str(sqlite_file))
        ]

    def test_a_forked_process_makes_an_engine_of_its_own(
        self, sqlite: SQLStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parents = sqlite._connect()
        assert sqlite._connect() is parents
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert sqlite._connect() is not parents

    def test_nothing_is_connected_before_the_first_call(self, tmp_path: Path) -> None:
        SQLStore(sqlite_url(tmp_path / "missing"))
        assert list(tmp_path.iterdir()) == []


class TestFile:
    def test_prepare_creates_folder_and_file(self, tmp_path: Path) -> None:
        store = SQLStore(sqlite_url(tmp_path / "a" / "b"))
        store.prepare()
        assert store.load() == Stored(0, {})
        assert (tmp_path / "a" / "b" / "waffle.db").stat().st_mode & 0o777 == 0o600

    @pytest.mark.parametrize("mode", ["", "&mode=rwc"])
    def test_one_that_a_uri_names_is_made_like_any_other(self, tmp_path: Path, mode: str) -> None:
        """Only its owner may read it, readers go on, and one that has vanished isn't made anew."""
        path = tmp_path / "a" / "waffle.db"
        store = SQLStore(f"sqlite:///file:{path}?uri=true{mode}")
        store.prepare()
        assert path.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        path.unlink()
        for call in every_call(store):
            with pytest.raises(StoreUnavailable, match="the file is gone"):
                call()
        assert not path.exists()

    @pytest.mark.parametrize("option", ["nolock=1", "vfs=unix-none"])
    def test_one_that_takes_no_locks_is_made_and_written(self, tmp_path: Path, option: str) -> None:
        """As on a network file system without locks; SQLite has no WAL there."""
        store = SQLStore(f"sqlite:///file:{tmp_path}/waffle.db?{option}&uri=true")
        store.prepare()
        assert put(store, A="1") == 1
        assert store.load() == Stored(1, {"A": "1"})

    def test_readers_and_a_writer_dont_wait_for_each_other(
        self, sqlite: SQLStore, sqlite_file: Path
    ) -> None:
        reader = sqlite3.connect(sqlite_file, isolation_level=None)
        try:
            reader.execute("BEGIN")
            assert reader.execute("SELECT value FROM waffle_values").fetchall() == [("1",)]
            assert put(SQLStore(sqlite_url(sqlite_file.parent), timeout=0), A="2") == 2
            assert reader.execute("SELECT value FROM waffle_values").fetchall() == [("1",)]
        finally:
            reader.close()

    @pytest.mark.parametrize("option", ["mode=ro", "cache=shared", "vfs=none"])
    @pytest.mark.filterwarnings("ignore:Query string argument")  # as newer ones say
    def test_options_of_a_plain_url_dont_count(self, sqlite_file: Path, option: str) -> None:
        """SQLAlchemy doesn't give them to SQLite: one could not write, or not read meanwhile."""
        store = SQLStore(f"sqlite:///{sqlite_file}?{option}")
        with writing(store):
            assert store.load() == Stored(1, {"A": "1"})
        assert store.load() == Stored(2, {"A": "2"})

    def test_the_url_may_say_how_long_a_writer_waits(self, sqlite_file: Path) -> None:
        url = sa.make_url(f"sqlite:///{sqlite_file}?timeout=7")
        with closing(SQLiteFile(url, drivers.TIMEOUT).connect()) as connection:
            assert connection.execute("PRAGMA busy_timeout").fetchone() == (7000,)

    @pytest.mark.parametrize(
        "name", ["with space.db", "50%.db", "a#b.db", "a?mode=ro.db", "grün.db"]
    )
    def test_odd_characters_of_a_path_are_kept(self, tmp_path: Path, name: str) -> None:
        store = SQLStore(sa.URL.create("sqlite", database=str(tmp_path / name)))
        store.prepare()
        put(store, A="1")
        assert [file.name for file in tmp_path.iterdir()] == [name]
        assert SQLStore(sa.URL.create("sqlite", database=str(tmp_path / name))).load() == Stored(
            1, {"A": "1"}
        )

    def test_a_vanished_database_is_an_error_and_no_new_empty_one(
        self, sqlite: SQLStore, sqlite_file: Path
    ) -> None:
        sqlite_file.unlink()
        for call in every_call(sqlite):
            with pytest.raises(StoreUnavailable, match="the file is gone"):
                call()
        assert list(sqlite_file.parent.iterdir()) == []

    def test_a_database_that_came_back_is_used_again(
        self, sqlite: SQLStore, sqlite_file: Path
    ) -> None:
        content = sqlite_file.read_bytes()
        sqlite_file.unlink()
        with pytest.raises(StoreUnavailable):
            sqlite.load()
        sqlite_file.write_bytes(content)
        assert sqlite.load() == Stored(1, {"A": "1"})

    def test_noise_in_place_of_a_database_is_an_error(
        self, sqlite: SQLStore, sqlite_file: Path
    ) -> None:
        sqlite_file.write_bytes(NOISE)
        for call in every_call(sqlite):
            with pytest.raises(StoreUnavailable, match="not a database"):
                call()
        assert sqlite_file.read_bytes() == NOISE

    def test_a_lost_revision_is_an_error(self, sqlite: SQLStore, sqlite_file: Path) -> None:
        execute(sqlite_file, "DELETE FROM waffle_meta")
        for call in (sqlite.load, lambda: put(sqlite, A="2")):
            with pytest.raises(StoreUnavailable, match="waffle_meta has lost its row"):
                call()

    @pytest.mark.parametrize(
        "damage",
        [
            *(f"waffle_meta SET revision = {text}" for text in ("X'00ff'", "'abc'", "1.5", "-4")),
            "waffle_meta SET revision = 9223372036854775807",
            "waffle_values SET key = X'41'",
        ],
    )
    def test_a_damaged_revision_or_key_is_an_error_and_changes_nothing(
        self, sqlite: SQLStore, sqlite_file: Path, damage: str
    ) -> None:
        """SQLite takes any value in any column, and adds one to most of them."""
        execute(sqlite_file, f"UPDATE {damage}")
        table, _, column = damage.split()[:3]
        words = f"{sqlite.name}: a {column} in {table} is damaged: .* Repair that row"
        for call in (sqlite.load, lambda: put(sqlite, A="2"), lambda: sqlite.values_at(1)):
            with pytest.raises(StoreUnavailable, match=words):
                call()
        assert "2" not in [row.new for row in sqlite.history(10)]

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            ("at = X'00ff'", "a row of waffle_history is damaged: .* Repair or delete it"),
            ("at = 'junk'", "a row of waffle_history is damaged: .* Repair or delete it"),
            (
                "revision = X'00ff'",
                "a revision in waffle_history is damaged: .* Repair that row, or restore the",
            ),
            (
                "revision = 'x'",
                "a revision in waffle_history is damaged: .* Repair that row, or restore the",
            ),
        ],
    )
    def test_a_damaged_history_is_an_error(
        self, sqlite: SQLStore, sqlite_file: Path, damage: str, words: str
    ) -> None:
        """No rollback without that row: values are served and written as before."""
        execute(sqlite_file, f"UPDATE waffle_history SET {damage}")
        calls: list[Any] = [lambda: sqlite.history(10)]
        calls += [lambda: sqlite.values_at(1)] if "revision" in damage else []
        for call in calls:
            with pytest.raises(StoreUnavailable, match=f"{sqlite.name}: {words}"):
                call()
        assert (sqlite.load(), put(sqlite, A="2")) == (Stored(1, {"A": "1"}), 2)

    @pytest.mark.parametrize("column", ["old", "new", "actor", "note", "key"])
    def test_bytes_in_the_history_are_text(
        self, sqlite: SQLStore, sqlite_file: Path, column: str
    ) -> None:
        execute(sqlite_file, f"UPDATE waffle_history SET {column} = X'4142ff'")
        (row,) = sqlite.history(10)
        assert getattr(row, column) == "AB\ufffd"
        (name,) = sqlite.values_at(1)
        assert isinstance(name, str)

    @pytest.mark.parametrize("table", ["waffle_meta", "waffle_values", "waffle_history"])
    def test_a_lost_table_is_an_error_and_changes_nothing(
        self, sqlite: SQLStore, sqlite_file: Path, table: str
    ) -> None:
        execute(sqlite_file, f"DROP TABLE {table}")
        with pytest.raises(StoreUnavailable, match=table):
            put(sqlite, A="2")
        if table == "waffle_history":
            assert sqlite.load() == Stored(1, {"A": "1"})

    @pytest.mark.parametrize(
        "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"]
    )
    def test_a_database_in_memory_is_refused(self, url: str) -> None:
        with pytest.raises(StoreUnavailable, match="in memory"):
            SQLStore(url)

    def test_a_named_database_in_memory_is_refused(self) -> None:
        with pytest.raises(StoreUnavailable, match="in memory"):
            SQLStore("sqlite:///file:name?mode=memory&cache=shared&uri=true")


@pytest.mark.parametrize("url", ["sqlite:///a/x.db", "sqlite:///file:a/x.db?uri=true&mode=rwc"])
def test_a_changed_working_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A relative path means the folder in which the store was made."""
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SQLStore(url)
    store.prepare()
    put(store, A="1")
    identity = store.identity
    (tmp_path / "b" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "b")
    put(store, A="2")
    assert (store.load().revision, store.identity) == (2, identity)
    assert list((tmp_path / "b" / "a").iterdir()) == []


class TestReadOnly:
    @pytest.fixture(params=["", "&uri=true"])
    def read_only(self, request: pytest.FixtureRequest, sqlite_file: Path) -> SQLStore:
        return SQLStore(f"sqlite:///file:{sqlite_file}?mode=ro{request.param}")

    def test_it_is_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable):
            SQLStore(f"sqlite:///file:{tmp_path}/none.db?mode=ro&uri=true").prepare()
        assert list(tmp_path.iterdir()) == []

    def test_it_can_be_read(self, read_only: SQLStore) -> None:
        assert read_only.load() == read_only.load() == Stored(1, {"A": "1"})
        assert len(read_only.history(10)) == 1

    def test_writing_is_refused_and_changes_nothing(self, read_only: SQLStore) -> None:
        with pytest.raises(StoreReadOnly, match="refuses to be written"):
            put(read_only, A="2")
        assert read_only.load() == Stored(1, {"A": "1"})

    def test_in_the_instance_folder(self, sqlite_file: Path) -> None:
        """A relative path isn't the only thing that the URI says."""
        store = SQLStore(f"sqlite:///file:{sqlite_file.name}?mode=ro").beside(sqlite_file.parent)
        with pytest.raises(StoreReadOnly, match="refuses to be written"):
            put(store, A="2")
        assert store.load() == Stored(1, {"A": "1"})


class TestLocked:
    @pytest.mark.parametrize("timeout", [0.25, 7.0])
    def test_it_waits_for_others_as_long_as_it_is_told(
        self, sqlite_file: Path, monkeypatch: pytest.MonkeyPatch, timeout: float
    ) -> None:
        told: list[float] = []
        genuine = sqlite3.connect
        monkeypatch.setattr(
            sqlite3,
            "connect",
            lambda *args, **options: told.append(options["timeout"]) or genuine(*args, **options),
        )
        SQLStore(sqlite_url(sqlite_file.parent), timeout=timeout).load()
        assert set(told) == {timeout}

    def test_a_writer_that_keeps_the_database_is_an_error_and_changes_nothing(
        self, sqlite: SQLStore, sqlite_file: Path
    ) -> None:
        impatient = SQLStore(sqlite_url(sqlite_file.parent), timeout=0)
        holder = sqlite3.connect(sqlite_file, isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match=r"locked.*end it"):
                put(impatient, A="2")
            assert impatient.load() == Stored(1, {"A": "1"}), "readers go on"
        finally:
            holder.close()
        assert put(impatient, A="2") == 2


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="sqlite3.Connection.setlimit is new in Python 3.11"
)
def test_a_value_that_is_too_large_is_invalid_and_changes_nothing(
    sqlite: SQLStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = genuine(*args, **options)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)
        return connection

    genuine = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(InvalidValue, match=r"B: .* can't hold the text"):
        put(sqlite, A="2", B='"' + "x" * 20_000 + '"')
    assert sqlite.load() == Stored(1, {"A": "1"})
    assert len(sqlite.history(10)) == 1


class TestPassword:
    @pytest.mark.parametrize(
        "url",
        ["postgresql+psycopg://ann:{}@db/site", "mysql+pymysql://db/site?user=ann&password={}"],
    )
    def test_it_is_not_in_the_name(self, url: str) -> None:
        name = SQLStore(url.format(PASSWORD)).name
        assert PASSWORD not in name
        assert "db/site" in name

    def test_it_is_not_in_the_repr(self) -> None:
        assert PASSWORD not in repr(SQLStore(f"postgresql+psycopg://ann:{PASSWORD}@db/site"))

    def test_it_is_not_in_the_text_of_an_error(self, tmp_path: Path) -> None:
        store = SQLStore(f"sqlite://ann:{PASSWORD}@/{tmp_path / 'waffle.db'}")
        for call in every_call(store):
            with pytest.raises(WaffleError) as caught:
                call()
            assert PASSWORD not in str(caught.value)


def test_a_missing_driver_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it weren't installed
    with pytest.raises(WaffleError, match="psycopg") as caught:
        SQLStore(f"postgresql+psycopg://ann:{PASSWORD}@db/site").load()
    assert PASSWORD not in str(caught.value)
