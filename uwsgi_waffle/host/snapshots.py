"""The published snapshots, each in a file that is named by its id."""

from __future__ import annotations

from ..snapshot import Encoded, SnapshotDamaged, decode
from .private import PrivateFolder

__all__ = ["Snapshots"]


class Snapshots:
    """Snapshot files. They may be written early: nobody reads one that the header doesn't name."""

    def __init__(self, folder: PrivateFolder) -> None:
        self._folder = folder

    def write(self, encoded: Encoded) -> None:
        """Under the lock: write a snapshot.

        Raises:
            HostFilesError: the disk is full, or the folder can't be written.
        """
        self._folder.write(encoded.id.hex(), encoded.blob)

    def read(self, snapshot_id: bytes) -> Encoded | None:
        """Return a snapshot, or ``None`` if its file is gone, damaged or unreadable."""
        if not any(snapshot_id):
            return None
        try:
            return decode(self._folder.read(snapshot_id.hex()), snapshot_id)
        except (OSError, SnapshotDamaged):  # the store has the values
            return None

    def prune(self, *keep: bytes) -> None:
        """Under the lock: remove all snapshots but those with these ids."""
        names = {snapshot_id.hex() for snapshot_id in keep}
        for name in self._folder.names():
            if name not in names:
                self._folder.remove(name)
