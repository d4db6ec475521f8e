"""docs/api.md names everything that is public, and each setting with its default."""

from __future__ import annotations

import ast
import re

import pytest

import uwsgi_waffle
from uwsgi_waffle import WaffleError, settings

from .page import DOCS, ROOT

PAGE = (DOCS / "api.md").read_text()
SETTINGS = {
    name: default
    for cell, default in re.findall(r"^\| (`WAFFLE_[^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE)
    for name, default in zip(re.findall(r"\w+", cell), default.split(", "), strict=True)
}
MEANING = {"empty": "", "none": "", "the store's URL": ""}


def read() -> dict[str, object]:
    """Return each setting that the package reads, with its default."""
    found: dict[str, object] = {}
    for node in ast.walk(ast.parse((ROOT / "uwsgi_waffle" / "settings.py").read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in ("_setting", "_seconds", "_size") and len(node.args) > 1:
            name, default = node.args[1], node.args[-1]
            if isinstance(name, ast.Constant):
                text = default.args[0] if isinstance(default, ast.Call) else default
                found[str(name.value)] = found.get(str(name.value)) or eval(ast.unparse(text))
    return found


def test_each_setting_with_its_default() -> None:
    named = {name: default.strip("`") for name, default in SETTINGS.items()}
    assert named.pop("WAFFLE_CONFS") == "required"
    defaults = {name: str(default) for name, default in read().items()}
    assert {name: MEANING.get(default, default) for name, default in named.items()} == defaults


def test_each_setting_is_known_to_the_warning_of_misspelt_ones() -> None:
    assert sorted(SETTINGS) == sorted(settings.NAMES)


@pytest.mark.parametrize("name", uwsgi_waffle.__all__)
def test_each_name(name: str) -> None:
    found = getattr(uwsgi_waffle, name)
    if isinstance(found, type) and issubclass(found, WaffleError):
        assert found.__module__ == "uwsgi_waffle.errors"
        assert ".. automodule:: uwsgi_waffle.errors\n   :members:\n" in PAGE
    else:
        assert re.search(rf":: uwsgi_waffle\.{name}\n", PAGE)
