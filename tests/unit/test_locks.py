"""The file that one process of a host holds locked: it listens to other hosts."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from uwsgi_waffle import unix
from uwsgi_waffle.host import Alone, HostFiles

from ..host import Host, forked, run_forked

ROOT = Path(__file__).parents[2]


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


def test_a_child_that_python_knows_nothing_of_does_not_keep_it(
    host: Host, shared: HostFiles, others: HostFiles
) -> None:
    """uWSGI without a master forks so: no function of `os.register_at_fork` runs in the child."""
    program = f"""
import ctypes, os, signal
from pathlib import Path
from uwsgi_waffle.host import HostFiles
files = HostFiles(Path({str(shared.watch_file)!r}))
files.open()
assert files.listener_lock.acquire()
if ctypes.PyDLL(None).fork() == 0:
    assert not files.listener_lock.acquire()
    os.write(1, b"x")
signal.pause()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.read(1) == b"x"
        parent.kill()
        parent.wait()
        assert others.listener_lock.acquire()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()


def test_a_child_of_a_process_that_is_alone_has_a_lock_of_its_own() -> None:
    """Another thread of the parent may have held it at the fork."""
    alone = Alone()

    def program() -> None:
        with alone.try_lock() as header:
            assert header is not None

    with alone.try_lock():
        assert run_forked(program) == 0


def test_a_file_system_that_refuses_to_lock_costs_no_descriptor(
    shared: HostFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS does so while its lock daemon is away."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = psutil.Process().num_fds()
    with monkeypatch.context() as patched:
        patched.setattr(unix, "flock", refuse)
        for _ in range(3):
            with pytest.raises(OSError, match="No locks available"):
                shared.listener_lock.acquire()
    assert psutil.Process().num_fds() == before
    assert shared.listener_lock.acquire()


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
