"""How long after an update the last of many workers serves the new value, and how many answers are
stale until then.

One client asks one worker after another, each over a socket of its own, until it has answered with
the new value. So asking all of
them once is the least that can be measured; the bare signal's figure shows how much that is.
"""

from __future__ import annotations

import json
import random
import socket
import time
from dataclasses import dataclass, field

from ..live.servers import Server
from .lab import SITES, Lab, missing
from .table import Row, Table

LIMIT = 60.0  # seconds until a worker that hasn't heard of it is given up
SLOW, PERIOD = 0.1, 10.0  # the share of the rounds for what looks every ten seconds


@dataclass(frozen=True)
class Contestant:
    """One way of telling workers.

    Attributes:
        apart: the update is made by another uWSGI instance, with its own folder, as if on another
            host.
    """

    name: str
    site: str
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    apart: bool = False
    share: float = 1.0


LEGACY = (
    "--lazy-apps",
    "--enable-threads",
    "--shared-import",
    "flask_sqlalchemy",
)  # the last saves memory and time at the start only
BACKENDS = "constance.backends."


def contestants() -> list[Contestant]:
    legacy, constance = ("flask_waffleconf",), ("constance",)
    redis = {"WAFFLE_WATCHTYPE": "redis", "SITE_WATCHTYPE": "redis"}
    return [
        Contestant("bare uwsgi.signal", "bare_signal"),
        Contestant("uwsgi_waffle, file", "waffle"),
        Contestant("Flask-WaffleConf, file", "flask_waffleconf_site", legacy, LEGACY, share=SLOW),
        Contestant(
            "django-constance, database",
            "constance_site",
            constance,
            environ={"BENCH_BACKEND": f"{BACKENDS}database.DatabaseBackend"},
        ),
        Contestant(
            "django-constance, Redis",
            "constance_site",
            constance,
            environ={"BENCH_BACKEND": f"{BACKENDS}redisd.RedisBackend"},
        ),
        Contestant(
            "django-constance, caching Redis, 10 s",
            "constance_site",
            constance,
            environ={"BENCH_BACKEND": f"{BACKENDS}redisd.CachingRedisBackend"},
            share=SLOW,
        ),
        Contestant("from another host: bare Redis publish", "bare_publish", apart=True),
        Contestant(
            "from another host: uwsgi_waffle, Redis",
            "waffle",
            (),
            ("--mule=uwsgi_waffle.mule",),
            redis,
            apart=True,
        ),
        Contestant(
            "from another host: Flask-WaffleConf, Redis",
            "flask_waffleconf_site",
            legacy,
            LEGACY,
            redis,
            apart=True,
        ),
    ]


@dataclass(eq=False)
class Race:
    """A contestant's servers, and what was measured of them."""

    contestant: Contestant
    served: Server
    writer: Server
    taken: list[float] = field(default_factory=list)
    answers: int = 0
    stale: int = 0
    given_up: int = 0

    def run(self, number: int) -> None:
        """Update, then ask each worker until it has answered with the new value; ask all once
        before, to fill what they cache.
        """
        if self.contestant.share < 1.0:
            time.sleep(
                random.uniform(0.0, PERIOD)
            )  # else the rounds of the others decide how old a cache is
        for port in self.served.ports:
            ask(port)
        self.writer.post(f"/update?n={number}")
        returned = time.monotonic()
        waiting = self.served.ports
        while waiting and not (late := time.monotonic() - returned > LIMIT):
            behind = [port for port in waiting if ask(port) != number]
            self.answers += len(waiting)
            self.stale += len(behind)
            waiting = behind
        self.given_up += late
        self.taken.append(time.monotonic() - returned)

    def row(self, beside: list[float] | None) -> Row:
        note = f"{self.stale} of {self.answers} answers stale, {len(self.taken)} updates"
        note += (
            f", {self.given_up} of them not seen by all within {LIMIT:.0f} s"
            if self.given_up
            else ""
        )
        return Row(self.contestant.name, self.taken, beside, note)


def ask(port: int) -> int:
    """Return what a worker serves, over a connection made for the purpose."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(b"GET /read HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b""
        while more := connection.recv(4096):
            answer += more
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["V0"])


def start(lab: Lab, contestant: Contestant, workers: int) -> Race:
    shared = lab.place()
    environ = {
        **contestant.environ,
        "SITE_DATABASE": str(shared),
        "BENCH_REDIS": lab.redis.url,
        "WAFFLE_REDIS_URL": lab.redis.url,
    }
    options = ("--disable-logging", "--module", f"{SITES}.{contestant.site}", *contestant.options)
    with lab.redis.client() as client:
        subscribed = client.pubsub_numsub("waffleconf")[0][1]
        served = lab.servers.uwsgi(
            *options, workers=workers, addressed=True, folder=lab.place(), **environ
        )
        writer = served
        if contestant.apart:
            writer = lab.servers.uwsgi(*options, workers=1, folder=lab.place(), **environ)
            if contestant.site == "waffle":
                served.eventually(
                    lambda: client.pubsub_numsub("waffleconf")[0][1] == subscribed + 2
                )
    return Race(contestant, served, writer)


def measure(lab: Lab) -> list[Table]:
    """Let the contestants of each number of workers take turns."""
    tables = []
    for workers in lab.sizes(4, 16, 64):
        entered = [contestant for contestant in contestants() if not missing(*contestant.needs)]
        if lab.small:
            entered = [
                contestant
                for contestant in entered
                if contestant.share == 1.0 and not contestant.apart
            ]
        with lab.redis.client() as client:
            client.flushall()
        races = [start(lab, contestant, workers) for contestant in entered]
        for number in range(1, lab.rounds + 1):
            for race in races:
                if number <= lab.some(race.contestant.share):
                    race.run(number)
        first = {
            race.contestant.apart: race for race in reversed(races)
        }  # on this host, and from another
        rows = [
            race.row(None if race in first.values() else first[race.contestant.apart].taken)
            for race in races
        ]
        left_out = [contestant.name for contestant in contestants() if missing(*contestant.needs)]
        title = (
            f"From the answer to an update until the last of {workers} workers serves the new value"
        )
        tables.append(Table(title, rows, left_out=left_out, charted=workers == 16))
        lab.end(*(server for race in races for server in (race.served, race.writer)))
    return tables
