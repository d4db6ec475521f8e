"""The processes of a host: each has a file that it holds locked for as long as it lives."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle import HostFilesError, ProcessInfo
from uwsgi_waffle.admin import admin_blueprint
from uwsgi_waffle.doctor import examine
from uwsgi_waffle.host import HostFiles
from uwsgi_waffle.metrics import WaffleCollector
from uwsgi_waffle.wake.roll_call import describe_host

from ..host import Host, Process, descriptors, eventually, forked, report_process, run_forked


def info(kind: str, revision: int = 0, *, pid: int = 0) -> ProcessInfo:
    return ProcessInfo(pid or os.getpid(), kind, revision, time.monotonic(), "", "")


def kinds(files: HostFiles) -> set[str]:
    return {process.kind for process in files.processes}


def reporting(host: Host, kind: str, *, pid: int = 0) -> Callable[[], None]:
    """Return what a process does that reports."""
    files = host.open_files()
    return lambda: files.processes.report(info(kind, pid=pid))


class TestReport:
    def test_what_it_reports_last_is_read(self, shared: HostFiles, others: HostFiles) -> None:
        shared.processes.report(info("a name that is quite long", 7))
        last = ProcessInfo(1, "mule 1", 8, 2.5, "ff", "no room", {"uwsgi": "2.0.31"})
        shared.processes.report(last)
        (found,) = others.processes
        assert (found.pid, found.kind, found.revision, found.applied_at) == (1, "mule 1", 8, 2.5)
        assert (found.snapshot, found.error, found.server) == (
            "ff",
            "no room",
            {"uwsgi": "2.0.31"},
        )
        assert found.token == shared.processes.token

    def test_an_idle_process_writes_nothing(self, site: Process) -> None:
        """Each tick reports: outside uWSGI that is once a second, in every process."""
        site.tick()
        (path,) = (site.files.folder.path / "processes").iterdir()
        before = path.stat().st_mtime_ns
        site.tick()
        assert path.stat().st_mtime_ns == before

    def test_two_that_share_a_pid_are_both_listed(
        self, shared: HostFiles, others: HostFiles
    ) -> None:
        shared.processes.report(info("one"))
        others.processes.report(info("two"))
        assert kinds(shared) == kinds(others) == {"one", "two"}

    def test_it_can_leave_and_come_back(self, shared: HostFiles, others: HostFiles) -> None:
        shared.processes.report(info("one"))
        shared.processes.leave()
        assert kinds(others) == set()
        shared.processes.leave()
        shared.processes.report(info("one"))
        assert kinds(others) == {"one"}

    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_a_file_that_was_removed_is_made_again(
        self, host: Host, shared: HostFiles, what: str
    ) -> None:
        shared.processes.report(info("one", 1))
        folder = host.folder / "processes"
        if what == "folder":
            shutil.rmtree(folder)
        else:
            (folder / shared.processes.token).unlink()
        assert kinds(shared) == set()
        shared.processes.report(info("one", 2))
        assert [process.revision for process in shared.processes] == [2]

    @pytest.mark.slow
    def test_more_than_512_are_listed(self, host: Host, shared: HostFiles) -> None:
        kept = [report_process(shared, 10**6 + n, f"worker {n}") for n in range(513)]
        try:
            assert len(list(shared.processes)) == 513
        finally:
            for files in kept:
                files.processes.leave()

    def test_one_that_is_forgotten_leaves(self, host: Host, shared: HostFiles) -> None:
        """An application that a test suite makes and drops isn't waited for."""
        report_process(shared, 1, "forgotten")
        gc.collect()
        assert kinds(shared) == set()


class TestLife:
    def test_the_living_are_listed_and_the_dead_removed_by_whoever_looks(
        self, host: Host, shared: HostFiles
    ) -> None:
        with forked(reporting(host, "one")):
            assert kinds(shared) == {"one"}
            assert len(list((host.folder / "processes").iterdir())) == 1
        assert kinds(shared) == set()
        assert list((host.folder / "processes").iterdir()) == []

    def test_the_dead_leave_no_more_files_than_the_living_have(
        self, host: Host, shared: HostFiles
    ) -> None:
        """Each job of RQ ends without a word, and on many hosts nobody ever looks."""
        for _ in range(5):
            run_forked(reporting(host, "job"))
        shared.processes.report(info("ours"))
        assert [path.name for path in (host.folder / "processes").iterdir()] == [
            shared.processes.token
        ]

    def test_another_process_with_our_pid_is_another_process(
        self, host: Host, shared: HostFiles
    ) -> None:
        """In two containers that share the folder, pids are equal."""
        shared.processes.report(info("ours"))
        with forked(reporting(host, "theirs", pid=os.getpid())):
            assert kinds(shared) == {"ours", "theirs"}
            assert [process.pid for process in shared.processes] == [os.getpid()] * 2
        assert kinds(shared) == {"ours"}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pid namespace")
    def test_two_pid_namespaces_see_each_other(self, host: Host, shared: HostFiles) -> None:
        """Each has a process 1, and no /proc of the other."""
        looks: list[int] = []

        def program() -> None:
            files = host.open_files()
            files.processes.report(info("first"))
            looks.append(len(list(files.processes)))

        with forked(program, namespace=True), forked(program, namespace=True):
            assert [process.pid for process in shared.processes] == [1, 1]

            def look() -> None:
                assert len(list(host.open_files().processes)) == 2

            with forked(look, namespace=True):
                assert len(list(shared.processes)) == 2, "nobody took the others for dead"
        assert eventually(lambda: kinds(shared) == set())

    def test_a_zombie_is_dead(self, host: Host, shared: HostFiles) -> None:
        report = reporting(host, "zombie")
        pid = os.fork()
        if pid == 0:
            report()
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        try:
            assert kinds(shared) == set()
        finally:
            os.waitpid(pid, 0)

    def test_a_forked_process_has_a_file_of_its_own(
        self, host: Host, shared: HostFiles, others: HostFiles
    ) -> None:
        shared.processes.report(info("parent"))

        def program() -> None:
            shared.processes.report(info("child"))

        with forked(program):
            assert kinds(others) == {"parent", "child"}
        assert kinds(others) == {"parent"}

    def test_a_child_does_not_keep_its_parent_alive(self, host: Host, others: HostFiles) -> None:
        """A fork shares the open file, and with it a lock of flock(2)."""
        report = reporting(host, "parent")
        reader, writer = os.pipe()
        born, gives_birth = os.pipe()

        def program() -> None:
            report()
            if os.fork() == 0:
                os.write(gives_birth, b"x")
                os.read(reader, 1)  # lives until the test ends
                os._exit(0)
            os.read(born, 1)

        try:
            with forked(program):
                assert kinds(others) == {"parent"}
            assert kinds(others) == set()
        finally:
            os.write(writer, b"x")
            for fd in (reader, writer, born, gives_birth):
                os.close(fd)

    def test_a_child_that_leaves_does_not_remove_its_parents_file(self, shared: HostFiles) -> None:
        shared.processes.report(info("parent"))
        assert run_forked(shared.processes.leave) == 0
        assert kinds(shared) == {"parent"}


class TestFolder:
    def test_what_is_no_report_stops_nobody(self, host: Host, shared: HostFiles) -> None:
        shared.processes.report(info("one"))
        folder = host.folder / "processes"
        (folder / "noise").write_bytes(b"\xff" * 100)
        (folder / "folder").mkdir()
        (folder / "link").symlink_to("elsewhere")
        assert kinds(shared) == {"one"}

    @pytest.mark.parametrize("content", [b"", b"noise", b"[]", b"7", b'{"pid": 1}', b"\xff\xff"])
    def test_a_living_process_whose_file_is_damaged_is_unknown(
        self, host: Host, shared: HostFiles, others: HostFiles, content: bytes
    ) -> None:
        shared.processes.report(info("one"))
        others.processes.report(info("two"))
        path: Path = host.folder / "processes" / shared.processes.token
        path.write_bytes(content)
        assert kinds(others) == {"unknown", "two"}
        shared.processes.report(info("one"))
        assert kinds(others) == {"one", "two"}

    def test_there_may_be_no_folder_yet(self, shared: HostFiles) -> None:
        assert list(shared.processes) == []


WRONG_FIELDS: list[dict[str, Any]] = [
    {"pid": "x"},
    {"kind": None},
    {"revision": None},
    {"applied_at": float("nan")},
    {"applied_at": 10**400},
    {"error": ["no room"]},
    {"server": None},
    {"server": {"uid": 1, "gids": [[]]}},
    {"server": {"watchtype": {"redis": 1}}},
    {"server": {"pinned": ["LIMIT"]}},
]
ODD_FIELDS: list[dict[str, Any]] = [
    {"applied_at": 7},
    {"revision": 10**30},
    {"server": {"uid": 1}},
    {"server": {"uwsgi": "two"}},
    {"server": {"colour": [{}]}, "colour": "red"},
    {"kind": "\ud800\n", "error": "\ud800", "server": {"monitor_error": "\ud800"}},
]


class TestFields:
    """Another release may write a process's file, and so may whatever the server's user runs."""

    @pytest.mark.parametrize(
        ("fields", "kind"),
        [
            *((fields, "unknown") for fields in WRONG_FIELDS),
            *((fields, fields.get("kind", "worker 9")) for fields in ODD_FIELDS),
        ],
        ids=str,
    )
    def test_no_field_breaks_what_reads_it(
        self, host: Host, site: Process, neighbour: int, fields: dict[str, Any], kind: str
    ) -> None:
        """A file with fields that can't be is an unknown process."""
        for path in (host.folder / "processes").iterdir():
            content = json.loads(path.read_text())
            if content["pid"] == neighbour:
                path.write_text(json.dumps({**content, **fields}))
        site.app.register_blueprint(admin_blueprint(site.waffle, authorize=lambda: True))
        site.app.secret_key = "x"
        status = site.waffle.status()
        json.dumps(status, allow_nan=False)
        assert [p["kind"] for p in status["processes"] if p["behind"]] == [kind]
        families = {family.name: family for family in WaffleCollector(site.waffle).collect()}
        assert families["uwsgi_waffle_processes_behind"].samples[0].value == 1
        for page in ("/waffle/", "/waffle/processes"):
            assert site.app.test_client().get(page).status_code == 200
        assert list(examine(site.state, 0))
        assert json.loads(describe_host(site.files))["processes"] == 2
        (pending,) = site.waffle.update({"LIMIT": 20}, wait=0).pending
        assert pending.kind == kind


@pytest.fixture
def small_disk(host: Host) -> Iterator[Path]:
    """Put the host's files on a real disk that has room for little."""
    host.instance.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "waffle", str(host.instance)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("only root can mount a disk")
    yield host.instance
    subprocess.run(["umount", "--lazy", str(host.instance)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room."""
    with (folder / "noise").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    return folder / "noise"


class TestFullDisk:
    def test_a_start_says_where_to_make_room(self, host: Host, small_disk: Path) -> None:
        fill(small_disk)
        with pytest.raises(HostFilesError, match=f"{host.instance}.*No space left.*Make room"):
            host.start(STORE_URL=f"sqlite:///{host.instance.parent}/waffle.db")

    def test_a_process_that_could_not_write_its_file_is_not_overlooked(
        self, host: Host, small_disk: Path
    ) -> None:
        """Whoever waits for it learns why it isn't known. Later it writes the file by itself."""
        settings = {"STORE_URL": f"sqlite:///{host.instance.parent}/waffle.db"}
        site = host.start(**settings)
        late = host.open_files()
        noise = fill(small_disk)
        with pytest.raises(HostFilesError, match=f"{host.instance}.*No space left.*Make room"):
            late.processes.report(info("late"))
        assert "unknown" in kinds(site.files)
        noise.unlink()
        (unseen,) = site.waffle.update({"LIMIT": 20}, wait=0).pending
        assert (unseen.kind, unseen.revision) == ("unknown", 0)
        assert "is empty, damaged or of another release. If the disk is full" in unseen.error
        late.processes.report(info("late"))
        assert kinds(site.files) - {"late"} == {site.waffle.status()["kind"]}

    def test_a_text_that_is_cut_off_is_an_error(self, shared: HostFiles, others: HostFiles) -> None:
        """As where the disk has room for its first half."""

        def program() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
            with pytest.raises(OSError, match="No space left"):
                others.processes.report(info("one"))

        with forked(program):
            assert kinds(shared) == {"unknown"}
        assert kinds(shared) == set()


class TestClosedDescriptors:
    """A program that becomes a daemon closes all it has, and forks."""

    def test_a_fork_closes_no_descriptor_of_somebody_else(
        self, host: Host, shared: HostFiles, tmp_path: Path
    ) -> None:
        shared.processes.report(info("parent"))
        path = host.folder / "processes" / shared.processes.token
        (fd,) = descriptors(path)
        opened = os.open(tmp_path / "theirs", os.O_RDWR | os.O_CREAT)
        os.dup2(opened, fd)  # the number is another file's now

        def program() -> None:
            os.fstat(fd)
            assert descriptors(tmp_path / "theirs").count(fd)
            shared.processes.report(info("child"))

        try:
            assert run_forked(program) == 0
            shared.processes.report(info("parent again"))
            assert kinds(shared) == {"parent again"}
            assert descriptors(tmp_path / "theirs").count(fd)
        finally:
            os.close(fd)
            os.close(opened)

    def test_a_fork_bears_one_that_is_gone(self, host: Host, shared: HostFiles) -> None:
        others = host.open_files()
        for files, kind in ((shared, "one"), (others, "two")):
            files.processes.report(info(kind))
        path = host.folder / "processes" / shared.processes.token
        (fd,) = descriptors(path)
        os.close(fd)
        with forked(lambda: None):
            others.processes.leave()
            others.processes.report(info("two"))
        assert kinds(shared) == {"two"}
