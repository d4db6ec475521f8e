"""What the campaign has found and no other test of it would find each time."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from uwsgi_waffle import StoreUnavailable
from uwsgi_waffle.snapshot import ID_SIZE, SnapshotDamaged, decode

from .sites import Process, Site, new_values, served, sqlite
from .tally import Tally

DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: os.truncate(path, 3),
    "overwritten": lambda path: path.write_bytes(b"noise"),
}


@pytest.fixture
def site(tmp_path: Path, quiet_host: None) -> Site:
    return Site(tmp_path, sqlite(tmp_path), Tally.of("found before"))


@pytest.fixture
def writer(site: Site) -> Process:
    return site.start()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_published_snapshot_that_is_lost_while_somebody_writes(
    site: Site, writer: Process, damage: str
) -> None:
    """The update had returned, so whoever looks sees it, though another has the lock."""
    reader, busy = site.start(), site.start()
    writer.waffle.update(new_values(20))
    for path in site.snapshots.iterdir():
        DAMAGE[damage](path)
    with busy.state.host.lock(5):
        reader.follow()
        assert served(reader) == (1, 20, 20)
    writer.waffle.update(new_values(21))
    assert served(reader) == (2, 21, 21)


def test_a_header_that_is_overwritten_while_somebody_writes(site: Site, writer: Process) -> None:
    """As above."""
    reader, busy = site.start(), site.start()
    writer.waffle.update(new_values(20))
    with busy.state.host.lock(5):
        with site.header.open("r+b") as header:
            header.write(bytes(range(200)))
        assert served(reader) == (1, 20, 20)


@pytest.mark.parametrize("by_copy", [False, True])
def test_a_header_that_goes_between_two_looks(
    site: Site, writer: Process, tmp_path: Path, by_copy: bool
) -> None:
    """A reader that compares the words only sees the update all the same."""
    reader = site.start()
    assert served(reader) == (0, 0, 0)
    if by_copy:
        shutil.copy2(site.header, tmp_path / "copy")
        (tmp_path / "copy").rename(site.header)
    else:
        site.header.unlink()
    writer.follow()
    writer.waffle.update(new_values(20))
    assert served(reader) == (1, 20, 20)


def test_a_lost_snapshot_and_a_store_that_is_down(
    site: Site, writer: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two faults at once: what was served goes on being served."""
    reader, busy = site.start(), site.start()
    writer.waffle.update(new_values(20))

    def fail() -> object:
        raise StoreUnavailable("the store is down")

    for call in ("load", "load_after_pending_writes"):
        monkeypatch.setattr(reader.state.store, call, fail)
    for path in site.snapshots.iterdir():
        path.unlink()
    with busy.state.host.lock(5):
        reader.follow()
        assert served(reader) == (0, 0, 0)
    reader.follow()
    assert served(reader) == (0, 0, 0)
    assert "the store is down" in reader.waffle.status()["store_error"]


BLOBS = [b"", b"\n{}", b"x\n{}", b"-1\n{}", b"1_0\n{}", b" 1\n{}", b"9" * 5000 + b"\n{}"]


@pytest.mark.parametrize("blob", BLOBS)
def test_a_checksum_over_no_snapshot(blob: bytes) -> None:
    """Found by fuzzing: another kind of error would have stopped an application's start."""
    with pytest.raises(SnapshotDamaged):
        decode(blob, hashlib.sha256(blob).digest()[:ID_SIZE])


def test_a_header_cut_off_while_somebody_writes(
    site: Site, writer: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by fuzzing: the missing id was taken for the name of a file. Nothing is logged."""
    reader = site.start()
    with writer.state.host.lock(5):
        os.truncate(site.header, 0)
        reader.tick()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
