"""Lists, dictionaries and sets among the values can't be changed in place unseen."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from pydantic import BaseModel

from uwsgi_waffle import ManagedVariable, MemoryStore, WaffleConf


class Part(BaseModel):
    names: list[str] = ["n"]


CONFS = {
    "HOSTS": {"default": ["a", "b"]},
    "GRID": {"default": [[1], {"x": 1}]},
    "LIMITS": {"default": {"low": [1], "high": {"x": 2}}},
    "TAGS": {"default": {"t"}, "type": set[str]},
    "PAIR": {"default": ([1], 2), "type": tuple[list[int], int]},
    "PART": {"default": Part(), "type": Part},
}
PLAIN = {"HOSTS": ["a", "b"], "LIMITS": {"low": [1], "high": {"x": 2}}, "TAGS": {"t"}}


@pytest.fixture(params=["default", "stored"])
def waffle(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    app = Flask("site", instance_path=str(tmp_path))
    app.config["WAFFLE_CONFS"] = CONFS
    waffle = WaffleConf(app, MemoryStore())
    if request.param == "stored":
        waffle.update({"HOSTS": [], "TAGS": []})
        waffle.update(PLAIN)
    return waffle


CHANGES: dict[str, Callable[[Any], Any]] = {
    "append": lambda values: values.HOSTS.append("c"),
    "sort": lambda values: values.HOSTS.sort(reverse=True),
    "list[]=": lambda values: values.HOSTS.__setitem__(0, "c"),
    "del list[]": lambda values: values.HOSTS.__delitem__(0),
    "update": lambda values: values.LIMITS.update(low=2),
    "setdefault": lambda values: values.LIMITS.setdefault("new", 2),
    "dict[]=": lambda values: values.LIMITS.__setitem__("low", 2),
    "within": lambda values: values.LIMITS["low"].append(2),
    "dict within": lambda values: values.LIMITS["high"].pop("x"),
    "add": lambda values: values.TAGS.add("u"),
    "discard": lambda values: values.TAGS.discard("t"),
    "list in a list": lambda values: values.GRID[0].append(2),
    "dict in a list": lambda values: values.GRID[1].clear(),
    "in a tuple": lambda values: values.PAIR[0].clear(),
    "in a model": lambda values: values.PART.names.insert(0, "m"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_refused(waffle: Any, change: Callable[[Any], Any]) -> None:
    before = repr(waffle.values)
    with pytest.raises(ManagedVariable, match=r"Change a copy, (list|dict|set)\(value\)"):
        change(waffle.values)
    assert repr(waffle.values) == before


def test_plain_use(waffle: Any) -> None:
    """They are used as any list, dictionary or set."""
    values = waffle.values
    assert isinstance(values.HOSTS, list)
    assert isinstance(values.LIMITS, dict)
    assert isinstance(values.TAGS, set)
    assert json.loads(json.dumps([values.HOSTS, values.LIMITS])) == [
        PLAIN["HOSTS"],
        PLAIN["LIMITS"],
    ]
    assert {name: values[name] for name in PLAIN} == PLAIN
    assert [*values.HOSTS, "c"] == values.HOSTS.__add__(["c"]) == ["a", "b", "c"]
    assert (values.LIMITS | {"low": 0})["low"] == 0
    assert repr(values.HOSTS) == "['a', 'b']"
    assert values.model_dump(mode="json")["LIMITS"] == PLAIN["LIMITS"]


COPIES: dict[str, Callable[[Any], Any]] = {
    "kind": lambda value: type(value).__mro__[1](value),
    "copy()": lambda value: value.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies(waffle: Any, make: Callable[[Any], Any]) -> None:
    """A copy is a plain list, dictionary or set."""
    for name, kind in {"HOSTS": list, "LIMITS": dict, "TAGS": set}.items():
        assert type(make(waffle.values[name])) is kind
    copy.deepcopy(waffle.values.LIMITS)["low"].append(2)


def test_combined(waffle: Any) -> None:
    """``+=`` and ``|=`` make another value, as with a tuple."""
    hosts, limits, tags = waffle.values.HOSTS, waffle.values.LIMITS, waffle.values.TAGS
    hosts += ["c"]
    limits |= {"low": 0}
    tags -= {"t"}
    assert (hosts, limits["low"], tags) == (["a", "b", "c"], 0, set())
    assert {name: waffle.values[name] for name in PLAIN} == PLAIN


def test_update_with_what_was_read(waffle: Any) -> None:
    revision = waffle.revision
    assert waffle.update({name: waffle.values[name] for name in CONFS}).revision <= revision + 1
    assert {name: waffle.values[name] for name in PLAIN} == PLAIN
