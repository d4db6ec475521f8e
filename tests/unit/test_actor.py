"""Who is in the history: the person who runs the command."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable

import pytest
from click.testing import Result

from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.cli.actor import person
from uwsgi_waffle.stores import Commit

from .conftest import Process

ROOT = pwd.getpwuid(0).pw_name
OTHER = next(user for user in pwd.getpwall() if 0 < user.pw_uid < 1000)
UID, NAME = OTHER.pw_uid, OTHER.pw_name
NOBODY = 4_000_000_123  # has no name
SUDO = {"SUDO_USER": NAME, "SUDO_UID": str(UID)}


@pytest.mark.parametrize(
    ("uid", "login_uid", "environ", "name"),
    [
        (UID, None, {}, NAME),
        (0, None, {}, ROOT),
        (0, None, SUDO, NAME),  # sudo
        (0, UID, {}, NAME),  # su, after a login
        (UID, 0, {}, NAME),  # a container whose runtime root has started
        (0, None, {"SUDO_USER": "ann", "SUDO_UID": str(UID)}, "ann"),  # sudo chroot, other users
        (0, None, {"SUDO_USER": " "}, ROOT),
        (UID, None, {"SUDO_USER": ROOT, "SUDO_UID": "0"}, NAME),  # anybody can write that
        (UID, None, {"LOGNAME": ROOT, "USER": ROOT}, NAME),
        (0, NOBODY, {}, ROOT),  # the host's number means nothing here
        (NOBODY, None, {}, f"uid {NOBODY}"),
    ],
)
def test_who_it_is(uid: int, login_uid: int | None, environ: dict[str, str], name: str) -> None:
    assert person(uid, login_uid, environ) == name


Run = Callable[..., Result]


@pytest.fixture
def run(site: Process) -> Run:
    return lambda *words: site.app.test_cli_runner().invoke(command, words)


def test_logname_alone_is_not_believed(
    site: Process, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("USER", "ann")
    run("set", "LIMIT=20")
    assert site.waffle.history()[0].actor not in ("ann", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is behind sudo")
def test_behind_sudo(site: Process, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SUDO.items():
        monkeypatch.setenv(name, value)
    run("set", "LIMIT=20")
    assert site.waffle.history()[0].actor == NAME


@pytest.mark.parametrize(
    "words",
    [["set", "LIMIT=30"], ["unset", "LIMIT"], ["rollback", "0"], ["prune", "--yes"]],
    ids=" ".join,
)
def test_a_name_can_be_given(site: Process, run: Run, words: list[str]) -> None:
    run("set", "LIMIT=20")
    site.state.store.transact(lambda stored: Commit({"GONE": "1"}, "before"))
    assert run(*words, "--actor", "deploy 17").exit_code == 0
    assert site.waffle.history()[0].actor == "deploy 17"


def test_nobody_is_no_name(site: Process, run: Run) -> None:
    assert run("set", "LIMIT=30", "--actor", " ").exit_code == 2
    assert site.waffle.refresh() == 0
