"""The values of one revision: frozen in memory, and as the bytes that a host's processes share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

__all__ = [
    "ID_SIZE",
    "Change",
    "Committed",
    "Encoded",
    "Snapshot",
    "SnapshotDamaged",
    "Update",
    "decode",
    "difference",
    "encode",
]

ID_SIZE = 8


class SnapshotDamaged(ValueError):
    """The bytes aren't a snapshot that this package wrote."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a process serves.

    Attributes:
        revision: its revision.
        id: the id of its encoded form.
        values: the values.
        temporary: until when values count that go back by themselves, by name.
    """

    revision: int
    id: bytes
    values: BaseModel
    temporary: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What an ``on_change`` hook gets.

    Attributes:
        revision: the revision that brought the change.
        old: the changed variables with the values that this process served before.
        new: the same variables with the values that it serves now.
    """

    revision: int
    old: Mapping[str, Any] = field(repr=False)  # they may be secrets
    new: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Update:
    """What an ``on_update`` hook gets.

    Attributes:
        revision: the revision that the update made.
        old: the changed variables with the values that were stored before, or their defaults.
        new: the same variables with the values that count from now on.
        actor: who changed them; ``outside`` for an edit behind the package's back.
        note: why.
        at: when, in UTC, by the clock of this host.
    """

    revision: int
    old: Mapping[str, Any] = field(repr=False)  # they may be secrets
    new: Mapping[str, Any] = field(repr=False)
    actor: str | None
    note: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Committed:
    """What a revision changed in the store: JSON texts by name, ``None`` where none is stored.

    Attributes:
        retimed: whether it changed until when values count.
    """

    revision: int
    old: Mapping[str, str | None] = field(repr=False)  # they may be secrets
    new: Mapping[str, str | None] = field(repr=False)
    actor: str | None = None
    note: str | None = None
    retimed: bool = False

    @property
    def changed(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted(self.new))


@dataclass(frozen=True, slots=True)
class Encoded:
    """A snapshot as bytes.

    Attributes:
        revision: its revision.
        values: one JSON object.
        id: the start of the SHA-256 of ``blob``.
        blob: revision and values together.
    """

    revision: int
    values: bytes = field(repr=False)
    id: bytes
    blob: bytes = field(repr=False)


def encode(revision: int, values: Mapping[str, str]) -> Encoded:
    """Encode ``values``, JSON texts by name. Equal input gives equal bytes."""
    body = ",".join([f"{_quoted(name)}:{text}" for name, text in sorted(values.items())]).encode()
    blob = b"%d\n{%s}" % (revision, body)
    return Encoded(revision, b"{%s}" % body, _id(blob), blob)


def _quoted(name: str) -> str:
    return f'"{name}"' if name.isascii() and name.isidentifier() else json.dumps(name)


def decode(blob: bytes, snapshot_id: bytes) -> Encoded:
    """Read what `encode` wrote.

    Raises:
        SnapshotDamaged: the bytes don't have this id.
    """
    if _id(blob) != snapshot_id:
        raise SnapshotDamaged(f"the checksum does not hold ({len(blob)} bytes)")
    revision, _, values = blob.partition(b"\n")
    if not (revision.isdigit() and len(revision) < 20):
        raise SnapshotDamaged("it doesn't begin with a revision")
    return Encoded(int(revision), values, snapshot_id, blob)


def _id(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()[:ID_SIZE]


def difference(new: Snapshot, old: Snapshot) -> Change | None:
    """Return what ``new`` changes in ``old``, ``None`` if nothing."""
    before, after = old.values.__dict__, new.values.__dict__
    # pydantic keeps the cached properties of a model there, too.
    names = [name for name in type(new.values).model_fields if _differs(after[name], before[name])]
    if not names:
        return None
    return Change(
        new.revision,
        old=MappingProxyType({name: before[name] for name in names}),
        new=MappingProxyType({name: after[name] for name in names}),
    )


def _differs(value: object, other: object) -> bool:
    """Compare as JSON does: 1 isn't true, and neither is it within a list."""
    if value is other:
        return False
    if value != other or type(value) is not type(other):
        return True
    return isinstance(value, (list, dict, tuple)) and repr(value) != repr(other)
