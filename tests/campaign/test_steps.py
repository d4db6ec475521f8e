"""The kernel's word that the steps which are found are all there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..live.servers import ROOT

CALL = re.compile(r"^\d+\s+(\w+)\((.*)$")
HARMLESS = frozenset(
    {
        "access",
        "brk",
        "clock_gettime",
        "clock_nanosleep",
        "close",
        "fstat",
        "futex",
        "getcwd",
        "getdents64",
        "getegid",
        "geteuid",
        "getgid",
    }
    | {
        "getpid",
        "getrandom",
        "gettid",
        "getuid",
        "ioctl",
        "lseek",
        "lstat",
        "madvise",
        "mmap",
        "mprotect",
        "mremap",
        "munmap",
        "newfstatat",
    }
    | {
        "pread64",
        "read",
        "readlink",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_yield",
        "stat",
        "statx",
        "sysinfo",
        "uname",
    }
    | {
        "prlimit64",
        "sched_getaffinity",
        "fstatfs",
        "statfs",
        "readlinkat",
        "faccessat",
        "faccessat2",
        "getrusage",
    }
)


def changes_something(name: str, arguments: str) -> bool:
    if name in ("open", "openat"):
        return "O_CREAT" in arguments or "O_TRUNC" in arguments
    if name == "fcntl":
        return "F_SETLK" in arguments and "F_UNLCK" not in arguments  # SQLite's end of a reading
    return name not in HARMLESS


def test_nothing_is_changed_between_two_steps(tmp_path: Path) -> None:
    """Each system call of an update or a fetch is harmless, or within a step."""
    strace = shutil.which("strace")
    if strace is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "there is no strace: apt-get install strace"
        )
    trace, folder = tmp_path / "trace", tmp_path / "site"
    folder.mkdir()
    command = [
        strace,
        "-f",
        "-o",
        str(trace),
        sys.executable,
        "-m",
        "tests.campaign.traced",
        str(folder),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    depth, steps, escaped = 0, 0, []
    lines = trace.read_text(errors="replace").splitlines()
    begin, end = (
        next(at for at, line in enumerate(lines) if f'"MARK {word}' in line)
        for word in ("first", "last")
    )
    for line in lines[begin + 1 : end]:
        if '"MARK ' in line:
            begins = '"MARK begin' in line
            depth += 1 if begins else -1
            steps += begins
            continue
        call = CALL.match(line)
        if call and not depth and changes_something(*call.groups()):
            escaped.append(line)
    assert (depth, escaped) == (0, [])
    assert steps > 100
