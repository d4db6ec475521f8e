"""How an update travels: one transaction on the store, and then the snapshot that all processes of
the host take.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from time import monotonic

from pydantic import BaseModel

from . import server
from .errors import HostFilesError, RevisionConflict, WaffleError
from .fetching import WAIT_PAUSE, Fetcher
from .hostfiles import LEASE, HostFiles, ProcessInfo, digest_in
from .plans import Plan, encoded
from .snapshot import Encoded, Snapshot, encode
from .stores import Commit, Decide, Stored

__all__ = ["State", "Unread", "UpdateResult"]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What an update did.

    Attributes:
        revision: the revision that the store has now.
        changed: the variables whose stored value is another now, sorted; empty if nothing had to be
            done.
        applied: with ``wait``, the processes of this host that serve this revision or a later one,
            their hooks done.
        pending: with ``wait``, those that didn't yet when the time was over.
    """

    revision: int
    changed: tuple[str, ...]
    applied: tuple[ProcessInfo, ...] = ()
    pending: tuple[ProcessInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Staged:
    """A revision on its way: on the disk, rung for, not yet committed."""

    encoded: Encoded
    values: BaseModel
    head: bytes


class State(Fetcher):
    """One application's values in this process, with all that may be done to them."""

    def update(
        self,
        plan: Plan,
        *,
        expect_revision: int | None,
        actor: str | None,
        note: str | None,
        wait: float | None,
    ) -> UpdateResult:
        """Carry out a plan.

        The way of an update: take the host's lock; in one transaction validate it upon what the
        store holds, put the
        new snapshot on the disk, ring, commit; then show the snapshot. A writer that dies on this
        way leaves the bell
        unanswered and the lock free, so that the next reader reads the store.
        """
        changed: tuple[str, ...] = ()
        staged: Staged | None = None
        seen: Stored | None = None

        def decide(stored: Stored) -> Commit | None:
            nonlocal changed, staged, seen
            staged, seen = None, stored
            if expect_revision is not None and expect_revision != stored.revision:
                raise RevisionConflict(expect_revision, stored.revision)
            changes = {
                name: text for name, text in plan(stored).items() if text != stored.values.get(name)
            }
            changed = tuple(sorted(changes))
            if not changes:
                return None
            commit = Commit(changes, actor, note)
            after = stored.after(commit)
            new = encode(after.revision, after.values)
            staged = Staged(new, self.schema.load(new.values), self._stage(new))
            return commit

        shown = True
        with self._host_lock():
            try:
                stored = self.store.transact(decide)
            except WaffleError:
                self._ring_if_news(seen)
                if (
                    staged is not None
                ):  # the connection broke in the middle of the commit: it may have been carried out
                    self._publish()
                raise
            if staged is None:
                self._ring_if_news(stored)
            else:
                shown = self._show_committed(staged)
        if self.host is not None:
            if not shown:
                self._show_again(self.host)
            if staged is not None:
                self._publish()
            self._outlast_old_header(self.host)
        self._finish()
        return self._wait_for(UpdateResult(stored.revision, changed), wait)

    def convert(self, decide: Decide) -> Stored:
        """Carry out a commit that changes how values are written and not what they are; afterwards
        a row may still be none.

        So there may be no snapshot to put on the disk before the commit. The bell is rung before it
        all the same, and what
        the store then holds is shown if it can be served.
        """
        with self._host_lock():
            if self.host is not None:
                self.host.ring()
            stored = self.store.transact(decide)
            if self.host is not None:
                self._fetch(self.host, forced=True)
        self._publish()
        if self.host is not None:
            self._outlast_old_header(self.host)
        self._finish()
        return stored

    def _stage(self, new: Encoded) -> bytes:
        """Put a snapshot on the disk while the transaction can still be undone, then ring; return
        the words that will show it.
        """
        if self.host is None:
            return b""
        try:
            self.host.mend()
            self.host.stage(new)
            return self.host.announce(new.digest)
        except HostFilesError:
            raise
        except OSError as error:
            raise HostFilesError(
                f"{self.host.folder}: {error.strerror or error}. Nothing was changed."
            ) from error

    def _ring_if_news(self, stored: Stored | None) -> None:
        """Under the lock, after an update that changed nothing: if the store has what this host
        doesn't know, look at it.
        """
        if stored is None:
            return
        if self.host is None:
            self._serve(stored)
        elif encoded(stored).digest != digest_in(self.host.peek()):
            self.host.ring()

    def _show_committed(self, staged: Staged) -> bool:
        """Under the lock, show what was committed; tell whether that worked."""
        new, head, shown = staged.encoded, staged.head if self.host else self._peek(), True
        if self.host is not None:
            try:
                before = digest_in(self.host.peek())
                self.host.settle(staged.head)
                self.host.toll()
                server.give_way()
                self._keep(self.host, new, before)
            except OSError as error:
                self._say(
                    logging.WARNING,
                    f"revision {new.revision} is stored and has to be shown once more: {error}",
                )
                shown = False
        self._apply(
            Snapshot(new.revision, new.digest, staged.values),
            head if shown else None,
            ahead=not shown,
        )
        return shown

    def _show_again(self, host: HostFiles) -> None:
        """Show what is committed by way of the store: the files were removed or replaced while it
        was on its way.
        """
        try:
            with host.lock(self._lock_timeout):
                self._fetch(host, forced=True)
                host.toll()
        except (
            WaffleError,
            OSError,
        ) as error:  # the bell stays unanswered: every process that finds it reads the store
            self._trouble(
                f"an update is stored but can't be shown to this host's processes: {error}"
            )
            host.ring()

    def _outlast_old_header(self, host: HostFiles) -> None:
        """If the header was opened a moment ago, wait until every process has noticed that it is
        the one to look at.
        """
        left = host.opened_at + LEASE - monotonic()
        if left > 0:
            time.sleep(min(left, LEASE))

    def _wait_for(self, result: UpdateResult, wait: float | None) -> UpdateResult:
        if wait is None:
            return result
        deadline = monotonic() + wait
        while True:
            newest = self.catch_up()
            applied: list[ProcessInfo] = []
            pending: list[ProcessInfo] = []
            for process in self.processes():
                ours = (
                    process.pid == os.getpid()
                )  # its hooks are called later if it was one of them that has called us
                done = (
                    process.digest == newest.digest
                    or result.revision <= process.revision <= newest.revision
                )
                (applied if done or ours else pending).append(process)
            if not pending or monotonic() >= deadline:
                return replace(result, applied=tuple(applied), pending=tuple(pending))
            time.sleep(WAIT_PAUSE)


class Unread(State):
    """A state that begins without having read its store, in which an application couldn't start."""

    def _boot(self) -> None:
        if self.host is not None:
            self.host.verify()
            with self.host.lock(self._lock_timeout):
                self.host.claim(self.store.name)
