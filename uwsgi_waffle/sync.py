"""How a process follows its host: it loads what was published, or reads the store for all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from time import monotonic

from .changes import encode_stored
from .errors import HostBusy, InvalidValue, StoreUnavailable, error_text
from .fetch import Fetcher
from .host import LockedHeader, ProcessInfo, ServerInfo, generation_in, is_current, snapshot_id_in
from .snapshot import Snapshot
from .wake import process_name

__all__ = ["LOCK_TIMEOUT", "Sync"]

LOCK_TIMEOUT = 5.0  # seconds to wait for another process of this host
CHECK_INTERVAL = 0.01  # seconds between two looks at the files; the words are compared each time
DESCRIBE_INTERVAL = 10.0  # seconds; asking uWSGI takes longer than an update
CATCH_UP_ATTEMPTS = 50  # a snapshot may be replaced before it is read


class Sync:
    """Keeps what this process serves up to date.

    Args:
        fetcher: reads the store.
        ensure_watched: called when uWSGI's master may have to monitor other files than before.
        describe: says how this process's server runs.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        ensure_watched: Callable[[], None],
        describe: Callable[[], ServerInfo],
    ) -> None:
        self._fetcher, self._ensure_watched, self._describe = fetcher, ensure_watched, describe
        self._host, self._store, self._served = fetcher.host, fetcher.store, fetcher.served
        self._words, self._reports = self._host.words, False
        self._reset()
        self._load_first()

    def _reset(self) -> None:
        self._check_at = 0.0  # when to look at the files again
        self._watched: object = None
        self._reported: object = None
        # The words at which this process has read the store for itself; b"": it serves the host's.
        self._unshared_words = b""
        self._report_error = self._tick_error = ""
        self._description: ServerInfo = {}
        self._describe_at = 0.0  # when to ask again how this process's server runs
        self._pid = os.getpid()  # set last: other threads compare it without a lock

    def latest(self) -> Snapshot:
        """Return the newest snapshot. If nothing changed, this takes two system calls."""
        current = self._served.current
        try:
            if monotonic() < self._check_at and self._words() == current.words:
                return current.snapshot
        except OSError:
            pass  # the header was deleted; `sync` opens the next one
        return self.sync()

    def sync(self, *, ticking: bool = False) -> Snapshot:
        """Follow the host. Never raise: whatever fails, go on serving the last good values.

        Args:
            ticking: whether a store that failed may be tried again when it is time for that.
        """
        self.check_fork()
        self._check_at = monotonic() + CHECK_INTERVAL
        if ticking:
            self._reported = None  # somebody may have removed the file
        steps = (self._host.open, self._check_touch, lambda: self._catch_up(ticking), self._watch)
        # Run every step even if an earlier one failed.
        errors: list[Exception | str] = [*filter(None, map(_error_of, steps))]
        errors += [self._report_error, self._tick_error]
        if any(errors):  # the others are consequences of the first
            self._served.report_error(next(error for error in errors if error))
        else:
            self._served.clear_error()
        applied = self._served.run_hooks()
        if applied is not None:
            self._report_error = _text_of(lambda: self._report_process(applied))
        return self._served.current.snapshot

    def start_reporting(self) -> None:
        """From now on let others know of this process: it is known what wakes it."""
        self._reports = True
        self.sync()

    def check_fork(self) -> None:
        """Begin anew in a process that was forked."""
        if self._pid != os.getpid():
            self._served.reset_after_fork()
            self._reset()

    def _check_touch(self) -> None:
        if self._host.is_touched():
            with self._host.try_lock() as header:
                if header is not None:
                    self._host.consume_touch(header)

    def _catch_up(self, ticking: bool) -> None:
        """Serve the published snapshot; read the store if that isn't current."""
        for _ in range(CATCH_UP_ATTEMPTS):
            try:
                with self._served.lock:  # so that no other thread goes back to older words
                    words = self._host.words()
                    if self._served.misfits and words == self._served.current.words:
                        return  # repairing: read already; what doesn't fit is never published
                    loaded = self._load_published(words)
            except FileNotFoundError:  # the header was removed since it was opened
                self._host.open()
                continue
            if loaded and is_current(words):
                return
            if self._host.words() != words:  # published meanwhile: load that, and ask no store
                continue
            notes = self._host.notes()
            failed = notes.error and notes.failed == generation_in(words).hex()
            if failed and not (ticking and time.monotonic_ns() >= notes.retry_at):
                self._served.set_words(words)  # only a tick tries a store again that has failed
                return
            with self._host.try_lock() as header:
                if header is None:  # another process is writing, or reading the store
                    if not loaded:
                        # The lost file may hold updates that have returned, so read the store.
                        self._read_unshared(words)
                    return
                if header.words() == words:
                    self._fetch(header)
            ticking = False

    def _load_published(self, words: bytes) -> bool:
        """Serve what the words name, if the schema takes it.

        Return ``False`` if its file can't be read, or is older than what this process has read for
        itself.
        """
        snapshot_id = snapshot_id_in(words)
        if words and words == self._unshared_words:
            return True
        if not self._served.knows(snapshot_id):
            published = self._host.snapshots.read(snapshot_id)
            if published is None:
                return False
            if self._unshared_words and published.revision < self._served.current.snapshot.revision:
                return False  # whoever held the lock had read it before we read for ourselves
            self._served.apply_published(published)
        self._unshared_words = b""
        if is_current(words):
            self._served.set_words(words)
        return True

    def _fetch(self, header: LockedHeader, *, raise_errors: bool = False) -> None:
        """Read the store for all, so that this process serves what its host does again."""
        if self._fetcher.fetch(header, raise_errors=raise_errors) is not None:
            self._unshared_words = b""

    def _watch(self) -> None:
        watched = self._host.watched_id
        if watched != self._watched:
            self._reported = None  # the folder may be another one
            self._ensure_watched()
            self._watched = watched

    def tick(self, interval: float) -> None:
        """Follow the host.

        Without news, see to it that this process goes on being woken, and read the store if nobody
        has for ``interval`` seconds.
        """
        before = self._served.current.snapshot
        if self.sync(ticking=True) is not before and not self._tick_error:
            return  # the store has just been read; what else is due can wait for the next tick
        errors, due = [_text_of(self._ensure_watched)], self._is_due(interval)
        if due:
            errors.append(_text_of(lambda: self._fetch_if_due(interval)))
        error = next(filter(None, errors), "")
        if due or error != self._tick_error:
            self._tick_error = error
            self.sync()  # somebody may have invalidated meanwhile, and found the lock taken

    def _fetch_if_due(self, interval: float) -> None:
        with self._host.try_lock() as header:
            if header is not None:
                if self._is_due(interval):
                    self._fetch(header)
                return
        notes = self._host.notes()
        due = max(notes.checked_at, notes.retry_at)
        if due and time.monotonic_ns() - due > 1.2 * interval * 1e9:
            self._read_unshared(self._host.words())
            raise HostBusy(
                f"Another process has held this host's lock for more than {interval:g} s, so each "
                "process reads the store for itself. `lslocks` (on macOS `lsof`) names the "
                "process; is it stopped?"
            )

    def _read_unshared(self, words: bytes) -> None:
        """Read the store for this process only. Serve that until the header's words change."""
        encoded = encode_stored(self._store.load())
        with self._served.lock:
            self._unshared_words = words
            self._served.load(encoded, words or None)  # there are none in a damaged header

    def _is_due(self, interval: float) -> bool:
        notes, now = self._host.notes(), time.monotonic_ns()
        # A little early: uWSGI's timer ticks only three times in each interval.
        return now >= max(notes.checked_at + 0.6 * interval * 1e9, notes.retry_at)

    def refresh(self) -> Snapshot:
        """Read the store now; errors as in `WaffleConf.refresh`."""
        self.check_fork()
        with self._host.lock(LOCK_TIMEOUT) as header:
            self._fetch(header, raise_errors=True)
        return self.sync()

    def _load_first(self) -> None:
        """Find the values to start with: the store's, else this host's last snapshot."""
        asked_at = time.monotonic_ns()
        self._host.open()
        try:
            with self._host.lock(LOCK_TIMEOUT) as header:
                if not any(snapshot_id_in(header.words())):
                    self._store.prepare()
                self._host.consume_touch(header)
                words = header.words()
                # Another process of a server that starts may have read the store just now.
                fresh = header.notes().checked_at >= asked_at and is_current(words)
                published = self._host.snapshots.read(snapshot_id_in(words)) if fresh else None
                if published is None:
                    published = self._fetcher.fetch(header, raise_errors=True)
                if published is not None:  # else what fits of it is served already
                    self._served.load(published, header.words())
        except (StoreUnavailable, InvalidValue, OSError) as error:
            self._start_with_last_snapshot(error)

    def _start_with_last_snapshot(self, error: Exception) -> None:
        published = self._host.snapshots.read(snapshot_id_in(self._host.words()))
        if published is None:
            if isinstance(error, StoreUnavailable):
                raise type(error)(f"{error} This host has no snapshot to start with.") from error
            raise error
        try:
            self._served.load(published)
        except InvalidValue:
            raise error from None
        self._served.report_error(f"started with the last snapshot of this host: {error}")

    def _report_process(self, snapshot: Snapshot) -> None:
        served = self._served
        row = (os.getpid(), snapshot.id, served.error)
        name = process_name() if self._reports and row != self._reported else None
        if name is not None:
            self._host.processes.report(
                ProcessInfo(
                    pid=os.getpid(),
                    kind=name,
                    revision=snapshot.revision,
                    applied_at=served.applied_at,
                    snapshot=snapshot.id.hex(),
                    error=served.error,
                    server=self._described(),
                )
            )
            self._reported = row

    def _described(self) -> ServerInfo:
        if monotonic() >= self._describe_at:
            self._description = self._describe()
            self._describe_at = monotonic() + DESCRIBE_INTERVAL
        return self._description


def _text_of(step: Callable[[], None]) -> str:
    error = _error_of(step)
    return "" if error is None else error_text(error)[0]


def _error_of(step: Callable[[], None]) -> Exception | None:
    try:
        step()
    except Exception as error:
        return error
    return None
