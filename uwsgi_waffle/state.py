"""What one application serves in this process, and how it moves from one revision to the next."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from .errors import HostFilesError, InvalidValue, RevisionConflict, StoreUnavailable, WaffleError
from .hostfiles import LEASE, HostFiles, ProcessInfo, is_settled
from .schema import MASK, Schema
from .snapshot import Change, Encoded, Snapshot, encode
from .stores import Commit, HistoryRow, Store, Stored

__all__ = ["HistoryEntry", "State", "UpdateResult"]

log = logging.getLogger("uwsgi_waffle")

WAIT_PAUSE = 0.002  # seconds between two looks at the table of processes
OUTSIDE = "outside"
Plan = Callable[[Stored], Mapping[str, "str | None"]]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What an update did.

    Attributes:
        revision: the revision that the store has now.
        changed: the variables whose stored value is another now, sorted; empty if nothing had to be done.
        applied: with ``wait``, the processes of this host that serve this revision or a later one.
        pending: with ``wait``, those that didn't yet when the time was over.
    """

    revision: int
    changed: tuple[str, ...]
    applied: tuple[ProcessInfo, ...] = ()
    pending: tuple[ProcessInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One changed variable of one revision; secrets are masked, what was not stored shows its default."""

    revision: int
    key: str
    old: Any
    new: Any
    actor: str | None
    note: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Current:
    """The snapshot that this process serves, and the header's words that were seen with it."""

    head: bytes
    snapshot: Snapshot


class State:
    """One application's values in this process.

    Args:
        schema: what may be stored.
        store: where it is stored.
        host: the files shared with other processes; ``None`` if there are none to share with.
        kind: names this process, ``None`` for one that serves nobody.
        announce: called with each change, after it was applied, in the process and thread that applied it.
        born: called once in every process that a fork has made.
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
        born: Callable[[], None],
        lock_timeout: float,
    ) -> None:
        self.schema, self.store, self.host = schema, store, host
        self._kind, self._announce, self._born, self._lock_timeout = kind, announce, born, lock_timeout
        self._pid = os.getpid()
        self._lease = 0.0
        self._refused = b""  # the digest of a published snapshot that our schema doesn't take
        self._error = ""
        self._applied_at = 0
        self._noted: tuple[int, bytes, str] | None = None
        self._serving = False
        self._changes: deque[Change] = deque()
        self._make_locks()
        self._current = Current(b"", Snapshot(0, b"", schema.defaults))
        self._boot()
        self._changes.clear()  # a start is no change
        self._serving = True  # from the next look on this process stands in the table

    def _make_locks(self) -> None:
        self._applying, self._announcing = threading.Lock(), threading.Lock()

    # Reading

    def look(self) -> Snapshot:
        """Return the newest snapshot: two compared words if nothing changed, else the way there is gone first."""
        current = self._current
        if self.host is None:
            return current.snapshot
        try:
            if self.host.peek() == current.head and time.monotonic() < self._lease:
                return current.snapshot
        except OSError:  # somebody closed our descriptor; catching up opens another
            pass
        return self.catch_up()

    def catch_up(self) -> Snapshot:
        """Do what the header asks for: load the published snapshot, or read the store. Serve on whatever fails."""
        if self.host is not None:
            try:
                self._catch_up(self.host)
            except (WaffleError, OSError) as error:
                self._trouble(str(error))
        self._announce_all()
        return self._current.snapshot

    def _catch_up(self, host: HostFiles) -> None:
        now = time.monotonic()
        host.verify()
        if host.touched():
            host.ring()
        self._lease = now + LEASE
        if self._pid != os.getpid():
            self._after_fork()
        head = host.peek()
        if is_settled(head):
            if head[8:16] in (self._current.snapshot.digest, self._refused):
                self._settle_down(head)
                return
            published = host.published()
            if published is not None and published.digest == head[8:16]:
                self._adopt(published, head)
                return
        with host.try_lock() as locked:
            if locked:
                self._fetch(host, forced=False)
            else:
                self._adopt_published(host)

    def _settle_down(self, head: bytes) -> None:
        self._current = Current(head, self._current.snapshot)
        if head[8:16] != self._refused:
            self._error = ""
        self._note()

    def _after_fork(self) -> None:
        self._pid = os.getpid()
        self._make_locks()
        self._applied_at = 0
        self._born()

    def _adopt_published(self, host: HostFiles) -> None:
        """Serve what is published while another process writes: at least every update that has returned is in it."""
        published = host.published()
        if published is not None and published.digest not in (self._current.snapshot.digest, self._refused):
            self._adopt(published, b"")

    def _adopt(self, published: Encoded, head: bytes) -> None:
        try:
            values = self.schema.load(published.values)
        except InvalidValue as error:
            # Another version of the application declares other types; its values aren't ours to serve.
            self._refused = published.digest
            self._current = Current(head, self._current.snapshot)
            self._trouble(f"revision {published.revision} can't be served here: {error}")
            return
        self._apply(Snapshot(published.revision, published.digest, values), head)

    def _apply(self, snapshot: Snapshot, head: bytes) -> None:
        with self._applying:
            before = self._current.snapshot
            if snapshot.digest != before.digest:
                now = b"" if self.host is None else self.host.peek()
                if is_settled(now) and now[8:16] == before.digest:
                    return  # another thread was faster and has something newer
                change = _difference(snapshot, before)
                if change is not None:
                    self._changes.append(change)
                self._applied_at = time.monotonic_ns()
            self._current = Current(head, snapshot)
            self._refused, self._error = b"", ""
        self._note()

    def _announce_all(self) -> None:
        """Tell the hooks, one change after the other; a thread that finds another at it leaves the rest to it."""
        while self._changes and self._announcing.acquire(blocking=False):
            try:
                while self._changes:
                    self._announce(self._changes.popleft())
            finally:
                self._announcing.release()

    # Reading the store

    def _boot(self) -> None:
        """Read the store; if that fails serve this host's last snapshot, and without one refuse to start."""
        if self.host is None:
            self.store.prepare()
            self._serve(self.store.load(), b"")
            return
        asked_at = time.monotonic_ns()
        self.host.verify()
        self.host.touched()
        if self.host.network:
            self._say(
                logging.WARNING,
                f"{self.host.folder} is on a network file system ({self.host.network}): processes of other hosts "
                "neither lock nor see it reliably. Set WAFFLE_WATCHER_FILE to a path on a local disk; the store may be anywhere.",
            )
        published = self.host.published()
        try:
            with self.host.lock(self._lock_timeout):
                if published is None:
                    self.store.prepare()
                self._fetch(self.host, forced=self.host.notes().checked_at < asked_at, strict=True)
        except (WaffleError, OSError) as error:
            if published is None:
                raise
            self._adopt(published, b"")
            if self._refused:
                raise
            self._trouble(f"started with the last snapshot of this host: {error}")

    def refresh(self) -> Snapshot:
        """Read the store now.

        Raises:
            StoreUnavailable: it can't be read.
            InvalidValue: it holds what the schema refuses.
            HostBusy: another process holds the lock for too long.
        """
        if self.host is None:
            self._serve(self.store.load(), b"")
        else:
            with self.host.lock(self._lock_timeout):
                self._fetch(self.host, forced=True, strict=True)
        self._announce_all()
        return self._current.snapshot

    def reconcile(self, interval: float) -> None:
        """Compare with the store if no process of this host has done so for ``interval`` seconds."""
        if self.host is not None and self._is_due(self.host, interval):
            with self.host.try_lock() as locked:
                if locked and self._is_due(self.host, interval):
                    self._fetch(self.host, forced=True)
            self._announce_all()

    def _is_due(self, host: HostFiles, interval: float) -> bool:
        notes, now = host.notes(), time.monotonic_ns()
        return now - notes.checked_at > interval * 1e9 and now >= notes.retry_at

    def _fetch(self, host: HostFiles, *, forced: bool, strict: bool = False) -> None:
        """Under the lock: read the store and publish it, unless somebody else just has.

        Args:
            forced: read in any case.
            strict: raise what fails, after it was noted.
        """
        if host.mend():
            self._say(logging.WARNING, f"{host.folder}: the header was damaged and is written anew")
        head = host.peek()
        published = host.published()
        if not forced and is_settled(head) and published is not None and published.digest == head[8:16]:
            self._adopt(published, head)
            return
        notes = host.notes()
        if not forced and notes.retry_at > time.monotonic_ns():
            self._adopt_published(host)
            return
        try:
            stored = self._with_outside_edits(self.store.load(), published)
            encoded = _encode(stored)
            values = self.schema.load(encoded.values)
        except (StoreUnavailable, InvalidValue) as error:
            if host.fail(str(error)):
                self._say(logging.ERROR, f"the store can't be used, the last good values stay in force: {error}")
            if strict:
                raise
            self._adopt_published(host)
            return
        if notes.failures:
            self._say(logging.WARNING, "the store is back")
        if published is not None and encoded.revision < published.revision:
            self._say(logging.WARNING, f"the store went back from revision {published.revision} to {encoded.revision}; it is followed")
        head = self._publish(host, encoded, head[:8], staged=False, touch=False)
        self._apply(Snapshot(encoded.revision, encoded.digest, values), head)

    def _publish(self, host: HostFiles, encoded: Encoded, bell: bytes, *, staged: bool, touch: bool) -> bytes:
        """Under the lock: show a snapshot that the store has to everyone; the rename comes last, for it is the signal.

        Returns:
            The header's words that go with it; if the snapshot can't be shown, words that nobody will see, so that every
            process reads the store.
        """
        try:
            if not staged:
                current = host.published()
                if current is not None and current.digest == encoded.digest:
                    return host.settle(bell, encoded.digest)
                host.stage(encoded)
            head = host.settle(bell, encoded.digest)
            if touch:
                host.touch()
            host.promote()
            host.verify()
            return head
        except (HostFilesError, OSError) as error:
            self._trouble(f"revision {encoded.revision} is in the store but can't be shown to this host's processes: {error}")
            host.ring()
            return b""

    def _with_outside_edits(self, stored: Stored, published: Encoded | None) -> Stored:
        """Make a revision of what somebody wrote into the store by hand, under the number that was published already."""
        if published is None or published.revision != stored.revision or published.digest == _encode(stored).digest:
            return stored
        known = {name: json.dumps(value, separators=(",", ":")) for name, value in json.loads(published.values).items()}
        told = {name: json.dumps(json.loads(text), separators=(",", ":")) for name, text in stored.values.items()}
        differing = sorted(name for name in known.keys() | told.keys() if known.get(name) != told.get(name))

        def decide(now: Stored) -> Commit | None:
            if now != stored or not differing:
                return None
            changes = {name: stored.values.get(name) for name in differing}
            return Commit(changes, actor=OUTSIDE, old={name: known.get(name) for name in differing})

        try:
            return self.store.transact(decide)
        except StoreUnavailable as error:
            self._say(logging.WARNING, f"values were edited outside and the history can't be told: {error}")
            return stored

    # Writing

    def update(
        self,
        plan: Plan,
        *,
        expect_revision: int | None,
        actor: str | None,
        note: str | None,
        wait: float | None,
    ) -> UpdateResult:
        """Carry out ``plan``, which sees what the store holds and returns JSON texts by name (``None``: no value).

        The way of an update: take the host's lock; in one transaction validate it upon what the store holds, put the
        new snapshot on the disk, ring, commit; then show the snapshot. A writer that dies on this way leaves the bell
        unanswered and the lock free, so that the next reader reads the store.
        """
        changed: tuple[str, ...] = ()
        staged: list[tuple[Encoded, BaseModel, bytes]] = []

        def decide(stored: Stored) -> Commit | None:
            nonlocal changed
            if expect_revision is not None and expect_revision != stored.revision:
                raise RevisionConflict(expect_revision, stored.revision)
            wanted = plan(stored)
            changes = {name: text for name, text in wanted.items() if text != stored.values.get(name)}
            changed = tuple(sorted(changes))
            if not changes:
                return None
            commit = Commit(changes, actor, note)
            encoded = _encode(stored.after(commit))
            staged[:] = [(encoded, self.schema.load(encoded.values), self._stage(encoded))]
            return commit

        with self._host_lock():
            stored = self.store.transact(decide)
            if staged:
                encoded, values, bell = staged[0]
                head = b""
                if self.host is not None:
                    head = self._publish(self.host, encoded, bell, staged=True, touch=True)
                self._apply(Snapshot(encoded.revision, encoded.digest, values), head)
        self.catch_up()
        if self.host is not None:
            self._outlast_old_header(self.host)
        return self._wait_for(UpdateResult(stored.revision, changed), wait)

    def plan_update(self, values: Mapping[str, object]) -> Plan:
        """Plan to give variables new values.

        Raises:
            UnknownVariable: one of them isn't declared.
        """
        variables = [self.schema.variable(name) for name in values]

        def plan(stored: Stored) -> Mapping[str, str | None]:
            texts: dict[str, str | None] = {}
            problems: dict[str, str] = {}
            for variable in variables:
                try:
                    texts[variable.name] = variable.to_json(values[variable.name])
                except ValueError as error:
                    problems[variable.name] = str(error)
            return self._validated(stored, texts, problems)

        return plan

    def plan_reset(self, names: tuple[str, ...]) -> Plan:
        """Plan to give variables their defaults back; errors as in `plan_update`."""
        texts: dict[str, str | None] = {self.schema.variable(name).name: None for name in names}
        return lambda stored: self._validated(stored, texts, {})

    def plan_rollback(self, revision: int) -> Plan:
        """Plan to give all variables the values of a former revision.

        Raises:
            UnknownRevision: the store doesn't know it.
        """
        former = self.store.values_at(revision)
        texts: dict[str, str | None] = {name: former.get(name) for name in self.schema.variables}
        return lambda stored: self._validated(stored, texts, {})

    def _validated(self, stored: Stored, texts: Mapping[str, str | None], problems: dict[str, str]) -> Mapping[str, str | None]:
        """Return ``texts`` as they come out of the validation of all values together."""
        merged = stored.after(Commit(texts))
        try:
            model = self.schema.load(_encode(merged).values)
        except InvalidValue as error:
            for name, problem in error.problems.items():
                ours = not name or name in texts
                problems.setdefault(name, problem if ours else f"{problem} (this is what the store holds; set or reset it, too)")
        if problems:
            raise InvalidValue(problems)
        return {name: None if text is None else self.schema.variables[name].dump(getattr(model, name)) for name, text in texts.items()}

    def _stage(self, encoded: Encoded) -> bytes:
        """Put the snapshot on the disk while the transaction can still be undone, then ring; return the bell."""
        if self.host is None:
            return b""
        self.host.mend()
        self.host.stage(encoded)
        self.host.ring()
        return self.host.peek()[:8]

    @contextmanager
    def _host_lock(self) -> Iterator[None]:
        if self.host is None:
            yield
        else:
            with self.host.lock(self._lock_timeout):
                yield

    def _outlast_old_header(self, host: HostFiles) -> None:
        """If the header was created a moment ago, wait until every process has looked for it."""
        left = host.notes().created_at / 1e9 + LEASE - time.monotonic()
        if left > 0:
            time.sleep(min(left, LEASE))

    def _wait_for(self, result: UpdateResult, wait: float | None) -> UpdateResult:
        if wait is None:
            return result
        deadline = time.monotonic() + wait
        while True:
            self.catch_up()
            processes = self.processes()
            newest = self._current.snapshot.digest
            applied = tuple(p for p in processes if p.revision >= result.revision or p.digest == newest)
            pending = tuple(p for p in processes if p not in applied)
            if not pending or time.monotonic() >= deadline:
                return UpdateResult(result.revision, result.changed, applied, pending)
            time.sleep(WAIT_PAUSE)

    # Telling

    def history(self, limit: int, key: str | None) -> list[HistoryEntry]:
        """Return the newest changes, newest first.

        Raises:
            UnknownVariable: ``key`` is neither declared nor in the history.
        """
        rows = self.store.history(limit, key)
        if not rows and key is not None:
            self.schema.variable(key)
        return [self._entry(row) for row in rows]

    def _entry(self, row: HistoryRow) -> HistoryEntry:
        def shown(text: str | None) -> Any:
            if row.key in self.schema.secrets:
                return MASK
            if text is None:
                return getattr(self.schema.defaults, row.key, None)
            return json.loads(text)

        return HistoryEntry(row.revision, row.key, shown(row.old), shown(row.new), row.actor, row.note, row.at)

    def processes(self) -> list[ProcessInfo]:
        """Return the living processes that serve this application on this host."""
        return [] if self.host is None else list(self.host.slots)

    def status(self) -> dict[str, Any]:
        """Return what an operator wants to know, as JSON-able values; ages in seconds."""
        snapshot, now = self.look(), time.monotonic()
        host = self.host
        notes = None if host is None else host.notes()
        return {
            "revision": snapshot.revision,
            "store": self.store.name,
            "store_error": notes.error if notes else "",
            "store_checked": None if notes is None or not notes.checked_at else round(now - notes.checked_at / 1e9, 3),
            "error": self._error,
            "watcher_file": None if host is None else str(host.watch_file),
            "pid": os.getpid(),
            "kind": self._kind(),
            "processes": [
                {"pid": p.pid, "kind": p.kind, "revision": p.revision, "age": round(now - p.applied_at, 3), "error": p.error}
                for p in self.processes()
            ],
        }

    def _serve(self, stored: Stored, head: bytes) -> None:
        encoded = _encode(stored)
        self._apply(Snapshot(stored.revision, encoded.digest, self.schema.load(encoded.values)), head)

    def _note(self) -> None:
        """Write this process's line in the table of processes."""
        kind = self._kind()
        snapshot = self._current.snapshot
        mine = (os.getpid(), snapshot.digest, self._error)
        if self.host is None or kind is None or not self._serving or self._noted == mine:
            return
        if self.host.slots.note(kind, snapshot.revision, snapshot.digest, self._applied_at or time.monotonic_ns(), self._error):
            self._noted = mine

    def _trouble(self, error: str) -> None:
        """Log an error once per incident, and show it in `status`."""
        if error != self._error:
            self._error = error
            self._say(logging.ERROR, error)

    def _say(self, level: int, text: str) -> None:
        revision = self._current.snapshot.revision
        log.log(level, "uwsgi_waffle: %s (pid %d, %s, revision %d)", text, os.getpid(), self._kind() or "master", revision)


def _encode(stored: Stored) -> Encoded:
    for name, text in stored.values.items():
        try:
            json.loads(text)
        except ValueError as error:
            raise InvalidValue({name: f"the stored text isn't JSON ({error})"}, "The store is damaged") from None
    return encode(stored.revision, stored.values)


def _difference(new: Snapshot, old: Snapshot) -> Change | None:
    names = [name for name, value in new.values.__dict__.items() if value != old.values.__dict__[name]]
    if not names:
        return None
    return Change(
        new.revision,
        old=MappingProxyType({name: old.values.__dict__[name] for name in names}),
        new=MappingProxyType({name: new.values.__dict__[name] for name in names}),
    )
