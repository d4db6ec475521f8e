"""Whether `flask waffle doctor` finds that a folder is on a network file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uwsgi_waffle.doctor.network import network_filesystem

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / {root}/net rw,relatime shared:2 master:1 - nfs4 server:/export rw
31 22 0:41 / {root}/net/local rw - tmpfs tmpfs rw
32 22 0:42 / {root}/with\\040späce rw - cifs //server/share rw
33 22 0:43 / {root}/over rw - ext4 /dev/sdb1 rw
34 33 0:44 / {root}/over rw - fuse.sshfs host: rw
35 22 0:45 / {root}/Latin-\udcfc rw - nfs server:/export rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> str:
    path = tmp_path / "mountinfo"
    path.write_bytes(os.fsencode(MOUNTS.format(root=tmp_path)))
    return str(path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("elsewhere/x", ""),
        ("net", "nfs4"),
        ("net/a/b", "nfs4"),
        ("network", ""),
        ("net/local/x", ""),
        ("with späce/x", "cifs"),
        ("over/x", "fuse.sshfs"),
        ("Latin-\udcfc/x", "nfs"),
    ],
)
def test_it_is_that_of_the_nearest_mount(
    tmp_path: Path, mountinfo: str, path: str, name: str
) -> None:
    assert network_filesystem(tmp_path / path, mountinfo) == name


def test_a_link_is_followed(tmp_path: Path, mountinfo: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "net")
    assert network_filesystem(tmp_path / "link" / "x", mountinfo) == "nfs4"


@pytest.mark.parametrize("content", [None, b""])
def test_where_the_kernel_lists_no_mounts_every_path_is_local(
    tmp_path: Path, content: bytes | None
) -> None:
    """Not Linux, or a chroot to a folder that isn't a mount point."""
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    assert network_filesystem(tmp_path, str(tmp_path / "list")) == ""
