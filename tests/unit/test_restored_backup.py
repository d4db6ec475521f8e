"""A restored backup: what P4 in docs/guarantees.md says about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from flask import Flask

from uwsgi_waffle import RevisionConflict, SQLStore, WaffleConf


def test_a_revision_that_comes_twice(tmp_path: Path) -> None:
    """`expect_revision` compares numbers: what was read before the restore may pass."""
    app = Flask("site", instance_path=str(tmp_path / "instance"))
    app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
    waffle = WaffleConf(app, SQLStore(f"sqlite:///{tmp_path}/data/waffle.db"))
    waffle.update({"SITENAME": "Gent"})
    shutil.copytree(tmp_path / "data", tmp_path / "backup")
    read = waffle.update({"SITENAME": "Brugge"}).revision
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    shutil.copytree(tmp_path / "backup", tmp_path / "data", dirs_exist_ok=True)
    assert waffle.refresh() == 1
    with pytest.raises(RevisionConflict):
        waffle.update({"SITENAME": "Ieper"}, expect_revision=read)
    waffle.update({"SITENAME": "Oostende"})
    assert waffle.update({"SITENAME": "Ieper"}, expect_revision=read).revision == read + 1
