"""What clocks, ticks and coarse file systems do to a touch; and two applications on one watch file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uwsgi_waffle import SchemaError, SQLStore

from ..live.servers import ALWAYS, ROOT
from .sites import Site, new_values, served, sqlite
from .tally import Tally

pytestmark = pytest.mark.usefixtures("quiet_host")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, sqlite(tmp_path), Tally.of("clocks, ticks and coarse file systems"))


def test_two_touches_within_one_tick(site: Site) -> None:
    """The kernel gives both the same time; the second is seen all the same."""
    one, other = site.start(), site.start()
    one.waffle.update(new_values(1))
    for number in range(2, 30):
        tick = time.time_ns()
        os.utime(site.host.watch_file, ns=(tick, tick))
        site.judge({"one": one, "other": other}, "touched for nothing")
        site.edit(number)
        os.utime(site.host.watch_file, ns=(tick, tick))
        assert site.judge({"one": one, "other": other}, "touched again within a tick").values[
            "A"
        ] == str(number)
        site.tally.faults += 1
    site.tally.verdict()


@pytest.mark.parametrize("grain", [10**9, 2 * 10**9, 10**7], ids=["1 s", "2 s", "10 ms"])
def test_a_coarse_file_system(site: Site, monkeypatch: pytest.MonkeyPatch, grain: int) -> None:
    """Times are rounded: updates and touches are all seen, and the store isn't read for ever."""
    utime, lstat = os.utime, os.lstat

    def rounded(
        path: object, times: object = None, *, ns: tuple[int, int] | None = None, **options: object
    ) -> None:
        mtime = (ns[1] if ns else time.time_ns()) // grain * grain
        # as the caller said it
        utime(path, ns=(mtime, mtime), **options)  # type: ignore[call-overload]

    one, other = site.start(), site.start()
    monkeypatch.setattr(os, "utime", rounded)
    for number in range(1, 20):
        one.waffle.update(new_values(2 * number))
        site.judge({"one": one, "other": other}, "updated")
        site.edit(2 * number + 1)
        os.utime(site.host.watch_file)
        assert lstat(site.host.watch_file).st_mtime_ns % grain == 0
        assert site.judge({"one": one, "other": other}, "touched").values["A"] == str(
            2 * number + 1
        )
        site.tally.faults += 1
    loads = 0
    store = other.state.store
    genuine = store.load

    def counted() -> object:
        nonlocal loads
        loads += 1
        return genuine()

    monkeypatch.setattr(store, "load", counted)
    for _ in range(50):
        other.state._lease = 0.0
        served(other)
    assert loads == 0, "nobody has touched anything"
    site.tally.verdict()


@pytest.mark.parametrize("back", [3600.0, 0.001, -3600.0])
def test_the_clock_is_set(site: Site, monkeypatch: pytest.MonkeyPatch, back: float) -> None:
    """An hour back, a little, an hour on: updates and touches are seen, and the monotonic clock
    times the rest.
    """
    genuine, genuine_ns = time.time, time.time_ns
    one, other = site.start(), site.start()
    for number in range(1, 6):
        monkeypatch.setattr(time, "time", lambda n=number: genuine() - n * back)
        monkeypatch.setattr(time, "time_ns", lambda n=number: genuine_ns() - int(n * back * 1e9))
        one.waffle.update(new_values(2 * number))
        site.judge({"one": one, "other": other}, "updated")
        site.edit(2 * number + 1)
        now = time.time_ns()
        os.utime(site.host.watch_file, ns=(now, now))
        assert site.judge({"one": one, "other": other}, "touched").values["A"] == str(
            2 * number + 1
        )
        site.tally.faults += 1
    site.judge({"a new process": site.start()}, "started")
    site.tally.verdict()


SECOND = """
import sys
from pathlib import Path
from flask import Flask
import uwsgi_waffle

app = Flask("second", instance_path=sys.argv[1])
app.config.update(WAFFLE_CONFS={"OTHER": {"default": 1}}, WAFFLE_STORE_URL=f"sqlite:///{sys.argv[1]}/second.db")
try:
    uwsgi_waffle.WaffleConf(app)
except uwsgi_waffle.WaffleError as error:
    print(type(error).__name__, error)
"""


def test_two_applications_on_one_watch_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second, in this process or in another, is refused with both named; the first notices
    nothing, nor does its store.
    """
    one, other = site.start(), site.start()
    one.waffle.update(new_values(1))
    with pytest.raises(
        SchemaError,
        match=r"waffle\.watch is used for another store than .*second\.db.*a watch file of its own",
    ):
        site.start(SQLStore(f"sqlite:///{site.host.instance}/second.db"))
    command = [sys.executable, "-c", SECOND, str(site.host.instance)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ALWAYS}, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(
        f"SchemaError WAFFLE_WATCHER_FILE {site.host.watch_file} is used for another store"
    )
    assert site.judge(
        {"one": one, "other": other}, "a second application has come"
    ).values.keys() == {"A", "B", "TEXT"}
    one.waffle.update(new_values(2))
    site.judge({"one": one, "other": other, "new": site.start()}, "and was refused")
    site.tally.faults += 2
    site.tally.verdict()
