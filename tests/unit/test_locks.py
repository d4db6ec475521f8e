"""The file that one process of a host holds locked: it listens to other hosts."""

from __future__ import annotations

import os
import shutil

import pytest

from uwsgi_waffle.host import HostFiles

from ..host import Host, forked, run_forked


def test_nobody_leads_at_first(shared: HostFiles) -> None:
    assert shared.listener() == {}


def mine(error: str = "") -> dict[str, object]:
    return {"pid": os.getpid(), "error": error}


def test_one_process_leads(shared: HostFiles, others: HostFiles) -> None:
    assert shared.listener_lock.acquire()
    assert others.listener() == {"pid": os.getpid()}
    shared.listener_lock.write(mine())
    assert shared.listener_lock.acquire()
    assert not others.listener_lock.acquire()
    assert others.listener() == mine()
    shared.listener_lock.release()
    assert others.listener_lock.acquire()


def test_it_says_why_it_cannot_listen(shared: HostFiles, others: HostFiles) -> None:
    assert shared.listener_lock.acquire()
    for error in ("connection refused " * 10, ""):
        shared.listener_lock.write(mine(error))
        assert others.listener() == mine(error)


def test_kill_9_frees_it(host: Host, shared: HostFiles) -> None:
    theirs = host.open_files()

    def listen() -> None:
        assert theirs.listener_lock.acquire()
        theirs.listener_lock.write(mine())

    with forked(listen) as pid:
        assert shared.listener()["pid"] == pid
        assert not shared.listener_lock.acquire()
    assert shared.listener() == {}
    assert shared.listener_lock.acquire()


def test_a_forked_process_is_not_the_leader(shared: HostFiles) -> None:
    assert shared.listener_lock.acquire()
    shared.listener_lock.write(mine())

    def program() -> None:
        assert not shared.listener_lock.acquire()
        assert not shared.listener_lock.is_ours()
        shared.listener_lock.release()

    assert run_forked(program) == 0
    assert shared.listener() == mine()
    assert shared.listener_lock.is_ours()


@pytest.mark.parametrize("what", ["file", "folder"])
def test_where_the_file_is_removed_another_may_lead_and_the_first_notices(
    host: Host, shared: HostFiles, others: HostFiles, what: str
) -> None:
    assert shared.listener_lock.acquire()
    if what == "folder":
        shutil.rmtree(host.folder)
        others.open()
    else:
        (host.folder / "listener").unlink()
    assert others.listener_lock.acquire()
    assert not shared.listener_lock.acquire()


@pytest.mark.parametrize("content", [b"", b"noise", b"[]", b"\xff"])
def test_a_damaged_file_names_nobody_and_stays_locked(
    host: Host, shared: HostFiles, others: HostFiles, content: bytes
) -> None:
    assert shared.listener_lock.acquire()
    (host.folder / "listener").write_bytes(content)
    assert others.listener() == {}
    assert not others.listener_lock.acquire()
    shared.listener_lock.write(mine("down"))
    assert others.listener() == mine("down")
