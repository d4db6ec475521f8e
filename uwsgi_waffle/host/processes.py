"""The living processes of this host: one small file for each, locked while it lives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache
from time import monotonic
from typing import Any

from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from ..errors import OPEN_FILES_ADVICE
from .locks import LockedFile, read_locked
from .private import PrivateFolder

__all__ = ["UNKNOWN", "ProcessInfo", "Processes", "ServerInfo"]


class ServerInfo(TypedDict, total=False):
    """How a process's server runs, for `flask waffle doctor`."""

    uid: int
    gids: list[int]
    woken_by: str
    watchtype: str
    pinned: dict[str, str]
    knows_mounts: bool
    uwsgi: str
    missing_ini_line: str
    monitor_error: str
    lazy_apps: bool
    enable_threads: bool
    chroot: str
    our_mule: str
    not_loaded: str


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of this host.

    Attributes:
        pid: its process id, as the process itself sees it; equal ones may live in two containers.
        kind: what it is: ``worker 3``, ``mule 1``, ``spooler``, or the program outside uWSGI;
            ``unknown`` for one or all whose files say nothing, which ``error`` explains.
        revision: the revision that it serves.
        applied_at: when it applied that revision, in seconds of the monotonic clock.
        snapshot: the id of the snapshot that it serves, in hexadecimal digits.
        error: its last own error, ``""`` if none.
        server: how its server runs, for `flask waffle doctor`.
        token: the name of its file.
    """

    pid: int
    kind: str
    revision: int = 0
    applied_at: FiniteFloat = 0.0
    snapshot: str = ""
    error: str = ""
    server: ServerInfo = field(default_factory=ServerInfo)
    token: str = ""


UNKNOWN = "unknown"
UNREADABLE = (
    "{} is empty, damaged or of another release. If the disk is full, make room. The process "
    "writes it anew with the next update."
)


class Processes:
    """The processes that have a locked file in ``folder``."""

    def __init__(self, folder: PrivateFolder) -> None:
        self._folder = folder
        self._file, self._written = LockedFile(folder, ""), dict[str, Any]()

    @property
    def token(self) -> str:
        """The name of this process's file."""
        return self._file.name

    def report(self, process: ProcessInfo) -> None:
        """Write this process's file; make it first if it isn't there, and remove those of the dead.

        Raises:
            OSError: it can't be written.
        """
        content = {each.name: getattr(process, each.name) for each in fields(process)}
        if content == self._written and self._file.is_ours():  # as at the ticks of an idle process
            return
        while not self._file.is_ours():
            self._folder.ensure()
            self._file = LockedFile(self._folder, f"{os.getpid()}-{os.urandom(4).hex()}")
            self._file.acquire(content)
            self._remove_dead()  # each job of RQ is a process that leaves its file behind
        self._file.write(content)
        self._written = content

    def leave(self) -> None:
        """Remove this process's file, or at least unlock it: then others remove it."""
        if self._file.is_ours():
            with suppress(OSError):
                self._folder.remove(self.token)
        self._file.release()

    def __iter__(self) -> Iterator[ProcessInfo]:
        """Yield the living processes; remove the files of the dead.

        What can't be read, as without a free descriptor or where the disk was full, is a process of
        the kind `UNKNOWN`.
        """
        try:
            names = self._folder.names()
        except OSError as error:
            yield _unknown(str(error))
            return
        for name in names:
            try:
                found = self._read(name)
            except OSError as error:
                if error.errno in OPEN_FILES_ADVICE:
                    yield _unknown(str(error))
                continue  # removed meanwhile, or not a file of ours
            if found is not None:
                try:
                    yield replace(_adapter().validate_python(found), token=name)
                except ValidationError:
                    yield _unknown(UNREADABLE.format(self._folder.path / name), token=name)

    def _remove_dead(self) -> None:
        for name in self._folder.names():
            with suppress(OSError):  # removed meanwhile, or not a file of ours
                self._read(name)

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return what a living process has written; remove the file of one that is dead."""
        found = read_locked(self._folder, name)
        if found is None:
            self._folder.remove(name)
        return found


@cache
def _adapter() -> TypeAdapter[ProcessInfo]:
    return TypeAdapter(ProcessInfo)  # takes milliseconds, and few processes ask for the others


def _unknown(error: str, token: str = "") -> ProcessInfo:
    return ProcessInfo(0, UNKNOWN, applied_at=monotonic(), error=error, token=token)
