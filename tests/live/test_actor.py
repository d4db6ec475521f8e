"""`flask waffle set` behind a real `su` and `sudo`: the history names the person."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ..conftest import needed
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


#: The tests' own files may be where nobody else can read: whoever is run so may read all.
RIGHTS = [
    "setpriv",
    *(f"{right}=+dac_read_search" for right in ("--inh-caps", "--ambient-caps")),
    "--securebits=+no_setuid_fixup",
]
#: How `sudo` lets daemon be anybody, in a namespace of mounts of its own.
ALLOWED = "root ALL=(ALL) ALL\ndaemon ALL=(ALL:ALL) NOPASSWD: ALL\n"
SUDOERS = 'mount --bind "$0" /etc/sudoers && exec "$@"'


def changed_by(folder: Path, user: str, become: list[str], *, login: str = "") -> str:
    """Log in, become another user, change a value, and return the history's actor."""
    owner = pwd.getpwnam(user)
    for place in (folder, folder / "instance"):
        place.mkdir(exist_ok=True)
        os.chown(place, owner.pw_uid, owner.pw_gid)
    (folder / "app.py").write_text(APP)
    flask = f"cd {folder} && PYTHONPATH={ROOT} {script('flask')} waffle"
    command = [*RIGHTS, *become, f"{flask} set SITENAME=Gent >&2 && {flask} history --json"]
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
    only_root(login)
    become = ["su", "-s", "/bin/sh", user, "-c"]
    assert changed_by(tmp_path / "site", user, become, login=login) == actor


@pytest.mark.parametrize(
    ("caller", "words", "user", "actor"),
    [
        ("daemon", ["-E"], "root", "daemon"),
        ("daemon", ["-i"], "root", "daemon"),
        ("root", [], "root", "root"),
        ("daemon", [*RIGHTS, "--reuid=nobody"], "nobody", "nobody"),
    ],
    ids=["sudo -E", "sudo -i", "root", "another user"],
)
def test_sudo(tmp_path: Path, caller: str, words: list[str], user: str, actor: str) -> None:
    """It is who has called `sudo` for root's rights, whatever that person's environment says.

    With another user's rights it is that user: what the environment says, anybody can write.
    """
    only_root()
    if not shutil.which("sudo"):
        needed("sudo isn't installed: apt-get install sudo")
    sudoers = tmp_path / "sudoers"
    sudoers.write_text(ALLOWED)
    sudoers.chmod(0o440)
    pretended = ["env", "LOGNAME=mallory", "USER=mallory", "SUDO_USER=mallory", "SUDO_UID=77"]
    become = ["unshare", "--mount", "sh", "-c", SUDOERS, str(sudoers)]
    if caller != "root":
        become += ["setpriv", f"--reuid={caller}", f"--regid={caller}", "--clear-groups"]
    become += [*pretended, "sudo", *words, "sh", "-c"]
    assert changed_by(tmp_path / "site", user, become) == actor


def test_a_shell_in_a_container(tmp_path: Path) -> None:
    """Root's shell without any login, as `docker exec` starts it, is root's, not `$LOGNAME`'s."""
    only_root()
    environ = [f"PATH={os.environ['PATH']}", "LOGNAME=mallory", "USER=mallory"]
    become = ["setsid", "--wait", "env", "-i", *environ, "sh", "-c"]
    assert changed_by(tmp_path / "site", "root", become) == "root"


def only_root(login: str = "") -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can become another user, and log in as one, with setpriv")
    if not login and LOGIN.read_text() != NO_LOGIN:
        pytest.skip("somebody has logged in here")
