"""How long after a commit the last idle worker of another host is told, over Redis and over
PostgreSQL, beside a bare Redis publication and a bare NOTIFY in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import psycopg
import sqlalchemy as sa

from uwsgi_waffle.stores.engines import libpq_url
from uwsgi_waffle.wake import open_channel

from ..host import listeners
from ..live.servers import Server
from ..redis_server import RedisServer
from ..sql_servers import PostgreSQL
from .lab import SITES, Lab, missing
from .table import Row, Table
from .updating import started

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


def bare_notify(url: str) -> float:
    """Return the seconds from NOTIFY with psycopg to the listener's `notifies`."""
    conninfo = libpq_url(sa.make_url(url))
    with (
        psycopg.connect(conninfo, autocommit=True) as sender,
        psycopg.connect(conninfo, autocommit=True) as listener,
        closing(listener.notifies()) as notifies,
    ):
        listener.execute("LISTEN bare")
        begun = time.monotonic()
        sender.execute("NOTIFY bare")
        next(notifies)
        return time.monotonic() - begun


def crossed(writer: Server, other: Server, since: list[int]) -> float | None:
    """Return the seconds until the last worker of the other host was told, ``None`` if one hasn't
    been yet.
    """
    begun, now = writer.get("/times")[0], other.get("/times")[1:]
    if any(new == old for new, old in zip(now, since, strict=True)):
        return None
    return (max(now) - begun) / 1e9


@dataclass(frozen=True)
class Pair:
    """Two hosts that meet over a channel, and what was measured."""

    channel: str
    url: str
    hosts: tuple[Server, Server]
    bare: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)

    def measure(self, number: int, seconds: float) -> None:
        """Update on one of the hosts, wait for the other's workers, and note both figures."""
        writer, other = self.hosts[number % 2], self.hosts[1 - number % 2]
        since = other.get("/times")[1:]
        writer.post(f"/update?n={number}")
        told = other.eventually(
            lambda: crossed(writer, other, since), until=lambda found: found is not None
        )
        self.bare.append(seconds)
        self.updates.append(told or 0.0)


def start(lab: Lab, channel: str, environ: dict[str, str]) -> Pair:
    hosts = []
    for _ in range(2):
        folder = lab.place()
        options = ("--module", f"{SITES}.waffle", "--mule=uwsgi_waffle.mule")
        place = {"WAFFLE_WATCHER_FILE": str(folder / "instance" / "waffle.watch")}
        settings = {**environ, **place, "WAFFLE_WATCHTYPE": channel}
        hosts.append(
            lab.servers.uwsgi(*options, workers=WORKERS, addressed=True, folder=folder, **settings)
        )
    url = environ.get("WAFFLE_REDIS_URL") or environ["SITE_SQL"]
    opened = open_channel(channel, url, "waffleconf")
    hosts[0].eventually(lambda: listeners(opened) == len(hosts))
    return Pair(channel, url, (hosts[0], hosts[1]))


@contextmanager
def pairs(lab: Lab) -> Iterator[list[Pair]]:
    database, redis = str(lab.place()), lab.redis.url
    running = [start(lab, "redis", {"SITE_DATABASE": database, "WAFFLE_REDIS_URL": redis})]
    if missing("pgserver"):
        yield running
        return
    with started(PostgreSQL) as server:
        try:
            yield [*running, start(lab, "postgres", {"SITE_SQL": server.fresh()})]
        finally:
            lab.servers.stop_all()  # they would wait for it


def measure(lab: Lab) -> list[Table]:
    """Alternate updates from two hosts and bare messages, over each channel in turn."""
    with pairs(lab) as running:
        for number in range(1, lab.rounds + 1):
            for pair in running:
                over_redis = pair.channel == "redis"
                pair.measure(number, bare(lab.redis) if over_redis else bare_notify(pair.url))
    rows = []
    for pair in running:
        name = "redis-py: published" if pair.channel == "redis" else "psycopg: NOTIFY"
        rows += [
            row(f"bare {name}, one listener has it", pair.bare),
            row(
                f"uwsgi_waffle, {pair.channel}: update committed, on_change runs",
                pair.updates,
                pair.bare,
            ),
        ]
    return [Table(f"Until the last of another host's {WORKERS} idle workers is told", rows)]


def row(name: str, samples: list[float], beside: list[float] | None = None) -> Row:
    """Return a row that says, too, what 99 of 100 samples don't exceed."""
    worst = sorted(samples)[min(len(samples) - 1, round(0.99 * len(samples)))]
    return Row(name, samples, beside, f"99 %: {worst * 1e3:.1f} ms")
