"""Take away what Windows lacks; put this folder on PYTHONPATH.

`sys.platform` says so only while the package looks at it: the standard library goes on as before.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

MODULES = {"curses", "fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios"}
# `os.kill` is there, but what asks on Unix whether a process runs sends it Ctrl-C.
LACKING = {
    os: """
        O_CLOEXEC O_DIRECTORY O_NOATIME O_NOFOLLOW O_NONBLOCK O_SYNC chown chroot confstr fchmod
        fchown fdatasync fork forkpty getegid geteuid getgid getgroups getloadavg getpgid
        getpriority getsid getuid initgroups kill killpg lchown lockf memfd_create mkfifo mknod
        nice pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev readv
        register_at_fork sched_yield sendfile setegid seteuid setgid setpgid setsid setuid sync
        sysconf uname writev
    """,
    select: "epoll poll",
    signal: """
        SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm pthread_kill
        pthread_sigmask setitimer sigwait
    """,
    socket: "AF_UNIX SO_PEERCRED SO_REUSEPORT",
    time: "tzset",
}


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module that asks for the platform."""

    def exec_module(self, module: ModuleType) -> None:
        real, sys.platform = sys.platform, "win32"
        try:
            super().exec_module(module)
        finally:
            sys.platform = real


class Finder:
    """Finds no module that Windows lacks, and lets one of ours see the platform."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> Any:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name != "uwsgi_waffle.unix":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = Loader(name, spec.origin)
        return spec


def take_away() -> None:
    """Do it, in this process."""
    for module, names in LACKING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES:
        sys.modules.pop(name, None)
    os.supports_dir_fd.clear()
    os.supports_fd.clear()
    load = ctypes.CDLL.__init__

    def load_on_windows(library: ctypes.CDLL, name: str, *options: Any, **more: Any) -> None:
        if name is None:
            raise TypeError("bad argument type for built-in operation")
        load(library, name, *options, **more)

    ctypes.CDLL.__init__ = load_on_windows  # type: ignore[method-assign,assignment]  # the point
    sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]  # it needs no more


take_away()
