"""What one application serves in this process, and how it moves from one revision to the next."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from types import MappingProxyType

from pydantic import BaseModel

from .errors import HostFilesError, InvalidValue, RevisionConflict, StoreUnavailable, WaffleError
from .hostfiles import LEASE, HostFiles, ProcessInfo, digest_in, is_settled
from .plans import Plan, encoded
from .schema import Schema
from .snapshot import Change, Encoded, Snapshot
from .stores import Commit, Store, Stored

__all__ = ["State", "UpdateResult"]

log = logging.getLogger("uwsgi_waffle")

WAIT_PAUSE = 0.002  # seconds between two looks at the table of processes
OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What an update did.

    Attributes:
        revision: the revision that the store has now.
        changed: the variables whose stored value is another now, sorted; empty if nothing had to be done.
        applied: with ``wait``, the processes of this host that serve this revision or a later one, their hooks done.
        pending: with ``wait``, those that didn't yet when the time was over.
    """

    revision: int
    changed: tuple[str, ...]
    applied: tuple[ProcessInfo, ...] = ()
    pending: tuple[ProcessInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Current:
    """The snapshot that this process serves, and the header's words that were seen with it (``None``: look again)."""

    head: bytes | None
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Staged:
    """A revision on its way: on the disk, rung for, not yet committed."""

    encoded: Encoded
    values: BaseModel
    bell: bytes


class State:
    """One application's values in this process.

    Args:
        schema: what may be stored.
        store: where it is stored.
        host: the files shared with other processes; ``None`` if there are none to share with.
        kind: names this process, ``None`` for one that serves nobody.
        announce: called with each change, after it was applied, in the process and thread that applied it.
        follow: called in every process that a fork has made, and when what uWSGI watches was replaced.
        lock_timeout: seconds that a writer waits for another writer of this host.
    """

    def __init__(
        self,
        schema: Schema,
        store: Store,
        host: HostFiles | None,
        *,
        kind: Callable[[], str | None],
        announce: Callable[[Change], None],
        follow: Callable[[], None],
        lock_timeout: float,
    ) -> None:
        self.schema, self.store, self.host = schema, store, host
        self.error = ""
        self._kind, self._announce, self._follow, self._lock_timeout = kind, announce, follow, lock_timeout
        # What a look compares; without files to share there is nothing that could change.
        self._peek: Callable[[], bytes] = bytes
        self._lease = math.inf if host is None else 0.0
        self._ahead = False  # whether we serve what couldn't be published
        self._refused = b""  # the digest of a published snapshot that our schema doesn't take
        self._applied_at = 0
        self._noted: tuple[int, bytes, str] | None = None
        self._changes: deque[Change] = deque()
        self._current = Current(None, Snapshot(0, b"", schema.defaults))
        self._belong_to_this_process()
        self._boot()
        self._changes.clear()  # a start is no change

    def _belong_to_this_process(self) -> None:
        self._pid = os.getpid()
        # Taking what is published is one step, so that the threads of a process take revisions in their order.
        self._taking, self._announcing, self._writing = threading.RLock(), threading.Lock(), threading.Lock()
        self._applied_at = time.monotonic_ns()

    # Reading: what every process does

    def look(self) -> Snapshot:
        """Return the newest snapshot: three compared words if nothing changed, else the way there is gone first."""
        current = self._current
        try:
            if self._peek() == current.head and monotonic() < self._lease:
                return current.snapshot
        except OSError:  # somebody closed our descriptor; catching up opens another
            pass
        return self.catch_up()

    def catch_up(self, *, thorough: bool = False) -> Snapshot:
        """Do what the header asks for: load the published snapshot, or read the store. Serve on whatever fails.

        Args:
            thorough: look at the files, too, even if that was done a moment ago.
        """
        if self.host is not None:
            if self._pid != os.getpid():
                self._belong_to_this_process()
                self._follow()
            try:
                taken = self._take_published(self.host)
                if self._changes:
                    self._announce_all()
                    if thorough:
                        os.sched_yield()  # all workers were woken at once: let each take the news before any looks further
                if thorough or not taken or monotonic() >= self._lease:
                    self._follow_header(self.host)
            except Exception as error:  # whatever it is: a look serves what there is
                self._trouble(f"{type(error).__name__}: {error}")
        self._finish()
        return self._current.snapshot

    def _take_published(self, host: HostFiles) -> bool:
        """Load what is published if the header says that it is the newest; tell whether this process serves that now."""
        with self._taking:
            try:
                head = host.peek()
            except OSError:
                return False
            if head == self._current.head:
                return True
            if not is_settled(head):
                return False
            if digest_in(head) not in (self._current.snapshot.digest, self._refused):
                published = host.snapshot(digest_in(head))
                if published is None:
                    return False
                self._adopt(published)
            self._current = replace(self._current, head=head)
            if digest_in(head) != self._refused:
                self.error = ""
            return True

    def _follow_header(self, host: HostFiles) -> None:
        """Look at everything: whether the header is still the one at its path, the watch file, the words."""
        now = monotonic()
        replaced = host.verify()
        self._peek = host.peek
        touched = host.is_touched()
        self._lease = now + LEASE
        if replaced:
            self._noted = None  # the table is another, too
        if replaced or touched:
            self._follow()
        if self._take_published(host) and not touched:
            return
        if not touched and host.notes().retry_at > time.monotonic_ns():
            self._take_last(host)
            return
        with host.try_lock() as locked:
            if locked:
                if host.take_touch():
                    host.ring()
                self._fetch(host, forced=False)
            else:
                # Another process is writing or reading the store: every update that has returned is published.
                self._take_last(host)

    def _take_last(self, host: HostFiles) -> None:
        """Load what was published last, though the header doesn't say that it is the newest."""
        with self._taking:
            digest = digest_in(host.peek())
            if self._ahead or digest in (self._current.snapshot.digest, self._refused):
                return
            published = host.snapshot(digest)
            if published is not None:
                self._adopt(published)

    def _adopt(self, published: Encoded) -> None:
        try:
            values = self.schema.load(published.values)
        except InvalidValue as error:
            # Another version of the application declares other types; its values aren't ours to serve.
            self._refused = published.digest
            self._trouble(f"revision {published.revision} can't be served here: {error}")
            return
        self._apply(Snapshot(published.revision, published.digest, values), None)

    def _apply(self, snapshot: Snapshot, head: bytes | None, *, ahead: bool = False) -> None:
        """Serve a snapshot; ``ahead``: the store has it, but it couldn't be published."""
        with self._taking:
            before = self._current.snapshot
            if snapshot.digest != before.digest:
                change = _difference(snapshot, before)
                if change is not None:
                    self._changes.append(change)
                self._applied_at = time.monotonic_ns()
            self._current = Current(head, snapshot)
            self._refused, self.error, self._ahead = b"", "", ahead

    def _announce_all(self) -> None:
        """Tell the hooks, one change after the other; a thread that finds another at it leaves the rest to it."""
        while self._changes and self._announcing.acquire(blocking=False):
            try:
                while self._changes:
                    self._announce(self._changes.popleft())
            finally:
                self._announcing.release()

    def _finish(self) -> None:
        """Tell the hooks what is left to tell, then the table of processes that this one has it all."""
        self._announce_all()
        snapshot = self._current.snapshot
        mine = (os.getpid(), snapshot.digest, self.error)
        kind = None if self._noted == mine else self._kind()
        if self.host is None or kind is None:
            return
        try:
            if self.host.slots.note(kind, snapshot.revision, snapshot.digest, self._applied_at, self.error):
                self._noted = mine
        except (WaffleError, OSError) as error:
            self._trouble(str(error))

    # Reading the store: what one process does for all

    def _boot(self) -> None:
        """Read the store; if that fails serve this host's last snapshot, and without one refuse to start."""
        if self.host is None:
            self.store.prepare()
            self._serve(self.store.load())
            return
        asked_at = time.monotonic_ns()
        self.host.verify()
        if self.host.network:
            self._say(
                logging.WARNING,
                f"{self.host.folder} is on a network file system ({self.host.network}): processes of other hosts "
                "neither lock nor see it reliably. Set WAFFLE_WATCHER_FILE to a path on a local disk; the store may be anywhere.",
            )
        published: Encoded | None = None
        try:
            with self.host.lock(self._lock_timeout):
                self.host.claim(self.store.name)
                published = self.host.last()
                if published is None:
                    self.store.prepare()
                forced = self.host.take_touch() or self.host.notes().checked_at < asked_at
                self._fetch(self.host, forced=forced, strict=True)
        except (WaffleError, OSError) as error:
            if published is None and isinstance(error, StoreUnavailable):
                raise type(error)(f"{error} This host has no snapshot to start with.") from error
            if published is None:
                raise
            self._adopt(published)
            if self._refused:
                raise
            self._trouble(f"started with the last snapshot of this host: {error}")
        if not self._current.snapshot.digest:
            raise StoreUnavailable(f"{self.store.name}: no values to start with: {self.error or self.host.notes().error}")

    def refresh(self) -> Snapshot:
        """Read the store now.

        Raises:
            StoreUnavailable: it can't be read.
            InvalidValue: it holds what the schema refuses.
            HostBusy: another process holds the lock for too long.
        """
        with self._host_lock():
            if self.host is None:
                self._serve(self.store.load())
            else:
                self._fetch(self.host, forced=True, strict=True)
        self._finish()
        return self._current.snapshot

    def wake(self, interval: float) -> None:
        """Look at everything, and compare with the store if no process of this host has for ``interval`` seconds."""
        if self.host is None:
            return
        self.catch_up(thorough=True)
        if self._is_due(self.host, interval):
            with self.host.try_lock() as locked:
                if locked and self._is_due(self.host, interval):
                    self._fetch(self.host, forced=True)
            self._finish()

    def _is_due(self, host: HostFiles, interval: float) -> bool:
        notes, now = host.notes(), time.monotonic_ns()
        # A little early, for who asks doesn't ask continuously.
        return now - notes.checked_at > 0.6 * interval * 1e9 and now >= notes.retry_at

    def _fetch(self, host: HostFiles, *, forced: bool, strict: bool = False) -> None:
        """Under the lock: read the store and publish it, unless somebody else just has.

        Args:
            forced: read in any case.
            strict: raise what fails, after it was noted.
        """
        if host.mend():
            self._say(logging.WARNING, f"{host.folder}: the header was damaged and is written anew")
        bell = host.bell()
        if not forced and self._take_published(host):
            return
        notes = host.notes()
        if not forced and notes.retry_at > time.monotonic_ns():
            self._take_last(host)
            return
        published = host.last()
        try:
            stored = self.store.load()
            values = self.schema.load(encoded(stored).values)
            new = encoded(self._with_outside_edits(stored, published))
        except (StoreUnavailable, InvalidValue) as error:
            if is_settled(host.peek()):
                host.ring()  # asked for by nobody: the next look shall try again
            if host.fail(str(error)):
                self._say(logging.ERROR, f"the store can't be used, the last good values stay in force: {error}")
            if strict:
                raise
            self._take_last(host)
            return
        if notes.failures:
            self._say(logging.WARNING, "the store is back")
        if published is not None and new.revision < published.revision:
            self._say(logging.WARNING, f"the store went back from revision {published.revision} to {new.revision}; it is followed")
        head: bytes | None = None
        try:
            if published is not None and published.digest == new.digest:
                head = host.settle(bell, new.digest)
                host.succeed()
            else:
                host.stage(new)
                head = self._show(host, new, bell)
                host.tidy(new.digest, published.digest if published else b"")
        except OSError as error:  # each process reads the store for itself, until the disk takes a snapshot again
            self._trouble(f"revision {new.revision} can't be shown to this host's processes: {error}")
        self._apply(Snapshot(new.revision, new.digest, values), head, ahead=head is None)

    def _show(self, host: HostFiles, new: Encoded, bell: bytes) -> bytes:
        """Under the lock, show a staged revision that the store has; return the header's words that go with it.

        Raises:
            HostFilesError: it was shown in files that are no longer the ones that the others look at.
        """
        host.promote(new.digest)
        head = host.settle(bell, new.digest)
        host.toll()
        host.succeed()
        if host.verify():
            raise HostFilesError("the header was replaced meanwhile")
        return head

    def _with_outside_edits(self, stored: Stored, published: Encoded | None) -> Stored:
        """Make a revision of what somebody wrote into the store by hand, under the number that was published already."""
        if published is None or published.revision != stored.revision or published.digest == encoded(stored).digest:
            return stored
        known = {name: json.dumps(value, separators=(",", ":")) for name, value in json.loads(published.values).items()}
        found = {name: json.dumps(json.loads(text), separators=(",", ":")) for name, text in stored.values.items()}
        differing = sorted(name for name in known.keys() | found.keys() if known.get(name) != found.get(name))

        def decide(now: Stored) -> Commit | None:
            if now != stored or not differing:
                return None
            changes = {name: stored.values.get(name) for name in differing}
            return Commit(changes, actor=OUTSIDE, old={name: known.get(name) for name in differing})

        try:
            return self.store.transact(decide)
        except StoreUnavailable as error:
            self._say(logging.WARNING, f"values were edited outside, and the history can't be told: {error}")
            return stored

    # Writing

    def update(self, plan: Plan, *, expect_revision: int | None, actor: str | None, note: str | None, wait: float | None) -> UpdateResult:
        """Carry out a plan.

        The way of an update: take the host's lock; in one transaction validate it upon what the store holds, put the
        new snapshot on the disk, ring, commit; then show the snapshot. A writer that dies on this way leaves the bell
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
            changes = {name: text for name, text in plan(stored).items() if text != stored.values.get(name)}
            changed = tuple(sorted(changes))
            if not changes:
                return None
            commit = Commit(changes, actor, note)
            new = encoded(stored.after(commit))
            staged = Staged(new, self.schema.load(new.values), self._stage(new))
            return commit

        shown = True
        with self._host_lock():
            try:
                stored = self.store.transact(decide)
            except WaffleError:
                self._ring_if_news(seen)
                raise
            if staged is None:
                self._ring_if_news(stored)
            else:
                shown = self._show_committed(staged)
        if self.host is not None:
            if not shown:
                self._show_again(self.host)
            self.catch_up()
            self._outlast_old_header(self.host)
        self._finish()
        return self._wait_for(UpdateResult(stored.revision, changed), wait)

    @contextmanager
    def _host_lock(self) -> Iterator[None]:
        if self.host is not None:
            with self.host.lock(self._lock_timeout):
                yield
        else:
            while not self._writing.acquire(blocking=False):  # not waiting in it, for it may be held by a greenlet of this thread
                time.sleep(WAIT_PAUSE)
            try:
                yield
            finally:
                self._writing.release()

    def _stage(self, new: Encoded) -> bytes:
        """Put a snapshot on the disk while the transaction can still be undone, then ring; return the bell."""
        if self.host is None:
            return b""
        try:
            self.host.mend()
            self.host.stage(new)
            self.host.ring()
            return self.host.bell()
        except HostFilesError:
            raise
        except OSError as error:
            raise HostFilesError(f"{self.host.folder}: {error.strerror or error}. Nothing was changed.") from error

    def _ring_if_news(self, stored: Stored | None) -> None:
        """Under the lock, after an update that changed nothing: if the store has what this host doesn't know, look at it."""
        if stored is None:
            return
        if self.host is None:
            self._serve(stored)
        elif encoded(stored).digest != digest_in(self.host.peek()):
            self.host.ring()

    def _show_committed(self, staged: Staged) -> bool:
        """Under the lock, show what was committed; tell whether that worked."""
        new, head = staged.encoded, None if self.host else self._peek()
        if self.host is not None:
            try:
                before = digest_in(self.host.peek())
                head = self._show(self.host, new, staged.bell)
                self.host.tidy(new.digest, before)
            except OSError as error:
                self._say(logging.WARNING, f"revision {new.revision} is stored and has to be shown once more: {error}")
        self._apply(Snapshot(new.revision, new.digest, staged.values), head, ahead=head is None)
        return head is not None

    def _show_again(self, host: HostFiles) -> None:
        """Show what is committed by way of the store: the files were removed or replaced while it was on its way."""
        try:
            with host.lock(self._lock_timeout):
                self._fetch(host, forced=True)
                host.toll()
        except (WaffleError, OSError) as error:  # the bell stays unanswered: every process that finds it reads the store
            self._trouble(f"an update is stored but can't be shown to this host's processes: {error}")
            host.ring()

    def _outlast_old_header(self, host: HostFiles) -> None:
        """If the header was opened a moment ago, wait until every process has noticed that it is the one to look at."""
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
                done = process.digest == newest.digest or result.revision <= process.revision <= newest.revision
                (applied if done else pending).append(process)
            if not pending or monotonic() >= deadline:
                return replace(result, applied=tuple(applied), pending=tuple(pending))
            time.sleep(WAIT_PAUSE)

    def leave(self) -> None:
        """Take this process out of the table."""
        if self.host is not None:
            self.host.slots.leave()

    def processes(self) -> list[ProcessInfo]:
        """Return the living processes that serve this application on this host."""
        return [] if self.host is None else list(self.host.slots)

    def _serve(self, stored: Stored) -> None:
        new = encoded(stored)
        self._apply(Snapshot(stored.revision, new.digest, self.schema.load(new.values)), self._peek())

    def _trouble(self, error: str) -> None:
        """Log an error once per incident, and show it in the status."""
        if error != self.error:
            self.error = error
            self._say(logging.ERROR, error)

    def _say(self, level: int, text: str) -> None:
        revision = self._current.snapshot.revision
        log.log(level, "uwsgi_waffle: %s (pid %d, %s, revision %d)", text, os.getpid(), self._kind() or "master", revision)


def _differs(new: object, old: object) -> bool:
    """Compare as JSON does: 1 isn't true, and neither is it within a list."""
    return new != old or type(new) is not type(old) or (isinstance(new, (list, dict, tuple)) and repr(new) != repr(old))


def _difference(new: Snapshot, old: Snapshot) -> Change | None:
    names = [name for name, value in new.values.__dict__.items() if _differs(value, old.values.__dict__[name])]
    if not names:
        return None
    return Change(
        new.revision,
        old=MappingProxyType({name: old.values.__dict__[name] for name in names}),
        new=MappingProxyType({name: new.values.__dict__[name] for name in names}),
    )
