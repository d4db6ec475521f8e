"""P6: an update reaches the idle workers of other hosts, and nobody compares of its own accord."""

from __future__ import annotations

import json
import sqlite3
import threading
import time

import pytest

from .hosts import (
    GEVENT,
    LAZY,
    MULE,
    WORKERS,
    Hosts,
    listener,
    told,
    update_and_count,
    wait_until_told,
)
from .proxy import Proxy
from .servers import GUNICORN, SITE, UWSGI, Server


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
        update_and_count(pair, number)
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
    """One store read and one connection for each; who publishes keeps none."""
    many = [hosts.start(f"host{number}", MULE, workers=1) for number in range(20)]
    hosts.wait_for_listeners(many)
    for number in range(1, 6):
        update_and_count(many, number)
    with hosts.redis.client() as client:
        assert len(client.client_list(_type="pubsub")) == 20
        assert len(client.client_list(_type="normal")) == 1, "that of this test"


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
