"""The modes of folders and files: what we create, and what others could exchange."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from uwsgi_waffle import SchemaError, SQLStore, WaffleConf
from uwsgi_waffle.stores import Store

from ..contract.models import alchemy_store, peewee_store
from ..host import Host, logged
from .users import USER, sqlite_store

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("host"),  # a thread that acts as a user would do so in later tests
]


class TestModes:
    @pytest.mark.parametrize("umask", [0, 0o027, 0o777])
    def test_no_umask_counts(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            SQLStore(f"sqlite:///{tmp_path}/site/instance/waffle.db").prepare()
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
        assert modes == {"site": 0o755, "instance": 0o700, "waffle.db": 0o600}

    @pytest.mark.parametrize("umask", [0, 0o777])
    def test_no_umask_counts_for_the_whole_application(self, tmp_path: Path, umask: int) -> None:
        """Not for the folder beside the watch file either."""
        before = os.umask(umask)
        try:
            app = Flask("site", instance_path=str(tmp_path / "site" / "instance"))
            app.config["WAFFLE_CONFS"] = {"LIMIT": {"default": 1}}
            app.config["WAFFLE_STORE_URL"] = f"sqlite:///{tmp_path}/data/waffle.db"
            WaffleConf(app).update({"LIMIT": 2})
        finally:
            os.umask(before)
        modes = {
            str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777
            for path in tmp_path.rglob("*")
        }
        private = ("site/instance/waffle.watch.d", "data")
        for name, mode in modes.items():
            assert mode & 0o077 == 0 or not name.startswith(private), name
            assert mode & 0o022 == 0, name
        assert modes["site"] == modes["site/instance"] == 0o755

    def test_no_database_is_made_where_every_user_may_write(self, tmp_path: Path) -> None:
        """Anybody could replace it. In a sticky folder, such as /tmp, nobody can."""
        folder = tmp_path / "instance"
        folder.mkdir()
        folder.chmod(0o777)
        store = SQLStore(f"sqlite:///{folder}/waffle.db")
        with pytest.raises(SchemaError, match=f"Run: chmod o-w {folder}"):
            store.prepare()
        assert list(folder.iterdir()) == []
        folder.chmod(0o1777)
        store.prepare()

    @pytest.mark.parametrize("make", [sqlite_store, alchemy_store, peewee_store])
    @pytest.mark.parametrize("exposed", ["site/data/site.db", "site/data", "site", "."])
    def test_what_every_user_may_write_is_warned_about(
        self,
        tmp_path: Path,
        exposed: str,
        caplog: pytest.LogCaptureFixture,
        make: Callable[[Path], Store],
    ) -> None:
        """Wherever it is above the database: another user could exchange what is below it."""
        folder, place = tmp_path / "site" / "data", tmp_path / exposed
        folder.mkdir(parents=True)
        store = make(folder)
        store.prepare()
        if place.is_dir():
            place.chmod(0o1777)  # sticky, as /tmp is
        store.load()
        assert caplog.text == ""
        place.chmod(0o777)
        for _ in range(2):
            assert store.load().revision == 0
        (line,) = logged(caplog, logging.WARNING)
        assert f"every user may write {place}, and so exchange {folder}/site.db." in line
        assert line.endswith(f"Run: chmod o-w {place}")

    def test_so_is_a_folder_of_roots_that_a_group_may_write(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its members could lead root. Group 0 has none that root need fear."""
        folder = root / "site"
        folder.mkdir()
        folder.chmod(0o2775)
        store = sqlite_store(folder)
        store.prepare()
        assert caplog.text == ""
        os.chown(folder, 0, USER)
        folder.chmod(0o2775)
        store.load()
        (line,) = logged(caplog, logging.WARNING)
        assert f"group {USER} may write {folder}, and so exchange {folder}/site.db." in line
        assert f"Run: chmod g-w {folder}" in line

    def test_a_group_is_no_danger_where_root_acts_as_the_owner(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = root / "site"
        folder.mkdir()
        store = sqlite_store(folder)
        store.prepare()
        for path in folder.iterdir():
            os.chown(path, USER, USER)
        os.chown(folder, 0, USER)
        folder.chmod(0o2775)
        store.load()
        assert caplog.text == ""

    @pytest.mark.parametrize("exposed", ["instance", "."])
    def test_so_is_a_folder_above_the_hosts_files(
        self, tmp_path: Path, exposed: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever the store is."""
        host = Host(tmp_path)
        host.instance.mkdir()
        (tmp_path / exposed).chmod(0o777)
        for _ in range(2):
            host.open_files()
        (line,) = logged(caplog, logging.WARNING)
        assert line.endswith(f"chmod o-w {(tmp_path / exposed).resolve()}")
