"""A snapshot's bytes give back what was written, or are known to be damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import create_model

from uwsgi_waffle.snapshot import (
    ID_SIZE,
    Change,
    Encoded,
    Snapshot,
    SnapshotDamaged,
    decode,
    difference,
    encode,
)

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
documents = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
revisions = st.integers(min_value=0, max_value=2**63 - 1)
anywhere = settings(deadline=None, database=None, max_examples=60)

EXAMPLE = encode(7, {"B": "2", "A": '"a"'})


@anywhere
@given(revisions, st.dictionaries(st.text(), documents), st.booleans())
def test_what_is_encoded_comes_back(
    revision: int, values: dict[str, object], ascii_only: bool
) -> None:
    texts = {name: json.dumps(value, ensure_ascii=ascii_only) for name, value in values.items()}
    encoded = encode(revision, texts)
    assert decode(encoded.blob, encoded.id) == encoded
    assert encoded.revision == revision
    assert json.loads(encoded.values) == values


@anywhere
@given(st.data())
def test_damage_is_noticed(data: st.DataObject) -> None:
    """Whatever single byte is changed, wherever it is cut off."""
    blob = bytearray(EXAMPLE.blob)
    place = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(SnapshotDamaged):
        decode(bytes(blob[:place]), EXAMPLE.id)
    blob[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SnapshotDamaged):
        decode(bytes(blob), EXAMPLE.id)


@anywhere
@given(st.binary(max_size=200))
def test_noise_is_no_snapshot(noise: bytes) -> None:
    with pytest.raises(SnapshotDamaged):
        decode(noise, EXAMPLE.id)


def test_what_stands_behind_the_end_is_noticed() -> None:
    with pytest.raises(SnapshotDamaged):
        decode(EXAMPLE.blob + b"\n", EXAMPLE.id)


def test_the_order_of_names_makes_no_other_snapshot() -> None:
    assert encode(7, {"A": '"a"', "B": "2"}) == EXAMPLE


@pytest.mark.parametrize(
    "other",
    [encode(8, {"A": '"a"', "B": "2"}), encode(7, {"A": '"a"', "B": "3"}), encode(7, {"A": '"a"'})],
)
def test_another_revision_or_value_has_another_id(other: Encoded) -> None:
    assert other.id != EXAMPLE.id


def test_an_id_fills_one_word_of_the_header() -> None:
    assert len(EXAMPLE.id) == ID_SIZE == 8


def snapshot(revision: int, **values: object) -> Snapshot:
    return Snapshot(
        revision, bytes(8), create_model("Values", **{n: (Any, v) for n, v in values.items()})()
    )


def test_a_difference_is_of_values_and_not_of_revisions() -> None:
    assert difference(snapshot(2, A=1, B=2), snapshot(1, A=1, B=2)) is None
    change = difference(snapshot(2, A=1, B=3), snapshot(1, A=1, B=2))
    assert change == Change(2, {"B": 2}, {"B": 3})


@pytest.mark.parametrize(("one", "other"), [(1, True), ([0], [False]), ({"a": 1.0}, {"a": 1})])
def test_values_are_compared_as_json_does(one: object, other: object) -> None:
    change = difference(snapshot(2, A=one), snapshot(1, A=other))
    assert change is not None
    assert repr(change.new["A"]) == repr(one)


def test_a_value_is_in_no_repr() -> None:
    """It may be a secret."""
    encoded = encode(1, {"A": '"geheim"'})
    change = difference(snapshot(2, A="geheim"), snapshot(1, A="other"))
    assert "geheim" not in repr(encoded) + repr(change)
