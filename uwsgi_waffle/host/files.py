"""What the processes of one host share: the watch file, and the folder beside it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from ..errors import SchemaError
from ..identity import same_place, same_store, shown
from ..privileges import acting_user, warn_if_exposed
from .header import Header, LockedHeader, lock_within
from .locks import LockedFile, read_locked
from .private import PrivateFolder, ensure_plain_file
from .processes import Processes
from .snapshots import Snapshots

__all__ = ["HostFiles"]

LISTENER = "listener"

_used_here: weakref.WeakSet[HostFiles] = weakref.WeakSet()  # by applications of this process


class HostFiles:
    """The shared files of the watch file `WAFFLE_WATCHER_FILE`. A fork changes nothing here.

    Args:
        identity: returns that of the store which they belong to, empty if it isn't known.
        database: the store's SQLite file, which an error names too.

    Attributes:
        listener_lock: held by the process that listens to other hosts.
        words, notes, open, invalidate: those of the header.
    """

    shared = True

    def __init__(
        self,
        watch_file: Path,
        identity: Callable[[], str] = str,
        database: Path | None = None,
    ) -> None:
        self.watch_file, self._identity = watch_file.absolute(), identity
        self._database = database
        path = self.watch_file.with_name(self.watch_file.name + ".d")
        warn_if_exposed(path)
        # In a folder of root's, which nobody can exchange, this one may have been given away.
        self.folder = PrivateFolder(path, acting_user(path) or acting_user(path / "header"))
        self.bell_folder = self.folder.subfolder("bell")
        self.header = header = Header(self.folder, self._ensure)
        self.snapshots = Snapshots(self.folder.subfolder("snapshots"))
        self.processes = Processes(self.folder.subfolder("processes"))
        self.listener_lock = LockedFile(self.folder, LISTENER)
        self.words, self.notes, self.invalidate = header.words, header.notes, header.invalidate
        self.open = header.open
        self._watch, self._watch_inode, self._known_stamp = str(self.watch_file), -1, ""

    @property
    def watched_id(self) -> object:
        """Changes when uWSGI's master has to monitor other files than before.

        Where the header is another one, the folder may be, and so the bell in it.
        """
        return (self._watch_inode, self.header.id)

    def _ensure(self) -> None:
        owner, folder = self.folder.owner, self.folder.path
        ensure_plain_file(self.watch_file, owner, folder, database=self._database)
        self.folder.ensure()
        self.bell_folder.ensure()

    def wake(self) -> None:
        """Wake idle workers: touch the bell, a folder that uWSGI's master monitors.

        If that can't be, their timer wakes them.
        """
        with suppress(OSError):
            try:
                self.bell_folder.touch()
            except OSError:  # it is missing
                self.bell_folder.ensure()

    def listener(self) -> dict[str, object]:
        """Return ``pid`` and ``error`` of the process that listens; empty if there is none."""
        try:
            return read_locked(self.folder, LISTENER) or {}
        except FileNotFoundError:  # nobody has listened yet
            return {}
        except OSError as error:
            return {"error": str(error)}

    @contextmanager
    def try_lock(self) -> Iterator[LockedHeader | None]:
        """Hold the header's lock, if it is free; whoever holds it, has noted the store.

        Raises:
            SchemaError: living processes use the files for another store.
        """
        with self.header.try_lock() as header:
            if header is not None and (identity := self._identity()):
                self._bind_store(header, identity)
            yield header

    def lock(self, timeout: float) -> AbstractContextManager[LockedHeader]:
        """Hold the header's lock; errors as above and in `lock_within`."""
        busy = (
            f"Another process has held the lock on {self.folder.path}/header for more than "
            f"{timeout:g} s, or many have in turn; `lslocks` (on macOS `lsof`) names who holds it. "
            "That process may be stopped"
        )
        return lock_within(timeout, self.try_lock, busy)

    def _bind_store(self, header: LockedHeader, identity: str) -> None:
        known = header.notes().store
        if known and not same_store(known, identity):
            used_here = any(host.header.id == self.header.id for host in _used_here)
            if used_here or any(self.processes):
                raise SchemaError(
                    f"WAFFLE_WATCHER_FILE {self.watch_file} is used for the store "
                    f"{shown(known)}, not for {shown(identity)}. Give each application a watch "
                    "file of its own. If both are one store, write its URL in the same way. If the "
                    "store has moved, stop all processes that use it, this one too, and start anew."
                )
            if not same_place(known, identity):
                header.reset()
        if not (known and same_store(known, identity)):
            header.set_notes(store=identity)
        _used_here.add(self)

    def is_touched(self) -> bool:
        """Return whether somebody touched the watch file since that was noted.

        Raises:
            HostFilesError: it can't be used.
        """
        stamp = self._watch_stamp()
        if stamp == self._known_stamp:
            return False
        self._known_stamp = self.notes().watch_stamp
        return stamp != self._known_stamp

    def consume_touch(self, header: LockedHeader) -> None:
        """Under the lock: if somebody touched the watch file, invalidate, then note how it is."""
        stamp = self._watch_stamp()
        if stamp != header.notes().watch_stamp:
            header.invalidate()
            header.set_notes(watch_stamp=stamp)

    def _watch_stamp(self) -> str:
        try:
            found = os.lstat(self._watch)
        except FileNotFoundError:
            found = ensure_plain_file(self.watch_file, self.folder.owner)
        self._watch_inode = found.st_ino
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
