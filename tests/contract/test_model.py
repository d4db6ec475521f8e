"""Every store against the simplest one that can be thought of: a list of dictionaries, one for each
revision.
"""

from __future__ import annotations

from datetime import timezone
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from uwsgi_waffle import UnknownRevision
from uwsgi_waffle.stores import Commit, Store, Stored

from .conftest import OpenStore

KEYS = ["A", "a", "B", "Ä"]
TEXTS = st.sampled_from(["0", "1", '"a"', '"A"', '"\\u0000"', '"🧇"', "null", '" "'])
CHANGES = st.dictionaries(st.sampled_from(KEYS), st.none() | TEXTS, min_size=1)
ANY = st.integers(0, 1)  # which of the objects does it


class Model(RuleBasedStateMachine):
    """Objects on the same data; any may do the next step. Each run begins with empty data."""

    objects: list[Store]  # set by a subclass

    def __init__(self) -> None:
        super().__init__()
        self.objects[0].transact(lambda stored: Commit(dict.fromkeys(stored.values)))
        self.base = (
            self.objects[0].load().revision
        )  # making an empty store afresh for each run would take too long
        self.past: list[dict[str, str]] = [{}]
        self.notes: list[tuple[str | None, str | None]] = []

    @property
    def stored(self) -> Stored:
        return Stored(self.base + len(self.past) - 1, self.past[-1])

    def commit(self, store: Store, commit: Commit) -> None:
        seen: list[Stored] = []

        def build_commit(stored: Stored) -> Commit:
            seen.append(stored)
            return commit

        before = self.stored
        changed = {**before.values, **commit.changes}
        self.past.append({key: text for key, text in changed.items() if text is not None})
        self.notes.append((commit.actor, commit.note))
        assert store.transact(build_commit) == self.stored
        assert seen == [before]

    @rule(
        by=ANY,
        changes=CHANGES,
        actor=st.sampled_from([None, "ann", "bob"]),
        note=st.sampled_from([None, "", "é"]),
    )
    def update(
        self, by: int, changes: dict[str, str | None], actor: str | None, note: str | None
    ) -> None:
        self.commit(self.objects[by], Commit(changes, actor, note))

    @rule(by=ANY, keys=st.sets(st.sampled_from(KEYS), min_size=1))
    def delete(self, by: int, keys: set[str]) -> None:
        self.commit(self.objects[by], Commit(dict.fromkeys(keys)))

    @rule(by=ANY, ago=st.integers(0, 5))
    def roll_back(self, by: int, ago: int) -> None:
        then = max(0, len(self.past) - 1 - ago)
        earlier = self.objects[by].values_at(self.base + then)
        assert earlier == self.past[then]
        changes = {key: earlier.get(key) for key in {*earlier, *self.past[-1]}}
        if changes:
            self.commit(self.objects[by], Commit(changes, note=f"rollback to revision {then}"))

    @rule(by=ANY, changes=CHANGES)
    def conflict(self, by: int, changes: dict[str, str | None]) -> None:
        def build_commit(stored: Stored) -> Commit:
            raise LookupError(stored.revision)

        with pytest.raises(LookupError, match=str(self.stored.revision)):
            self.objects[by].transact(build_commit)

    @rule(by=ANY)
    def nothing_to_do(self, by: int) -> None:
        assert self.objects[by].transact(lambda stored: None) == self.stored

    @rule(by=ANY)
    def prepare(self, by: int) -> None:
        self.objects[by].prepare()

    @rule(by=ANY)
    def the_past_is_as_it_was(self, by: int) -> None:
        for number, values in enumerate(self.past):
            assert self.objects[by].values_at(self.base + number) == values
        with pytest.raises(UnknownRevision):
            self.objects[by].values_at(self.base + len(self.past))

    @rule(by=ANY, key=st.none() | st.sampled_from(KEYS), limit=st.integers(1, 9))
    def the_history_tells_it(self, by: int, key: str | None, limit: int) -> None:
        rows = [row for row in self.objects[by].history(limit, key) if row.revision > self.base]
        assert [row.revision for row in rows] == sorted(
            (row.revision for row in rows), reverse=True
        )
        for row in rows:
            number = row.revision - self.base
            before, after = self.past[number - 1], self.past[number]
            assert (row.old, row.new) == (before.get(row.key), after.get(row.key))
            assert (row.actor, row.note) == self.notes[number - 1]
            assert row.key == key or key is None
            assert row.at.tzinfo is timezone.utc
        assert all(later.at >= earlier.at for later, earlier in pairwise(rows))

    @invariant()
    def all_see_the_same(self) -> None:
        for store in self.objects:
            assert store.load() == self.stored


def test_a_store_is_what_its_model_says(
    store: Store, open_store: OpenStore, thorough: bool
) -> None:
    class ModelOfStore(Model):
        objects = [store, open_store() if store.shared else store]  # noqa: RUF012  # read only

    options = settings(
        max_examples=12 if thorough else 4,
        stateful_step_count=15,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(ModelOfStore, settings=options)
