"""TOML and .env: what is written is read back, and other people's files are read as meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from uwsgi_waffle.documents import FORMATS, changes_for, format_of, read, written
from uwsgi_waffle.formats import read_env, read_toml
from uwsgi_waffle.schema import Schema
from uwsgi_waffle.snapshot import Snapshot
from uwsgi_waffle.stores import Stored

TEXT = st.text(st.characters(codec="utf-8"))
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.one_of(st.booleans(), INTEGERS, FLOATS, TEXT),
    lambda parts: st.lists(parts) | st.dictionaries(TEXT, parts),
    max_leaves=8,
)
CONFS: dict[str, Any] = {
    "TEXT": {"default": "x", "desc": "line\nend \x1b # = \"'"},
    "NUMBER": {"default": 0},
    "RATIO": {"default": 0.5},
    "ON": {"default": False},
    "OPTIONAL": {"default": None, "type": str | None},
    "ANY": {"default": 1, "type": JsonValue},
    "HÖHE": {"default": 1.5},
}
SCHEMA = Schema.declare(CONFS)
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "TEXT": TEXT,
        "NUMBER": INTEGERS,
        "RATIO": FLOATS,
        "ON": st.booleans(),
        "OPTIONAL": st.sampled_from(["null", '"x"', "5", "[]"]) | TEXT,
        "ANY": JSON,
        "HÖHE": FLOATS,
    },
)


def texts_of(values: dict[str, Any]) -> dict[str, str]:
    return {name: SCHEMA.variables[name].to_json(value) for name, value in values.items()}


@pytest.mark.parametrize("wanted", FORMATS)
@settings(deadline=None)
@given(values=VALUES)
def test_what_is_written_is_read_back(wanted: str, values: dict[str, Any]) -> None:
    """In each format, whatever it holds, whether its name says the format or not."""
    texts = texts_of(values)
    model = SCHEMA.load(json.dumps({name: json.loads(text) for name, text in texts.items()}))
    text = written(SCHEMA, Snapshot(3, b"", model), wanted, left_out=(), only_set=True)
    assert all(line.isprintable() for line in text.split("\n"))
    for name in (wanted, ""):
        document = read(text, name)
        changes = changes_for(SCHEMA, document, reset_others=True)
        assert changes(Stored(0, {})) == texts
        assert {
            key: text for key, text in changes(Stored(3, texts)).items() if texts.get(key) != text
        } == {}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\nB=x y\n", {"A": "1", "B": "x y"}),
        ("export A=1", {"A": "1"}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("# why\n\n  A=1\n", {"A": "1"}),
        ("A=x#y\nB=x # y\nC= \nD=", {"A": "x#y", "B": "x", "C": "", "D": ""}),
        ("A=#ff8800\nB=#f # y\nC= # y", {"A": "#ff8800", "B": "#f", "C": ""}),
        ("A='x # \\n'  # why\n", {"A": "x # \\n"}),
        ('A="x\\ty \\u00fc"\n', {"A": "x\ty ü"}),
        ('A="two\nlines"\nB=1', {"A": "two\nlines", "B": "1"}),
        ("A=x=y", {"A": "x=y"}),
    ],
)
def test_env_files_of_others(text: str, values: dict[str, str]) -> None:
    assert read(text, "env").values == values


@pytest.mark.parametrize(
    ("text", "line"),
    [("A", 1), ("A = 1", 1), ("A=1\n\nB: 2", 3), ('A="x', 1), ("A='x'y", 1), ('A="\\q"', 1)],
)
def test_a_bad_line_is_named(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=f"^line {line} "):
        read_env(text)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("env", ""), ("json", ""), ("x", ""), ("x.env", "env"), (".env", "env"), ("a/X.JSON", "json")],
)
def test_a_files_ending_says_its_format(name: str, wanted: str) -> None:
    assert format_of(name) == wanted


def test_dates_of_toml_are_text() -> None:
    found = read_toml("A = 2026-01-02\nB = [07:30:00]\n[C]\nD = 2026-01-02T07:30:00Z\n")
    assert found == {
        "A": "2026-01-02",
        "B": ["07:30:00"],
        "C": {"D": "2026-01-02T07:30:00+00:00"},
    }


def test_a_file_without_a_name_is_what_it_looks_like() -> None:
    assert read("VERSION=1.10").values == {"VERSION": "1.10"}, "as set would read it"
    assert read("VERSION = 1.5").values == {"VERSION": 1.5}
    assert read(' {"VERSION": 1.5}').values == {"VERSION": 1.5}
    with pytest.raises(
        ValueError, match=r"isn't TOML .* nor a .env file \(line 1 isn't NAME=TEXT\)"
    ):
        read("Hello, world")
