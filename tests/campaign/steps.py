"""Finds the steps of whatever a process does, stops it at any of them, or kills it there.

A step is a call from Python into C that may change something outside the process: a file operation,
a call of a database's
driver, a byte sent. They are found by Python's own profiling hook, so no list of them can be out of
date: `READING` names the
few calls that change nothing, and `test_kills.py` has the kernel confirm, with strace, that nothing
is changed between two steps.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from uwsgi_waffle import unix

MODULES = frozenset(
    {
        "posix",
        "fcntl",
        "_io",
        "_socket",
        "socket",
        "_sqlite3",
        "sqlite3",
        "select",
        "mmap",
        "_ssl",
        "shutil",
    }
)
READING = frozenset(
    {
        "access",
        "fspath",
        "fstat",
        "getegid",
        "geteuid",
        "getgid",
        "getpid",
        "getuid",
        "lstat",
        "pread",
        "readlink",
        "scandir",
        "stat",
    }
    | {
        "_path_normpath",
        "listdir",
        "sched_yield",
        "urandom",
        "fileno",
        "get_inheritable",
        "set_inheritable",
        "isatty",
    }
    | {"getvalue", "read", "readable", "readinto", "readline", "seek", "tell", "writable"}
    | {"create_function", "cursor", "fetchall", "fetchone"}
    | {
        "getsockopt",
        "gettimeout",
        "setblocking",
        "setsockopt",
        "settimeout",
        "epoll",
        "modify",
        "register",
        "unregister",
    }
)

Do = Callable[[], object]


@dataclass(frozen=True)
class End:
    """How a child ended.

    Attributes:
        finished: whether it did all that it was told to.
        steps: the names of those that it began.
        error: a traceback, ``""`` if it raised nothing.
    """

    finished: bool
    steps: tuple[str, ...]
    error: str = ""


def name_of(function: Any) -> str | None:
    """Return the name of the step that a call of a C function is, ``None`` if it is none."""
    module = (
        getattr(function, "__module__", None)
        or type(getattr(function, "__self__", None)).__module__
    )
    name = getattr(function, "__name__", "")
    if module == "time":
        return "sleep" if name == "sleep" else None
    return name if module in MODULES and name not in READING else None


def walk(
    work: Do,
    *,
    before: Callable[[int, str], object],
    after: Callable[[int, str], object] = lambda number, name: None,
) -> int:
    """Do ``work`` and call the others before and after each of its steps, counted from 0; return
    how many they were.
    """
    count = 0
    running: list[tuple[int, str]] = []

    def watch(frame: FrameType, event: str, function: Any) -> None:
        nonlocal count
        if event[0] != "c" or (event == "c_call" and function is sys.setprofile):
            return
        name = name_of(function)
        if name is None:
            return
        if event == "c_call":
            running.append((count, name))
            count += 1
            before(*running[-1])
        elif running:
            after(*running.pop())

    pwrite = unix.pwrite
    # The hook isn't called for what `functools.partial` calls, unless that is Python.
    unix.pwrite = lambda fd, data, at: pwrite(fd, data, at)
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
        unix.pwrite = pwrite
    return count


def in_child(work: Do) -> End:
    """Do ``work`` in a forked process and return how that ended; it may kill itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            work()
            code = 0
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 1, -signal.SIGKILL), (
        f"the child died of {code}, and nobody had killed it: {told}"
    )
    return End(code == 0, (), told)


def die() -> None:
    """End this process at once, as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def names(work: Do) -> tuple[str, ...]:
    """Do ``work`` in a child and return the names of its steps."""
    reading, writing = os.pipe()
    found: list[str] = []

    def listed() -> None:
        walk(work, before=lambda number, name: found.append(name))
        os.write(writing, pickle.dumps(found))

    end = in_child(listed)
    os.close(writing)
    with open(reading, "rb") as pipe:
        told = pipe.read()
    assert end.finished, end.error
    return tuple(pickle.loads(told))


def killed_at(work: Do, number: int, *, after: bool = False) -> End:
    """Do ``work`` in a child that is killed before its step with that number, or after it."""

    def kill(at: int, name: str) -> None:
        if at == number:
            die()

    def nothing(at: int, name: str) -> None:
        pass  # on the other side of the step

    return in_child(
        lambda: walk(work, before=nothing if after else kill, after=kill if after else nothing)
    )


def killed_within(work: Do, number: int) -> End:
    """Do ``work`` in a child that is killed in the middle of one of its writes: half of the bytes
    are there.
    """
    genuine = {"write": os.write, "pwrite": unix.pwrite}
    count = -1

    def half(name: str) -> Callable[..., int]:
        def write(fd: int, data: Any, *place: int) -> int:
            nonlocal count
            count += 1
            if count == number:
                genuine[name](fd, bytes(data)[: len(data) // 2], *place)
                die()
            return genuine[name](fd, data, *place)

        return write

    def torn() -> None:
        # in the child only
        os.write, unix.pwrite = half("write"), half("pwrite")  # type: ignore[assignment]  # as above
        try:
            work()
        finally:
            os.write, unix.pwrite = genuine["write"], genuine["pwrite"]

    return in_child(torn)
