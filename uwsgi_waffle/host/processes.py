"""The living processes of this host: one small file for each, locked while it lives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from time import monotonic
from typing import Any

from ..errors import OPEN_FILES_ADVICE
from .locks import LockedFile, read_locked
from .private import PrivateFolder

__all__ = ["UNKNOWN", "ProcessInfo", "Processes"]


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of this host.

    Attributes:
        pid: its process id, as the process itself sees it; equal ones may live in two containers.
        kind: what it is: ``worker 3``, ``mule 1``, ``spooler``, or the program outside uWSGI;
            ``unknown`` for one or all whose files can't be read, which ``error`` explains.
        revision: the revision that it serves.
        applied_at: when it applied that revision, in seconds of the monotonic clock.
        snapshot: the id of the snapshot that it serves, in hexadecimal digits.
        error: its last own error, ``""`` if none.
        server: how its server runs, for `flask waffle doctor`.
        token: the name of its file.
    """

    pid: int = 0
    kind: str = ""
    revision: int = 0
    applied_at: float = 0.0
    snapshot: str = ""
    error: str = ""
    server: Mapping[str, Any] = field(default_factory=dict)
    token: str = ""


UNKNOWN = "unknown"
NAMES = tuple(field.name for field in fields(ProcessInfo))


class Processes:
    """The processes that have a locked file in ``folder``."""

    def __init__(self, folder: PrivateFolder) -> None:
        self._folder = folder
        self._file = LockedFile(folder, "")

    @property
    def token(self) -> str:
        """The name of this process's file."""
        return self._file.name

    def report(self, process: ProcessInfo) -> None:
        """Write this process's file; make it first if it isn't there.

        Raises:
            OSError: it can't be written.
        """
        while not self._file.is_ours():
            self._folder.ensure()
            self._file = LockedFile(self._folder, f"{os.getpid()}-{os.urandom(4).hex()}")
            self._file.acquire()
        self._file.write({**{name: getattr(process, name) for name in NAMES}, "token": self.token})

    def leave(self) -> None:
        """Remove this process's file, or at least unlock it: then others remove it."""
        if self._file.is_ours():
            with suppress(OSError):
                self._folder.remove(self.token)
        self._file.release()

    def __iter__(self) -> Iterator[ProcessInfo]:
        """Yield the living processes; remove the files of the dead.

        What can't be read, as without a free descriptor, is a process of the kind `UNKNOWN`.
        """
        try:
            names = self._folder.names()
        except OSError as error:
            yield _unknown(error)
            return
        for name in names:
            try:
                found = read_locked(self._folder, name)
                if found is None:
                    self._folder.remove(name)
            except OSError as error:
                if error.errno in OPEN_FILES_ADVICE:
                    yield _unknown(error)
                continue  # removed meanwhile, or not a file of ours
            if found and "kind" in found:  # another version of the package may write more
                yield ProcessInfo(**{key: found[key] for key in NAMES if key in found})


def _unknown(error: OSError) -> ProcessInfo:
    return ProcessInfo(kind=UNKNOWN, applied_at=monotonic(), error=str(error))
