"""What every store promises, see `uwsgi_waffle.stores.contract`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import NoReturn

import pytest

from uwsgi_waffle import UnknownRevision
from uwsgi_waffle.stores import EXPIRES, Commit, Store, Stored

from .conftest import OpenStore, put

EMPTY = Stored(0, {})


@pytest.fixture
def other(store: Store, open_store: OpenStore) -> Store:
    """A second object on the same data."""
    if not store.shared:
        pytest.skip(f"{store.name} isn't shared")
    return open_store()


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Pacific/Kiritimati")  # UTC+14
        time.tzset()
        yield
    time.tzset()


class TestLoad:
    def test_an_empty_store_holds_nothing_at_revision_0(self, store: Store) -> None:
        assert store.load() == EMPTY
        assert store.history(10) == []
        assert store.values_at(0) == {}

    def test_prepare_changes_nothing_that_is_there(self, store: Store) -> None:
        put(store, A="1")
        store.prepare()
        assert store.load() == Stored(1, {"A": "1"})
        assert len(store.history(10)) == 1

    def test_the_name_is_text_for_people(self, store: Store) -> None:
        assert store.name

    def test_reading_after_pending_writes_reads_the_same(self, store: Store) -> None:
        put(store, A="1")
        assert store.load_after_pending_writes() == store.load()

    def test_the_same_data_has_one_identity(self, store: Store, other: Store) -> None:
        assert store.identity == other.identity


class TestTransact:
    def test_changes_are_merged_into_what_is_stored(self, store: Store) -> None:
        put(store, A="1", B="2")
        put(store, B="3", C="4")
        assert store.load() == Stored(2, {"A": "1", "B": "3", "C": "4"})

    def test_none_removes_the_value(self, store: Store) -> None:
        put(store, A="1", B="2")
        put(store, A=None)
        assert store.load() == Stored(2, {"B": "2"})

    def test_removing_what_is_not_stored_is_no_error(self, store: Store) -> None:
        put(store, A=None)
        assert store.load() == Stored(1, {})

    def test_a_removed_value_can_come_back(self, store: Store) -> None:
        for text in ("1", None, "2"):
            put(store, A=text)
        assert store.load() == Stored(3, {"A": "2"})

    def test_it_returns_what_load_gives_afterwards(self, store: Store) -> None:
        put(store, A="1", B="2")
        returned = store.transact(lambda stored: Commit({"A": "3", "B": None}))
        assert returned == store.load() == Stored(2, {"A": "3"})

    def test_the_row_of_temporary_values_is_kept_without_history(self, store: Store) -> None:
        put(store, A="1", **{EXPIRES: '{"A":[0,"1",null]}'})
        assert store.load() == Stored(1, {"A": "1", EXPIRES: '{"A":[0,"1",null]}'})
        put(store, **{EXPIRES: None})
        assert store.load() == Stored(2, {"A": "1"})
        assert [row.key for row in store.history(10)] == ["A"]

    def test_build_commit_sees_the_newest_values(self, store: Store) -> None:
        seen: list[Stored] = []

        def build_commit(stored: Stored) -> Commit:
            seen.append(stored)
            return Commit({"A": str(stored.revision)})

        for _ in range(3):
            store.transact(build_commit)
        assert seen == [EMPTY, Stored(1, {"A": "0"}), Stored(2, {"A": "1"})]

    def test_each_commit_counts_the_revision_by_one(self, store: Store) -> None:
        assert [put(store, A=str(number), B="0") for number in range(4)] == [1, 2, 3, 4]

    def test_a_commit_without_changes_is_a_revision_too(self, store: Store) -> None:
        put(store, A="1")
        assert put(store) == 2
        assert store.load() == Stored(2, {"A": "1"})
        assert store.values_at(2) == {"A": "1"}

    def test_none_changes_nothing(self, store: Store) -> None:
        put(store, A="1")
        before, history = store.load(), store.history(10)
        assert store.transact(lambda stored: None) == before
        assert store.load() == before
        assert store.history(10) == history

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_an_error_in_build_commit_changes_nothing_and_comes_out_as_it_is(
        self, store: Store, error: type[BaseException]
    ) -> None:
        put(store, A="1")
        before, history = store.load(), store.history(10)

        def build_commit(stored: Stored) -> NoReturn:
            raise error("no")

        with pytest.raises(error, match="no"):
            store.transact(build_commit)
        assert store.load() == before
        assert store.history(10) == history
        assert put(store, A="2") == 2, "the lock is free again"


class TestHistory:
    def test_newest_first(self, store: Store) -> None:
        for number in range(3):
            put(store, A=str(number))
        assert [row.revision for row in store.history(10)] == [3, 2, 1]

    def test_limit_keeps_the_newest(self, store: Store) -> None:
        for number in range(5):
            put(store, A=str(number))
        assert [row.new for row in store.history(2)] == ["4", "3"]

    def test_key_selects_before_the_limit_counts(self, store: Store) -> None:
        for number in range(3):
            put(store, A=str(number))
            put(store, B=str(number))
        assert [(row.key, row.new) for row in store.history(2, "A")] == [("A", "2"), ("A", "1")]
        assert store.history(2, "C") == []

    def test_one_row_for_each_key_of_a_commit(self, store: Store) -> None:
        put(store, A="1", B="2")
        assert {(row.revision, row.key, row.new) for row in store.history(10)} == {
            (1, "A", "1"),
            (1, "B", "2"),
        }

    def test_old_and_new_are_none_where_nothing_is_stored(self, store: Store) -> None:
        for text in ("1", "2", None):
            put(store, A=text)
        assert [(row.old, row.new) for row in store.history(10)] == [
            ("2", None),
            ("1", "2"),
            (None, "1"),
        ]

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_for_none(self, store: Store, limit: int) -> None:
        put(store, A="1")
        put(store, A="2")
        assert store.history(limit) == store.history(limit, "A") == []

    def test_a_commit_may_name_the_old_text_itself(self, store: Store) -> None:
        put(store, A="1", B="1")
        store.transact(lambda stored: Commit({"A": "2", "B": "2"}, old={"A": None}))
        assert {row.key: row.old for row in store.history(2)} == {"A": None, "B": "1"}

    def test_actor_and_note_are_kept(self, store: Store) -> None:
        put(store, A="1", actor="ann", note="wégen 🧇")
        put(store, A="2")
        assert [(row.actor, row.note) for row in store.history(10)] == [
            (None, None),
            ("ann", "wégen 🧇"),
        ]

    @pytest.mark.usefixtures("far_from_utc")
    def test_at_is_the_time_of_the_commit_in_utc(self, store: Store) -> None:
        before = datetime.now(timezone.utc)
        put(store, A="1")
        (row,) = store.history(1)
        assert row.at.utcoffset() == timedelta(0)
        assert before <= row.at <= datetime.now(timezone.utc)


class TestValuesAt:
    def test_each_revision_is_known_as_it_was(self, store: Store) -> None:
        put(store, A="1", B="1")
        put(store, B="2", C="2")
        put(store, A=None)
        put(store, A="4")
        expected = [
            {},
            {"A": "1", "B": "1"},
            {"A": "1", "B": "2", "C": "2"},
            {"B": "2", "C": "2"},
            {"A": "4", "B": "2", "C": "2"},
        ]
        assert [store.values_at(revision) for revision in range(5)] == expected

    @pytest.mark.parametrize("revision", [-1, 2, 10**6])
    def test_an_unknown_revision_is_refused_by_its_number(
        self, store: Store, revision: int
    ) -> None:
        put(store, A="1")
        with pytest.raises(UnknownRevision, match=f"no revision {revision}:"):
            store.values_at(revision)


class TestTexts:
    @pytest.mark.parametrize(
        "value",
        [
            "x" * 2**20,
            "Größe 🧇 \u2028 日本",
            "'\";-- \\ ` $1",
            ":name %s %(key)s {0} ?",
            "a\0b",
            "",
            None,
            [1, {"a": 1.5}],
        ],
        ids=["1 MiB", "unicode", "quotes", "placeholders", "NUL", "empty", "null", "nested"],
    )
    @pytest.mark.parametrize("ascii_only", [True, False])
    def test_every_json_text_comes_back_as_it_was(
        self, store: Store, value: object, ascii_only: bool
    ) -> None:
        text = json.dumps(value, ensure_ascii=ascii_only)
        put(store, A=text)
        put(store, A=None)
        put(store, A=text)
        assert store.load().values == {"A": text}
        assert store.values_at(1) == {"A": text}
        assert [(row.old, row.new) for row in store.history(2)] == [(None, text), (text, None)]

    def test_the_beginnings_of_values_can_be_asked_for(self, store: Store) -> None:
        """The values in the history are cut to so many characters; nothing else is."""
        put(store, A='"ü🧇ab"', actor="a long name")
        put(store, A="1")
        shown = [(row.old, row.new, row.actor) for row in store.history(2, max_length=3)]
        assert shown == [('"ü🧇', "1", None), (None, '"ü🧇', "a long name")]
        assert [row.new for row in store.history(1, "A", max_length=0)] == [""]
        assert [row.new for row in store.history(2, "A")] == ["1", '"ü🧇ab"']

    def test_long_and_odd_actors_and_notes_are_kept(self, store: Store) -> None:
        long = "ü'\"🧇" * 10_000
        put(store, A="1", actor=long, note=long)
        assert [(row.actor, row.note) for row in store.history(1)] == [(long, long)]

    def test_keys_of_255_characters_are_kept_apart_by_case(self, store: Store) -> None:
        keys = {"k" * 255: "1", "K" * 255: "2", "Ä": "3", "ä": "4"}
        put(store, **keys)
        assert store.load().values == keys


class TestSharing:
    def test_two_objects_see_each_other(self, store: Store, other: Store) -> None:
        put(store, A="1")
        assert other.load() == Stored(1, {"A": "1"})
        put(other, B="2")
        assert store.load() == Stored(2, {"A": "1", "B": "2"})
        assert store.history(10) == other.history(10)
        assert store.values_at(1) == other.values_at(1) == {"A": "1"}

    def test_values_that_another_wrote_survive(self, store: Store, other: Store) -> None:
        put(other, LEGACY="1")
        put(store, A="1")
        put(store, A=None)
        assert other.load().values == {"LEGACY": "1"}

    @pytest.mark.parametrize("decision", ["raises", "returns None"])
    def test_what_is_not_committed_is_seen_by_nobody(
        self, store: Store, other: Store, decision: str
    ) -> None:
        seen: list[Stored] = []

        def build_commit(stored: Stored) -> None:
            seen.append(other.load())
            if decision == "raises":
                raise LookupError

        with contextlib.suppress(LookupError):
            store.transact(build_commit)
        assert [*seen, other.load()] == [EMPTY, EMPTY]

    @pytest.mark.parametrize("objects", [1, 2])
    def test_concurrent_commits_lose_nothing(
        self, store: Store, open_store: OpenStore, objects: int
    ) -> None:
        threads, rounds = 4, 8
        stores = (
            [store] * threads
            if objects == 1 or not store.shared
            else [open_store() for _ in range(threads)]
        )

        def build_commit(stored: Stored) -> Commit:
            time.sleep(0)  # let another thread try
            return Commit({"N": str(int(stored.values.get("N", "0")) + 1)})

        def count(mine: Store) -> None:
            for _ in range(rounds):
                mine.transact(build_commit)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(count, stores))
        total = threads * rounds
        assert store.load() == Stored(total, {"N": str(total)})
        assert [row.revision for row in store.history(1000)] == list(range(total, 0, -1))

    def test_a_reader_never_sees_half_of_a_commit(self, store: Store) -> None:
        def read() -> set[bool]:
            whole = set()
            while not writer.done():
                stored = store.load()
                whole.add(
                    {str(stored.revision)} >= set(stored.values.values())
                    and len(stored.values) in (0, 2)
                )
            return whole

        def write() -> None:
            for _ in range(20):
                store.transact(
                    lambda stored: Commit(
                        {"A": str(stored.revision + 1), "B": str(stored.revision + 1)}
                    )
                )

        with ThreadPoolExecutor(3) as pool:
            writer = pool.submit(write)
            readers = [pool.submit(read) for _ in range(2)]
            writer.result()
            assert set().union(*(reader.result() for reader in readers)) <= {True}
