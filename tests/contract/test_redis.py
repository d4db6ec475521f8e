"""What only the Redis store can meet."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from uwsgi_waffle import RedisStore, SchemaError, StoreUnavailable, UnknownRevision
from uwsgi_waffle.stores import Commit, Stored, open_store
from uwsgi_waffle.stores import redis as redis_store
from uwsgi_waffle.stores.redis import PAGE

from ..host import run_forked
from ..redis_server import RedisServer
from .conftest import put


@pytest.fixture
def store(redis_server: RedisServer) -> RedisStore:
    """A store that holds revision 1, A = 1."""
    store = RedisStore(redis_server.url)
    store.prepare()
    put(store, A="1")
    return store


def test_what_redis_has_forgotten_is_not_taken_for_an_empty_store(
    store: RedisStore, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.flushall()
    for call in (store.load, lambda: put(store, A="2"), lambda: store.values_at(1)):
        with pytest.raises(StoreUnavailable, match="has lost its revision"):
            call()
    assert store.history(10) == []


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("A", b"\xff", "can't decode"),
        ("WAFFLE_REVISION", b"one", "invalid literal"),
        ("WAFFLE_REVISION", b"-3", "lost its revision"),
    ],
)
def test_what_somebody_else_wrote_there_is_told(
    store: RedisStore, redis_server: RedisServer, key: str, value: bytes, told: str
) -> None:
    with redis_server.client() as client:
        client.hset("waffle", key, value)
    with pytest.raises(StoreUnavailable, match=told):
        store.load()


def test_a_key_of_another_type_is_told(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("waffle", "mine")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        RedisStore(redis_server.url).prepare()


def test_redis_down_is_told_with_its_name_and_what_was_committed_survives_a_kill(
    store: RedisStore, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.config_set(
            "appendfsync", "always"
        )  # else Redis puts the writing off while the disk is busy
    redis_server.kill()
    with pytest.raises(StoreUnavailable, match=r"refused\. Check .*by themselves\.$"):
        store.load()
    redis_server.start()
    assert store.load() == Stored(1, {"A": "1"})
    assert [row.new for row in store.history(10)] == ["1"]


def test_who_was_slower_decides_again_upon_what_the_faster_one_wrote(store: RedisStore) -> None:
    seen: list[Stored] = []

    def build_commit(stored: Stored) -> Commit:
        seen.append(stored)
        if len(seen) == 1:
            put(RedisStore(store._url), A="2", B="2")
        return Commit({"A": f"{stored.values['A']}9"})

    assert store.transact(build_commit) == store.load() == Stored(3, {"A": "29", "B": "2"})
    assert [stored.revision for stored in seen] == [1, 2]
    assert [(row.revision, row.old, row.new) for row in store.history(10, "A")] == [
        (3, "2", "29"),
        (2, "1", "2"),
        (1, None, "1"),
    ]


@pytest.mark.parametrize(
    "error", [OSError(5, "a file"), UnicodeEncodeError("ascii", "\xe9", 0, 1, "no ASCII")]
)
def test_the_callers_own_error_is_not_taken_for_one_of_redis(
    store: RedisStore, error: Exception
) -> None:
    def build_commit(stored: Stored) -> Commit:
        raise error

    with pytest.raises(type(error)) as caught:
        store.transact(build_commit)
    assert caught.value is error
    assert store.load() == Stored(1, {"A": "1"})


def test_no_connection_stays_open(store: RedisStore, redis_server: RedisServer) -> None:
    store.history(10)
    with redis_server.client() as client:
        client.hset("waffle", "A", b"\xff")
    with pytest.raises(StoreUnavailable):
        store.load()
    with redis_server.client() as client:
        assert len(client.client_list()) == 1, "only the test's own"


def test_a_fork_while_another_thread_closes_its_connection(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds a lock of redis-py's then, which nobody gives back in the forked process."""
    closing, end, parent = threading.Event(), threading.Event(), os.getpid()
    genuine = redis.Connection.disconnect

    def disconnect(connection: redis.Connection, *args: object) -> None:
        if os.getpid() == parent:
            closing.set()
            end.wait(60)
        genuine(connection, *args)

    def program() -> None:
        signal.alarm(20)
        assert store.load() == Stored(1, {"A": "1"})

    for kind in (redis.Connection, redis.UnixDomainSocketConnection):
        monkeypatch.setattr(kind, "disconnect", disconnect)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(store.load)
        assert closing.wait(60)
        try:
            assert run_forked(program) == 0
        finally:
            end.set()
        assert reader.result() == Stored(1, {"A": "1"})


def test_a_long_history_is_read_page_by_page(store: RedisStore) -> None:
    for number in range(2, 2 * PAGE + 3):
        put(store, A=str(number))
    assert [row.revision for row in store.history(10_000)] == list(range(2 * PAGE + 2, 0, -1))
    assert store.history(0) == []
    assert store.history(-1) == []
    assert store.values_at(3) == {"A": "3"}


def test_a_history_of_whole_pages_is_read_once(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "PAGE", 2)
    for number in range(2, 5):
        put(store, A=str(number))
    assert [row.revision for row in store.history(10)] == [4, 3, 2, 1]


def test_a_host_that_prepares_while_another_one_writes_undoes_nothing(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        redis.Redis, "hexists", lambda client, name, key: False
    )  # as it was a moment ago
    store.prepare()
    assert store.load() == Stored(1, {"A": "1"})


def test_two_prefixes_are_two_stores(store: RedisStore, redis_server: RedisServer) -> None:
    other = RedisStore(redis_server.url, prefix="other")
    other.prepare()
    put(other, A="9")
    assert (store.load(), other.load()) == (Stored(1, {"A": "1"}), Stored(1, {"A": "9"}))
    assert (store.history(1)[0].new, other.history(1)[0].new) == ("1", "9")
    assert "(other)" in other.name


@pytest.mark.parametrize(
    "url",
    ["redis://:geheim@cache.example/0", "rediss://cache.example", "unix://:geheim@/run/redis"],
)
def test_a_url_opens_it(url: str) -> None:
    assert isinstance(open_store(url), RedisStore)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://cache.example", "redis://cache.example"),
        ("redis://ann:geheim@cache.example:6380/2", "redis://ann:***@cache.example:6380/2"),
        (
            "rediss://:geheim@cache.example/0?ssl_cert_reqs=none",
            "rediss://:***@cache.example/0?ssl_cert_reqs=none",
        ),
        ("unix:///run/redis/s?db=2&password=geheim", "unix:///run/redis/s?db=2&password=***"),
        ("valkeys://geheim@cache.example", "valkeys://:***@cache.example"),
        ("redis+sentinel://geheim@one,two/mymaster", "redis+sentinel://:***@one,two/mymaster"),
    ],
)
def test_its_name_has_no_password(url: str, name: str) -> None:
    assert RedisStore(url).name == name


@pytest.mark.parametrize(
    "url",
    [
        "http://cache.example",
        "redis",
        "",
        "redis://cache.example:port",
        "redis://cache.example?foo=1",
    ],
)
def test_a_url_that_is_none_is_refused_by_the_settings_name(url: str) -> None:
    with pytest.raises(SchemaError, match="WAFFLE_STORE_URL"):
        RedisStore(url)


def test_without_redis_py_the_error_is_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SchemaError, match=r"pip install 'uwsgi_waffle\[redis\]'"):
        RedisStore("redis://cache.example")


def test_an_answer_that_does_not_come_is_not_taken_for_a_faster_host(
    redis_server: RedisServer,
) -> None:
    """The commit may have been carried out, and here it is: nobody may claim that nothing was
    changed, nor try again.
    """
    store = RedisStore(redis_server.url, timeout=0.2)
    store.prepare()

    def build_commit(stored: Stored) -> Commit:
        redis_server.send_signal(signal.SIGSTOP)
        return Commit({"A": "1"})

    try:
        with pytest.raises(StoreUnavailable) as caught:
            store.transact(build_commit)
    finally:
        redis_server.send_signal(signal.SIGCONT)
    assert "Nothing was changed" not in str(caught.value)
    assert RedisStore(redis_server.url).load() == Stored(1, {"A": "1"})


def test_a_full_redis_is_told_without_the_values(
    store: RedisStore, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable, match="OOM") as caught:
        put(store, A="".join(("ge", "heim")))
    assert "geheim" not in "".join(traceback.format_exception(caught.value))
    assert store.load() == Stored(1, {"A": "1"})
    assert len(store.history(10)) == 1


@pytest.mark.parametrize("row", [b"{", b"{}", b'{"revision": 1}', b"\xff"])
def test_a_damaged_history_is_told(
    store: RedisStore, redis_server: RedisServer, row: bytes
) -> None:
    with redis_server.client() as client:
        client.lpush("{waffle}:history", row)
    for call in (lambda: store.history(10), lambda: store.values_at(1)):
        with pytest.raises(StoreUnavailable, match="is damaged"):
            call()


def test_a_history_that_is_of_another_type_stops_a_commit_before_it_begins(
    store: RedisStore, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.delete("{waffle}:history")
        client.set("{waffle}:history", "mine")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        put(store, A="2")
    assert store.load() == Stored(1, {"A": "1"})


def test_a_history_with_a_gap_is_no_ground_for_a_rollback(
    store: RedisStore, redis_server: RedisServer
) -> None:
    put(store, B="2")
    with redis_server.client() as client:
        client.rpop("{waffle}:history")
    with pytest.raises(UnknownRevision, match="has lost earlier changes"):
        store.values_at(2)


def test_hosts_that_are_always_faster_end_in_an_error(redis_server: RedisServer) -> None:
    store, faster = RedisStore(redis_server.url, timeout=0.2), RedisStore(redis_server.url)
    store.prepare()

    def build_commit(stored: Stored) -> Commit:
        put(faster, B="1")
        return Commit({"A": "1"})

    with pytest.raises(StoreUnavailable, match="other hosts were faster"):
        store.transact(build_commit)
    assert "A" not in store.load().values
