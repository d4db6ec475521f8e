"""P6: several hosts, each with its own folder, one store, one Redis; nobody compares with the store
of its own accord.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from uwsgi_waffle.server.channel import BURST, LAST_GAP

from ..redis_server import RedisServer
from .proxy import Proxy
from .servers import GUNICORN, SITE, UWSGI, Server, Servers, kill

MULE = "--mule=uwsgi_waffle.mule"
LAZY = ("--lazy-apps", "--shared-import", "uwsgi_waffle")
GEVENT = ("--gevent", "10", "--gevent-monkey-patch")
WORKERS = 2


class Hosts:
    """Starts servers that share a database and a Redis, but no folder."""

    def __init__(self, servers: Servers, redis: RedisServer) -> None:
        self._servers, self.redis = servers, redis
        self.database = servers.folder / "waffle.db"

    def environ(self, folder: Path) -> dict[str, str]:
        return {
            "SITE_DATABASE": str(self.database.parent),
            "WAFFLE_WATCHTYPE": "redis",
            "WAFFLE_WATCHER_FILE": str(folder / "instance" / "waffle.watch"),
            "WAFFLE_REDIS_URL": self.redis.url,
        }

    def start(self, name: str, *options: str, workers: int = WORKERS, **environ: str) -> Server:
        """Start a uWSGI instance on a host of its own."""
        folder = self._servers.folder / name
        folder.mkdir()
        return self._servers.uwsgi(
            *options,
            workers=workers,
            addressed=True,
            folder=folder,
            **{**self.environ(folder), **environ},
        )

    def start_other(self, name: str, *command: str) -> Server:
        """Start another server on a host of its own."""
        folder = self._servers.folder / name
        folder.mkdir()
        return self._servers.start(command, folder=folder, **self.environ(folder))

    def pair(self, *options: str) -> list[Server]:
        """Start two hosts and wait until both are heard of in Redis."""
        pair = [self.start(name, *options) for name in ("left", "right")]
        self.wait_for_listeners(pair)
        return pair

    def wait_for_listeners(self, hosts: list[Server]) -> None:
        hosts[0].eventually(self.subscribers, until=lambda found: found == len(hosts))

    def subscribers(self) -> int:
        with self.redis.client() as client:
            return int(client.pubsub_numsub("waffleconf")[0][1])


@pytest.fixture
def hosts(servers: Servers, redis_server: RedisServer) -> Iterator[Hosts]:
    yield Hosts(servers, redis_server)
    servers.stop_all()


def told(server: Server, number: int) -> set[str]:
    """Return the pids of the processes whose hooks were told of an update."""
    return {record[0] for record in server.records("changes") if record[4] == str(number)}


def wait_until_told(server: Server, number: int) -> None:
    """Wait until all workers of a host, that get no request, were told."""
    workers = {str(pid) for pid, kind in server.table().items() if kind.startswith("worker")}
    server.eventually(lambda: told(server, number) >= workers, deadline=30)


def loads(server: Server) -> int:
    return sum(record[2] == "load" for record in server.records("store"))


def listener(server: Server) -> int:
    """Return the pid of the process of a host that listens."""
    return int(server.eventually(lambda: server.get("/status")["redis"]["listener"]))


def mule(server: Server) -> int:
    """Return the pid of the last mule that was started."""
    lines = [line for line in server.log.splitlines() if "uWSGI mule" in line]
    return int(lines[-1].rpartition("pid: ")[2].rstrip(")"))


def test_nothing_stale_on_the_writers_host_and_nothing_torn_anywhere(hosts: Hosts) -> None:
    """200 two-key updates from alternating hosts, while both are read all the time."""
    pair = hosts.pair(MULE)
    own = [0, 0]  # what each host has written itself
    stop = threading.Event()
    wrong: list[object] = []

    def read(number: int) -> None:
        try:
            while not stop.is_set():
                least, answer = own[number], pair[number].read()
                if len(set(answer["all"])) != 1 or answer["all"][0] < least:
                    wrong.append((number, least, answer))
        except BaseException as error:
            wrong.append(error)

    readers = [threading.Thread(target=read, args=(number,)) for number in (0, 1)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 201):
            writer = number % 2
            answer = pair[writer].update(number)
            own[writer] = number
            assert set(answer["seen"]["all"]) == {number}
            wait_until_told(pair[1 - writer], number)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []


@pytest.mark.parametrize(
    "options",
    [
        (MULE,),
        (MULE, *LAZY),
        ("--mule=uwsgi_waffle.mule:run",),
        (MULE, "--mule=tests/live/mule.py"),
        ("--mule=tests/live/mule.py", MULE),
        (MULE, "--mules", "2"),
        (),
        LAZY,
        (MULE, "--threads", "2"),
        (MULE, *GEVENT),
        GEVENT,
        (*GEVENT, *LAZY),
        ("--lazy-apps",),
        ("--mules=0",),
    ],
    ids=" ".join,
)
def test_one_connection_and_one_store_read_for_each_host(
    hosts: Hosts, options: tuple[str, ...]
) -> None:
    """An update reaches the idle workers of the other host, whoever listens there."""
    pair = hosts.pair(*options)
    for number in range(1, 8):
        writer, other = pair[number % 2], pair[1 - number % 2]
        before = loads(writer), loads(other)
        writer.update(number)
        wait_until_told(other, number)
        if (
            number <= 2
        ):  # a listener rings once when it begins to listen, before the first that it hears
            continue
        assert (loads(writer), loads(other)) == (before[0], before[1] + 1)
    with hosts.redis.client() as client:
        assert len(client.client_list(_type="pubsub")) == 2
    for server in pair:
        assert (listener(server) in server.workers().values()) == (
            not any("mule=" in option or option == "2" for option in options)
        )


@pytest.mark.parametrize(
    "command",
    [
        ("flask", "--app", f"{SITE}:application", "run", "--port", "0"),
        (*GUNICORN, "--workers", "2"),
        UWSGI,
    ],
    ids=lambda c: c[0],
)
def test_a_thread_listens_outside_uwsgi_and_without_a_master(
    hosts: Hosts, command: tuple[str, ...]
) -> None:
    left, right = hosts.start("left", MULE), hosts.start_other("right", *command)
    hosts.wait_for_listeners([left, right])
    for number in range(1, 6):
        left.update(number)
        right.eventually(lambda n=number: told(right, n))
    right.update(6)
    wait_until_told(left, 6)
    with hosts.redis.client() as client:
        assert len(client.client_list(_type="pubsub")) == 2


def test_a_killed_mule_comes_back_and_catches_up(hosts: Hosts) -> None:
    left, right = hosts.pair(MULE)
    for number in range(1, 4):
        victim = mule(right)
        kill(victim)
        left.update(number)  # nobody over there hears of it
        wait_until_told(right, number)
        hosts.wait_for_listeners([left, right])
        assert mule(right) != victim
        assert listener(right) == mule(right)


def test_a_writer_killed_after_its_commit_is_made_good_by_its_hosts_listener(hosts: Hosts) -> None:
    """kill -9 before anything was told: the other host is told within moments, by no update and no
    interval.
    """
    left, right = hosts.pair(MULE)
    (left.folder / "die-after-commit").touch()
    with pytest.raises((OSError, http.client.HTTPException)):
        left.update(1)
    wait_until_told(right, 1)


@pytest.mark.parametrize("options", [(MULE,), (MULE, *LAZY)], ids=" ".join)
def test_a_mule_that_is_told_to_end_does_so_and_comes_back(
    hosts: Hosts, options: tuple[str, ...], tmp_path: Path
) -> None:
    """By TERM, by HUP, by touch-mules-reload; that none waits for uWSGI's patience is checked when
    the server is stopped.
    """
    touched = tmp_path / "touched"
    touched.touch()
    left, right = (
        hosts.start("left", MULE),
        hosts.start("right", *options, "--touch-mules-reload", str(touched)),
    )
    hosts.wait_for_listeners([left, right])
    later = time.time() + 10

    def touch(_: int) -> None:
        nonlocal later
        later += 10
        os.utime(touched, (later, later))  # uWSGI compares whole seconds

    ways = [
        lambda pid: psutil.Process(pid).terminate(),
        lambda pid: psutil.Process(pid).send_signal(signal.SIGHUP),
        touch,
    ]
    for number, end in enumerate(ways, 1):
        victim = mule(right)
        end(victim)
        right.eventually(lambda old=victim: mule(right) != old and not psutil.pid_exists(old))
        hosts.wait_for_listeners([left, right])
        left.update(number)
        wait_until_told(right, number)


@pytest.mark.parametrize("options", [(), LAZY], ids=" ".join)
def test_without_a_mule_another_worker_is_elected(hosts: Hosts, options: tuple[str, ...]) -> None:
    left, right = hosts.pair(*options)
    for number in range(1, 4):
        victim = listener(right)
        kill(victim)
        left.update(number)
        right.eventually(lambda old=victim: listener(right) != old)
        hosts.wait_for_listeners([left, right])
        right.eventually(
            lambda n=number: (
                set(right.read(socket=0)["all"]) == set(right.read(socket=1)["all"]) == {n}
            )
        )


def test_a_lazy_mule_that_knows_nothing_says_so_and_a_worker_listens(hosts: Hosts) -> None:
    server = hosts.start("left", MULE, *LAZY, WAFFLE_WATCHER_FILE="waffle.watch")
    hosts.wait_for_listeners([server])
    assert listener(server) in server.workers().values()
    assert server.log.count("this mule has no application") == 1


def errors(server: Server) -> list[str]:
    return [line for line in server.log.splitlines() if "WAFFLE_RECONCILE_INTERVAL only" in line]


@pytest.mark.parametrize("options", [(MULE,), (), (*GEVENT, *LAZY)], ids=" ".join)
def test_redis_killed_and_restarted(hosts: Hosts, options: tuple[str, ...]) -> None:
    """Updates go on, each on its host; it is said once, shown in the status, and made good when
    Redis is back.
    """
    pair = hosts.pair(*options)
    hosts.redis.kill()
    for server in pair:
        server.eventually(lambda s=server: s.get("/status")["redis"]["error"])
    listeners = [psutil.Process(listener(server)) for server in pair]
    before = [sum(process.cpu_times()[:2]) for process in listeners]
    number, end = 0, time.monotonic() + 5
    while time.monotonic() < end:
        number += 1
        assert set(pair[number % 2].update(number)["seen"]["all"]) == {number}
        time.sleep(0.25)
    spent = [
        sum(process.cpu_times()[:2]) - since
        for process, since in zip(listeners, before, strict=True)
    ]
    assert max(spent) < 1, "seconds of processor in five: nobody runs in a circle"
    hosts.redis.start()
    for server in pair:
        wait_until_told(server, number)
        server.eventually(lambda s=server: not s.get("/status")["redis"]["error"])
        assert len(errors(server)) == 1, server.log
        assert "Redis is back" in server.log
    assert [process.is_running() for process in listeners] == [True, True]
    pair[0].update(number + 1)
    wait_until_told(pair[1], number + 1)


def test_redis_is_down_at_the_start(hosts: Hosts) -> None:
    hosts.redis.kill()
    left, right = hosts.start("left", MULE), hosts.start("right", MULE)
    left.update(1)
    hosts.redis.start()
    wait_until_told(right, 1)
    assert (len(errors(left)), len(errors(right))) == (1, 1)


def test_killed_subscriptions_come_back(hosts: Hosts) -> None:
    left, right = hosts.pair(MULE)
    for number in range(1, 6):
        with hosts.redis.client() as client:
            assert client.client_kill_filter(_type="pubsub") == 2
        left.update(number)
        wait_until_told(right, number)
        hosts.wait_for_listeners([left, right])


def test_redis_stands_still_for_a_while(hosts: Hosts) -> None:
    """For ten seconds it keeps its connections and answers nobody: a ping finds that out."""
    left, right = hosts.pair(MULE)
    end = time.monotonic() + 10
    hosts.redis.send_signal(signal.SIGSTOP)
    try:
        left.update(1)
        left.update(2)
        right.eventually(lambda: right.get("/status")["redis"]["error"] and time.monotonic() > end)
        assert "has not answered" in right.log
    finally:
        hosts.redis.send_signal(signal.SIGCONT)
    wait_until_told(right, 2)
    left.update(3)
    wait_until_told(right, 3)


def test_a_black_hole_before_one_host(hosts: Hosts) -> None:
    """Its values come with the interval; when it is gone the host listens again."""
    proxy = Proxy(hosts.redis.path)
    try:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        left, right = (
            hosts.start("left", MULE),
            hosts.start("right", MULE, WAFFLE_REDIS_URL=url, WAFFLE_RECONCILE_INTERVAL="3"),
        )
        hosts.wait_for_listeners([left, right])
        proxy.black_hole.set()
        left.update(1)
        wait_until_told(right, 1)
        right.eventually(lambda: right.get("/status")["redis"]["error"])
        process = psutil.Process(listener(right))
        before, connections = sum(process.cpu_times()[:2]), proxy.connections
        right.eventually(lambda: proxy.connections > connections + 1)
        assert sum(process.cpu_times()[:2]) - before < 1
        assert process.is_running()
        proxy.black_hole.clear()
        right.eventually(lambda: not right.get("/status")["redis"]["error"])
        left.update(2)
        wait_until_told(right, 2)
    finally:
        proxy.close()


def test_a_password_and_a_database_number(hosts: Hosts) -> None:
    """Publisher, listener and store honour them; the password is told nowhere, also when it is the
    wrong one.
    """
    hosts.redis.demand("geheim")
    proxy = Proxy(hosts.redis.path)
    try:
        url, wrong = (
            f"redis://:{password}@127.0.0.1:{proxy.port}/3" for password in ("geheim", "geheimer")
        )
        left, right = (
            hosts.start(name, MULE, SITE_REDIS=url, WAFFLE_REDIS_URL=url)
            for name in ("left", "right")
        )
        hosts.wait_for_listeners([left, right])
        left.update(1)
        wait_until_told(right, 1)
        with hosts.redis.client(db=3) as client:
            assert client.hget("waffle", "A") == b"1"
        outside = hosts.start("outside", MULE, SITE_REDIS=url, WAFFLE_REDIS_URL=wrong)
        error = outside.eventually(lambda: outside.get("/status")["redis"]["error"])
        assert "invalid username-password" in error
        for server in (left, right, outside):
            assert "geheim" not in server.log
            assert "geheim" not in json.dumps(server.get("/status"))
    finally:
        proxy.close()


@pytest.mark.timeout(300)
def test_noise_changes_nothing_and_costs_little(hosts: Hosts) -> None:
    """10,000 messages: long ones, wrong JSON, revisions of old and of times to come."""
    left, right = hosts.pair(MULE)
    left.update(1)
    wait_until_told(right, 1)
    pids, before = right.table(), loads(right)
    process = psutil.Process(listener(right))
    noise = [b"x" * 2**20, b"", b"{", b'{"revision": 0}', b'{"revision": 99999, "A": 666}']
    noise += [b"\xff\xfe", b"nan", b"-1e999", b"1" * 60, b"2.5"]
    began = time.monotonic()
    with hosts.redis.client() as client:
        memory: list[int] = []
        for number in range(10_000):
            client.publish(
                "waffleconf",
                noise[number % 50] if number % 50 < len(noise) else noise[1 + number % 9],
            )
            if number % 1000 == 999:
                memory.append(process.memory_info().rss)
        left.update(2)
        wait_until_told(right, 2)
        assert set(right.read()["all"]) == {2}
    assert right.table() == pids
    assert loads(right) - before < BURST + (time.monotonic() - began) / LAST_GAP + 10, (
        "each bell is one, and whoever else looks"
    )
    assert max(memory) - memory[0] < 96 * 2**20, "what waits to be read"
    assert process.memory_info().rss - memory[0] < 32 * 2**20, "and nothing of it stays"


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_two_hosts_write_at_once(hosts: Hosts, store: str) -> None:
    """Counting up with `expect_revision`, for ten seconds: nothing is lost, and both end equal."""
    environ = {"SITE_REDIS": hosts.redis.url} if store == "redis" else {}
    pair = [hosts.start(name, MULE, **environ) for name in ("left", "right")]
    hosts.wait_for_listeners(pair)
    end = time.monotonic() + 10
    counted: list[int] = []

    def count(server: Server, socket: int) -> None:
        while time.monotonic() < end:
            counted.append(server.post("/count", socket=socket))

    threads = [
        threading.Thread(target=count, args=(server, socket))
        for server in pair
        for socket in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == list(range(1, len(counted) + 1))
    for server in pair:
        for socket in range(WORKERS):
            found = server.eventually(
                lambda s=server, at=socket: s.get("/values", socket=at)["N"],
                until=lambda n: n == len(counted),
            )
            assert found == len(counted)
    told = pair[0].get("/history?limit=100000")
    assert told == [[number, number - 1, number] for number in range(len(counted), 0, -1)]


@pytest.mark.timeout(600)
def test_twenty_hosts(hosts: Hosts) -> None:
    """One store read and one connection for each, and one for each process that publishes."""
    many = [hosts.start(f"host{number}", MULE, workers=1) for number in range(20)]
    hosts.wait_for_listeners(many)
    for number in range(1, 6):
        writer = many[number % 2]
        before = [loads(server) for server in many]
        writer.update(number)
        for server in many:
            wait_until_told(server, number)
        if (
            number <= 2
        ):  # a listener rings once when it begins to listen, before the first that it hears
            continue
        assert [loads(server) - b for server, b in zip(many, before, strict=True)] == [
            int(server is not writer) for server in many
        ]
    with hosts.redis.client() as client:
        assert len(client.client_list(_type="pubsub")) == 20
        assert len(client.client_list(_type="normal")) == 2 + 1, (
            "two have published; the third is this test"
        )


def test_an_old_process_on_the_channel(hosts: Hosts) -> None:
    """Flask-WaffleConf publishes a bare time and reads each message as one."""
    server = hosts.start("left", MULE)
    hosts.wait_for_listeners([server])
    with hosts.redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as old:
        old.subscribe("waffleconf")
        server.eventually(hosts.subscribers, until=lambda found: found == 2)
        began = time.time()
        server.update(1)
        message = server.eventually(lambda: old.get_message(timeout=0.1))
        assert began - 1 < float(message["data"]) < time.time() + 1
        with sqlite3.connect(hosts.database) as database:
            database.execute("UPDATE waffle_values SET value = '7'")
        database.close()
        client.publish("waffleconf", time.time())
    wait_until_told(server, 7)
