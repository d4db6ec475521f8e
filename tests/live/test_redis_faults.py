"""Redis is away, stands still, loses its connections, or is full of noise."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from uwsgi_waffle.wake.channel import GAP

from .hosts import GEVENT, LAZY, MULE, Hosts, listener, loads, wait_until_told
from .proxy import Proxy
from .servers import Server


def errors(server: Server) -> list[str]:
    return [line for line in server.log.splitlines() if "Until Redis responds" in line]


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
        server.eventually(lambda s=server: "Redis is back" in s.log)
        assert len(errors(server)) == 1, server.log
    assert [process.is_running() for process in listeners] == [True, True]
    pair[0].update(number + 1)
    wait_until_told(pair[1], number + 1)


def test_redis_is_down_at_the_start(hosts: Hosts) -> None:
    hosts.redis.kill()
    left, right = hosts.start("left", MULE), hosts.start("right", MULE)
    left.update(1)
    for server in (left, right):
        server.eventually(lambda s=server: errors(s))
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
        right.eventually(lambda: "has not responded" in right.log)
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
    assert loads(right) - before < (time.monotonic() - began) / GAP + 10, (
        "each bell is one, and whoever else looks"
    )
    assert max(memory) - memory[0] < 96 * 2**20, "what waits to be read"
    assert process.memory_info().rss - memory[0] < 32 * 2**20, "and nothing of it stays"
