"""How one process reads the store for all others of its host, and publishes what it found."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import HostFilesError, InvalidValue, StoreReadOnly, StoreUnavailable, WaffleError
from .hostfiles import HostFiles, is_settled, settled
from .plans import encoded
from .reading import Reader
from .snapshot import Encoded, Snapshot
from .stores import Commit, Stored

__all__ = ["WAIT_PAUSE", "Fetcher"]

WAIT_PAUSE = 0.002  # seconds between two looks at what another process or thread does
OUTSIDE = "outside"


class Fetcher(Reader):
    """Reads the store when the bell was rung, when asked to, and every so often."""

    def _boot(self) -> None:
        """Read the store; if that fails serve this host's last snapshot, and without one refuse to
        start.
        """
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
                "neither lock nor see it reliably. Set WAFFLE_WATCHER_FILE to a path on a local"
                " disk; the store may be anywhere.",
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
            raise StoreUnavailable(
                f"{self.store.name}: no values to start with: {self.error or self.host.notes().error}"
            )

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
        """Look at everything, and compare with the store if no process of this host has for
        ``interval`` seconds.
        """
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
        if not forced:
            if self._take_published(host):
                return
            if is_settled(host.peek()):
                self._say(
                    logging.WARNING,
                    f"{host.folder}: the newest snapshot can't be read and is written anew from the store",
                )
        notes = host.notes()
        if not forced and notes.retry_at > time.monotonic_ns():
            self._take_last(host)
            return
        published = host.last()
        try:
            stored = self._read(host)
            values = self.schema.load(encoded(stored).values)
            new = encoded(self._with_outside_edits(stored, published))
        except (StoreUnavailable, InvalidValue) as error:
            if is_settled(host.peek()):
                host.ring()  # asked for by nobody: the next look shall try again
            if host.fail(str(error)):
                self._say(
                    logging.ERROR,
                    f"the store can't be used, the last good values stay in force: {error}",
                )
            if strict:
                raise
            self._take_last(host)
            return
        if notes.failures:
            self._say(logging.WARNING, "the store is back")
        if published is not None and new.revision < published.revision:
            self._say(
                logging.WARNING,
                f"the store went back from revision {published.revision} to {new.revision}; it is followed",
            )
        head, shown = settled(bell, new.digest), True
        try:
            if published is not None and published.digest == new.digest:
                host.settle(head)
                host.succeed()
            else:
                host.stage(new)
                host.settle(head)
                host.toll()
                self._keep(host, new, published.digest if published else b"")
            host.land()
        # each process reads the store for itself, until the disk takes a snapshot again
        except OSError as error:
            self._trouble(
                f"revision {new.revision} can't be shown to this host's processes: {error}"
            )
            shown = False
        self._apply(
            Snapshot(new.revision, new.digest, values), head if shown else None, ahead=not shown
        )

    def _read(self, host: HostFiles) -> Stored:
        if host.is_in_flight():
            with suppress(StoreReadOnly):  # then nobody has written
                return self.store.load_behind_writers()
        return self.store.load()

    def _keep(self, host: HostFiles, new: Encoded, before: bytes) -> None:
        """Under the lock, put what is shown in order for the future.

        Raises:
            HostFilesError: it was shown in files that are no longer the ones that the others look
                at.
        """
        host.promote(new.digest)
        host.succeed()
        if host.verify():
            raise HostFilesError("the header was replaced meanwhile")
        host.tidy(new.digest, before)

    def _with_outside_edits(self, stored: Stored, published: Encoded | None) -> Stored:
        """Make a revision of what somebody wrote into the store by hand, under the number that was
        published already.
        """
        if (
            published is None
            or published.revision != stored.revision
            or published.digest == encoded(stored).digest
        ):
            return stored
        known = {
            name: json.dumps(value, separators=(",", ":"))
            for name, value in json.loads(published.values).items()
        }
        found = {
            name: json.dumps(json.loads(text), separators=(",", ":"))
            for name, text in stored.values.items()
        }
        differing = sorted(
            name for name in known.keys() | found.keys() if known.get(name) != found.get(name)
        )

        def decide(now: Stored) -> Commit | None:
            if now != stored or not differing:
                return None
            changes = {name: stored.values.get(name) for name in differing}
            return Commit(changes, actor=OUTSIDE, old={name: known.get(name) for name in differing})

        try:
            mended = self.store.transact(decide)
            self._publish()
            return mended
        except StoreUnavailable as error:
            self._say(
                logging.WARNING,
                f"values were edited outside, and the history can't be told: {error}",
            )
            return stored

    @contextmanager
    def _host_lock(self) -> Iterator[None]:
        self._notice_fork()
        if self.host is not None:
            with self.host.lock(self._lock_timeout):
                yield
        else:
            while not self._writing.acquire(
                blocking=False
            ):  # not waiting in it, for it may be held by a greenlet of this thread
                time.sleep(WAIT_PAUSE)
            try:
                yield
            finally:
                self._writing.release()

    def _serve(self, stored: Stored) -> None:
        new = encoded(stored)
        self._apply(
            Snapshot(stored.revision, new.digest, self.schema.load(new.values)), self._peek()
        )
