"""A value has a size that no update may exceed, and no reader minds."""

from __future__ import annotations

import json

import pytest

from uwsgi_waffle import InvalidValue, MemoryStore
from uwsgi_waffle.documents import convert_legacy
from uwsgi_waffle.schema import Schema

from .conftest import Host
from .test_legacy import written

REFUSED = (
    "Nothing was changed: SITENAME: it has 101 bytes as JSON, and WAFFLE_MAX_VALUE_SIZE allows 100"
)


def test_a_larger_value_is_refused_and_the_setting_named(host: Host) -> None:
    site = host.start(MemoryStore(), MAX_VALUE_SIZE=100)
    site.waffle.update({"SITENAME": "x" * 98})
    for text in ("x" * 99, "ü" * 16 + "xxx"):
        with pytest.raises(InvalidValue) as caught:
            site.waffle.update({"SITENAME": text, "LIMIT": 20})
        assert str(caught.value) == REFUSED
    assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("x" * 98, 10)


def test_the_default_is_a_mebibyte(host: Host) -> None:
    site = host.start(MemoryStore())
    site.waffle.update({"SITENAME": "x" * (2**20 - 2)})
    with pytest.raises(InvalidValue, match=r"1,048,577 bytes .* allows 1,048,576"):
        site.waffle.update({"SITENAME": "x" * (2**20 - 1)})


def test_one_that_is_in_the_store_is_served_but_not_written_again(host: Host) -> None:
    host.start().waffle.update({"SITENAME": "x" * 200})
    site = host.start(MAX_VALUE_SIZE=100)
    assert site.waffle.values.SITENAME == "x" * 200
    assert site.waffle.update({"LIMIT": 20, "SITENAME": "x" * 200}).changed == ("LIMIT",)
    site.waffle.update({"SITENAME": "short"})
    with pytest.raises(InvalidValue, match="202 bytes"):
        site.waffle.rollback(1)


def test_a_row_of_flask_waffleconf_is_left_alone() -> None:
    schema = Schema.declare({"SITENAME": {"default": ""}, "TAGS": {"default": []}})
    rows = {"SITENAME": written("x" * 99), "TAGS": written(["a"])}
    converted, problems = convert_legacy(schema, rows, max_size=100)
    assert {name: json.loads(text) for name, text in converted.items()} == {"TAGS": ["a"]}
    assert problems["SITENAME"].startswith("it has 101 bytes")
