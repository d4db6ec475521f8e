"""The rows that the stores over an application's own model keep in its table."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle import (
    AlchemyWaffleStore,
    InvalidValue,
    StoreUnavailable,
    UnknownRevision,
    WaffleConf,
    wake,
)
from uwsgi_waffle.stores import Store, Stored
from uwsgi_waffle.stores.row_history import HISTORY_ROWS

from .conftest import MakeStore, put
from .models import (
    alchemy_app,
    alchemy_store,
    use,
)


@pytest.fixture
def store(make: MakeStore, tmp_path: Path) -> Store:
    store: Store = make(tmp_path)
    store.prepare()
    return store


class TestTable:
    def test_the_revision_the_names_and_the_history_are_rows_like_the_values(
        self, store: Store, sql: Any
    ) -> None:
        put(store, A="1")
        assert sql("SELECT key FROM confs ORDER BY id") == [
            ("WAFFLE_REVISION",),
            ("WAFFLE_NAMES",),
            ("A",),
            ("WAFFLE_HISTORY",),
        ]
        assert sql("SELECT value FROM confs WHERE key = 'WAFFLE_REVISION'") == [("1",)]

    def test_it_is_not_changed(self, make: MakeStore, tmp_path: Path, sql: Any) -> None:
        store = make(tmp_path)
        before = sql("SELECT * FROM sqlite_master")
        use(store)
        assert sql("SELECT * FROM sqlite_master") == before

    def test_rows_that_are_there_already_are_values_of_revision_0(
        self, store: Store, sql: Any
    ) -> None:
        sql("INSERT INTO confs (key, value) VALUES ('A', '7')")
        assert store.load() == Stored(0, {"A": "7"})
        put(store, A="8", B="1")
        assert store.values_at(0) == {"A": "7"}

    def test_rows_that_no_variable_is_declared_for_may_be_anything_and_stay(
        self, store: Store, sql: Any
    ) -> None:
        sql(
            "INSERT INTO confs (key, value) VALUES ('THEIRS', 'no JSON'), ('A', 'neither'), "
            "('EMPTY', '')"
        )
        bound = store.bind(frozenset({"A"}), store._context)  # type: ignore[attr-defined]  # both have it
        assert bound.load().values == {"A": "neither"}
        assert bound.rows() == {"THEIRS": "no JSON", "A": "neither", "EMPTY": ""}
        put(bound, A="1")
        assert sql("SELECT value FROM confs WHERE key IN ('THEIRS', 'EMPTY') ORDER BY id") == [
            ("no JSON",),
            ("",),
        ]

    def test_rows_of_the_applications_own_are_no_values_even_if_they_are_json(
        self, store: Store, sql: Any
    ) -> None:
        bound = store.bind(frozenset({"A"}), store._context)  # type: ignore[attr-defined]  # both have it
        sql("INSERT INTO confs (key, value) VALUES ('COUNTER', '1')")
        put(bound, A="1")
        sql("UPDATE confs SET value = '2' WHERE key = 'COUNTER'")
        assert bound.load() == Stored(1, {"A": "1"})
        assert (bound.values_at(0), bound.values_at(1)) == ({}, {"A": "1"})
        assert put(bound, COUNTER=None) == 2, "not to be removed by who doesn't see it"
        assert sql("SELECT value FROM confs WHERE key = 'COUNTER'") == [("2",)]

    def test_what_another_version_of_the_application_has_written_counts(self, store: Store) -> None:
        old, new = (store.bind(frozenset(names), store._context) for names in ({"A"}, {"A", "NEW"}))  # type: ignore[attr-defined]  # as `bind` has got it
        put(new, NEW="1")
        put(old, A="1")
        assert old.load() == new.load() == Stored(2, {"A": "1", "NEW": "1"})
        assert old.values_at(1) == {"NEW": "1"}
        put(new, NEW=None)
        put(new, NEW="2")
        assert old.load().values == {"A": "1", "NEW": "2"}

    def test_the_names_take_as_many_rows_as_they_need(
        self, make: MakeStore, tmp_path: Path, sql: Any
    ) -> None:
        store = make(tmp_path, length=60)
        for number in range(30):
            put(store, **{f"VARIABLE_{number}": str(number)})
        names = {
            name
            for (text,) in sql("SELECT value FROM confs WHERE key LIKE 'WAFFLE_NAMES%'")
            for name in text.split()
        }
        assert names == {f"VARIABLE_{number}" for number in range(30)}
        assert sql("SELECT max(length(value)) FROM confs")[0][0] <= 60
        assert len(store.bind(frozenset(), store._context).load().values) == 30

    def test_a_commit_without_the_row_of_the_revision_makes_it(
        self, make: MakeStore, tmp_path: Path
    ) -> None:
        assert put(make(tmp_path), A="1") == 1

    @pytest.mark.parametrize("text", ["new", "-1", "1.5", "²", "9" * 20])
    def test_a_revision_that_is_none_is_told(self, store: Store, sql: Any, text: str) -> None:
        sql("UPDATE confs SET value = ? WHERE key = 'WAFFLE_REVISION'", text)
        for call in (
            store.load,
            lambda: put(store, A="1"),
            lambda: store.history(1),
            lambda: store.values_at(0),
        ):
            with pytest.raises(StoreUnavailable, match=f"WAFFLE_REVISION holds '{text}'"):
                call()

    def test_a_row_without_a_key_is_none_of_ours(self, store: Store, sql: Any) -> None:
        sql("INSERT INTO confs (key, value) VALUES (NULL, 'x')")
        use(store)
        assert None not in store.rows()

    def test_the_names_are_written_only_when_there_are_new_ones(
        self, store: Store, sql: Any
    ) -> None:
        put(store, A="1")
        sql(
            "CREATE TRIGGER no BEFORE UPDATE ON confs WHEN NEW.key = 'WAFFLE_NAMES' BEGIN "
            "SELECT RAISE(ABORT, 'again'); END"
        )
        assert put(store, A="2") == 2

    @pytest.mark.parametrize(
        "text",
        ["", "{}", "[]", "1", '{"since":0,"rows":[{}]}', '{"since":0,"rows":[1]}', "[" * 100_000],
    )
    def test_a_history_that_is_none_is_a_new_one(self, store: Store, sql: Any, text: str) -> None:
        put(store, A="1")
        put(store, A="2")
        sql("UPDATE confs SET value = ? WHERE key = 'WAFFLE_HISTORY'", text)
        assert store.history(10) == []
        assert put(store, A="3") == 3
        assert [row.revision for row in store.history(10)] == [3]
        assert store.values_at(2) == {"A": "2"}
        with pytest.raises(UnknownRevision, match="lead back to revision 2"):
            store.values_at(1)

    def test_a_history_that_leads_beyond_the_revision_is_none(self, store: Store, sql: Any) -> None:
        for number in range(3):
            put(store, A=str(number))
        sql("UPDATE confs SET value = '1' WHERE key = 'WAFFLE_REVISION'")
        assert store.history(10) == []
        assert store.values_at(1) == {"A": "2"}

    def test_a_table_that_is_yet_to_be_made_is_an_empty_store_until_then(
        self, make: MakeStore, tmp_path: Path, sql: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A command that makes the tables has to load the application first."""
        store = make(tmp_path)
        (made,) = sql("SELECT sql FROM sqlite_master WHERE name = 'confs'")
        sql("DROP TABLE confs")
        with pytest.raises(StoreUnavailable, match="no such table"):
            store.load()
        store.prepare()
        assert "the table does not exist yet" in caplog.text
        assert store.load() == Stored(0, {})
        assert store.history(10) == []
        with pytest.raises(StoreUnavailable, match=r"no such table: confs.*has the table"):
            put(store, A="1")
        sql(made[0])
        assert put(store, A="1") == 1
        assert store.load() == Stored(1, {"A": "1"})
        sql("DROP TABLE confs")
        with pytest.raises(StoreUnavailable, match="no such table"):
            store.load()


class TestVersions:
    """Applications on one host that share a table, and each other's snapshots."""

    @pytest.fixture
    def start(
        self, make: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., WaffleConf]:
        monkeypatch.setattr(wake.thread, "ensure_running", lambda member: None)
        apps = []  # a WaffleConf forgets an application that nobody else refers to

        def start(**defaults: int) -> WaffleConf:
            site = alchemy_app(
                tmp_path,
                WAFFLE_CONFS={name: {"default": default} for name, default in defaults.items()},
            )
            store = (
                AlchemyWaffleStore(db=site.db, model=site.model)
                if make is alchemy_store
                else make(tmp_path)
            )
            apps.append(site.app)
            return WaffleConf(site.app, store)

        return start

    def test_a_counter_of_the_applications_own_makes_no_revision(
        self, start: Callable[..., WaffleConf], sql: Any
    ) -> None:
        waffle = start(A=0)
        waffle.update({"A": 1})
        sql("INSERT INTO confs (key, value) VALUES ('COUNTER', '0')")
        for number in range(3):
            sql("UPDATE confs SET value = ? WHERE key = 'COUNTER'", str(number))
            assert waffle.refresh() == 1
        assert [entry.key for entry in waffle.history()] == ["A"]

    def test_a_variable_that_only_the_newer_one_declares_keeps_its_value_while_both_run(
        self, start: Callable[..., WaffleConf], sql: Any
    ) -> None:
        old, new = start(A=0), start(A=0, B=0, C=0)
        new.update({"B": 1})
        sql("INSERT INTO confs (key, value) VALUES ('C', '1')")
        assert new.refresh() == 2, "an edit from outside"
        old.update({"A": 1})
        assert old.refresh() == new.refresh() == old.refresh() == 3
        assert new.values.model_dump() == {"A": 1, "B": 1, "C": 1}
        assert [entry.actor for entry in new.history()] == [None, "outside", None]

    def test_a_row_that_was_the_applications_own_before_it_was_declared_is_its_value_then(
        self, start: Callable[..., WaffleConf], sql: Any
    ) -> None:
        old = start(A=0)
        sql("INSERT INTO confs (key, value) VALUES ('B', '7')")
        old.update({"A": 1})
        new = start(A=0, B=0)
        assert (new.values.B, new.revision) == (7, 2)
        assert [old.refresh(), new.refresh(), old.refresh()] == [2, 2, 2]


class TestHistory:
    def test_it_keeps_the_newest_changes_and_says_when_it_is_asked_for_more(
        self, store: Store
    ) -> None:
        for number in range(1, HISTORY_ROWS + 4):
            put(store, A=str(number))
        assert [row.new for row in store.history(1000)] == [
            str(number) for number in range(HISTORY_ROWS + 3, 3, -1)
        ]
        assert store.values_at(3) == {"A": "3"}
        with pytest.raises(
            UnknownRevision, match=f"newest {HISTORY_ROWS} changes.*lead back to revision 3"
        ):
            store.values_at(2)

    def test_a_commit_that_is_longer_than_the_history_is_carried_out(self, store: Store) -> None:
        put(store, A="1")
        put(store, **{f"K{number}": "1" for number in range(HISTORY_ROWS + 1)})
        assert len(store.load().values) == HISTORY_ROWS + 2
        assert len(store.history(1000)) == HISTORY_ROWS
        with pytest.raises(UnknownRevision):
            store.values_at(1)
        assert store.values_at(2) == store.load().values

    def test_it_keeps_what_its_column_takes(
        self, make: MakeStore, tmp_path: Path, sql: Any
    ) -> None:
        store = make(tmp_path, length=600)
        for number in range(20):
            put(store, A=str(number), note="n" * 40)
        kept = store.history(100)
        assert 2 < len(kept) < 6
        assert kept[0].new == "19"
        assert sql("SELECT max(length(value)) FROM confs")[0][0] <= 600


@pytest.mark.parametrize("length", [20, 200])
def test_a_value_that_is_too_long_for_the_column_is_invalid_and_changes_nothing(
    make: MakeStore, tmp_path: Path, length: int
) -> None:
    store = make(tmp_path, length=length)
    with pytest.raises(
        InvalidValue, match=f"B: .*has {length + 1} characters, the column takes {length}"
    ):
        put(store, A="1", B="1" * (length + 1))
    with pytest.raises(InvalidValue, match="the name: it has 256 characters"):
        put(store, **{"K" * 256: "1"})
    assert store.load() == Stored(0, {})
    assert put(store, B="1" * length) == 1


def test_what_the_table_refuses_is_told_without_the_values(
    make: MakeStore, tmp_path: Path, sql: Any
) -> None:
    store = make(tmp_path)
    sql(
        "CREATE TRIGGER no BEFORE INSERT ON confs WHEN NEW.key = 'B' BEGIN SELECT RAISE(ABORT, "
        "'not you'); END"
    )
    with pytest.raises(StoreUnavailable, match="refuses the row: not you") as caught:
        put(store, A="1", B="".join(('"ge', 'heim"')))
    assert "geheim" not in "".join(traceback.format_exception(caught.value))
    assert store.load() == Stored(0, {})
