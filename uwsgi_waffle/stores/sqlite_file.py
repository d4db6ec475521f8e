"""The file of a SQLite database: who owns it, who may write it, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote, urlencode

import sqlalchemy as sa

from .. import unix
from ..errors import SchemaError, StoreReadOnly, StoreUnavailable
from ..identity import sqlite_path
from ..privileges import acting_user, exposed_to, foreign_owner, make_folder
from .drivers import in_memory
from .translation import CANT_OPEN

__all__ = ["SQLiteFile", "absolute"]


class SQLiteFile:
    """The file that a URL names.

    Args:
        url: a SQLite URL; its path is absolute.
        timeout: seconds to wait for another writer, unless the URL says how many.

    Attributes:
        path: the file's.

    Raises:
        StoreUnavailable: it names a database in memory.
        SchemaError: its timeout is no number.
    """

    def __init__(self, url: sa.URL, timeout: float) -> None:
        if in_memory(url.database, url.query.get("mode")):
            raise StoreUnavailable(
                "A SQLite database in memory can't be shared by processes: name a file, or use "
                "MemoryStore() in a test."
            )
        options = dict(url.query)
        try:
            self._timeout = float(str(options.pop("timeout", timeout)))
        except ValueError:
            raise SchemaError("WAFFLE_STORE_URL: its timeout is a number of seconds.") from None
        if options.pop("uri", None) is None:  # then SQLAlchemy doesn't give them to SQLite either
            options.clear()
        # One that has vanished is an error, not a new empty database.
        self._mode = "ro" if options.pop("mode", "") == "ro" else "rw"
        self._options = urlencode({**options, "mode": self._mode})
        self.path = Path(str(url.database))

    def explain(self, error: StoreUnavailable) -> str:
        """Return what to do if the file is gone, or another user's; else nothing."""
        cause = error.__cause__
        is_denied = isinstance(cause, PermissionError)
        if cause is None:
            return ""
        if not is_denied and self._is_gone():
            return (
                "the file is gone. Restore it. To start afresh instead, stop the server and delete "
                "the folder beside the watch file (WAFFLE_WATCHER_FILE + '.d')."
            )
        if not (is_denied or isinstance(error, StoreReadOnly) or f"{CANT_OPEN}." in str(error)):
            return ""
        beside = filter(os.path.exists, (f"{self.path}-wal", f"{self.path}-shm"))
        return foreign_owner(acting_user(self.path), self.path, self.path.parent, *beside)

    def _is_gone(self) -> bool:
        try:
            self.path.stat()
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return False

    def connect(self) -> sqlite3.Connection:
        """Open the file."""
        uri = f"file:{quote(str(self.path))}?{self._options}"
        return sqlite3.connect(uri, uri=True, timeout=self._timeout, check_same_thread=False)

    def create(self) -> None:
        """Create the file and its folder, unless it is there.

        Raises:
            SchemaError: others may write the folder, and so replace the file.
        """
        if self._mode == "ro":
            return
        path, folder = self.path, self.path.parent
        for parent in reversed(path.parents):
            make_folder(parent, 0o700 if parent == folder else 0o755)
        who, remedy = exposed_to(folder, path)
        if who == "every user" and not path.exists():
            raise SchemaError(
                f"WAFFLE_STORE_URL: {who} may write {folder}, and so replace the database "
                f"{path.name} there. Run: {remedy}"
            )
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:  # somebody else has set it up
            return
        unix.fchmod(fd, 0o600)  # whatever the umask
        os.close(fd)
        connection = self.connect()
        try:
            # WAL: readers go on while somebody writes; the setting stays in the file.
            connection.execute("PRAGMA journal_mode = WAL").close()
        finally:
            connection.close()


def absolute(url: sa.URL, folder: str) -> sa.URL:
    """Return a SQLite URL with an absolute path, and no URI; a relative one is in ``folder``."""
    if in_memory(url.database, url.query.get("mode")):
        return url
    database = str(url.database)
    if database.startswith("file:"):
        url = url.update_query_dict({"uri": "true"})
    return url.set(database=os.path.join(folder, sqlite_path(database)))
