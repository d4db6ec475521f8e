"""The files of the published snapshots: each is found by its id, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from uwsgi_waffle import HostFilesError
from uwsgi_waffle.host import HostFiles
from uwsgi_waffle.snapshot import encode

from ..host import Host, fill_disk
from .test_private import INTRUDERS

ONE, TWO, THREE = (encode(number, {"A": str(number)}) for number in (1, 2, 3))


def file_of_one(host: Host) -> Path:
    return host.snapshots / ONE.id.hex()


def test_there_is_none_at_first(shared: HostFiles) -> None:
    assert shared.snapshots.read(ONE.id) is None
    assert shared.snapshots.read(bytes(8)) is None
    shared.snapshots.prune()


def test_each_is_found_by_its_id(shared: HostFiles, others: HostFiles) -> None:
    shared.snapshots.write(ONE)
    shared.snapshots.write(TWO)
    assert (others.snapshots.read(ONE.id), others.snapshots.read(TWO.id)) == (ONE, TWO)


def test_all_but_those_that_are_named_are_removed(host: Host, shared: HostFiles) -> None:
    for encoded in (ONE, TWO, THREE):
        shared.snapshots.write(encoded)
    (host.snapshots / "noise").touch(0o600)
    shared.snapshots.prune(TWO.id, THREE.id)
    assert {path.name for path in host.snapshots.iterdir()} == {TWO.id.hex(), THREE.id.hex()}


@pytest.mark.parametrize(
    "content",
    [b"", b"noise", ONE.blob[:-1], ONE.blob + b"x", ONE.blob.replace(b"1", b"2"), TWO.blob],
)
def test_a_damaged_or_exchanged_one_counts_for_none(
    host: Host, shared: HostFiles, content: bytes
) -> None:
    shared.snapshots.write(ONE)
    file_of_one(host).write_bytes(content)
    assert shared.snapshots.read(ONE.id) is None
    shared.snapshots.write(ONE)
    assert shared.snapshots.read(ONE.id) == ONE


@pytest.mark.parametrize("make", INTRUDERS)
def test_what_is_no_file_of_ours_counts_for_none(
    host: Host, shared: HostFiles, make: Callable[[Path], None]
) -> None:
    shared.snapshots.write(ONE)
    file_of_one(host).unlink()
    make(file_of_one(host))
    assert shared.snapshots.read(ONE.id) is None


def test_a_folder_that_was_removed_is_made_again(host: Host, shared: HostFiles) -> None:
    shared.snapshots.write(ONE)
    shutil.rmtree(host.snapshots)
    assert shared.snapshots.read(ONE.id) is None
    shared.snapshots.write(ONE)
    assert shared.snapshots.read(ONE.id) == ONE


def test_a_full_disk_leaves_no_half_file(
    host: Host, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch)
    text = f"snapshots/{ONE.id.hex()}: No space left on device. Make room on this disk."
    with pytest.raises(HostFilesError, match=text):
        shared.snapshots.write(ONE)
    assert list(host.snapshots.iterdir()) == []
