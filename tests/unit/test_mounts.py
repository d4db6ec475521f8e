"""Which mount a path is on, by the kernel's list."""

from __future__ import annotations

import os

import pytest

from uwsgi_waffle.identity import mount_of, parse_mounts

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 /a\\011b /net rw,relatime shared:2 master:1 - nfs4 server:/export rw
31 22 0:41 / /net/local rw - tmpfs tmpfs rw
32 22 0:42 / /with\\040späce rw - cifs //server/share rw
33 22 0:43 / /over rw - ext4 /dev/sdb1 rw
34 33 0:44 / /over rw - fuse.sshfs host: rw
35 22 0:45 / /Latin-\udcfc rw - nfs server:/export rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "place"),
    [
        ("/elsewhere/x", "ext4", "8:1:/elsewhere/x"),
        ("/net", "nfs4", "0:40:/a\tb/"),
        ("/net/a/b", "nfs4", "0:40:/a\tb/a/b"),
        ("/network", "ext4", "8:1:/network"),
        ("/net/local/x", "tmpfs", "0:41:/x"),
        ("/with späce/x", "cifs", "0:42:/x"),
        ("/over/x", "fuse.sshfs", "0:44:/x"),
        ("/Latin-\udcfc/x", "nfs", "0:45:/x"),
    ],
)
def test_it_is_the_nearest_and_the_last(path: str, kind: str, place: str) -> None:
    mount = mount_of(path, parse_mounts(os.fsencode(MOUNTS)))
    assert mount is not None
    assert (mount.kind, mount.place(path)) == (kind, place)


def test_there_may_be_none() -> None:
    """Not Linux, or a chroot to a folder that isn't a mount point."""
    assert mount_of("/x", parse_mounts(b"")) is None
