"""`flask waffle set` behind a real `su`: the history names the person."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from .servers import ROOT, script

LOGIN = Path("/proc/self/loginuid")
NO_LOGIN = str(2**32 - 1)
APP = """
from flask import Flask
import uwsgi_waffle

app = Flask(__name__)
app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
waffle = uwsgi_waffle.WaffleConf(app)
"""


def changed_by(folder: Path, user: str, login: str) -> str:
    """Log in, become another user with `su`, change a value, and return the history's actor."""
    owner = pwd.getpwnam(user)
    for place in (folder, folder / "instance"):
        place.mkdir(exist_ok=True)
        os.chown(place, owner.pw_uid, owner.pw_gid)
    (folder / "app.py").write_text(APP)
    flask = f"cd {folder} && PYTHONPATH={ROOT} {script('flask')} waffle"
    # The tests' own files may be where nobody else can read: this user may read all.
    rights = ("--inh-caps", "--ambient-caps")
    command = ["setpriv", *(f"{right}=+dac_read_search" for right in rights)]
    command += ["--securebits=+no_setuid_fixup", "su", "-s", "/bin/sh", user, "-c"]
    command += [f"{flask} set SITENAME=Gent >&2 && {flask} history --json"]
    logged_in = f"echo {pwd.getpwnam(login).pw_uid} > {LOGIN} && " if login else ""
    done = subprocess.run(
        ["sh", "-c", f"{logged_in}exec {shlex.join(command)}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "loginuid" in done.stderr or "Permission denied" in done.stderr.partition("\n")[0]:
        pytest.skip(f"this kernel lets nobody log in here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)[0]["actor"])


@pytest.mark.parametrize(
    ("user", "login", "actor"),
    [
        ("nobody", "", "nobody"),
        ("root", "daemon", "daemon"),
        ("nobody", "daemon", "daemon"),
    ],
)
def test_su(tmp_path: Path, user: str, login: str, actor: str) -> None:
    """It is who has logged in, if anybody has; else whose rights the command has."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, and log in as one, with setpriv and su")
    if not login and LOGIN.read_text() != NO_LOGIN:
        pytest.skip("somebody has logged in here")
    folder = tmp_path / "site"
    assert changed_by(folder, user, login) == actor
