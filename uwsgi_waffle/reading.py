"""What one process serves of one application, and how it takes what was published."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from types import MappingProxyType

from .errors import InvalidValue, WaffleError
from .hostfiles import LEASE, HostFiles, ProcessInfo, digest_in, is_settled
from .plans import encoded
from .schema import Schema
from .snapshot import Change, Encoded, Snapshot
from .stores import Store

__all__ = ["Reader", "difference"]

log = logging.getLogger("uwsgi_waffle")

NOTHING = (-1, -1)


@dataclass(frozen=True, slots=True)
class Current:
    """The snapshot that this process serves, and the header's words that were seen with it
    (``None``: look again).
    """

    head: bytes | None
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class Prepared:
    """What this process will serve if the header comes to say so, and what that changes in what it
    serves now.
    """

    current: Current
    change: Change | None


class Reader(ABC):
    """One application's values in this process: what every process does, without asking the store.

    Args:
        schema: what may be stored.
        store: where it is stored.
        host: the files shared with other processes; ``None`` if there are none to share with.
        kind: names this process, ``None`` for one that serves nobody.
        announce: called with each change, after it was applied, in the process and thread that
            applied it; returns whether that has
            to be done again later, for nobody could be told.
        follow: called in every process that a fork has made, and when what uWSGI watches was
            replaced.
        publish: called when this process has brought something new into the store; tells other
            hosts.
        lock_timeout: seconds that a writer waits for another writer of this host.
    """

    def __init__(
        self,
        schema: Schema,
        store: Store,
        host: HostFiles | None,
        *,
        kind: Callable[[], str | None],
        announce: Callable[[Change], bool],
        follow: Callable[[], None],
        publish: Callable[[], None],
        lock_timeout: float,
    ) -> None:
        self.schema, self.store, self.host = schema, store, host
        self.error = ""
        self._kind, self._announce, self._follow, self._lock_timeout = (
            kind,
            announce,
            follow,
            lock_timeout,
        )
        self._publish = publish
        # What a look compares; without files to share there is nothing that could change.
        self._peek: Callable[[], bytes] = bytes
        self._ahead = False  # whether we serve what couldn't be published
        self._prepared: Prepared | None = None
        self._announced = b""  # the words that were looked at last to prepare what they announce
        self._refused = b""  # the digest of a published snapshot that our schema doesn't take
        self._applied_at = 0
        self._noted: tuple[int, bytes, str] | None = None
        self._changes: deque[Change] = deque()
        self._current = Current(None, Snapshot(0, b"", schema.defaults))
        self._belong_to_this_process()
        self._boot()
        self._changes.clear()  # a start is no change

    def _belong_to_this_process(self) -> None:
        # Taking what is published is one step, so that the threads of a process take revisions in
        # their order.
        self._taking, self._announcing, self._writing = (
            threading.RLock(),
            threading.Lock(),
            threading.Lock(),
        )
        self._applied_at = time.monotonic_ns()
        # generation and inode of the header and the watch file that this process follows
        self._followed = NOTHING
        self._lease = 0.0  # until when the words alone are looked at
        self._pid = os.getpid()  # the last: another thread that sees it goes on

    def look(self) -> Snapshot:
        """Return the newest snapshot: three compared words if nothing changed, else the way there
        is gone first.
        """
        current = self._current
        try:
            # The words last: another thread may open another header meanwhile, and they are that
            # one's then.
            if (monotonic() < self._lease or self._renew()) and self._peek() == current.head:
                return current.snapshot
        except OSError:  # somebody closed our descriptor; catching up opens another
            pass
        return self.catch_up()

    def _renew(self) -> bool:
        """Trust the words for another while if the files are as they were, and everyone has been
        told of what is served; tell whether.
        """
        now = monotonic()
        if (
            self.host is None
            or self._followed == NOTHING
            or self._noted != self._entry(self._current.snapshot)
        ):
            return False
        if not self.host.is_as_seen():
            return False
        self._lease = now + LEASE
        return True

    def catch_up(self, *, thorough: bool = False) -> Snapshot:
        """Do what the header asks for: load the published snapshot, or read the store. Serve on
        whatever fails.

        Args:
            thorough: look at the files, too, even if that was done a moment ago.
        """
        self._notice_fork()
        if self.host is None:
            self._lease = math.inf
        else:
            try:
                taken = self._take_published(self.host)
                if self._changes:
                    self._announce_all()
                if thorough or not taken or monotonic() >= self._lease:
                    self._follow_header(self.host)
            except Exception as error:  # whatever it is: a look serves what there is
                told = self.error
                with suppress(Exception):  # one trouble is told, and it is below
                    self._take_last(self.host)
                self.error = told
                foreseen = isinstance(error, (WaffleError, OSError))
                self._trouble(
                    str(error) if foreseen else f"{type(error).__name__}: {error}",
                    None if foreseen else error,
                )
        self._finish()
        return self._current.snapshot

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._belong_to_this_process()

    def _take_published(self, host: HostFiles) -> bool:
        """Load what is published if the header says that it is the newest; tell whether this
        process serves that now.
        """
        with self._taking:
            try:
                head = host.peek()
            except OSError:
                return False
            if head == self._current.head:
                return True
            prepared = self._prepared
            if prepared is not None and prepared.current.head == head:
                self._serve_now(prepared.current, prepared.change)
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

    def _prepare(self, host: HostFiles) -> None:
        """Read what a writer is committing at this moment, so that it can be served as soon as that
        is done.
        """
        with self._taking:
            head, before = host.coming(), self._current.snapshot
            if (
                head == self._announced
                or not is_settled(head)
                or digest_in(head) in (before.digest, self._refused)
            ):
                return
            self._announced = head
            announced = host.snapshot(digest_in(head))
            if announced is not None:
                with suppress(InvalidValue):  # said when it is published
                    new = Snapshot(
                        announced.revision, announced.digest, self.schema.load(announced.values)
                    )
                    self._prepared = Prepared(Current(head, new), difference(new, before))

    def _follow_header(self, host: HostFiles) -> None:
        """Look at everything: whether the header is still the one at its path, the watch file, the
        words.
        """
        now = monotonic()
        host.verify()
        self._peek = host.peek
        self._prepare(host)
        touched = host.is_touched()
        self._lease = now + LEASE
        followed = (host.notes().generation, host.watched_inode)
        if followed != self._followed:
            self._noted = None  # the table may be another, too
            self._followed = NOTHING
            self._follow()
            self._followed = followed
        if self._take_published(host) and not touched:
            return
        has_last = self._take_last(host)
        if not touched and host.notes().retry_at > time.monotonic_ns():
            return
        with host.try_lock() as locked:
            if locked:
                host.take_touch()
                self._fetch(host, forced=False)
            elif (
                not has_last
            ):  # another process is writing or reading the store, and what was published is lost
                self._read_alone()

    def _take_last(self, host: HostFiles) -> bool:
        """Load what was published last, though the header doesn't say that it is the newest; tell
        whether it was there.

        Every update that has returned was published, so this holds it whatever keeps us from files,
        lock and store.
        """
        with self._taking:
            digest = digest_in(host.peek())
            if self._ahead or digest in (self._current.snapshot.digest, self._refused):
                return True
            published = host.snapshot(digest)
            if published is not None:
                self._adopt(published)
            return published is not None

    def _read_alone(self) -> None:
        """Read the store for this process only, without the lock."""
        before = self._current
        new = encoded(self.store.load())
        snapshot = Snapshot(new.revision, new.digest, self.schema.load(new.values))
        with self._taking:
            if self._current is before:  # else another thread has something newer
                self._apply(snapshot, None)

    def _adopt(self, published: Encoded) -> None:
        try:
            values = self.schema.load(published.values)
        except InvalidValue as error:
            # Another version of the application declares other types; its values aren't ours to
            # serve.
            self._refused = published.digest
            self._trouble(f"revision {published.revision} can't be served here: {error}")
            return
        self._apply(Snapshot(published.revision, published.digest, values), None)

    def _apply(self, snapshot: Snapshot, head: bytes | None, *, ahead: bool = False) -> None:
        """Serve a snapshot; ``ahead``: the store has it, but it couldn't be published."""
        with self._taking:
            before = self._current.snapshot
            self._serve_now(Current(head, snapshot), difference(snapshot, before))
            self._ahead = ahead

    def _serve_now(self, current: Current, change: Change | None) -> None:
        if current.snapshot.digest != self._current.snapshot.digest:
            self._applied_at = time.monotonic_ns()
        if change is not None:
            self._changes.append(change)
        self._current, self._prepared = current, None
        self._refused, self.error, self._ahead = b"", "", False

    def _announce_all(self) -> None:
        """Tell the hooks, one change after the other; a thread that finds another at it leaves the
        rest to it.
        """
        while self._changes and self._announcing.acquire(blocking=False):
            try:
                while self._changes:
                    change = self._changes.popleft()
                    if self._announce(change):
                        self._changes.appendleft(change)
                        self._lease = min(self._lease, monotonic() + LEASE)
                        return
            finally:
                self._announcing.release()

    def _finish(self) -> None:
        """Tell the hooks what is left to tell, then the table of processes that this one has it
        all.
        """
        self._announce_all()
        snapshot = self._current.snapshot
        if self._changes or self._announcing.locked():
            return  # another thread is still telling them, and comes here after that
        mine = self._entry(snapshot)
        kind = None if self._noted == mine else self._kind()
        if self.host is None or kind is None:
            return
        try:
            if self.host.slots.note(
                kind, snapshot.revision, snapshot.digest, self._applied_at, self.error
            ):
                self._noted = mine
        except (WaffleError, OSError) as error:
            self._trouble(str(error))

    def _entry(self, snapshot: Snapshot) -> tuple[int, bytes, str]:
        """Return what this process's entry in the table of processes depends on."""
        return os.getpid(), snapshot.digest, self.error

    @abstractmethod
    def _boot(self) -> None:
        """Find the values to start with, or raise."""

    @abstractmethod
    def _fetch(self, host: HostFiles, *, forced: bool, strict: bool = False) -> None:
        """Under the lock: read the store and publish it, unless somebody else just has."""

    def leave(self) -> None:
        """Take this process out of the table."""
        if self.host is not None:
            self.host.slots.leave()

    def processes(self) -> list[ProcessInfo]:
        """Return the living processes that serve this application on this host."""
        return [] if self.host is None else list(self.host.slots)

    def _trouble(self, error: str, cause: Exception | None = None) -> None:
        """Log an error once per incident, and show it in the status."""
        if error != self.error:
            self.error = error
            self._say(logging.ERROR, error, cause)

    def _say(self, level: int, text: str, cause: Exception | None = None) -> None:
        revision = self._current.snapshot.revision
        log.log(
            level,
            "uwsgi_waffle: %s (pid %d, %s, revision %d)",
            text,
            os.getpid(),
            self._kind() or "master",
            revision,
            exc_info=cause,
        )


def difference(new: Snapshot, old: Snapshot) -> Change | None:
    """Return what ``new`` changes in ``old``, ``None`` if nothing."""
    before = old.values.__dict__
    # As JSON compares: 1 isn't true, and neither is it within a list.
    names = [
        name
        for name, value in new.values.__dict__.items()
        if value is not (other := before[name])
        and (
            value != other
            or type(value) is not type(other)
            or (isinstance(value, (list, dict, tuple)) and repr(value) != repr(other))
        )
    ]
    if not names:
        return None
    return Change(
        new.revision,
        old=MappingProxyType({name: old.values.__dict__[name] for name in names}),
        new=MappingProxyType({name: new.values.__dict__[name] for name in names}),
    )
