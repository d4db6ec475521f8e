"""The check of rights: can the server's user use the files that its processes share?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import unix
from ..host import HostFiles
from ..identity import mount_of
from ..state import WaffleState
from .finding import Finding, Processes

__all__ = ["Account", "check_folder"]

#: File systems where locks and renames don't reach other hosts.
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs"}
)
READ_WRITE, ALL, ENTER = 6, 7, 1  # as `stat` numbers the rights of others


@dataclass(frozen=True, slots=True)
class Account:
    """The user of a process."""

    uid: int
    gids: frozenset[int]

    def __str__(self) -> str:
        return unix.user_name(self.uid) or f"user {self.uid}"

    def may(self, path: Path, bits: int) -> bool:
        """Return whether the user has these rights. Access control lists aren't considered."""
        found = path.stat()
        if self.uid == 0:
            return True
        if found.st_uid == self.uid:
            return found.st_mode >> 6 & bits == bits
        return (found.st_mode >> 3 if found.st_gid in self.gids else found.st_mode) & bits == bits


def check_folder(state: WaffleState, host: HostFiles, processes: Processes) -> Iterator[Finding]:
    """The shared files must be on this host, and the server's user must be able to write SQLite's.

    A process that can't use the folder reports that as its error.
    """
    folder, owner = host.folder.path, Account(host.folder.owner, frozenset())
    mount = mount_of(os.path.realpath(folder))
    servers = (process.server for process in processes if "uid" in process.server)
    accounts = {Account(server["uid"], frozenset(server.get("gids", ()))) for server in servers}
    found = [finding for account in accounts for finding in _refused(state, account)]
    if mount is not None and mount.kind in NETWORK:
        text = (
            f"{folder} is on a network file system ({mount.kind}), where processes of other hosts "
            "neither lock nor see it reliably"
        )
        change = "Set WAFFLE_WATCHER_FILE to a path on a local disk; the store may be anywhere."
        found.append(Finding("error", "folder", text, change))
    yield from found or [Finding("ok", "folder", f"{folder} belongs to {owner}")]


def _refused(state: WaffleState, account: Account) -> Iterator[Finding]:
    """Yield what keeps an account from writing the file of a store that is one."""
    if state.store.file is None or not state.store.file.is_file():
        return
    database = state.store.file.absolute()
    needed = dict.fromkeys(database.parents, ENTER) | {database: READ_WRITE, database.parent: ALL}
    for path, bits in needed.items():
        if not account.may(path, bits):
            done = "enter" if bits == ENTER else "write"
            text = f"{account}, as whom the server runs, can't {done} {path}"
            yield Finding("error", "folder", text, f"Let {account} {done} {path}.")
