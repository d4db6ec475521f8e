"""How one process reads the store for all others of its host, and publishes what it found."""

from __future__ import annotations

import json
import logging
import time
from time import monotonic

from .changes import encode_readable, encode_stored
from .conflicts import Conflicts
from .errors import InvalidValue, StoreReadOnly, StoreUnavailable, error_text, name_commands
from .host import Host, LockedHeader, generation_in, snapshot_id_in
from .served import Served
from .snapshot import Committed, Encoded
from .stores import Commit, Store, Stored
from .wake import process_name, server_of

__all__ = ["Fetcher"]

OUTSIDE = "outside"  # the actor of a revision that somebody made by hand
# Retry after ten times what the failed read took, within bounds in seconds.
RETRY_FACTOR, FIRST_RETRY, LAST_RETRY = 10, 0.5, 60.0
ERROR_LENGTH = 400  # characters


class Fetcher:
    """Reads the store and publishes. All of it happens under the host's lock.

    Attributes:
        host: where it publishes.
        store: what it reads.
        served: what this process serves.
        conflicts: what other applications declare in the same store.
    """

    def __init__(self, host: Host, store: Store, served: Served, conflicts: Conflicts) -> None:
        self.host, self.store, self.served, self.conflicts = host, store, served, conflicts

    def fetch(self, header: LockedHeader, *, raise_errors: bool = False) -> Encoded | None:
        """Read the store and publish what it holds; return that.

        What fails is noted, and raised too with ``raise_errors``.
        """
        words, was_down, began = header.words(), header.notes().error, monotonic()
        generation = generation_in(words)
        published = self.host.snapshots.read(snapshot_id_in(words))
        try:
            stored = self._read_store()
            self.conflicts.check(stored)
            if self.served.repairing and self._load_with_misfits(stored, words):
                return None
            encoded = self.encode(stored, valid=b"" if raise_errors else snapshot_id_in(words))
            recorded = self._record_external_edits(stored, encoded, published)
            if recorded is not stored:
                stored, encoded = recorded, self.encode(recorded)
            # Don't rewrite a file that others may be reading.
            if published is None or published.id != encoded.id:
                self.host.snapshots.write(encoded)
        except Exception as error:  # a store of the user's own may raise anything
            failure = name_commands(error, self.served.schema.variables)
            # Values that don't fit a process which starts, or is asked, concern it alone: another
            # version of the application may run beside it.
            if not (raise_errors and isinstance(error, InvalidValue)):
                self._note_failure(header, generation, failure, monotonic() - began)
            if not raise_errors:
                return None
            if failure is error:
                raise
            raise failure from error
        if was_down:
            self.served.log(logging.WARNING, "the store is back")
        if published is not None and stored.revision < published.revision:
            text = f"the store went back from revision {published.revision} to {stored.revision}"
            self.served.log(logging.WARNING, text)
        self.publish(header, encoded, generation)
        return encoded

    def publish(self, header: LockedHeader, encoded: Encoded, generation: bytes) -> None:
        """Show all processes of the host a snapshot that the store holds; its file is written.

        Args:
            header: the locked header.
            encoded: the snapshot.
            generation: the header's generation before the store was read or written.
        """
        before = snapshot_id_in(header.words())
        news = encoded.id != before
        header.publish(encoded.id, generation)
        if news:
            self.host.wake()
        updates = header.notes().updates + news
        header.set_notes(checked_at=time.monotonic_ns(), retry_at=0, error="", updates=updates)
        if news:
            self.host.snapshots.prune(encoded.id, before)

    def _read_store(self) -> Stored:
        """Wait for the pending commit of a writer that has died, then read."""
        try:
            return self.store.load_after_pending_writes()
        except StoreReadOnly:  # then nobody here has written either
            return self.store.load()

    def encode(self, stored: Stored, *, valid: bytes = b"") -> Encoded:
        """Encode what a store holds, if the schema takes it; errors as in `encode_stored`.

        Args:
            valid: the id of what is published: another release of the application may have done
                that, and what only this one refuses is no error of the store.
        """
        encoded = encode_stored(stored)
        if encoded.id != valid:
            self.served.schema.load(encoded.values)
        return encoded

    def _load_with_misfits(self, stored: Stored, words: bytes) -> bool:
        """While repairing: serve what fits, in this process only. Return whether something doesn't.

        Other processes may have other declarations: the host isn't told.
        """
        encoded, unreadable = encode_readable(stored)
        self.served.load(encoded, words, unreadable=unreadable)
        return bool(self.served.misfits)

    def _note_failure(
        self, header: LockedHeader, generation: bytes, error: Exception, seconds: float
    ) -> None:
        pause = min(max(FIRST_RETRY, RETRY_FACTOR * seconds), LAST_RETRY)
        text, cause = error_text(error)
        text, known = text[:ERROR_LENGTH], header.notes()
        retry_at = time.monotonic_ns() + round(pause * 1e9)
        is_new, in_server = text != known.error, server_of(process_name() or "master") is not None
        is_in_log = in_server or (known.is_in_log and not is_new)
        header.set_notes(
            error=text, failed=generation.hex(), retry_at=retry_at, is_in_log=is_in_log
        )
        if is_new or is_in_log != known.is_in_log:
            serving = ", serving the last good values" if self.served.current.snapshot.id else ""
            self.served.log(logging.ERROR, f"can't use the store{serving}: {text}", cause)

    def _record_external_edits(
        self, stored: Stored, found: Encoded, published: Encoded | None
    ) -> Stored:
        """Record values that were edited by hand, under a known revision, as a new revision.

        Only what was found valid: what is refused may be repaired by hand.
        """
        if published is None or published.revision != found.revision or published.id == found.id:
            return stored
        old, new = _plain_texts(published), _plain_texts(found)
        names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        if not names:
            return stored
        changes = {name: stored.values.get(name) for name in names}
        commit = Commit(changes, actor=OUTSIDE, old={name: old.get(name) for name in names})
        try:
            recorded = self.store.transact(lambda now: commit if now == stored else None)
        except StoreUnavailable as error:
            text = f"values were edited outside, and the history can't be written: {error}"
            self.served.log(logging.WARNING, text)
            return stored
        if recorded != stored:
            edit = Committed(recorded.revision, commit.old, commit.changes, OUTSIDE)
            self.served.queue(edit)
        return recorded


def _plain_texts(encoded: Encoded) -> dict[str, str]:
    values = json.loads(encoded.values)
    return {name: json.dumps(value, separators=(",", ":")) for name, value in values.items()}
