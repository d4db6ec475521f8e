"""Whether anything can watch a path here: uWSGI's master is silent when it can't."""

from __future__ import annotations

import errno
import os

__all__ = ["check_inotify"]

# Of <sys/inotify.h>.
IN_ATTRIB, IN_CLOEXEC = 4, 0o2000000

ADVICE = {
    errno.EMFILE: "Raise fs.inotify.max_user_instances, then restart uWSGI",
    errno.ENFILE: "Raise fs.file-max, then restart uWSGI",
    errno.ENOSPC: "Raise fs.inotify.max_user_watches, then restart uWSGI",
}


def check_inotify(path: str) -> None:
    """Watch a path for a moment, where the system has inotify.

    Raises:
        OSError: its user has used up what the kernel allows; the text says what to do.
    """
    import ctypes  # only here: nobody else needs it

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):  # not Linux
        return
    fd = libc.inotify_init1(IN_CLOEXEC)
    watched = fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(path), IN_ATTRIB) >= 0
    number = ctypes.get_errno()
    if fd >= 0:
        os.close(fd)
    if not watched and number in ADVICE:
        raise OSError(number, f"inotify: {os.strerror(number)}. {ADVICE[number]}")
