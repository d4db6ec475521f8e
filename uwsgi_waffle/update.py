"""How an update is written: one transaction on the store, then one published snapshot."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from time import monotonic
from typing import TypedDict

from typing_extensions import Unpack

from . import expiry
from .changes import Changeset, encode_stored
from .errors import InvalidValue, RevisionConflict
from .fetch import Fetcher
from .host import Host, LockedHeader, ProcessInfo, snapshot_in
from .served import Served
from .snapshot import Encoded, Snapshot
from .stores import Commit, CommitBuilder, Store, Stored
from .sync import LOCK_TIMEOUT, Sync

__all__ = ["UpdateOptions", "UpdateResult", "Writer"]

WAIT_PAUSE = 0.002  # seconds between two looks at the other processes


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What an update did.

    Attributes:
        revision: the store's revision afterwards.
        changed: the variables whose stored value differs now, sorted; empty if nothing had to be
            done.
        applied: with ``wait``, the processes of this host that serve this revision or a later one
            and have called their hooks.
        pending: with ``wait``, those that didn't within the time.
    """

    revision: int
    changed: tuple[str, ...]
    applied: tuple[ProcessInfo, ...] = ()
    pending: tuple[ProcessInfo, ...] = ()


class CommitOptions(TypedDict, total=False):
    """How an update is written; see `WaffleConf.update`."""

    expect_revision: int | None
    actor: str | None
    note: str | None
    expires: timedelta | None


class UpdateOptions(CommitOptions, total=False):
    """The same, and how long to wait."""

    wait: float | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A snapshot whose file is written, and whose commit is under way."""

    encoded: Encoded
    snapshot: Snapshot
    generation: bytes


class Writer:
    """Writes updates.

    The path of one: take the host's lock; in one transaction of the store read, validate, write
    the snapshot's file, invalidate, commit; then publish the snapshot, wake idle workers, release
    the lock, tell other hosts. A writer that dies before its commit leaves nothing but a file. One
    that dies after it leaves a header that isn't current and a lock that is free, so the next
    reader reads the store.

    Args:
        host: what the processes of the host share.
        store: where the values are.
        served: what this process serves.
        fetcher: publishes.
        sync: how this process follows its host.
        publish: tells other hosts.
    """

    def __init__(
        self,
        host: Host,
        store: Store,
        served: Served,
        fetcher: Fetcher,
        sync: Sync,
        publish: Callable[[], None],
    ) -> None:
        self._host, self._store, self._served = host, store, served
        self._fetcher, self._sync, self._publish = fetcher, sync, publish

    def update(
        self, changeset: Changeset, *, wait: float | None = None, **options: Unpack[CommitOptions]
    ) -> UpdateResult:
        """Write a change set; arguments and errors as in `WaffleConf.update`."""
        expected = options.get("expect_revision")
        actor, note = _text(options.get("actor")), _text(options.get("note"))
        expires = options.get("expires")
        until = None if expires is None else expiry.end_of(expires)
        changed: tuple[str, ...] = ()

        def build_commit(stored: Stored) -> Commit | None:
            nonlocal changed
            if expected is not None and expected != stored.revision:
                raise RevisionConflict(expected, stored.revision)
            texts = changeset(stored)
            changes = {key: text for key, text in texts.items() if text != stored.values.get(key)}
            changed = tuple(sorted(changes))
            changes = expiry.with_expiry(stored, changes, texts, until)
            return Commit(changes, actor, note) if changes else None

        stored = self.commit(build_commit)
        result = UpdateResult(stored.revision, changed)
        return result if wait is None else self._wait_for(result, wait)

    def expire(self) -> None:
        """End the temporary values whose time has come, unless another host was faster."""

        def build_commit(stored: Stored) -> Commit | None:
            changes = expiry.expired(stored, datetime.now(timezone.utc))
            return Commit(changes, expiry.ACTOR) if changes else None

        self.commit(build_commit)

    def commit(self, build_commit: CommitBuilder) -> Stored:
        """Carry out what ``build_commit`` makes of the store's newest values, and publish it.

        Returns:
            What the store holds afterwards.
        """
        prepared: _Prepared | None = None
        seen: Stored | None = None

        self._sync.check_fork()
        try:
            with self._host.lock(LOCK_TIMEOUT) as header:
                self._host.bind_store(header, self._store.identity)  # the header may be a new one

                def prepare(stored: Stored) -> Commit | None:
                    nonlocal prepared, seen
                    prepared, seen = None, stored
                    commit = build_commit(stored)
                    if commit is not None:
                        prepared = self._prepare(header, stored.with_commit(commit))
                    return commit

                try:
                    stored = self._store.transact(prepare)
                finally:
                    if prepared is None and seen is not None:
                        self._invalidate_if_newer(header, seen)
                if prepared is not None:
                    self._publish_commit(header, prepared)
                    replaced = header.was_replaced()
        finally:
            if prepared is not None:  # where the connection broke, it may have been committed
                self._publish()
        if prepared is not None and replaced:
            self._publish_in_new_header(prepared)
        self._sync.sync()
        return stored

    def _prepare(self, header: LockedHeader, stored: Stored) -> _Prepared | None:
        """Write the snapshot's file while the transaction can still be undone, then invalidate."""
        try:
            encoded = encode_stored(stored)
            snapshot = self._served.validate(encoded)
        except InvalidValue:
            if not self._served.repairing:
                raise
            header.invalidate()
            return None  # other rows remain to be repaired
        self._host.snapshots.write(encoded)
        return _Prepared(encoded, snapshot, header.invalidate())

    def _publish_commit(self, header: LockedHeader, prepared: _Prepared) -> None:
        try:
            self._fetcher.publish(header, prepared.encoded, prepared.snapshot, prepared.generation)
        except OSError as error:  # the header isn't current, so the next reader reads the store
            self._warn(prepared, error)

    def _publish_in_new_header(self, prepared: _Prepared) -> None:
        """Read the store again: another process may have read it before we committed."""
        replaced = True
        try:
            while replaced:
                with self._host.lock(LOCK_TIMEOUT) as header:
                    header.invalidate()
                    self._fetcher.fetch(header)
                    replaced = header.was_replaced()
        except OSError as error:  # then nobody else can have opened it either
            self._warn(prepared, error)

    def _warn(self, prepared: _Prepared, error: OSError) -> None:
        text = f"revision {prepared.encoded.revision} is stored; publishing it failed: {error}"
        self._served.log(logging.WARNING, text)

    def _invalidate_if_newer(self, header: LockedHeader, stored: Stored) -> None:
        """Under the lock, after an update that wrote nothing: note if the store has news."""
        try:
            known = encode_stored(stored).id == snapshot_in(header.words())
        except InvalidValue:
            known = False
        if not known:
            header.invalidate()

    def _wait_for(self, result: UpdateResult, wait: float) -> UpdateResult:
        deadline = monotonic() + wait
        while True:
            newest = self._sync.sync()
            applied: list[ProcessInfo] = []
            pending: list[ProcessInfo] = []
            for process in self._host.processes:
                # A hook of this process may have called us: the others are called afterwards.
                ours = process.token == self._host.processes.token
                same = process.snapshot == newest.id.hex()
                done = same or result.revision <= process.revision <= newest.revision
                (applied if done or ours else pending).append(process)
            if not pending or monotonic() >= deadline:
                return replace(result, applied=tuple(applied), pending=tuple(pending))
            time.sleep(WAIT_PAUSE)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
