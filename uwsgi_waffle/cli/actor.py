"""Who runs a command: the person, behind `sudo` and `su` as well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .. import unix

__all__ = ["actor", "person"]

LOGIN_UID = Path("/proc/self/loginuid")


def actor() -> str:
    """Return who runs this command, for the history."""
    login_uid = None
    with suppress(OSError, ValueError):
        login_uid = int(LOGIN_UID.read_text())
    return person(unix.geteuid(), login_uid, os.environ)


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
    return (login_uid and unix.user_name(login_uid)) or unix.user_name(uid) or f"uid {uid}"
