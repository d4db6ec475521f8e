"""Two containers that share the host's folder: in each, processes count from 1."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from .servers import UWSGI, Server, Servers, kill, script

WORKERS = 2


def missing() -> str:
    """Return why a pid namespace can't be made here, ``""`` if it can."""
    if os.geteuid() != 0:
        return "only root may make a pid namespace"
    return "" if shutil.which("unshare") else "there is no unshare: apt-get install util-linux"


@pytest.fixture
def containers(servers: Servers) -> Iterator[list[Server]]:
    """Two uWSGI instances, each the first process of a pid namespace of its own."""
    why = missing()
    if why:
        pytest.skip(why)
    unshare = shutil.which("unshare")
    assert unshare is not None
    inside = [unshare, "--pid", "--fork", "--mount-proc", "--kill-child"]
    uwsgi = [script("uwsgi"), *UWSGI[1:], "--master", "--processes", str(WORKERS)]
    pair = [servers.start([*inside, *uwsgi]) for _ in range(2)]
    yield pair
    for server in pair:
        if server.process.is_running():
            # uWSGI's master ends its workers; `unshare` ends with it.
            master(server).terminate()
            server.process.wait(20)


def master(server: Server) -> psutil.Process:
    """Return uWSGI's master, as the host outside the container sees it."""
    return server.process.children()[0]


def processes(server: Server) -> list[tuple[int, str]]:
    """Return pid and kind of all processes that a worker's status names."""
    return sorted((p["pid"], p["kind"]) for p in server.get("/status")["processes"])


def test_both_name_all_processes(containers: list[Server]) -> None:
    """Equal pids included; updates reach idle workers of both, and ``wait=`` waits for each."""
    one, other = containers
    found = one.eventually(lambda: processes(one), until=lambda them: len(them) == 2 * WORKERS)
    assert processes(other) == found
    assert set(Counter(found).values()) == {2}, "the same pids and kinds in both containers"
    for number, server in enumerate((one, other, one), start=1):
        answer = server.update(number, wait=20.0)
        assert (answer["pending"], answer["applied"]) == ([], 2 * WORKERS)
        for reader in containers:
            assert set(reader.read()["all"]) == {number}

    worker = max(master(other).children(), key=lambda process: process.pid)
    worker.suspend()
    try:
        answer = one.update(4, wait=1.0)
        assert (answer["pending"], answer["applied"]) == (["worker 2"], 2 * WORKERS - 1)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert one.update(5, wait=20.0)["pending"] == []


def test_a_container_that_is_killed_is_not_waited_for(containers: list[Server]) -> None:
    """Its locks go with its processes, though their pids live on in the other container."""
    one, other = containers
    one.eventually(lambda: processes(one), until=lambda them: len(them) == 2 * WORKERS)
    kill(master(other).pid)
    other.process.wait(20)
    one.eventually(lambda: processes(one), until=lambda them: len(them) == WORKERS)
    answer = one.update(1, wait=20.0)
    assert (answer["pending"], answer["applied"]) == ([], WORKERS)


def test_inotify_is_used_up(servers: Servers) -> None:
    """uWSGI's master is silent about it: one line of the log says it and what to do, and a thread
    wakes the idle workers.
    """
    if why := missing():
        pytest.skip(why)
    # A user namespace has a limit of its own.
    without = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"'
    uwsgi = [script("uwsgi"), *UWSGI[1:], "--master", "--processes", str(WORKERS)]
    inside = ["unshare", "--user", "--map-root-user", "bash", "-c", without, "bash"]
    server = servers.start([shutil.which(inside[0]) or "", *inside[1:], *uwsgi])
    server.eventually(lambda: len(processes(server)) == WORKERS)
    assert server.get("/status")["woken_by"] == "thread"
    answer = server.update(1, wait=20.0)
    assert (answer["pending"], answer["applied"]) == ([], WORKERS)
    (line,) = [line for line in server.log.splitlines() if "uWSGI can't monitor" in line]
    assert "Raise fs.inotify.max_user_instances, then restart uWSGI" in line
