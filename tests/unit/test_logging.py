"""`RevisionFilter`: which revision the code that logs has read, at no cost and without an error."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from flask import Flask

from uwsgi_waffle import MemoryStore, WaffleConf
from uwsgi_waffle.logging import RevisionFilter

from ..host import CONFS, Host, Process
from .test_requests import Calls

log = logging.getLogger("tests.shop")


def logged_by(waffle: WaffleConf) -> list[object]:
    """Log a line; return the revisions that it and the lines before have had."""
    seen: list[object] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(vars(record)["waffle_revision"])

    handler = Handler()
    handler.addFilter(RevisionFilter(waffle))
    log.addHandler(handler)
    log.warning("a line")
    return seen


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    log.handlers.clear()


def test_in_a_request_it_is_what_the_request_has_read(site: Process, other: Process) -> None:
    seen = logged_by(site.waffle)
    with site.app.test_request_context():
        assert site.waffle.values.LIMIT == 10
        other.waffle.update({"LIMIT": 20})
        assert site.waffle.latest.LIMIT == 20
        log.warning("in the request")
    log.warning("after it")
    assert seen == [0, 0, 1]


def test_in_a_block_it_is_that_of_the_block(site: Process, other: Process) -> None:
    seen = logged_by(site.waffle)
    with site.waffle.snapshot():
        other.waffle.update({"LIMIT": 20})
        assert site.waffle.latest.LIMIT == 20
        log.warning("in the block")
    assert seen == [0, 0]


def test_a_line_does_not_fix_the_revision_of_its_request(site: Process, other: Process) -> None:
    seen = logged_by(site.waffle)
    with site.app.test_request_context():
        log.warning("before the first read")
        other.waffle.update({"LIMIT": 20})
        assert site.waffle.values.LIMIT == 20
        log.warning("after it")
    assert seen == [0, 0, 1]


def test_it_makes_no_system_call_and_asks_no_store(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = host.store()
    site = host.start(store)
    record = logging.makeLogRecord({})
    calls, asked = Calls(monkeypatch), store.calls
    assert RevisionFilter(site.waffle).filter(record)
    assert (calls.made, store.calls - asked) == ([], 0)


def test_in_any_thread(site: Process) -> None:
    seen = logged_by(site.waffle)
    thread = threading.Thread(target=log.warning, args=("elsewhere",))
    thread.start()
    thread.join()
    assert seen == [0, 0]


def test_without_an_application_it_is_none() -> None:
    assert logged_by(WaffleConf()) == [None]


def test_with_several_applications_it_is_that_of_the_active_one() -> None:
    waffle, apps = WaffleConf(), [Flask("one"), Flask("two")]
    for app in apps:
        app.config["WAFFLE_CONFS"] = CONFS
        waffle.init_app(app, MemoryStore())
    with apps[1].app_context():
        waffle.update({"LIMIT": 20})
        assert logged_by(waffle) == [1]
        log.handlers.clear()
    assert logged_by(waffle) == [None]


def test_dict_config_finds_it_where_nobody_has_imported_it() -> None:
    code = (
        "import logging.config, uwsgi_waffle;"
        "own = {'()': 'uwsgi_waffle.logging.RevisionFilter', 'waffle': uwsgi_waffle.WaffleConf()};"
        "logging.config.dictConfig({'version': 1, 'filters': {'revision': own}})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
