"""The published snapshots, each in a file that is named by its id."""

from __future__ import annotations

from contextlib import suppress

from ..errors import HostFilesError
from ..snapshot import Encoded, SnapshotDamaged, decode
from .private import PrivateFolder

__all__ = ["Snapshots"]

WRITE_ATTEMPTS = 10


class Snapshots:
    """Snapshot files. They may be written early: nobody reads one that the header doesn't name.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: PrivateFolder) -> None:
        self._folder = folder

    def write(self, encoded: Encoded) -> None:
        """Under the lock: write a snapshot.

        Raises:
            HostFilesError: the disk is full, or the folder can't be written.
        """
        for _ in range(WRITE_ATTEMPTS):
            try:
                self._folder.write(encoded.id.hex(), encoded.blob)
                return
            except FileNotFoundError:  # there is no folder, or somebody is just removing it
                with suppress(FileNotFoundError):
                    self._folder.ensure()
        raise HostFilesError(
            f"{self._folder.path} is removed again and again. Check who does that."
        )

    def read(self, snapshot: bytes) -> Encoded | None:
        """Return a snapshot, or ``None`` if its file is gone, damaged or unreadable."""
        if not any(snapshot):
            return None
        try:
            return decode(self._folder.read(snapshot.hex()), snapshot)
        except (OSError, SnapshotDamaged):  # the store has the values
            return None

    def prune(self, *keep: bytes) -> None:
        """Under the lock: remove all snapshots but these."""
        names = {snapshot.hex() for snapshot in keep}
        for name in self._folder.names():
            if name not in names:
                self._folder.remove(name)
