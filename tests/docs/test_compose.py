"""docs/containers.md: its compose file is one, and says what the page says."""

from __future__ import annotations

import importlib.util
import os
from configparser import ConfigParser
from pathlib import PurePosixPath
from typing import Any

import pytest

from .page import DOCS, steps

FILES = {
    step.argument: step.text
    for step in steps((DOCS / "containers.md").read_text())
    if step.verb == "file"
}


@pytest.fixture
def services() -> dict[str, Any]:
    if importlib.util.find_spec("yaml") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("pyyaml is missing")
    import yaml

    return dict(yaml.safe_load(FILES["compose.yaml"])["services"])


def test_each_address_is_a_service(services: dict[str, Any]) -> None:
    site = services["site"]
    assert set(site["depends_on"]) == set(services) - {"site"}
    for name in ("WAFFLE_STORE_URL", "WAFFLE_REDIS_URL"):
        _, _, place = site["environment"][name].partition("//")
        host = place.rpartition("@")[2].partition("/")[0].partition(":")[0]
        assert host in services


def test_the_watch_file_is_where_the_user_may_write(services: dict[str, Any]) -> None:
    """The root is read-only, and the user has no capabilities."""
    site = services["site"]
    folder = str(PurePosixPath(site["environment"]["WAFFLE_WATCHER_FILE"]).parent)
    uid, _, gid = site["user"].partition(":")
    assert (site["read_only"], site["cap_drop"]) == (True, ["ALL"])
    assert f"{folder}:uid={uid},gid={gid},mode=0700" in site["tmpfs"]


def test_the_ini_is_the_one_that_is_run(services: dict[str, Any]) -> None:
    site, ini = services["site"], ConfigParser(delimiters=("=",))
    ini.read_string(FILES["site.ini"])
    assert site["command"] == "uwsgi --ini site.ini"
    port = ini["uwsgi"]["http-socket"].rpartition(":")[2]
    assert site["ports"] == [f"{port}:{port}"]
