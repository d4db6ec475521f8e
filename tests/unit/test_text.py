"""Text for terminals and logs."""

from __future__ import annotations

import json

import pytest

from uwsgi_waffle.text import escape_line, to_json

HARMLESS = ["", "a b", "Brügge", "日本", "🧇", "a\\n"]
HARMFUL = ["a\nb", "\x1b[2J", "\r", "\x9b2J", "\u2028", "\u202e", "\x7f", "\ud800", "\U000e0001"]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_can_be_printed_stays_as_it_is(text: str) -> None:
    assert escape_line(text) == text
    assert to_json(text) == json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize("text", HARMFUL, ids=ascii)
def test_what_can_not_be_printed_is_escaped(text: str) -> None:
    assert escape_line(text).isprintable()
    assert escape_line(f"Brügge{text}").startswith("Brügge")


@pytest.mark.parametrize("text", HARMLESS + HARMFUL, ids=ascii)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_stays_json(text: str, encoding: str) -> None:
    document = to_json({text: [text]}, indent=2, encoding=encoding)
    assert json.loads(document) == {text: [text]}
    assert all(
        line.isprintable() for line in document.encode(encoding).decode(encoding).split("\n")
    )


def test_what_the_encoding_does_not_have_is_escaped() -> None:
    assert escape_line("Brügge 🧇", "latin-1") == "Brügge \\U0001f9c7"
    assert escape_line("Brügge", "ascii") == "Br\\xfcgge"
