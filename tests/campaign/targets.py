"""What reads bytes that anybody may have written: none of it may raise or hang."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import uwsgi_waffle
from uwsgi_waffle.host import HostFiles, ProcessInfo, is_current, snapshot_id_in
from uwsgi_waffle.schema import Schema
from uwsgi_waffle.snapshot import ID_SIZE, SnapshotDamaged, decode
from uwsgi_waffle.stores.rows import RowHistory
from uwsgi_waffle.wake.redis import sender_of


@cache
def files() -> HostFiles:
    opened = HostFiles(Path(tempfile.mkdtemp(prefix="waffle-")) / "waffle.watch")
    opened.open()
    return opened


@cache
def schema() -> Schema:
    return Schema.declare({"A": {"default": 0}, "B": {"default": ""}, "ANY": {"default": None}})


def snapshot(data: bytes) -> None:
    """Read them as a snapshot, with their own checksum and with another one."""
    with suppress(SnapshotDamaged):
        decode(data, data[:ID_SIZE])
        raise AssertionError("these bytes hold their own checksum")
    with suppress(SnapshotDamaged, uwsgi_waffle.InvalidValue):
        found = decode(data, hashlib.sha256(data).digest()[:ID_SIZE])
        assert found.revision >= 0
        schema().load(found.values)


def header(data: bytes) -> None:
    """Put them over the header, and ask everything of it."""
    ours = files()
    ours.open()
    os.truncate(ours.folder.path / "header", 0)
    (ours.folder.path / "header").write_bytes(data)
    words = ours.words()
    is_current(words)
    ours.snapshots.read(snapshot_id_in(words))
    notes = ours.notes()
    assert (notes.updates, notes.checked_at, notes.retry_at) >= (0, 0, 0)
    assert isinstance(notes.error, str)
    ours.is_touched()
    with ours.try_lock() as locked:
        assert locked is not None
        ours.consume_touch(locked)
        locked.set_notes(error="down")
        locked.publish(bytes(range(8)), locked.invalidate())
    assert ours.notes().error == "down"
    assert is_current(ours.words())
    assert snapshot_id_in(ours.words()) == bytes(range(8))


def process(data: bytes) -> None:
    """Read them as what a living process, and the listener, say of themselves."""
    ours = files()
    ours.open()
    ours.processes.report(ProcessInfo(1, "worker 1", 1, 0.0, "", ""))
    (ours.folder.path / "processes" / ours.processes.token).write_bytes(data)
    for found in ours.processes:
        assert (found.pid, found.revision, found.applied_at) >= (0, 0, 0.0)
    assert ours.listener_lock.acquire()
    (ours.folder.path / "listener").write_bytes(data)
    ours.listener()


def message(data: bytes) -> None:
    """Hear them in the channel."""
    sender = sender_of(data)
    assert not sender or data.endswith(sender.encode())


def history(data: bytes) -> None:
    """Read them as the history in the row of an application's own table."""
    found = RowHistory.parse(data.decode(errors="replace"), 7)
    found.undo({"A": "1"}, 3)
    assert RowHistory.parse(found.to_json(10_000), 7).since >= found.since


TARGETS: dict[str, Callable[[bytes], None]] = {
    call.__name__: call for call in (snapshot, header, process, message, history)
}
