"""The file of a SQLite database: who owns it, who may write it, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote, urlencode

import sqlalchemy as sa

from .. import unix
from ..errors import SchemaError, StoreUnavailable
from ..identity import sqlite_path
from ..privileges import acting_user, exposed_to, foreign_owner, make_folder, resolve
from .drivers import in_memory

__all__ = ["SQLiteFile", "absolute", "located"]


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
        self._database, self._query = str(url.database), url.query
        try:
            self._timeout = float(str(url.query.get("timeout", timeout)))
        except ValueError:
            raise SchemaError("WAFFLE_STORE_URL: its timeout is a number of seconds.") from None
        self.is_uri = self._database.startswith("file:")  # the URL itself says how to open it
        self.path = Path(sqlite_path(self._database))

    def is_gone(self) -> bool:
        """Return whether the file is missing, as far as this process may look."""
        if self.is_uri:
            return False
        try:
            self.path.stat()
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return False

    def foreign_owner(self) -> str:
        """Return what to do if the file or its folder is another user's; empty if it isn't."""
        beside = filter(os.path.exists, (f"{self.path}-wal", f"{self.path}-shm"))
        return foreign_owner(acting_user(self.path), self.path, self.path.parent, *beside)

    def connect(self) -> sqlite3.Connection:
        """Open the file; one that has vanished is an error, not a new empty database."""
        if self.is_uri:
            query = {key: value for key, value in self._query.items() if key != "uri"}
            path = f"{self._database}?{urlencode(query)}"
        else:
            path = f"file:{quote(os.path.abspath(self.path))}?mode=rw"
        return sqlite3.connect(path, uri=True, timeout=self._timeout, check_same_thread=False)

    def create(self) -> None:
        """Create the file and its folder, unless it is there.

        Raises:
            SchemaError: others may write the folder, and so replace the file.
        """
        if self.is_uri:
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
        connection = sqlite3.connect(path, timeout=self._timeout)
        try:
            # WAL: readers go on while somebody writes; the setting stays in the file.
            connection.execute("PRAGMA journal_mode = WAL").close()
        finally:
            connection.close()


def absolute(url: sa.URL, folder: str) -> sa.URL:
    """Return a SQLite URL with an absolute path; a relative one is in ``folder``."""
    path = str(url.database or "")
    if in_memory(path, url.query.get("mode")) or path.startswith(("/", "file:/")):
        return url
    if path.startswith("file:"):
        return url.set(database=f"file:{quote(folder)}/{path.removeprefix('file:')}")
    return url.set(database=os.path.abspath(os.path.join(folder, path)))


def located(url: sa.URL, folder: Path) -> sa.URL:
    """Return the same for an application's folder, with the links in a path followed."""
    url = absolute(url, str(resolve(folder)))
    is_uri = str(url.database).startswith("file:")
    return url if is_uri else url.set(database=str(resolve(Path(str(url.database)))))
