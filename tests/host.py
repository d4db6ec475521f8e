"""A host with several processes in one test.

Every `Host.start` is one more process of the host: it lives in this process and shares nothing with
the others but files. Where it matters that a process lives or dies, `forked` makes a real one.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import io
import logging
import os
import resource
import shutil
import signal
import sqlite3
import time
import traceback
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Annotated, Any, NoReturn, TypeVar

import pytest
from annotated_types import Gt
from flask import Flask
from pydantic import BaseModel, model_validator

from uwsgi_waffle import Change, ProcessInfo, SQLStore, StoreUnavailable, WaffleConf
from uwsgi_waffle.host import HostFiles, header, private
from uwsgi_waffle.state import WaffleState, state_of
from uwsgi_waffle.stores import CommitBuilder, Store, Stored
from uwsgi_waffle.wake import Channel

CONFS: dict[str, Any] = {
    "SITENAME": {"desc": "Name in the page header", "default": "Waffle"},
    "LIMIT": {"desc": "Upload limit in bytes", "default": 10, "type": Annotated[int, Gt(0)]},
    "TOKEN": {"desc": "Token of the payment API", "default": "", "secret": True},
}
ALWAYS: Container[int] = range(1, 10**9)
NEVER: Container[int] = ()

HEADER_SIZE = header.WORDS_SIZE + header.NOTES_SIZE
#: Ways to damage the header: another file is at its path, or it has other bytes.
OTHER_FILE = ["removed", "moved", "replaced", "copied", "folder removed", "folder moved"]
SAME_FILE = [
    "zeros",
    "ones",
    "pattern",
    *(f"cut to {size}" for size in (0, 10, header.WORDS_SIZE, 100)),
]

T = TypeVar("T")


class Ordered(BaseModel):
    """Values that have to fit each other."""

    LOW: int = 1
    HIGH: int = 10

    @model_validator(mode="after")
    def ordered(self) -> Ordered:
        if self.LOW > self.HIGH:
            raise ValueError("LOW must not be above HIGH")
        return self


class FaultyStore(SQLStore):
    """Fails on those of its calls, counted from 1, that ``failing`` names."""

    failing: Container[int] = NEVER
    calls = 0

    def load(self) -> Stored:
        self._count()
        return super().load()

    def load_after_pending_writes(self) -> Stored:
        self._count()
        return super().load_after_pending_writes()

    def transact(self, build_commit: CommitBuilder) -> Stored:
        self._count()
        return super().transact(build_commit)

    def _count(self) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise StoreUnavailable("the store is down")


class Process:
    """One process of the host: its application and its WaffleConf."""

    def __init__(self, app: Flask, waffle: WaffleConf) -> None:
        self.app, self.waffle = app, waffle

    @property
    def state(self) -> WaffleState:
        return state_of(self.app)

    @property
    def files(self) -> HostFiles:
        assert isinstance(self.state.host, HostFiles)
        return self.state.host

    def tick(self) -> None:
        """Do what a signal or the thread does."""
        self.state.tick()


class Host:
    """The files of one host, and the database."""

    def __init__(self, folder: Path) -> None:
        self.instance = folder / "instance"
        self.database = self.instance / "waffle.db"
        self.watch_file = self.instance / "waffle.watch"
        self.folder = self.instance / "waffle.watch.d"
        self.header = self.folder / "header"
        self.snapshots = self.folder / "snapshots"

    def store(self, failing: Container[int] = NEVER) -> FaultyStore:
        store = FaultyStore(f"sqlite:///{self.database}")
        store.failing = failing
        return store

    def start(
        self,
        store: Store | None = None,
        *,
        waffle: WaffleConf | None = None,
        confs: object = CONFS,
        **settings: Any,
    ) -> Process:
        """Start one more process; settings are those of the application without ``WAFFLE_``."""
        app = Flask("site", instance_path=str(self.instance))
        app.config["WAFFLE_CONFS"] = confs
        app.config.update({f"WAFFLE_{name}": value for name, value in settings.items()})
        waffle = waffle or WaffleConf()
        waffle.init_app(app, store)
        return Process(app, waffle)

    def open_files(self) -> HostFiles:
        """Open the files as one more process would."""
        files = HostFiles(self.watch_file)
        files.open()
        return files

    def touch(self) -> None:
        """Touch the watch file, as a person may."""
        os.utime(self.watch_file, ns=(1, time.time_ns()))

    def sql(self, statement: str, *parameters: object) -> None:
        """Change the database by hand."""
        connection = sqlite3.connect(self.database)
        try:
            with connection:
                connection.execute(statement, parameters)
        finally:
            connection.close()


def report_process(
    files: HostFiles,
    pid: int,
    kind: str,
    *,
    snapshot: bytes = bytes(8),
    error: str = "",
    server: Mapping[str, Any] = MappingProxyType({}),
) -> HostFiles:
    """Put a living process, that stays at revision 0, into the host's folder.

    Returns:
        What keeps it there.
    """
    theirs = HostFiles(files.watch_file)
    theirs.processes.report(
        ProcessInfo(
            pid=pid,
            kind=kind,
            revision=0,
            applied_at=time.monotonic(),
            snapshot=snapshot.hex(),
            error=error,
            server=dict(server),
        )
    )
    return theirs


def damage_header(host: Host, damage: str) -> None:
    """Do to the header what nobody should."""
    path, away = host.header, host.instance / f"away {time.monotonic_ns()}"
    if damage == "folder removed":
        shutil.rmtree(host.folder)
    elif damage == "folder moved":
        host.folder.rename(away)
    elif damage == "moved":
        path.rename(away)
    elif damage in ("removed", "replaced", "copied"):
        content = path.read_bytes()
        path.unlink()
        if damage != "removed":
            path.write_bytes(content if damage == "copied" else b"noise" * 500)
            path.chmod(0o600)
    elif damage.startswith("cut to "):
        os.truncate(path, int(damage.removeprefix("cut to ")))
    else:
        noise = {"zeros": b"\0", "ones": b"\xff", "pattern": bytes(range(256))}[damage]
        with path.open("r+b") as file:
            file.write((noise * HEADER_SIZE)[:HEADER_SIZE])


def fill_disk(monkeypatch: pytest.MonkeyPatch, code: int = errno.ENOSPC) -> None:
    """Let each write of a whole file fail, as on a full disk."""

    class Full(io.FileIO):
        def write(self, data: object, /) -> NoReturn:
            raise OSError(code, os.strerror(code))

    def opened(file: int, mode: str, **options: Any) -> IO[bytes]:
        return io.BufferedWriter(Full(file, mode)) if "w" in mode else open(file, mode, **options)

    monkeypatch.setattr(private, "open", opened, raising=False)


def listeners(channel: Channel) -> int:
    """Return how many hosts listen to a channel."""
    with channel.open(listen=False) as opened:
        return opened.count_listeners()


def eventually(ask: Callable[[], T], deadline: float = 60.0) -> T:
    """Ask until the answer is true; return it."""
    end = time.monotonic() + deadline
    while not (answer := ask()):
        assert time.monotonic() < end, f"still {answer!r} after {deadline:g} s"
        time.sleep(0.005)
    return answer


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.ERROR) -> list[str]:
    """Return what the package has logged."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and record.name == "uwsgi_waffle"
    ]


def count_open_files() -> int:
    """Return how many files this process has open, deleted ones too."""
    return len(os.listdir("/dev/fd"))


def descriptors(within: Path) -> list[int]:
    """Return this process's descriptors of files that are at or below a path."""
    ids = {private.file_id(str(path)) for path in (within, *within.rglob("*"))}
    return [fd for fd in map(int, os.listdir("/dev/fd")) if private.file_id(fd) in ids]


def recorded(process: Process, *names: str) -> list[Change]:
    """Return the list to which each change of ``names`` will be added."""
    changes: list[Change] = []
    process.waffle.on_change(*names)(changes.append)
    return changes


@contextmanager
def forked(program: Callable[[], object], *, namespace: bool = False) -> Iterator[int]:
    """Run a program in a real child process, which then lives until the block ends.

    Args:
        program: what the child does before the block begins.
        namespace: whether the child is the first process of a pid namespace of its own.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _run(lambda: (_enter_namespace() if namespace else None, program(), os.write(writer, b"x")))
        signal.pause()
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x", "the child failed; its traceback is above"
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def run_forked(program: Callable[[], object]) -> int:
    """Run a program in a real child process. Return its exit code, 1 if it raised an error."""
    pid = os.fork()
    if pid == 0:
        _run(program)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(program: Callable[[], object]) -> None:
    try:
        program()
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _enter_namespace() -> None:
    """Go on as process 1 of a new pid namespace; this process waits for it."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x20000000):  # CLONE_NEWPID
        raise OSError(ctypes.get_errno(), "unshare")
    pid = os.fork()
    if pid:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        os.waitpid(pid, 0)
        os._exit(1)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextmanager
def used_up(*, free: int = 0) -> Iterator[list[int]]:
    """Leave this process no descriptor but ``free`` ones. Yield those that are in the way."""
    gc.collect()  # what other tests have left would be closed, and so be free, at any moment
    taken = [os.open(os.devnull, os.O_RDONLY)]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken[0], 255) + 1, hard))
    try:
        while True:
            taken.append(os.dup(taken[0]))
    except OSError:
        close_all(taken[:free])
    try:
        yield taken[free:]
    finally:
        close_all(taken[free:])


def close_all(taken: list[int]) -> None:
    """Close descriptors."""
    for fd in taken:
        os.close(fd)


def obey_permissions() -> None:
    """Give up root's right to pass over the permissions of files, in a child process."""
    if os.geteuid() == 0:
        drop_capabilities(1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


def drop_capabilities(*numbers: int) -> None:
    """Give up capabilities, in a child process."""
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    for number in numbers:
        sets[0] &= ~(1 << number)  # of the effective set
    assert libc.capset(header, sets) == 0
