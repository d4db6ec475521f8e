"""The one process of a host that listens to other hosts, and what it and the writers note for each
other.
"""

from __future__ import annotations

import fcntl
import os
import struct
from dataclasses import dataclass

from .files import ensure_folder
from .header import COMING_AT, HEAD_SIZE, SLOTS_AT, WORD, Header, held, identity_of, text_in
from .slots import started

__all__ = ["UPDATES_AT", "Election", "Listener"]

UNTOLD_AT = COMING_AT + HEAD_SIZE
LISTENER, TROUBLE_SIZE = (
    struct.Struct("<qqq"),
    200,
)  # its pid, its start, its number; then what is wrong with listening and with telling
LISTENER_AT = UNTOLD_AT + WORD
TROUBLES_AT = LISTENER_AT + LISTENER.size
UPDATES_AT = TROUBLES_AT + 2 * TROUBLE_SIZE
assert UPDATES_AT + WORD <= SLOTS_AT


@dataclass(frozen=True, slots=True)
class Listener:
    """The process of the host that listens to other hosts.

    Attributes:
        pid: its process id; 0 if there is none.
        number: drawn at its election; the messages of this host carry it.
        listening: what is wrong with that, ``""`` if nothing is.
        telling: likewise, with telling other hosts.
    """

    pid: int
    number: int
    listening: str
    telling: str


class Election(Header):
    """Who listens, and what other hosts weren't told yet."""

    def elect(self) -> bool:
        """Make this process the listener, until it ends, if no other is; tell whether it is. Never
        waits.
        """
        self.verify()
        if not self._is_elected():
            self.resign()
            ensure_folder(self.bell_folder)
            fd = os.open(
                self.bell_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            )
            held.add(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                held.discard(fd)
                os.close(fd)
                if isinstance(error, BlockingIOError):
                    return False
                raise
            self._elected = (fd, os.getpid())
        if self.listener().pid != os.getpid():
            self._write(
                LISTENER_AT,
                LISTENER.pack(
                    os.getpid(), started(os.getpid()), int.from_bytes(os.urandom(7), "big")
                ),
            )
        return True

    def resign(self) -> None:
        """Be no longer the listener."""
        if self._elected is not None and self._elected[1] == os.getpid():
            if self.listener().pid == os.getpid():
                self._write(LISTENER_AT, bytes(LISTENER.size))
            fd = self._elected[0]
            fcntl.flock(fd, fcntl.LOCK_UN)  # also for a child that was forked at this moment
            held.discard(fd)
            os.close(fd)
        self._elected = None

    def _is_elected(self) -> bool:
        return (
            self._elected is not None
            and self._elected[1] == os.getpid()
            and identity_of(self._elected[0]) == identity_of(str(self.bell_folder))
        )

    def listener(self) -> Listener:
        """Return who listens, and what is wrong with listening and telling."""
        raw = os.pread(self._fd, LISTENER.size + 2 * TROUBLE_SIZE, LISTENER_AT).ljust(
            LISTENER.size + 2 * TROUBLE_SIZE, b"\0"
        )
        pid, start, number = LISTENER.unpack_from(raw)
        listening, telling = raw[LISTENER.size : -TROUBLE_SIZE], raw[-TROUBLE_SIZE:]
        alive = pid > 0 and started(pid) == start
        return Listener(pid if alive else 0, max(0, number), text_in(listening), text_in(telling))

    def note_trouble(self, *, listening: str | None = None, telling: str | None = None) -> None:
        """Note what is wrong with listening to other hosts, or with telling them, ``""`` if nothing
        is.
        """
        for index, text in enumerate((listening, telling)):
            if text is not None:
                self._write(
                    TROUBLES_AT + index * TROUBLE_SIZE,
                    text.encode(errors="replace")[:TROUBLE_SIZE].ljust(TROUBLE_SIZE, b"\0"),
                )

    def untold(self) -> bytes:
        """Return what says that there may be something that other hosts weren't told; all zeros if
        there is nothing.
        """
        return os.pread(self._fd, WORD, UNTOLD_AT)

    def note_told(self, untold: bytes) -> None:
        """Note that other hosts were told, unless there is something new since ``untold`` was read."""
        if self.untold() == untold:
            self._write(UNTOLD_AT, bytes(WORD))
