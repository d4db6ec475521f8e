"""A server in a chroot, and commands outside: they are processes of one host."""

from __future__ import annotations

import ctypes
import logging
import os
from pathlib import Path

import pytest

from ..host import Host, forked, logged

IS_LINUX = hasattr(ctypes.CDLL(None), "setfsuid")  # elsewhere there never is a /proc
WARNING = "this process runs in a chroot or has no /proc"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may chroot")
@pytest.mark.parametrize("first", ["inside", "outside"])
def test_they_share_a_store_whose_paths_differ(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str
) -> None:
    outside = host.start()
    if first == "inside":
        outside.waffle.update({"LIMIT": 20})
        outside.state.leave()
        (host.folder / "header").unlink()

    def serve() -> None:
        os.chroot(tmp_path)
        os.chdir("/")
        inside = Host(Path("/"))
        for _ in range(2):  # applications of one process
            assert (20 if first == "inside" else 10) == inside.start().waffle.values.LIMIT
        lines = logged(caplog, logging.WARNING)
        assert [WARNING in line for line in lines] == [True] * IS_LINUX

    caplog.clear()
    with forked(serve):
        outside = host.start()
        assert len(list(outside.files.processes)) >= 2
        assert outside.waffle.update({"LIMIT": 30}).revision
        assert WARNING not in caplog.text, "here is no chroot"
