"""Who runs a command: the person, behind `sudo` and `su` as well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .. import unix

__all__ = ["actor", "person"]

LOGIN_UID = Path("/proc/self/loginuid")
NO_LOGIN = 2**32 - 1  # what Linux says of a process that no login has started


def actor() -> str:
    """Return who runs this command, for the history."""
    return person(unix.geteuid(), _login_uid(), os.environ)


def person(uid: int, login_uid: int | None, environ: Mapping[str, str]) -> str:
    """Return a user's name.

    Only root is believed what its environment says: anybody else can write there what they like.

    Args:
        uid: whose rights the process has.
        login_uid: who has logged in, if that is known. `su` and `sudo` don't change it.
        environ: where `sudo` names its caller.
    """
    if uid == 0 and (caller := environ.get("SUDO_USER", "").strip()):
        return caller
    return (login_uid and _name(str(login_uid))) or _name(str(uid)) or f"uid {uid}"


def _login_uid() -> int | None:
    try:
        number = int(LOGIN_UID.read_text())
    except (OSError, ValueError):
        return None
    return None if number == NO_LOGIN else number


def _name(uid: str) -> str:
    """Return the name of a user; in a container a user may have a number only."""
    try:
        return unix.user_name(int(uid))
    except (KeyError, ValueError, OverflowError):
        return ""
