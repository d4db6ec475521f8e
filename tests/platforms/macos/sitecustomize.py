"""Take away what macOS lacks; put this folder on PYTHONPATH, or give pytest ``--like-macos``.

What tests themselves need of Linux stays: namespaces, capabilities, and /proc for psutil.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import fcntl
import importlib
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

LACKING = {
    os: """
        O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE copy_file_range eventfd fdatasync
        getrandom getresgid getresuid getxattr listxattr memfd_create pidfd_open pipe2 posix_fadvise
        posix_fallocate removexattr sched_getaffinity sched_getscheduler sched_setaffinity
        sched_setscheduler sched_yield setns setresgid setresuid setxattr splice unshare
    """,
    fcntl: "F_ADD_SEALS F_GETPIPE_SZ F_NOTIFY F_OFD_SETLK F_OFD_SETLKW F_SETPIPE_SZ",
    mmap: "MADV_DONTFORK MADV_REMOVE MAP_POPULATE",
    resource: "prlimit",
    select: "epoll",
    signal: "SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT sigtimedwait sigwaitinfo",
    socket: "AF_NETLINK AF_PACKET SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED TCP_USER_TIMEOUT",
    time: "CLOCK_BOOTTIME CLOCK_TAI",
}
LIBC = ("eventfd", "inotify", "memfd_create", "setfsgid", "setfsuid", "timerfd")
FIRST_THREAD = 2**33  # no pid is so high: on macOS the main thread's id isn't the pid


def is_psutil_asking() -> bool:
    frame = sys._getframe(2).f_back  # it has other means on macOS
    return frame is not None and str(frame.f_globals.get("__name__", "")).startswith("psutil")


def check_path(path: object) -> None:
    if not isinstance(path, str | bytes | os.PathLike) or is_psutil_asking():
        return
    if os.fsencode(path).startswith(b"/proc"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def without_proc(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `os` that finds no /proc; no audit hook hears of it."""

    def look(path: Any, *options: Any, **more: Any) -> Any:
        check_path(path)
        return real(path, *options, **more)

    for can in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if real in can:
            can.add(look)
    return look


def link_to_what_it_means(source: Any, target: Any, **options: Any) -> None:
    """Link to the file that a symbolic link leads to, where Linux links to the symbolic link."""
    if not options and os.path.islink(source):
        source = os.path.realpath(source)
    link(source, target, **options)


link = os.link


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Let there be no /proc, and no socket whose address is no path."""
    if event in ("open", "os.listdir", "os.scandir"):
        check_path(arguments[0])
    elif event in ("socket.bind", "socket.connect"):
        address = arguments[1]
        if isinstance(address, str | bytes) and os.fsencode(address).startswith(b"\0"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def take_away() -> None:
    """Do it, in this process."""
    for module, names in LACKING.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in ("access", "lstat", "readlink", "stat"):
        setattr(os, name, without_proc(getattr(os, name)))
    os.link = link_to_what_it_means
    importlib.reload(shutil)  # it looks for listxattr when it is imported
    find = ctypes.CDLL.__getitem__

    def find_on_macos(library: ctypes.CDLL, name: str) -> Any:
        if name.startswith(LIBC):
            raise AttributeError(f"{name}: symbol not found")
        return find(library, name)

    ctypes.CDLL.__getitem__ = find_on_macos  # type: ignore[method-assign,assignment]  # the point
    native_id = threading.get_native_id
    threading.get_native_id = lambda: FIRST_THREAD + native_id()
    _thread.get_native_id = threading.get_native_id
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # as if from the start
    sys.addaudithook(refuse)


take_away()
