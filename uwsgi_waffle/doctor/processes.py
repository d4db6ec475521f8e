"""What Linux tells of a process under ``/proc``, see proc(5); where it doesn't, or not to us,
nothing is known.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Account",
    "account_of",
    "account_of_user",
    "arguments_of",
    "environment_of",
    "folder_of",
    "may",
]


@dataclass(frozen=True, slots=True)
class Account:
    """Who a process runs as."""

    uid: int
    gids: frozenset[int]

    def __str__(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"user {self.uid}"


def account_of(pid: int) -> Account | None:
    """Return who a process runs as, ``None`` if that can't be known."""
    try:
        lines = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":" in line
        )
        return Account(
            int(lines["Uid"].split()[1]),
            frozenset(map(int, [lines["Gid"].split()[1], *lines["Groups"].split()])),
        )
    except (OSError, LookupError, ValueError):
        return None


def account_of_user(name: str) -> Account | None:
    """Return the account of a user, given by name or number, ``None`` if there is no such user."""
    try:
        user = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(user.pw_uid, frozenset(os.getgrouplist(user.pw_name, user.pw_gid)))


def arguments_of(pid: int) -> list[str]:
    """Return the words that a process was started with."""
    return _words(pid, "cmdline")


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with."""
    return {
        key: value
        for key, equals, value in (word.partition("=") for word in _words(pid, "environ"))
        if equals
    }


def folder_of(pid: int) -> str:
    """Return the folder that a process is in, ``""`` if that can't be known."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def _words(pid: int, name: str) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return []
    return [word.decode(errors="replace") for word in raw.rstrip(b"\0").split(b"\0")]


def may(account: Account, path: Path, bits: int) -> bool:
    """Tell whether an account may do with a file what the three ``bits`` say, as `stat` numbers
    those of others.

    Access control lists aren't looked at.
    """
    found = path.stat()
    if account.uid == 0:
        return True
    if found.st_uid == account.uid:
        return found.st_mode >> 6 & bits == bits
    return (found.st_mode >> 3 if found.st_gid in account.gids else found.st_mode) & bits == bits
