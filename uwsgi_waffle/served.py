"""What one process serves of one application."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType

from .errors import InvalidValue, error_text
from .expiry import temporary_in
from .host import snapshot_id_in
from .schema import Schema
from .snapshot import Change, Committed, Encoded, Snapshot, difference
from .wake import process_name

__all__ = ["Current", "Served", "is_repairing", "repairing"]

logger = logging.getLogger("uwsgi_waffle")

NO_PROBLEMS: Mapping[str, str] = MappingProxyType({})

_repairing: ContextVar[bool] = ContextVar("uwsgi_waffle_repairing", default=False)
is_repairing = _repairing.get


@contextmanager
def repairing() -> Iterator[None]:
    """Let an application that is loaded in this block start with values that don't fit.

    A variable whose stored value doesn't fit its declaration has its default.
    """
    token = _repairing.set(True)
    try:
        yield
    finally:
        _repairing.reset(token)


@dataclass(frozen=True, slots=True)
class Current:
    """The snapshot in force, and the header's words that were seen with it (``None``: none)."""

    words: bytes | None
    snapshot: Snapshot


class Served:
    """The snapshot that this process serves, and the events that its hooks don't know yet.

    Args:
        schema: the declared variables.
        call_hooks: called with each change, in the process and thread that applied it; and with
            what this process has committed because it found that somebody had edited the store.
        repairing: whether this process was started to repair values: then a value that doesn't fit
            is no error, and the variable has its default.

    Attributes:
        lock: held while a snapshot is applied, so that threads apply revisions in their order.
        error: what is wrong in this process, ``""`` if nothing is.
        misfits: while repairing, why values don't fit, by the variable's name.
        applied_at: when the snapshot was applied, in seconds of the monotonic clock.
    """

    def __init__(
        self, schema: Schema, call_hooks: Callable[[Change | Committed], None], *, repairing: bool
    ) -> None:
        self.schema, self.repairing, self._call_hooks = schema, repairing, call_hooks
        self.current = Current(None, Snapshot(0, b"", schema.defaults))
        self.error, self.misfits = "", dict[str, str]()
        self._rejected = b""  # the id of a published snapshot that our schema refuses
        self._events: deque[Change | Committed] = deque()
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Make the locks anew: another thread of the parent may have held them."""
        self.lock, self._hooks_lock = threading.RLock(), threading.Lock()
        self.applied_at = time.monotonic()

    def load(
        self,
        encoded: Encoded,
        words: bytes | None = None,
        *,
        unreadable: Mapping[str, str] = NO_PROBLEMS,
    ) -> None:
        """Serve an encoded snapshot from now on.

        Args:
            words: the header's words that were seen with it.
            unreadable: while repairing, why rows of the store were left out, by name.

        Raises:
            InvalidValue: the schema refuses it, and this process doesn't repair.
        """
        problems: Mapping[str, str] = NO_PROBLEMS
        if self.repairing:
            values, problems = self.schema.load_leniently(encoded.values)
        else:
            values = self.schema.load(encoded.values)
        temporary = temporary_in(encoded.values, self.schema.families)
        snapshot = Snapshot(encoded.revision, encoded.id, values, temporary)
        with self.lock:
            change = difference(snapshot, self.current.snapshot)
            if snapshot.id != self.current.snapshot.id:
                self.applied_at = time.monotonic()
            if change is not None and self.current.snapshot.id:  # a start is no change
                self._events.append(change)
            self.current = Current(words, snapshot)
            self._rejected, self.misfits = b"", {**unreadable, **problems}

    def apply_published(self, encoded: Encoded) -> None:
        """Serve a published snapshot; if the schema refuses it, go on with the last good one.

        Another version of the application, that runs beside this one, may declare other types.
        """
        try:
            self.load(encoded)
        except InvalidValue as error:
            self._rejected = encoded.id
            self.report_error(f"revision {encoded.revision} can't be served here: {error}")

    def knows(self, snapshot_id: bytes) -> bool:
        """Return whether a published snapshot is served already, or can't be."""
        return bool(snapshot_id) and snapshot_id in (self.current.snapshot.id, self._rejected)

    def set_words(self, words: bytes) -> None:
        """Let the snapshot in force be what these words of the header call for."""
        with self.lock:
            self.current = Current(words, self.current.snapshot)
            if snapshot_id_in(words) == self.current.snapshot.id:  # it may have gone back
                self._rejected = b""

    def run_hooks(self) -> Snapshot | None:
        """Call the hooks, one event after the other. Return the snapshot that they know now.

        A thread that finds another at it leaves the rest to it, and returns ``None``.
        """
        while self._events and self._hooks_lock.acquire(blocking=False):
            try:
                while self._events:
                    self._call_hooks(self._events.popleft())
            finally:
                self._hooks_lock.release()
        with self.lock:  # nothing is applied meanwhile
            done = not (self._events or self._hooks_lock.locked())
            return self.current.snapshot if done else None

    def queue(self, committed: Committed) -> None:
        """Have `run_hooks` call hooks with what this process has committed, too.

        Whoever commits holds the host's lock, and hooks are called when it is free again.
        """
        self._events.append(committed)

    def clear_error(self) -> None:
        """Note that all is well, unless a snapshot was refused."""
        if not self._rejected:
            self.error = ""

    def report_error(self, error: Exception | str) -> None:
        """Show an error in the status, and log it once."""
        text, cause = (error, None) if isinstance(error, str) else error_text(error)
        if text != self.error:
            self.error = text
            self.log(logging.ERROR, text, cause)

    def log(self, level: int, text: str, cause: Exception | None = None) -> None:
        """Log a line that says in which process it was and at which revision."""
        logger.log(
            level,
            "uwsgi_waffle: %s (pid %d, %s, revision %d)",
            text,
            os.getpid(),
            process_name() or "master",
            self.current.snapshot.revision,
            exc_info=cause,
        )
