"""How long after a commit the last idle worker of another host is told, beside a bare Redis
publication in the same run.
"""

from __future__ import annotations

import time
from pathlib import Path

from ..live.servers import Server
from ..redis_server import RedisServer
from .lab import SITES, Lab
from .table import Row, Table

WORKERS = 4


def bare(redis: RedisServer) -> float:
    """Return the seconds from publishing with redis-py to the subscriber's `get_message`."""
    with (
        redis.client() as publisher,
        redis.client() as client,
        client.pubsub(ignore_subscribe_messages=True) as subscription,
    ):
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
    """Return the seconds until the last worker of the other host was told, ``None`` if one hasn't
    been yet.
    """
    begun, now = writer.get("/times")[0], other.get("/times")[1:]
    if any(new == old for new, old in zip(now, since, strict=True)):
        return None
    return (max(now) - begun) / 1e9


def start(lab: Lab, database: Path) -> Server:
    folder = lab.place()
    environ = {
        "SITE_DATABASE": str(database),
        "WAFFLE_WATCHTYPE": "redis",
        "WAFFLE_WATCHER_FILE": str(folder / "instance" / "waffle.watch"),
        "WAFFLE_REDIS_URL": lab.redis.url,
    }
    options = ("--module", f"{SITES}.waffle", "--mule=uwsgi_waffle.mule")
    return lab.servers.uwsgi(*options, workers=WORKERS, addressed=True, folder=folder, **environ)


def measure(lab: Lab) -> list[Table]:
    """Alternate updates from two hosts and bare publications."""
    database = lab.place()
    pair = [start(lab, database) for _ in range(2)]
    with lab.redis.client() as client:
        pair[0].eventually(lambda: client.pubsub_numsub("waffleconf")[0][1] == len(pair))
    taken: dict[str, list[float]] = {"bare": [], "update": []}
    for number in range(1, lab.rounds + 1):
        taken["bare"].append(bare(lab.redis))
        writer, other = pair[number % 2], pair[1 - number % 2]
        since = other.get("/times")[1:]
        writer.post(f"/update?n={number}")
        told = other.eventually(
            lambda w=writer, o=other, old=since: crossed(w, o, old),
            until=lambda seconds: seconds is not None,
        )
        taken["update"].append(told or 0.0)
    rows = [
        Row("bare redis-py: published, one subscriber has it", taken["bare"]),
        Row("uwsgi_waffle: update committed, on_change runs", taken["update"], taken["bare"]),
    ]
    return [Table(f"Until the last of another host's {WORKERS} idle workers is told", rows)]
