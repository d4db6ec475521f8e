"""How an update is written: one transaction on the store, then one published snapshot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypedDict

from . import expiry
from .changes import Changeset, check_revision, check_sizes, with_former_names
from .errors import InvalidValue, RevisionConflict, WaffleError
from .fetch import Fetcher
from .host import LockedHeader, ProcessInfo
from .snapshot import Committed, Encoded
from .stores import EXPIRES, Commit, CommitBuilder, Stored
from .sync import LOCK_TIMEOUT, Sync
from .wake import HostInfo

__all__ = ["CommitOptions", "UpdateOptions", "UpdateResult", "Writer"]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What an update did.

    Attributes:
        revision: the store's revision afterwards.
        changed: the variables whose stored value differs now, sorted; empty if nothing had to be
            done.
        applied: with ``wait``, the processes of this host that serve this revision or a later one
            and have called their hooks.
        pending: with ``wait``, those that didn't within the time, and what can't be seen: a
            process of the kind ``unknown``, whose error says why.
        hosts: with ``hosts``, the hosts that listen and have answered, this one among them.
        pending_hosts: with ``hosts``, what isn't done there within the time: each host with its
            processes, and how many hosts don't answer.
    """

    revision: int
    changed: tuple[str, ...]
    applied: tuple[ProcessInfo, ...] = ()
    pending: tuple[ProcessInfo, ...] = ()
    hosts: tuple[HostInfo, ...] = ()
    pending_hosts: tuple[str, ...] = ()


class CommitOptions(TypedDict, total=False):
    """How an update is written; see `WaffleConf.update`."""

    expect_revision: int | None
    actor: str | None
    note: str | None
    expires: timedelta | None


class UpdateOptions(CommitOptions, total=False):
    """The same, how long to wait, and whether for all hosts."""

    wait: float | None
    hosts: bool


class Writer:
    """Writes updates.

    The path of one: take the host's lock; in one transaction of the store read, invalidate,
    validate, write the snapshot's file, commit; then publish the snapshot, wake idle workers,
    release the lock, tell other hosts. A writer that is refused, or dies, leaves a header that
    isn't current and a lock that is free, so the next reader reads the store.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        sync: Sync,
        notify_hosts: Callable[[], None],
        *,
        max_value_size: int,
    ) -> None:
        self._fetcher, self._sync, self._notify_hosts = fetcher, sync, notify_hosts
        self._host, self._store, self._served = fetcher.host, fetcher.store, fetcher.served
        self._max_value_size = max_value_size

    def update(
        self,
        changeset: Changeset,
        *,
        expect_revision: int | None = None,
        actor: object = None,
        note: object = None,
        expires: timedelta | None = None,
    ) -> Committed:
        """Write a change set; arguments and errors as in `WaffleConf.update`."""
        check_revision(expect_revision)
        actor, note, until = _text(actor), _text(note), _end_of(expires)
        made = Committed(0, {}, {})

        def build_commit(stored: Stored) -> Commit | None:
            nonlocal made
            made, rows = self._work_out(changeset, stored, expect_revision, until)
            return Commit(rows, actor, note) if rows else None

        revision = self.commit(build_commit).revision
        return replace(made, revision=revision, actor=actor, note=note)

    def preview(
        self,
        changeset: Changeset,
        *,
        expect_revision: int | None = None,
        expires: timedelta | None = None,
    ) -> Committed:
        """Return what an update would change, at the store's revision; errors as above."""
        stored = self._store.load()
        made, _ = self._work_out(changeset, stored, expect_revision, _end_of(expires))
        return made

    def _work_out(
        self, changeset: Changeset, stored: Stored, expected: int | None, until: datetime | None
    ) -> tuple[Committed, dict[str, str | None]]:
        """Return what the change set changes, and the rows to write."""
        if expected is not None and expected != stored.revision:
            raise RevisionConflict(expected, stored.revision)
        schema, texts, now = self._served.schema, changeset(stored), stored.values
        written = with_former_names(schema, stored, texts)
        rows = {key: text for key, text in written.items() if text != now.get(key)}
        check_sizes(rows, self._max_value_size)
        old = {name: now.get(schema.source(name, now)) for name in written}
        others = schema.former_names.keys() - texts.keys()
        # A variable changes with its row, or with what counted under its former name until now.
        changed = [n for n in written if n not in others and (n in rows or written[n] != old[n])]
        before = {name: old[name] for name in texts}
        rows = expiry.with_expiry(stored, rows, before, until, schema.families(now))
        made = Committed(
            stored.revision,
            old={name: old[name] for name in changed},
            new={name: written[name] for name in changed},
            retimed=EXPIRES in rows,
        )
        return made, rows

    def commit(self, build_commit: CommitBuilder) -> Stored:
        """Carry out what ``build_commit`` makes of the store's newest values, and publish it.

        Returns:
            What the store holds afterwards.
        """
        written: Encoded | None = None
        generation = b""

        self._sync.check_fork()
        with self._host.lock(LOCK_TIMEOUT) as header:

            def build_and_write(stored: Stored) -> Commit | None:
                nonlocal written, generation
                # What is read here may be news, whatever becomes of the update.
                written, generation = None, header.invalidate()
                declared = self._fetcher.conflicts.note(stored)
                commit = build_commit(stored)
                if commit is not None:
                    commit = replace(commit, declared=declared)
                    written = self._write_snapshot(stored.with_commit(commit))
                return commit

            stored = self._store.transact(build_and_write)
            if written is not None:
                self._publish_commit(header, written, generation)
                replaced = header.was_replaced()
        if written is not None:
            self._notify_hosts()
            if replaced:
                self._publish_in_new_header(written)
        self._sync.sync()
        return stored

    def _write_snapshot(self, stored: Stored) -> Encoded | None:
        """Write the snapshot's file while the transaction can still be undone."""
        try:
            encoded = self._fetcher.encode(stored)
        except InvalidValue:
            if not self._served.repairing:
                raise
            return None  # other rows remain to be repaired
        self._host.snapshots.write(encoded)
        return encoded

    def _publish_commit(self, header: LockedHeader, encoded: Encoded, generation: bytes) -> None:
        try:
            self._fetcher.publish(header, encoded, generation)
        except OSError as error:  # the header isn't current, so the next reader reads the store
            self._warn(encoded, error)

    def _publish_in_new_header(self, encoded: Encoded) -> None:
        """Wait for whoever made it: that process may have read the store before we committed."""
        try:
            self._host.invalidate()
            self._sync.refresh()
        except (OSError, WaffleError) as error:  # the update is stored all the same
            self._warn(encoded, error)

    def _warn(self, encoded: Encoded, error: Exception) -> None:
        text = f"revision {encoded.revision} is stored; publishing it failed: {error}"
        self._served.log(logging.WARNING, text)


def _end_of(expires: timedelta | None) -> datetime | None:
    return None if expires is None else expiry.end_of(expires)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
