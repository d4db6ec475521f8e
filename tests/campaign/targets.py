"""What reads bytes that anybody may have written: each takes them, and may neither raise nor hang."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import uwsgi_waffle
from uwsgi_waffle.hostfiles import HostFiles, is_settled
from uwsgi_waffle.schema import Schema
from uwsgi_waffle.server.channel import _is_from
from uwsgi_waffle.snapshot import DIGEST_SIZE, SnapshotDamaged, decode
from uwsgi_waffle.stores.rows import Log


@cache
def files() -> HostFiles:
    opened = HostFiles(Path(tempfile.mkdtemp(prefix="waffle-")) / "waffle.watch")
    opened.verify()
    return opened


@cache
def schema() -> Schema:
    return Schema.declare({"A": {"default": 0}, "B": {"default": ""}, "ANY": {"default": None}})


def snapshot(data: bytes) -> None:
    """Read them as a snapshot, with the checksum that they have and with another; validate what is
    in it.
    """
    with suppress(SnapshotDamaged):
        decode(data, data[:DIGEST_SIZE])
        raise AssertionError("these bytes hold their own checksum")
    with suppress(SnapshotDamaged, uwsgi_waffle.InvalidValue):
        found = decode(data, hashlib.sha256(data).digest()[:DIGEST_SIZE])
        assert found.revision >= 0
        schema().load(found.values)


def header(data: bytes) -> None:
    """Put them over the header, and ask everything of it."""
    ours = files()
    os.ftruncate(ours._fd, 0)
    os.pwrite(ours._fd, data, 0)
    is_settled(ours.peek())
    notes = ours.notes()
    assert notes.failures >= 0
    assert isinstance(notes.error, str)
    for process in ours.slots:
        assert process.pid > 0
    told = ours.listener()
    assert told.pid >= 0
    assert told.number >= 0
    ours.untold(), ours.coming(), ours.bell(), ours.is_touched(), ours.is_in_flight()
    ours.snapshot(ours.peek()[8:16])
    ours.last()
    with ours.try_lock() as locked:
        assert locked
        ours.mend()
        ours.take_touch()
        ours.fail("down")
    assert ours.notes().error == "down"
    assert ours.slots.note("worker 1", 1, bytes(8), 1, "")
    ours.slots.leave()


def message(data: bytes) -> None:
    """Hear them in the channel."""
    assert _is_from(data, lambda: -1) is False


def history(data: bytes) -> None:
    """Read them as the history in the row of an application's own table."""
    found = Log.parse(data.decode(errors="replace"), 7)
    found.undo({"A": "1"}, 3)
    assert Log.parse(found.to_json(10_000), 7).since >= found.since


TARGETS: dict[str, Callable[[bytes], None]] = {
    call.__name__: call for call in (snapshot, header, message, history)
}
