"""What the processes of one host share: the watch file, and the folder beside it."""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from ..errors import SchemaError
from ..identity import same_place, same_store, shown
from ..privileges import acting_user, warn_if_exposed
from .header import Header, LockedHeader
from .locks import LockedFile, read_locked
from .private import PrivateFolder, ensure_plain_file
from .processes import Processes
from .snapshots import Snapshots

__all__ = ["HostFiles"]

LISTENER = "listener"

_used_here: weakref.WeakSet[HostFiles] = weakref.WeakSet()  # by applications of this process


class HostFiles:
    """The shared files of the watch file `WAFFLE_WATCHER_FILE`. A fork changes nothing here.

    Attributes:
        listener_lock: held by the process that listens to other hosts.
        words, notes, open, try_lock, lock, invalidate: those of the header.
    """

    shared = True

    def __init__(self, watch_file: Path) -> None:
        self.watch_file = watch_file.absolute()
        path = self.watch_file.with_name(self.watch_file.name + ".d")
        warn_if_exposed(path)
        self.folder = PrivateFolder(path, acting_user(path))
        self.bell_folder = self.folder.subfolder("bell")
        self.header = header = Header(self.folder, self._ensure)
        self.snapshots = Snapshots(self.folder.subfolder("snapshots"))
        self.processes = Processes(self.folder.subfolder("processes"))
        self.listener_lock = LockedFile(self.folder, LISTENER)
        self.words, self.notes, self.invalidate = header.words, header.notes, header.invalidate
        self.open, self.try_lock, self.lock = header.open, header.try_lock, header.lock
        self._watch, self._watch_inode, self._known_stamp = str(self.watch_file), -1, ""

    @property
    def watched_id(self) -> object:
        """Changes when uWSGI's master has to monitor other files than before."""
        return (self._watch_inode, self.header.id)

    def _ensure(self) -> None:
        ensure_plain_file(self.watch_file, self.folder.owner)
        self.folder.ensure()
        self.bell_folder.ensure()

    def wake(self) -> None:
        """Wake idle workers: touch the bell, a folder that uWSGI's master monitors."""
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

    def bind_store(self, header: LockedHeader, identity: str) -> None:
        """Under the lock: note which store the files belong to.

        Raises:
            SchemaError: living processes use them for another store.
        """
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
