"""What the campaign has found and no other test of it would find each time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from uwsgi_waffle.snapshot import SnapshotDamaged, _digest, decode

from ..unit.conftest import ALWAYS, Host, Process

DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: os.truncate(path, 3),
    "overwritten": lambda path: path.write_bytes(b"noise"),
}


@pytest.fixture
def host(tmp_path: Path, quiet_host: None) -> Host:
    return Host(tmp_path)


@pytest.fixture
def writer(host: Host) -> Process:
    return host.start()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_published_snapshot_that_is_lost_while_somebody_writes(
    host: Host, writer: Process, damage: str
) -> None:
    """Who hasn't taken it yet, and can't have the lock, reads the store: the update had returned."""
    reader, busy = host.start(), host.start()
    writer.waffle.update({"LIMIT": 20})
    for path in host.snapshots.iterdir():
        DAMAGE[damage](path)
    with busy.files.lock(5):
        reader.tick()
        assert (reader.waffle.values.LIMIT, reader.waffle.revision) == (20, 1)
    writer.waffle.update({"LIMIT": 21})
    assert reader.waffle.values.LIMIT == 21


def test_a_header_that_is_overwritten_while_somebody_writes(host: Host, writer: Process) -> None:
    reader, busy = host.start(), host.start()
    writer.waffle.update({"LIMIT": 20})
    with busy.files.lock(5):
        with host.header.open("r+b") as header:
            header.write(bytes(range(200)))
        assert (reader.waffle.values.LIMIT, reader.waffle.revision) == (20, 1)


def test_a_lost_snapshot_and_a_store_that_is_down(host: Host, writer: Process) -> None:
    """Two faults at once: what was served goes on being served."""
    reader, busy = host.start(host.store()), host.start()
    writer.waffle.update({"LIMIT": 20})
    reader.state.store.failing = ALWAYS  # type: ignore[attr-defined]  # a `FaultyStore`
    for path in host.snapshots.iterdir():
        path.unlink()
    with busy.files.lock(5):
        reader.tick()
        assert reader.waffle.values.LIMIT == 10
    assert "the store is down" in reader.state.error


@pytest.mark.parametrize(
    "blob", [b"", b"\n{}", b"x\n{}", b"-1\n{}", b"1_0\n{}", b" 1\n{}", b"9" * 5000 + b"\n{}"]
)
def test_a_checksum_over_no_snapshot(blob: bytes) -> None:
    """Found by fuzzing: an error of another kind would have stopped the start of an application."""
    with pytest.raises(SnapshotDamaged):
        decode(blob, _digest(blob))


def test_a_header_cut_off_while_somebody_writes_is_no_folder_in_the_way(
    host: Host, writer: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by fuzzing: no digest at all was taken for the name of the folder of snapshots."""
    reader = host.start()
    with writer.files.lock(5):
        os.truncate(host.header, 0)
        reader.tick()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
