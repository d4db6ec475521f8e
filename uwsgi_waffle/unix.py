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

    getuid = getegid = geteuid

    def getgroups() -> list[int]:
        return []

    def fchmod(fd: int, mode: int) -> None: ...

    def fchown(fd: int, uid: int, gid: int) -> None: ...

    def at_fork(**calls: Callable[[], object]) -> None: ...

    def block_signals() -> None: ...

    def user_name(uid: int) -> str:
        raise KeyError(uid)

    def groups_of(uid: int) -> tuple[int, ...]:
        raise KeyError(uid)

    def set_thread_groups(groups: Sequence[int]) -> None:
        raise OSError("Windows has no groups with numbers")

    def seteuid(uid: int) -> None:
        raise OSError("Windows has no users with numbers")

    setegid = seteuid

    def flock(fd: int, operation: int) -> None:
        raise OSError("Windows has no flock")

    def pread(fd: int, size: int, offset: int) -> bytes:
        raise OSError("Windows has no pread")

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        raise OSError("Windows has no pwrite")

else:
    import pwd
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
    from os import (
        O_DIRECTORY,
        O_NOFOLLOW,
        O_NONBLOCK,
        fchmod,
        fchown,
        getegid,
        geteuid,
        getgroups,
        getuid,
        pread,
        pwrite,
        setegid,
        seteuid,
    )

    PRESENT = True
    # The numbers of setgroups(2). The C library's function is of no use: it changes all threads.
    SETGROUPS = {"x86_64": 116, "aarch64": 159, "ppc64le": 81, "riscv64": 159, "s390x": 206}
    at_fork = os.register_at_fork

    @cache
    def libc() -> Any:
        """Return the C library."""
        import ctypes  # only here: few processes need it

        return ctypes.CDLL(None)

    def block_signals() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def user_name(uid: int) -> str:
        return pwd.getpwuid(uid).pw_name

    def groups_of(uid: int) -> tuple[int, ...]:
        """Return the groups of a user, the user's own first."""
        user = pwd.getpwuid(uid)
        others = set(os.getgrouplist(user.pw_name, user.pw_gid)) - {user.pw_gid}
        return (user.pw_gid, *sorted(others))

    def set_thread_groups(groups: Sequence[int]) -> None:
        """Set the groups of this thread; except on Linux, those of the whole process.

        Raises:
            OSError: this process may not do that.
        """
        number = SETGROUPS.get(os.uname().machine) if hasattr(libc(), "setfsuid") else None
        if number is None or sys.maxsize < 2**32:
            os.setgroups(groups[: os.sysconf("SC_NGROUPS_MAX")])
            return
        import ctypes  # see above

        if libc().syscall(number, len(groups), (ctypes.c_uint32 * len(groups))(*groups)):
            raise PermissionError(f"this process may not take the groups {groups}")


__all__ = [
    "LOCK_EX",
    "LOCK_NB",
    "LOCK_SH",
    "LOCK_UN",
    "O_DIRECTORY",
    "O_NOFOLLOW",
    "O_NONBLOCK",
    "PRESENT",
    "at_fork",
    "block_signals",
    "fchmod",
    "fchown",
    "flock",
    "getegid",
    "geteuid",
    "getgroups",
    "getuid",
    "groups_of",
    "libc",
    "pread",
    "pwrite",
    "set_thread_groups",
    "setegid",
    "seteuid",
    "user_name",
]
