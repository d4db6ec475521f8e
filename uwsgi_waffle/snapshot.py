"""The values of one revision: frozen in memory, and as the bytes that the processes of a host
share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

__all__ = ["DIGEST_SIZE", "Change", "Encoded", "Snapshot", "SnapshotDamaged", "decode", "encode"]

DIGEST_SIZE = 8


class SnapshotDamaged(ValueError):
    """The bytes aren't a snapshot that this package wrote."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a process serves: all values of one revision, and the digest that names them."""

    revision: int
    digest: bytes
    values: BaseModel


@dataclass(frozen=True, slots=True)
class Change:
    """What an ``on_change`` hook is told.

    Attributes:
        revision: the revision that brought the change.
        old: the changed variables with the values that this process served before.
        new: the same variables with the values that it serves now.
    """

    revision: int
    old: Mapping[str, object] = field(repr=False)  # they may be secrets
    new: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A snapshot as bytes: ``blob`` is the revision and one JSON object, ``digest`` the start of
    its SHA-256.
    """

    revision: int
    values: bytes = field(repr=False)
    digest: bytes
    blob: bytes = field(repr=False)


def encode(revision: int, values: Mapping[str, str]) -> Encoded:
    """Write ``values``, JSON texts by name, as a snapshot; equal input gives equal bytes."""
    body = ",".join([f"{_quoted(name)}:{text}" for name, text in sorted(values.items())]).encode()
    blob = b"%d\n{%s}" % (revision, body)
    return Encoded(revision, b"{%s}" % body, _digest(blob), blob)


def _quoted(name: str) -> str:
    return f'"{name}"' if name.isascii() and name.isidentifier() else json.dumps(name)


def decode(blob: bytes, digest: bytes) -> Encoded:
    """Read what `encode` wrote.

    Raises:
        SnapshotDamaged: the bytes aren't those with this digest.
    """
    if _digest(blob) != digest:
        raise SnapshotDamaged(f"the checksum does not hold ({len(blob)} bytes)")
    revision, _, values = blob.partition(b"\n")
    if not (revision.isdigit() and len(revision) < 20):
        raise SnapshotDamaged("it doesn't begin with a revision")
    return Encoded(int(revision), values, digest, blob)


def _digest(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()[:DIGEST_SIZE]
