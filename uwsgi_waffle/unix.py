"""What Unix has and Windows lacks. There the processes of a host share no files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

if sys.platform == "win32":
    PRESENT = False
    O_DIRECTORY = O_NOFOLLOW = O_NONBLOCK = LOCK_EX = LOCK_NB = LOCK_SH = LOCK_UN = 0

    def libc() -> Any:
        """Return the C library; here there is none."""

    def geteuid() -> int:
        """Return a user that isn't root."""
        return 1

    getuid = geteuid

    def own_groups() -> list[int]:
        return []

    def fchmod(fd: int, mode: int) -> None: ...

    def fchown(fd: int, uid: int, gid: int) -> None: ...

    def at_fork(**calls: Callable[[], object]) -> None: ...

    def block_signals() -> None: ...

    def user_name(uid: int) -> str:
        return ""

    def pread(fd: int, size: int, offset: int) -> bytes:
        raise OSError("Windows has no pread")

    def __getattr__(name: str) -> Any:
        raise AttributeError(f"Windows has no {name}")  # and nobody there asks for it

else:
    import fcntl
    import pwd

    PRESENT = True
    O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK = os.O_DIRECTORY, os.O_NOFOLLOW, os.O_NONBLOCK
    LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN = fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_SH, fcntl.LOCK_UN
    fchmod, fchown, flock = os.fchmod, os.fchown, fcntl.flock
    geteuid, getuid, pread, pwrite = os.geteuid, os.getuid, os.pread, os.pwrite
    # The numbers of setgroups(2). The C library's function is of no use: it changes all threads.
    SETGROUPS = {"x86_64": 116, "aarch64": 159, "ppc64le": 81, "riscv64": 159, "s390x": 206}
    NO_CHANGE = -1  # asks setfsuid(2) who it is
    at_fork = os.register_at_fork

    @cache
    def libc() -> Any:
        """Return the C library."""
        import ctypes  # only here: few processes need it

        return ctypes.CDLL(None)

    def block_signals() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def own_groups() -> list[int]:
        """Return the groups of this process."""
        return [os.getegid(), *os.getgroups()]

    def user_name(uid: int) -> str:
        """Return a user's name; ``""`` in a container where the user has a number only."""
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return ""

    @cache
    def groups_of(uid: int) -> tuple[int, ...]:
        """Return the groups of a user, the user's own first."""
        try:
            user = pwd.getpwuid(uid)
        except KeyError:  # in a container a user may have a number only
            return (uid,)
        others = set(os.getgrouplist(user.pw_name, user.pw_gid)) - {user.pw_gid}
        return (user.pw_gid, *sorted(others))

    def become(uid: int, gid: int, groups: Sequence[int]) -> tuple[int, int, Sequence[int]]:
        """Change the user and groups that files are used with. Return the former ones.

        On Linux those of this thread only; elsewhere those of the whole process.

        Raises:
            PermissionError: this process may not do that.
        """
        before = os.getgroups()
        if not hasattr(libc(), "setfsuid"):
            user, group = os.geteuid(), os.getegid()
            os.seteuid(0)
            os.setgroups(groups[: os.sysconf("SC_NGROUPS_MAX")])
            os.setegid(gid)
            os.seteuid(uid)
            return user, group, before
        _set_thread_groups(groups)
        group, user = libc().setfsgid(gid), libc().setfsuid(uid)
        if libc().setfsuid(NO_CHANGE) != uid:
            libc().setfsgid(group)
            _set_thread_groups(before)
            raise PermissionError(f"this process may not use files as user {uid}")
        return user, group, before

    def _set_thread_groups(groups: Sequence[int]) -> None:
        number = SETGROUPS.get(os.uname().machine)
        if number is None or sys.maxsize < 2**32:
            os.setgroups(groups)
            return
        import ctypes  # see above

        if libc().syscall(number, len(groups), (ctypes.c_uint32 * len(groups))(*groups)):
            raise PermissionError(f"this process may not take the groups {groups}")
