"""The endpoint for probes: well or not, in words that anybody may read."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import abort

from uwsgi_waffle import MemoryStore
from uwsgi_waffle.health import health_blueprint
from uwsgi_waffle.host import HostFiles, LockedHeader
from uwsgi_waffle.report import GRACE

from .conftest import ALWAYS, CONFS, NEVER, Host, Process

INTERVAL = 30.0
DOWN = "the store can't be used"
UNSEEN = "the store was not compared within 30 s"
BEHIND = "this process doesn't serve the newest revision of its host"


def probe(process: Process, path: str = "/health") -> tuple[int, list[str]]:
    if "uwsgi_waffle_health" not in process.app.blueprints:
        process.app.register_blueprint(health_blueprint(process.waffle))
    answer = process.app.test_client().get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.get_json()
    assert body.keys() == {"healthy", "problems"}
    assert body["healthy"] == (answer.status_code == 200) == (not body["problems"])
    return answer.status_code, body["problems"]


def age(process: Process, seconds: float) -> None:
    """Let it be so long since the store was read."""
    with process.files.lock(1) as header:
        note_age(header, seconds)


def note_age(header: LockedHeader, seconds: float) -> None:
    header.set_notes(checked_at=time.monotonic_ns() - round(seconds * 1e9))


def test_well(site: Process) -> None:
    assert probe(site) == (200, [])
    site.waffle.update({"LIMIT": 20})
    assert probe(site) == (200, [])


def test_a_store_that_is_down_and_comes_back(host: Host) -> None:
    """It is said as soon as a comparison was due, and no longer than it is so."""
    store = host.store()
    site = host.start(store)
    store.failing = ALWAYS
    assert probe(site) == (200, [])  # not due yet
    age(site, INTERVAL)
    assert probe(site) == (503, [DOWN])
    assert probe(site) == (503, [DOWN])
    store.failing = NEVER
    assert probe(site) == (200, [])


def test_news_of_long_ago(host: Host, site: Process) -> None:
    """A process that nobody has woken compares with the store all the same."""
    probe(site)
    host.start().waffle.update({"LIMIT": 20})
    age(site, 10 * INTERVAL)
    assert probe(site) == (200, [])


def test_nobody_has_looked_for_long(host: Host) -> None:
    """The probe itself compares with the store if that is due, so this is no problem."""
    store = host.store()
    site = host.start(store)
    probe(site)
    before = store.calls
    age(site, 10 * INTERVAL)
    assert probe(site) == (200, [])
    assert store.calls == before + 1
    assert probe(site) == (200, [])
    assert store.calls == before + 1


@pytest.mark.parametrize(
    ("seconds", "expected"), [(INTERVAL + GRACE - 1, []), (INTERVAL + GRACE + 1, [UNSEEN])]
)
def test_a_comparison_that_does_not_end(site: Process, seconds: float, expected: list[str]) -> None:
    """While another process is at it nobody else can be; the store's own time to answer is allowed
    for.
    """
    elsewhere = HostFiles(site.files.watch_file)
    with elsewhere.lock(1.0) as header:
        note_age(header, seconds)
        assert probe(site)[1] == expected
    assert probe(site) == (200, [])


def test_a_header_made_anew_counts_from_then_on(site: Process, host: Host) -> None:
    """It knows of no comparison yet, and another process is making the first one."""
    age(site, 10 * INTERVAL)
    host.header.unlink()
    with HostFiles(site.files.watch_file).lock(1.0):
        assert probe(site) == (200, [])
        assert not site.files.notes().checked_at


def test_a_process_that_is_behind(site: Process, host: Host) -> None:
    """Its declarations refuse what the others serve."""
    old = host.start(
        confs={**CONFS, "LIMIT": {"default": 10, "type": "int"}, "SITENAME": {"default": 0}}
    )
    assert probe(old) == (200, [])
    site.waffle.update({"SITENAME": "text"})
    assert probe(site) == (200, [])
    assert probe(old) == (503, [BEHIND])
    site.waffle.reset("SITENAME")
    assert probe(old) == (200, [])


def test_details_are_for_whom_they_are_meant(host: Host) -> None:
    """Paths, process ids and errors are in no answer but theirs."""
    store, allowed = host.store(), [False]
    site = host.start(store)
    site.app.register_blueprint(
        health_blueprint(site.waffle, details=lambda: allowed[0]), url_prefix="/internal"
    )
    store.failing = ALWAYS
    age(site, INTERVAL)
    client = site.app.test_client()
    public = client.get("/internal/health")
    assert public.status_code == 503
    assert public.json == {"healthy": False, "problems": [DOWN]}
    allowed[0] = True
    private: Any = client.get("/internal/health").json
    assert private["problems"] == [DOWN]
    assert private["status"]["store_error"] == "the store is down"
    assert private["status"]["watcher_file"] == str(host.watch_file)


def test_details_may_refuse_the_request(site: Process) -> None:
    site.app.register_blueprint(health_blueprint(site.waffle, details=lambda: abort(403)))
    assert site.app.test_client().get("/health").status_code == 403


def test_what_is_not_shared_is_well(host: Host) -> None:
    assert probe(host.start(MemoryStore())) == (200, [])
    assert probe(host.start(MULTIPROC=False)) == (200, [])


def test_a_coroutine_is_no_permission(site: Process) -> None:
    async def nobody() -> bool:
        return False

    site.app.config["PROPAGATE_EXCEPTIONS"] = False
    site.app.register_blueprint(health_blueprint(site.waffle, details=nobody))
    answer = site.app.test_client().get("/health")
    assert "status" not in (answer.get_json(silent=True) or {})


@pytest.mark.parametrize(
    ("answer", "shown"),
    [(True, True), ("ann", True), (403, False), (-1, False), (("no", 401), False), ("", False)],
)
def test_details_need_permission(host: Host, answer: object, shown: bool) -> None:
    """``True`` or a name, as for the page: a number or a tuple is true, and no permission."""
    site = host.start()
    site.app.register_blueprint(health_blueprint(site.waffle, details=lambda: answer))
    assert ("status" in (site.app.test_client().get("/health").json or {})) is shown
