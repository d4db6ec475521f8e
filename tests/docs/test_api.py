"""docs/api.md names everything that is public, and each setting with its default."""

from __future__ import annotations

import re

import pytest

import uwsgi_waffle
from uwsgi_waffle import WaffleError
from uwsgi_waffle.settings import Settings

from .page import DOCS

PAGE = (DOCS / "api.md").read_text()
SETTINGS = {
    name: default
    for cell, default in re.findall(r"^\| (`WAFFLE_[^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE)
    for name, default in zip(re.findall(r"\w+", cell), default.split(", "), strict=True)
}
MEANING = {"empty": "", "none": "", "the store's URL": ""}


def test_each_setting_with_its_default() -> None:
    named = {name: default.strip("`") for name, default in SETTINGS.items()}
    assert named.pop("WAFFLE_CONFS") == "required"
    defaults = {field.alias: str(field.default) for field in Settings.model_fields.values()}
    assert {name: MEANING.get(default, default) for name, default in named.items()} == defaults


@pytest.mark.parametrize("name", uwsgi_waffle.__all__)
def test_each_name(name: str) -> None:
    found = getattr(uwsgi_waffle, name)
    if isinstance(found, type) and issubclass(found, WaffleError):
        assert found.__module__ == "uwsgi_waffle.errors"
        assert ".. automodule:: uwsgi_waffle.errors\n   :members:\n" in PAGE
    else:
        assert re.search(rf":: uwsgi_waffle\.{name}\n", PAGE)
