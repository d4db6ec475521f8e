"""A store in Redis itself, for hosts that share no SQL database."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from heapq import merge
from itertools import islice
from time import monotonic
from typing import Any

from ..errors import (
    InvalidValue,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    UnknownRevision,
    WaffleError,
    missing_library,
    open_files_advice,
)
from ..identity import server_identity
from ..redis_client import connect, disconnect, error_message, import_redis
from ..urls import redact_url
from .contract import Commit, CommitBuilder, HistoryRow, Store, Stored
from .translation import retry_advice

__all__ = ["RedisStore"]

# Reserved names, which no variable can have; the second counts the rows of the history, the third
# holds `Stored.declared`.
REVISION, ROWS, DECLARED = "WAFFLE_REVISION", "WAFFLE_ROWS", "WAFFLE_DECLARED"
PAGE = 50  # history rows fetched at a time, because they may be long

ADVICE_OF_REFUSALS = {
    "WRONGTYPE": "The key is somebody else's: set WAFFLE_NAMESPACE.",
    "DB index is out of range": "Correct the number in the URL.",
    "NOREPLICAS": "Start the replicas, or lower min-replicas-to-write.",
    "OOM": "Make room, or raise maxmemory.",
}

# Carries out a commit if the revision is still the one that it was made for. What can fail comes
# before what writes.
COMMIT = """
redis.call('LLEN', KEYS[2])
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HINCRBY', KEYS[1], ARGV[4], ARGV[5])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
local actions = cjson.decode(ARGV[6])
local at = 7
for _, action in ipairs(actions) do
    if action == 'set' then
        redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    else
        redis.call('HDEL', KEYS[1], ARGV[at])
    end
    at = at + 2
end
for row = at, #ARGV do redis.call('LPUSH', KEYS[2], ARGV[row]) end
return 1
"""


class RedisStore(Store):
    """Keeps values and revision in one Redis hash, and the history in a list beside it.

    Both keys are in the same slot of a Redis Cluster. The URL must name the node that has it.

    A commit is one script that compares the revision first; if another host was faster, the commit
    is built again from what that host wrote. The history is kept whole: a rollback, and the history
    of one variable, read all of it.

    Redis must keep its data: set ``appendonly yes``, and no eviction of keys without expiry. With
    ``appendfsync everysec``, its default, it may lose the last seconds before it was killed (see
    "Redis persistence" in its manual); with ``always`` it loses nothing.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, with user, password and database number, as
            redis-py reads it.
        prefix: the name of the hash; the list is called ``{<prefix>}:history``.
        timeout: seconds to wait for a connection, an answer, or for other hosts that are faster
            again and again.

    Raises:
        SchemaError: it isn't such a URL, or redis-py isn't installed.

    Example:
        >>> RedisStore("redis://:secret@cache.example/3").name
        'redis://:***@cache.example/3'
    """

    def __init__(self, url: str, *, prefix: str = "waffle", timeout: float = 5.0) -> None:
        try:
            self._redis = import_redis()
            client = connect(url, setting="WAFFLE_STORE_URL", timeout=timeout)
        except ImportError as error:
            why = ". ".join(missing_library("redis-py", "redis", "redis"))
            raise SchemaError(f"RedisStore can't be used: {why}") from error
        self._clients = {os.getpid(): client}
        place = client.connection_pool.connection_kwargs
        host = place.get("path") or place.get("host", "localhost")
        what = f"{place.get('db') or 0} {prefix}"
        self._identity = server_identity("redis", host, place.get("port"), what)
        if master := getattr(client.connection_pool, "service_name", None):  # of sentinels
            self._identity = f"redis://{master}/{what}"
        self._url, self._timeout = url, timeout
        # What is in braces alone chooses the slot. 0.1 wrote the list without them.
        self._hash, self._old_list = prefix, f"{prefix}:history"
        self._list = self._old_list if "}" in prefix else f"{{{prefix}}}:history"

    @property
    def name(self) -> str:
        return redact_url(self._url) + ("" if self._hash == "waffle" else f" ({self._hash})")

    @property
    def identity(self) -> str:
        return self._identity

    def within(self, namespace: str) -> RedisStore:
        return RedisStore(self._url, prefix=f"{namespace}_{self._hash}", timeout=self._timeout)

    def prepare(self) -> None:
        with self._connected() as client:
            known = client.hexists(self._hash, REVISION)
        if not known:  # a replica that has it can't be written
            with self._connected(writing=True) as client:
                client.hsetnx(self._hash, REVISION, "0")

    def load(self) -> Stored:
        with self._connected() as client:
            return self._load(client)

    def transact(self, build_commit: CommitBuilder) -> Stored:
        deadline = monotonic() + self._timeout
        with self._opened() as client:
            while True:
                with self._mapped():
                    stored = self._load(client)
                commit = build_commit(stored)
                if commit is None:
                    return stored
                if self._carry_out(client, stored, commit):
                    return stored.with_commit(commit)
                if monotonic() > deadline:
                    raise StoreUnavailable(
                        f"{self.name}: other hosts were faster for {self._timeout:g} s. "
                        "Nothing was changed; try again."
                    )

    def probe(self) -> None:
        with self._connected(writing=True) as client:
            client.hdel(self._hash, "")  # a write, of a field that doesn't exist

    def history(
        self, limit: int, key: str | None = None, *, max_length: int | None = None
    ) -> list[HistoryRow]:
        with self._connected() as client:
            found = (row for row in self._rows(client) if key is None or row.key == key)
            return [row.cut(max_length) for row in islice(found, max(0, limit))]

    def values_at(self, revision: int) -> Mapping[str, str]:
        with self._connected() as client:
            self._load(client).check_revision(revision)
            written = int(client.hget(self._hash, ROWS) or 0)
            rows = list(self._rows(client))
        if len(rows) < written:
            raise UnknownRevision(
                f"Revision {revision} is no longer known: the list {self._list!r} has lost earlier "
                "changes."
            )
        texts = {row.key: row.new for row in reversed(rows) if row.revision <= revision}
        return {key: text for key, text in texts.items() if text is not None}

    def _carry_out(self, client: Any, stored: Stored, commit: Commit) -> bool:
        """Return whether it was done; if not, the store has another revision by now."""
        fields = dict(commit.changes)
        if commit.declared is not None:
            fields[DECLARED] = commit.declared
        actions = ["remove" if text is None else "set" for text in fields.values()]
        changes = [part for key, text in fields.items() for part in (key, text or "")]
        rows = [row.to_json() for row in commit.rows(stored, datetime.now(timezone.utc))]
        numbers = (REVISION, stored.revision, stored.revision + 1, ROWS, len(rows))
        args = (*numbers, json.dumps(actions), *changes, *rows)
        with self._mapped(writing=True):
            return bool(client.eval(COMMIT, 2, self._hash, self._list, *args))

    def _load(self, client: Any) -> Stored:
        found: Mapping[bytes, bytes] = client.hgetall(self._hash)
        try:
            texts = {key.decode(): text.decode() for key, text in found.items()}
            revision = int(texts.pop(REVISION, "-1"))
            int(texts.pop(ROWS, "0"))
            declared = texts.pop(DECLARED, None)
        except ValueError as error:
            raise StoreUnavailable(
                f"{self.name}: the hash {self._hash!r} is damaged: {error}. Repair it."
            ) from error
        if revision < 0:
            raise StoreUnavailable(
                f"{self.name}: the hash {self._hash!r} has lost its revision: Redis lost its data "
                "(no persistence, an eviction, a flush). Restore it or, to start afresh, delete "
                "the folder beside the watch file, too."
            )
        return Stored(revision, texts, declared)

    def _rows(self, client: Any) -> Iterator[HistoryRow]:
        """Yield the history, newest first, each row once even if others are added meanwhile."""
        lists = [self._rows_of(client, name) for name in {self._list, self._old_list}]
        return merge(*lists, key=lambda row: -row.revision)

    def _rows_of(self, client: Any, name: str) -> Iterator[HistoryRow]:
        try:
            length = client.llen(name)
        except self._redis.ResponseError as error:
            # In a Cluster another node may have the old list; a user need not have a right to it.
            denied = self._redis.exceptions.NoPermissionError
            if name == self._list or not (_is_moved(error) or isinstance(error, denied)):
                raise
            return
        for start in range(-length, 0, PAGE):  # from the end, which stays where it is
            for raw in client.lrange(name, start, min(start + PAGE, 0) - 1):
                try:
                    row = HistoryRow.from_fields(json.loads(raw))
                except (ValueError, TypeError, KeyError) as error:
                    raise StoreUnavailable(
                        f"{self.name}: the list {name!r} is damaged "
                        f"({type(error).__name__}). Repair it."
                    ) from error
                yield row

    @contextmanager
    def _connected(self, *, writing: bool = False) -> Iterator[Any]:
        with self._mapped(writing=writing), self._opened() as client:
            yield client

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open connections for one call; none crosses a fork or stays open in an idle worker."""
        client = self._clients.get(os.getpid())
        if client is None:  # a thread of the parent may have held the lock of the parent's
            client = connect(self._url, setting="WAFFLE_STORE_URL", timeout=self._timeout)
            self._clients[os.getpid()] = client
        try:
            yield client
        finally:
            disconnect(client)

    @contextmanager
    def _mapped(self, *, writing: bool = False) -> Iterator[None]:
        """Raise an error of a store for what redis-py raises."""
        try:
            yield
        except (self._redis.RedisError, OSError, UnicodeError) as error:
            raise _store_error(self._redis, self.name, error, writing=writing) from error


def _store_error(redis: Any, name: str, error: Exception, *, writing: bool) -> WaffleError:
    """Return the error of the store ``name`` for one that redis-py raised."""
    message, kinds = error_message(error), redis.exceptions
    unchanged = "Nothing was changed. " if writing else ""
    if isinstance(error, UnicodeEncodeError):
        return InvalidValue({"": f"{name} can't hold the value: {error.reason}"})
    if isinstance(error, kinds.AuthenticationError):
        return StoreUnavailable(f"{name}: {message}. Correct user and password in its URL.")
    moved = _is_moved(error)
    if moved or isinstance(error, kinds.ClusterCrossSlotError):
        place = message.split()[-1] if moved else "the one that has the keys"
        return StoreUnavailable(
            f"{name} is a node of a Redis Cluster, and another node has the store's keys. "
            f"Name that node in the URL: {place}."
        )
    if isinstance(error, kinds.ReadOnlyError) or "READONLY" in message:
        return StoreReadOnly(
            f"{name} refuses to be written, because it is a replica: {message}. Nothing was "
            "changed. Name the primary in the URL."
        )
    if isinstance(error, kinds.NoPermissionError) or "user executing the script" in message:
        error_type = StoreReadOnly if writing else StoreUnavailable
        return error_type(f"{name}: {message}. {unchanged}Give the user this right.")
    if "unknown command" in message.lower():
        message = message.partition(", with args")[0]  # those may be values
        return StoreUnavailable(
            f"{name}: {message}. If that is a Sentinel, name the primary in the URL instead. If "
            "Redis doesn't have this command, as with rename-command, let it have it."
        )
    if isinstance(error, kinds.ResponseError):
        advice = next((text for word, text in ADVICE_OF_REFUSALS.items() if word in message), "")
        return StoreUnavailable(f"{name}: Redis refuses: {message}. {unchanged}{advice}".rstrip())
    advice = open_files_advice(message) or f"Check that Redis answers. {retry_advice(message)}"
    return StoreUnavailable(f"{name}: {message}. {advice}")


def _is_moved(error: Exception) -> bool:
    """Return whether another node of a Cluster has the key."""
    # Before redis-py 6 it is a ResponseError like others.
    return type(error).__name__ == "MovedError" or str(error).startswith("MOVED ")
