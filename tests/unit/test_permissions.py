"""Folders and files that may not be written: a clear error that names the path, and nothing lost.

Root may write everywhere, so each case runs in a process of its own that has given that right up.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

START = """
import sys
from pathlib import Path
from flask import Flask
import uwsgi_waffle

folder = Path(sys.argv[1])
instance = folder / "instance"

def start():
    app = Flask("site", instance_path=str(instance))
    app.config["WAFFLE_CONFS"] = {"SITENAME": {"desc": "", "default": "Waffle"}}
    return uwsgi_waffle.WaffleConf(app)

def refused(call):
    try:
        call()
    except uwsgi_waffle.WaffleError as error:
        return f"{type(error).__name__}: {error}"
    raise SystemExit("not refused")
"""


def run(folder: Path, script: str) -> str:
    """Run a script without root's right to pass over permissions, and return what it prints."""
    command = [sys.executable, "-c", START + script, str(folder)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """The application doesn't start, and the error names path and setting."""
    (tmp_path / "instance").mkdir()
    told = run(tmp_path, "instance.chmod(0o555); print(refused(start)); instance.chmod(0o755)")
    assert told.startswith(
        f"HostFilesError: WAFFLE_WATCHER_FILE {tmp_path}/instance/waffle.watch: Permission denied."
    )
    assert "a local folder that this process may write" in told


def test_a_folder_that_may_no_longer_be_written(tmp_path: Path) -> None:
    """An update is refused before anything is committed; with what stands there removed it works,
    without a restart.
    """
    told = run(
        tmp_path,
        """
waffle = start()
ours = instance / "waffle.watch.d"
(ours / "snapshots").rename(ours / "moved")
ours.chmod(0o555)
print(refused(lambda: waffle.update({"SITENAME": "New"})))
print(waffle.refresh(), waffle.values.SITENAME, waffle.history())
ours.chmod(0o700)
print(waffle.update({"SITENAME": "New"}).revision, start().values.SITENAME)
""",
    ).splitlines()
    assert told[0].startswith(
        f"HostFilesError: {tmp_path}/instance/waffle.watch.d/snapshots: Permission denied."
    )
    assert told[1:] == ["0 Waffle []", "1 New"]


def test_a_database_that_may_not_be_written(tmp_path: Path) -> None:
    """It is served from, and an update says what is wrong."""
    told = run(
        tmp_path,
        """
waffle = start()
waffle.update({"SITENAME": "New"})
database = instance / "waffle.db"
database.chmod(0o444)
print(refused(lambda: waffle.update({"SITENAME": "Newer"})))
print(waffle.refresh(), waffle.values.SITENAME, start().values.SITENAME)
""",
    ).splitlines()
    assert told[0].startswith(
        f"StoreReadOnly: sqlite:///{tmp_path}/instance/waffle.db refuses to be written"
    )
    assert told[1] == "1 New New"
