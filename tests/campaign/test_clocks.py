"""What clocks and coarse file systems do to a touch; and two applications on one watch file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uwsgi_waffle import SchemaError, SQLStore

from ..live.servers import ALWAYS, ROOT
from .sites import Site, new_values, sqlite
from .tally import Tally

pytestmark = pytest.mark.usefixtures("quiet_host")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, sqlite(tmp_path), Tally.of("clocks and coarse file systems"))


def touch(site: Site, when: int) -> None:
    os.utime(site.watch_file, ns=(when, when))


@pytest.mark.parametrize("grain", [10**9, 2 * 10**9, 10**7], ids=["1 s", "2 s", "10 ms"])
def test_a_coarse_file_system(site: Site, monkeypatch: pytest.MonkeyPatch, grain: int) -> None:
    """Updates and touches are seen though times are rounded, and the store isn't read for ever."""
    start = time.time_ns() // grain * grain
    one, other = site.start(), site.start()
    for number in range(1, 20):
        one.waffle.update(new_values(2 * number))
        site.judge({"one": one, "other": other}, "updated")
        site.edit(2 * number + 1)
        touch(site, start + number * grain)
        stored = site.judge({"one": one, "other": other}, "touched")
        assert stored.values["A"] == str(2 * number + 1)
        site.tally.faults += 1

    def fail() -> object:
        raise AssertionError("nobody has touched anything")

    for call in ("load", "load_after_pending_writes"):
        monkeypatch.setattr(other.state.store, call, fail)
    for _ in range(50):
        other.follow()
    assert other.waffle.status()["store_error"] == ""
    site.tally.verdict()


@pytest.mark.parametrize("back", [3600.0, 0.001, -3600.0])
def test_the_clock_is_set(site: Site, monkeypatch: pytest.MonkeyPatch, back: float) -> None:
    """An hour back, a little, an hour on: updates and touches are seen all the same."""
    genuine, genuine_ns = time.time, time.time_ns
    one, other = site.start(), site.start()
    for number in range(1, 6):
        monkeypatch.setattr(time, "time", lambda n=number: genuine() - n * back)
        monkeypatch.setattr(time, "time_ns", lambda n=number: genuine_ns() - int(n * back * 1e9))
        one.waffle.update(new_values(2 * number))
        site.judge({"one": one, "other": other}, "updated")
        site.edit(2 * number + 1)
        touch(site, time.time_ns())
        stored = site.judge({"one": one, "other": other}, "touched")
        assert stored.values["A"] == str(2 * number + 1)
        site.tally.faults += 1
    site.judge({"a new process": site.start()}, "started")
    site.tally.verdict()


SECOND = """
import sys
from pathlib import Path
from flask import Flask
import uwsgi_waffle

folder = sys.argv[1]
app = Flask("second", instance_path=folder)
app.config["WAFFLE_CONFS"] = {"OTHER": {"default": 1}}
app.config["WAFFLE_STORE_URL"] = f"sqlite:///{folder}/second.db"
try:
    uwsgi_waffle.WaffleConf(app)
except uwsgi_waffle.WaffleError as error:
    print(type(error).__name__, error)
"""


def test_two_applications_on_one_watch_file(site: Site) -> None:
    """The second is refused, in this process or another; the first and its store notice nothing."""
    one, other = site.start(), site.start()
    one.waffle.update(new_values(1))
    expected = (
        r"waffle\.watch is used for .*waffle\.db, not for .*second\.db\. Give each application"
    )
    with pytest.raises(SchemaError, match=expected):
        site.start(SQLStore(f"sqlite:///{site.instance}/second.db"))
    command = [sys.executable, "-c", SECOND, str(site.instance)]
    environ = {**os.environ, **ALWAYS}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    refused = f"SchemaError WAFFLE_WATCHER_FILE {site.watch_file} is used for the store"
    assert done.stdout.startswith(refused)
    stored = site.judge({"one": one, "other": other}, "a second application has come")
    assert stored.values.keys() == {"A", "B", "TEXT"}
    one.waffle.update(new_values(2))
    site.judge({"one": one, "other": other, "new": site.start()}, "and was refused")
    site.tally.faults += 2
    site.tally.verdict()
