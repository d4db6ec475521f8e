"""The values of one revision: frozen in memory, and as the bytes that the processes of a host share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

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
    old: Mapping[str, object]
    new: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A snapshot as bytes: ``values`` is one JSON object, ``digest`` the start of the SHA-256 over the rest."""

    revision: int
    values: bytes
    digest: bytes
    blob: bytes


def encode(revision: int, values: Mapping[str, str]) -> Encoded:
    """Write ``values``, JSON texts by name, as a snapshot; equal input gives equal bytes."""
    body = ",".join(f"{json.dumps(name)}:{text}" for name, text in sorted(values.items())).encode()
    payload = b"%d\n{%s}\n" % (revision, body)
    checksum = hashlib.sha256(payload)
    blob = checksum.hexdigest().encode() + b"\n" + payload
    return Encoded(revision, b"{%s}" % body, checksum.digest()[:DIGEST_SIZE], blob)


def decode(blob: bytes) -> Encoded:
    """Read what `encode` wrote.

    Raises:
        SnapshotDamaged: the checksum doesn't hold.
    """
    checksum, _, payload = blob.partition(b"\n")
    actual = hashlib.sha256(payload)
    if checksum != actual.hexdigest().encode():
        raise SnapshotDamaged(f"checksum does not hold ({len(blob)} bytes)")
    revision, _, values = payload.partition(b"\n")
    return Encoded(int(revision), values[:-1], actual.digest()[:DIGEST_SIZE], blob)
