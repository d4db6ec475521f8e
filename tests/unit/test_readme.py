"""README.md is a page that is read to its end."""

from __future__ import annotations

import re

import prometheus_client
import pytest
from flask import Flask

from uwsgi_waffle import MemoryStore, WaffleConf
from uwsgi_waffle.cli import waffle as commands

from ..docs.page import ROOT

README = (ROOT / "README.md").read_text()
SECTIONS = (
    "Try it",
    "A whole application",
    "Use it",
    "Servers",
    "More than one host",
    "What you can rely on",
    "What comes with it",
    "Compared with",
    "Limits",
)


def test_length() -> None:
    """It has at most 200 lines of at most 100 columns."""
    lines = README.splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 100] == []


def test_order() -> None:
    """What a newcomer asks first comes first."""
    assert tuple(re.findall(r"^## (.+)$", README, re.MULTILINE)) == SECTIONS


def test_application() -> None:
    """The whole application has about 15 lines."""
    found = re.search(r"^```python\n(from flask.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found
    assert len(found[1].splitlines()) <= 16


def test_environment_neutral() -> None:
    """It names no index, no folder of a machine, no badge."""
    assert re.findall(r"/work/|/root/|index-url|shields\.io|badge", README) == []


def test_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines that it has for page, health, metrics and tests run."""
    app = Flask("site")
    app.secret_key = "of the test"
    app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
    waffle = WaffleConf(app, MemoryStore())
    monkeypatch.setattr(prometheus_client, "REGISTRY", prometheus_client.CollectorRegistry())
    names = {
        "app": app,
        "waffle": waffle,
        "who": lambda: "ann",
        "prometheus_client": prometheus_client,
    }
    imports = re.findall(r"`(from uwsgi_waffle\.[^`]*)`", README)
    assert len(imports) == 4
    for line in imports:
        exec(line, names)
    lines = re.findall(r"`((?:app|prometheus_client)\.[^`]*register[^`]*\))`", README)
    assert len(lines) == 3
    for line in lines:
        exec(line, names)
    (block,) = re.findall(r"`(with override[^`]*:)`", README)
    exec(f"{block} seen = waffle.values.SITENAME", names)
    assert (names["seen"], waffle.values.SITENAME) == ("Test", "Waffle")
    client = app.test_client()
    assert [client.get(path).status_code for path in ("/health", "/waffle/processes")] == [200, 200]
    assert b"uwsgi_waffle_revision" in prometheus_client.generate_latest(prometheus_client.REGISTRY)


def test_commands() -> None:
    """It names every command but the one for those who come from Flask-WaffleConf."""
    (listed,) = re.findall(
        r"^- \*\*`flask waffle`\*\*: (.*?), each", README, re.DOTALL | re.MULTILINE
    )
    assert set(re.findall(r"`([\w-]+)`", listed)) == set(commands.commands) - {"import-legacy"}
