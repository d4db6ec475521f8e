"""A snapshot's bytes give back what was written, or are known to be damaged."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uwsgi_waffle.snapshot import DIGEST_SIZE, Encoded, SnapshotDamaged, decode, encode

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
    assert decode(encoded.blob, encoded.digest) == encoded
    assert encoded.revision == revision
    assert json.loads(encoded.values) == values


@anywhere
@given(st.data())
def test_damage_is_noticed(data: st.DataObject) -> None:
    """Whatever single byte is changed, wherever it is cut off."""
    blob = bytearray(EXAMPLE.blob)
    place = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(SnapshotDamaged):
        decode(bytes(blob[:place]), EXAMPLE.digest)
    blob[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SnapshotDamaged):
        decode(bytes(blob), EXAMPLE.digest)


@anywhere
@given(st.binary(max_size=200))
def test_noise_is_no_snapshot(noise: bytes) -> None:
    with pytest.raises(SnapshotDamaged):
        decode(noise, EXAMPLE.digest)


def test_what_stands_behind_the_end_is_noticed() -> None:
    with pytest.raises(SnapshotDamaged):
        decode(EXAMPLE.blob + b"\n", EXAMPLE.digest)


def test_the_order_of_names_makes_no_other_snapshot() -> None:
    assert encode(7, {"A": '"a"', "B": "2"}) == EXAMPLE


@pytest.mark.parametrize(
    "other",
    [encode(8, {"A": '"a"', "B": "2"}), encode(7, {"A": '"a"', "B": "3"}), encode(7, {"A": '"a"'})],
)
def test_another_revision_or_value_has_another_digest(other: Encoded) -> None:
    assert other.digest != EXAMPLE.digest


def test_a_digest_fills_one_word_of_the_header() -> None:
    assert len(EXAMPLE.digest) == DIGEST_SIZE == 8
