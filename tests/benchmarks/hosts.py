"""How long after a commit the last idle worker of another host is told, beside a bare Redis publication in the same run."""

from __future__ import annotations

import time
from pathlib import Path

from ..live.servers import Server, Servers
from ..redis_server import RedisServer
from .table import Row, milliseconds

WORKERS = 4


def bare(redis: RedisServer) -> float:
    """Return the seconds from publishing with redis-py to the subscriber's `get_message`."""
    with redis.client() as publisher, redis.client() as client, client.pubsub(ignore_subscribe_messages=True) as subscription:
        subscription.subscribe("bare")
        publisher.ping()
        while subscription.get_message(timeout=1) is not None or not subscription.subscribed:
            pass
        begun = time.monotonic()
        publisher.publish("bare", f"{time.time():.6f}")
        while subscription.get_message(timeout=1) is None:
            pass
        return time.monotonic() - begun


def crossed(writer: Server, other: Server, since: list[int]) -> float | None:
    """Return the seconds until the last worker of the other host was told, ``None`` if one hasn't been yet."""
    begun, now = writer.get("/times")[0], other.get("/times")[1:]
    if any(new == old for new, old in zip(now, since, strict=True)):
        return None
    return (max(now) - begun) / 1e9


def start(servers: Servers, redis: RedisServer, name: str) -> Server:
    folder = servers.folder / name
    folder.mkdir()
    environ = {
        "SITE_DATABASE": str(servers.folder),
        "WAFFLE_WATCHTYPE": "redis",
        "WAFFLE_WATCHER_FILE": str(folder / "instance" / "waffle.watch"),
        "WAFFLE_REDIS_URL": redis.url,
    }
    options = ("--module", "tests.benchmarks.site", "--mule=uwsgi_waffle.mule")
    return servers.uwsgi(*options, workers=WORKERS, addressed=True, folder=Path(folder), **environ)


def measure(servers: Servers, redis: RedisServer, rounds: int) -> list[Row]:
    """Alternate updates from two hosts and bare publications."""
    pair = [start(servers, redis, name) for name in ("left", "right")]
    with redis.client() as client:
        pair[0].eventually(lambda: client.pubsub_numsub("waffleconf")[0][1] == len(pair))
    taken: dict[str, list[float]] = {"bare": [], "update": []}
    for number in range(1, rounds + 1):
        taken["bare"].append(bare(redis))
        writer, other = pair[number % 2], pair[1 - number % 2]
        since = other.get("/times")[1:]
        writer.post(f"/update?n={number}")
        told = other.eventually(lambda w=writer, o=other, old=since: crossed(w, o, old), until=lambda seconds: seconds is not None)
        taken["update"].append(told or 0.0)
    return [
        Row("two hosts: bare redis-py publish to a subscriber", taken["bare"], milliseconds),
        Row(
            "two hosts: update committed, on_change in the last of the other's 4 workers",
            taken["update"],
            milliseconds,
            taken["bare"],
        ),
    ]
