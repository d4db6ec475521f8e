"""A store in Redis itself, for those who share no SQL database."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from itertools import count, islice
from time import monotonic
from typing import Any

from ..errors import (
    InvalidValue,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    UnknownRevision,
    WaffleError,
)
from ..redis_client import connect, shown
from .contract import Commit, Decide, HistoryRow, Store, Stored

__all__ = ["RedisStore"]

REVISION, ROWS = (
    "WAFFLE_REVISION",
    "WAFFLE_ROWS",
)  # reserved names, so no variable's; the second counts the history
PAGE = 500  # history rows fetched at a time

# Carries out a commit if the revision is still the one that it was made upon. What can fail comes
# before what writes.
COMMIT = """
redis.call('LLEN', KEYS[2])
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[4], ARGV[5])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
local changes = cjson.decode(ARGV[6])
local at = 7
for _, kind in ipairs(changes) do
    if kind == 'set' then redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) else redis.call('HDEL', KEYS[1], ARGV[at]) end
    at = at + 2
end
for row = at, #ARGV do redis.call('LPUSH', KEYS[2], ARGV[row]) end
return 1
"""


class RedisStore(Store):
    """Keeps values and revision in one Redis hash, the history in a list beside it.

    A commit is one script that compares the revision first; if another host was faster, it is made
    anew upon what
    that one wrote. The history is kept whole: asking for one variable's, or for a rollback, reads
    all of it.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with user, password and database number, as
            redis-py reads it.
        prefix: the name of the hash; the list is called ``<prefix>:history``.
        timeout: seconds to wait for a connection, an answer, or for other hosts that are faster
            again and again.

    Raises:
        SchemaError: it isn't such a URL, or redis-py isn't installed.

    Redis must keep what it is told: with ``appendonly yes``, and with no eviction of keys that
    don't expire. With ``appendfsync everysec``,
    its default, it may lose what it was told in the last seconds before it was killed (see "Redis
    persistence" in its manual); with
    ``always`` it loses nothing.

    Example:
        >>> RedisStore("redis://:secret@cache.example/3").name
        'redis://:***@cache.example/3'
    """

    def __init__(self, url: str, *, prefix: str = "waffle", timeout: float = 5.0) -> None:
        try:
            import redis

            connect(url, setting="WAFFLE_STORE_URL", timeout=timeout)
        except ImportError:
            raise SchemaError(
                "RedisStore needs redis-py: pip install 'uwsgi_waffle[redis]'."
            ) from None
        self._redis: Any = redis
        self._url, self._timeout = url, timeout
        self._hash, self._list = prefix, f"{prefix}:history"
        self._of_thread = threading.local()

    @property
    def name(self) -> str:
        return shown(self._url) + ("" if self._hash == "waffle" else f" ({self._hash})")

    def prepare(self) -> None:
        with self._connected() as client, self._translated():
            if not client.hexists(
                self._hash, REVISION
            ):  # a replica may have it, and refuses to be written
                client.hsetnx(self._hash, REVISION, "0")

    def load(self) -> Stored:
        with self._connected() as client:
            return self._load(client)

    def load_behind_writers(self) -> Stored:
        return self.load()  # Redis carries out one script after the other

    def transact(self, decide: Decide) -> Stored:
        deadline = monotonic() + self._timeout
        with self._connected() as client:
            while True:
                stored = self._load(client)
                commit = decide(stored)
                if commit is None:
                    return stored
                if self._carry_out(client, stored, commit):
                    return stored.after(commit)
                if monotonic() > deadline:
                    raise StoreUnavailable(
                        f"{self.name}: other hosts were faster for {self._timeout:g} s. Nothing was changed; try again."
                    )

    def probe(self) -> None:
        with self._connected() as client, self._translated():
            client.hdel(
                self._hash, ""
            )  # a write that is refused where writing is, of a field that isn't there

    def history(self, limit: int, key: str | None = None) -> list[HistoryRow]:
        with self._connected() as client:
            return list(
                islice(
                    (row for row in self._rows(client) if key is None or row.key == key),
                    max(0, limit),
                )
            )

    def values_at(self, revision: int) -> Mapping[str, str]:
        with self._connected() as client:
            newest = self._load(client).revision
            if not 0 <= revision <= newest:
                raise UnknownRevision(f"There is no revision {revision}: the store is at {newest}.")
            with self._translated():
                counted = int(client.hget(self._hash, ROWS) or 0)
            rows = list(self._rows(client))
        if len(rows) < counted:
            raise UnknownRevision(
                f"Revision {revision} is no longer known: the list {self._list!r} has lost earlier changes."
            )
        texts = {row.key: row.new for row in reversed(rows) if row.revision <= revision}
        return {key: text for key, text in texts.items() if text is not None}

    def _carry_out(self, client: Any, stored: Stored, commit: Commit) -> bool:
        """Tell whether it was done; if not, the store has another revision by now."""
        kinds = json.dumps(
            ["remove" if text is None else "set" for text in commit.changes.values()]
        )
        changes = [part for key, text in commit.changes.items() for part in (key, text or "")]
        rows = [
            json.dumps({**asdict(row), "at": row.at.isoformat()})
            for row in commit.rows(stored, datetime.now(timezone.utc))
        ]
        numbers = (REVISION, stored.revision, stored.revision + 1, ROWS, len(rows))
        with self._translated():
            return bool(
                client.eval(COMMIT, 2, self._hash, self._list, *numbers, kinds, *changes, *rows)
            )

    def _load(self, client: Any) -> Stored:
        with self._translated():
            found: Mapping[bytes, bytes] = client.hgetall(self._hash)
        try:
            texts = {key.decode(): text.decode() for key, text in found.items()}
            revision = int(texts.pop(REVISION, "-1"))
            int(texts.pop(ROWS, "0"))
        except ValueError as error:
            raise StoreUnavailable(
                f"{self.name}: the hash {self._hash!r} isn't as it was written: {error}. Mend it."
            ) from error
        if revision < 0:
            raise StoreUnavailable(
                f"{self.name}: the hash {self._hash!r} has lost its revision: Redis has forgotten it (no persistence, an eviction, "
                "a flush). Restore it or, to start afresh, delete the folder beside the watch "
                "file, too."
            )
        return Stored(revision, texts)

    def _rows(self, client: Any) -> Iterator[HistoryRow]:
        """Yield the history, newest first; rows that are added meanwhile push others back, and
        those aren't told twice.
        """
        with self._translated():
            length = client.llen(self._list)
        for start in count(-length, PAGE):  # counted from the end, which stays where it is
            if start >= 0:
                return
            with self._translated():
                page = client.lrange(self._list, start, min(start + PAGE, 0) - 1)
            for raw in page:
                try:
                    fields = json.loads(raw)
                    row = HistoryRow(**{**fields, "at": datetime.fromisoformat(fields["at"])})
                except (ValueError, TypeError, KeyError) as error:
                    raise StoreUnavailable(
                        f"{self.name}: the list {self._list!r} isn't as it was written: {error!r}. Mend it."
                    ) from error
                yield row

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Open a connection for one call, so that none crosses a fork and none stays open in an
        idle worker.
        """
        client = getattr(self._of_thread, "client", None)
        if client is None:  # kept without a connection, for making one costs more than connecting
            client = self._of_thread.client = connect(
                self._url, setting="WAFFLE_STORE_URL", timeout=self._timeout
            )
        try:
            yield client
        finally:
            client.connection_pool.disconnect(inuse_connections=False)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Tell what Redis says in the errors of a store."""
        try:
            yield
        except UnicodeEncodeError as error:
            raise InvalidValue({"": f"{self.name} can't hold the value: {error.reason}"}) from None
        except self._redis.ReadOnlyError as error:
            raise StoreReadOnly(
                f"{self.name} refuses to be written: {error}. Nothing was changed."
            ) from error
        except WaffleError:
            raise
        except self._redis.ResponseError as error:
            if "READONLY" in str(error):
                raise StoreReadOnly(
                    f"{self.name} refuses to be written: {error}. Nothing was changed."
                ) from error
            raise StoreUnavailable(
                f"{self.name}: Redis refuses: {_sentence(error)} Nothing was changed."
            ) from error
        except (self._redis.RedisError, OSError, UnicodeError) as error:
            raise StoreUnavailable(
                f"{self.name}: {_sentence(error)} Look whether Redis answers; it is tried again without a restart."
            ) from error


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
