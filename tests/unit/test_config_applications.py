"""Applications come and go in one process, as a test suite's factory makes them."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from uwsgi_waffle import SchemaError, SQLStore, WaffleConf, WaffleError
from uwsgi_waffle.host import HostFiles, ProcessInfo

from ..host import count_open_files, descriptors

CONFS = {"SITENAME": {"default": "Waffle"}}


def make(waffle: WaffleConf, instance: Path, store: Any = None, **config: Any) -> Flask:
    app = Flask("site", instance_path=str(instance))
    app.config.update(config, WAFFLE_CONFS=CONFS)
    waffle.init_app(app, store)
    return app


def our_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if "waffle" in thread.name}


@pytest.fixture
def waffle() -> WaffleConf:
    return WaffleConf()


class TestGone:
    """What is gone is forgotten."""

    def test_nothing_remains(self, waffle: WaffleConf, tmp_path: Path) -> None:
        before, files = our_threads(), count_open_files()
        app = make(waffle, tmp_path, WAFFLE_POLL_INTERVAL=60)
        app.get("/")(lambda: waffle.values.SITENAME)
        app.test_client().get("/")
        waffle.update({"SITENAME": "New"})
        processes = tmp_path / "waffle.watch.d/processes"
        assert len(our_threads() - before) == 1
        assert len(os.listdir(processes)) == 1
        assert descriptors(tmp_path)
        state = weakref.ref(app.extensions["waffleconf"])
        del app
        gc.collect()
        assert state() is None
        assert os.listdir(processes) == []
        assert descriptors(tmp_path) == []
        assert count_open_files() <= files
        deadline = time.monotonic() + 5
        while our_threads() - before and time.monotonic() < deadline:
            time.sleep(0.005)
        assert not our_threads() - before

    def test_the_only_one(self, waffle: WaffleConf, tmp_path: Path) -> None:
        """Outside a context the extension follows the one that is left."""
        first, second = make(waffle, tmp_path / "1"), make(waffle, tmp_path / "2")
        with second.app_context():
            waffle.update({"SITENAME": "second"})
        with pytest.raises(WaffleError, match="several applications"):
            _ = waffle.values
        del first
        gc.collect()
        assert waffle.values.SITENAME == "second"
        third = make(waffle, tmp_path / "3")
        with pytest.raises(WaffleError, match="several applications"):
            _ = waffle.values
        del second, third
        gc.collect()
        with pytest.raises(WaffleError, match="no application yet"):
            _ = waffle.values

    def test_other_store(self, waffle: WaffleConf, tmp_path: Path) -> None:
        """The watch file is free for another store."""
        store = SQLStore(f"sqlite:///{tmp_path}/other.db")
        app = make(waffle, tmp_path)
        with pytest.raises(SchemaError, match="is used for the store"):
            make(waffle, tmp_path, store)
        del app
        gc.collect()
        kept = make(waffle, tmp_path, store)
        assert kept.config["SITENAME"] == "Waffle"


class TestLiveStore:
    """A test that uses a running server's store is told so, once."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Any:
        """A worker of the same host, as its file says."""
        host = HostFiles(tmp_path / "waffle.watch")
        make(WaffleConf(), tmp_path)
        host.processes.report(ProcessInfo(pid=os.getpid() + 1, kind="worker 7"))
        return host.processes

    @pytest.mark.parametrize("early", [True, False])
    def test_warned(
        self, server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, early: bool
    ) -> None:
        app = make(WaffleConf(), tmp_path, TESTING=early)
        assert bool(caplog.records) is early
        app.testing = True
        app.config.update(TESTING=True)
        (record,) = caplog.records
        assert "worker 7" in record.getMessage()
        assert "'memory:'" in record.getMessage()

    def test_own_store(self, server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        make(WaffleConf(), tmp_path, TESTING=True, WAFFLE_STORE_URL="memory:")
        make(WaffleConf(), tmp_path / "other", TESTING=True)
        make(WaffleConf(), tmp_path / "other", TESTING=True)
        assert not caplog.records

    def test_a_command(self, server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A shell that uses the store is no server."""
        server.report(ProcessInfo(pid=os.getpid() + 1, kind="flask shell"))
        make(WaffleConf(), tmp_path, TESTING=True)
        assert not caplog.records


def test_memory(waffle: WaffleConf, tmp_path: Path) -> None:
    """With ``memory:`` there is no file and no thread."""
    before = our_threads()
    make(waffle, tmp_path / "instance", WAFFLE_STORE_URL="memory:")
    assert list(tmp_path.iterdir()) == []
    assert not our_threads() - before
