"""Two containers that share the host's folder: in each, processes count from 1."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .servers import ROOT, UWSGI, Server, Servers, kill, script

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
        one.eventually(
            lambda: one.update(4, wait=0.3),
            until=lambda a: (a["pending"], a["applied"]) == (["worker 2"], 2 * WORKERS - 1),
        )
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
    (line,) = (line for line in server.log.splitlines() if "uWSGI can't monitor" in line)
    assert "Raise fs.inotify.max_user_instances, then restart uWSGI" in line


class Locked:
    """What runs containers whose root is read-only, as a user without a name or a capability."""

    USER = 54_321

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._running: list[Server] = []
        self._place = Path(tempfile.mkdtemp(prefix="waffle-"))  # every user may enter /tmp
        self._place.chmod(0o755)
        self.volume, self.tmpfs = self._place / "volume", self._place / "tmpfs"
        for folder in (self.volume, self.tmpfs):
            folder.mkdir()
        os.chown(self.volume, self.USER, self.USER)

    def start(self, **environ: str) -> Server:
        """Start uWSGI as the first process of one more container."""
        uwsgi = [script("uwsgi"), *UWSGI[1:], "--master", "--processes", str(WORKERS)]
        inside = ["unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]
        program = f"{self._mounts()}\nexec setpriv {self._rights()} {shlex.join(uwsgi)}"
        command = [*inside, "sh", "-e", "-c", program]
        command[0] = str(shutil.which("unshare"))
        self._running.append(self._servers.start(command, folder=self.volume, **environ))
        return self._running[-1]

    def _mounts(self) -> str:
        lines = [
            f"mount --bind {self.volume} {self.volume}",
            f"mount -t tmpfs -o uid={self.USER},gid={self.USER},mode=700 tmpfs {self.tmpfs}",
        ]
        needed = {Path(sys.base_prefix), Path(sys.prefix), ROOT}
        # They may be where only root can go, as in root's home: put open folders above them.
        closed = {place: [a for a in place.parents if not a.stat().st_mode & 1] for place in needed}
        kept = {place: self._place / f"kept{n}" for n, place in enumerate(needed) if closed[place]}
        for place, copy in kept.items():
            copy.mkdir(exist_ok=True)
            lines.append(f"mount --bind {place} {copy}")
        for folder in {closed[place][-1] for place in kept}:
            lines.append(f"mount -t tmpfs -o mode=755 tmpfs {folder}")
        for place, copy in kept.items():
            lines += [f"mkdir -p {place}", f"mount --bind {copy} {place}"]
        return "\n".join([*lines, "mount -o remount,bind,ro /"])

    def _rights(self) -> str:
        user = f"--reuid {self.USER} --regid {self.USER} --clear-groups"
        return f"{user} --bounding-set -all --inh-caps -all --no-new-privs"

    def stop(self) -> None:
        for server in self._running:
            master(server).terminate()
            server.process.wait(20)
        shutil.rmtree(self._place)


@pytest.fixture
def locked(servers: Servers) -> Iterator[Locked]:
    why = missing() or ("" if shutil.which("setpriv") else "there is no setpriv")
    if why:
        pytest.skip(why)
    locked = Locked(servers)
    yield locked
    locked.stop()


def is_locked(server: Server) -> bool:
    """A test of the test: whether uWSGI's master is process 1, and has no right to much."""
    place = Path(f"/proc/{master(server).pid}")
    status = dict(line.split(":\t", 1) for line in (place / "status").read_text().splitlines())
    roots = [line.split() for line in (place / "mountinfo").read_text().splitlines()]
    (root,) = (fields[5] for fields in roots if fields[4] == "/")
    return (
        status["NSpid"].split()[-1] == "1"
        and status["Uid"].split() == [str(Locked.USER)] * 4
        and {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        and "ro" in root.split(",")
    )


def test_a_locked_container_with_the_watch_file_on_a_tmpfs(locked: Locked) -> None:
    """It writes nowhere else than there and beside its SQLite store."""
    server = locked.start(WAFFLE_WATCHER_FILE=f"{locked.tmpfs}/waffle.watch")
    assert is_locked(server)
    for number in range(1, 4):
        answer = server.update(number, wait=20.0)
        assert (answer["pending"], answer["applied"]) == ([], WORKERS)
        assert set(server.read()["all"]) == {number}
    assert {path.name.partition("-")[0] for path in locked.volume.iterdir()} == {
        "changes.log",
        "commits.log",
        "store.log",
        "waffle.db",
    }


def test_two_locked_containers_with_one_volume(locked: Locked) -> None:
    """They are one host: updates of each are fresh in both."""
    one, other = locked.start(), locked.start()
    assert is_locked(one)
    assert is_locked(other)
    one.eventually(lambda: processes(one), until=lambda them: len(them) == 2 * WORKERS)
    for number, server in enumerate((one, other, one), start=1):
        answer = server.update(number, wait=20.0)
        assert (answer["pending"], answer["applied"]) == ([], 2 * WORKERS)
        for reader in (one, other):
            assert set(reader.read()["all"]) == {number}
