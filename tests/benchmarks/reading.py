"""What reading a variable costs in a request, beside plain Flask's ``current_app.config["X"]`` in
the same run.
"""

from __future__ import annotations

import importlib
import os
import timeit
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, current_app

from uwsgi_waffle import SQLStore, WaffleConf

from .lab import SITES, Lab, missing
from .table import Row, Table

LOOPS = 20_000


@dataclass
class Way:
    """A way of reading, and how long it took."""

    name: str
    read: Callable[[], object]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    loops: int = LOOPS
    taken: list[float] = field(default_factory=list)

    def run(self) -> None:
        with self.context():
            self.taken.append(timeit.timeit(self.read, number=self.loops) / self.loops)


def flask_ways(lab: Lab) -> Iterator[Way]:
    plain = Flask("plain")
    plain.config["X"] = 1
    yield Way(
        'current_app.config["X"], plain Flask (and Flask-WaffleConf)',
        lambda: current_app.config["X"],
        plain.test_request_context,
    )
    yield Way('app.config["X"], plain Flask', lambda: plain.config["X"], plain.test_request_context)
    folder = lab.place()
    app = Flask("site", instance_path=str(folder))
    app.config["WAFFLE_CONFS"] = {"X": {"desc": "", "default": 1}}
    app.config["WAFFLE_POLL_INTERVAL"] = 3600.0
    waffle = WaffleConf(app, SQLStore(f"sqlite:///{folder}/waffle.db"))
    values = waffle.values
    yield Way("uwsgi_waffle: waffle.values.X", lambda: waffle.values.X, app.test_request_context)
    yield Way(
        "uwsgi_waffle: values.X, after values = waffle.values",
        lambda: values.X,
        app.test_request_context,
    )
    yield Way('uwsgi_waffle: app.config["X"]', lambda: app.config["X"], app.test_request_context)
    yield Way(
        'uwsgi_waffle: current_app.config["X"]',
        lambda: current_app.config["X"],
        app.test_request_context,
    )
    # Outside a request each read looks.
    yield Way("uwsgi_waffle: the look at the first read", lambda: waffle.values)


def dynaconf_ways() -> Iterator[Way]:
    from dynaconf import Dynaconf, FlaskDynaconf

    settings = Dynaconf(X=1)
    yield Way("dynaconf: settings.X", lambda: settings.X)
    app = Flask("dynaconf")
    FlaskDynaconf(app, X=1)
    yield Way(
        'dynaconf: current_app.config["X"]',
        lambda: current_app.config["X"],
        app.test_request_context,
    )


def openfeature_ways() -> Iterator[Way]:
    from openfeature import api
    from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

    api.set_provider(InMemoryProvider({"X": InMemoryFlag("one", {"one": 1})}), domain="bench")
    client = api.get_client("bench")
    yield Way("OpenFeature, in memory: get_integer_value", lambda: client.get_integer_value("X", 0))


def constance_ways(lab: Lab) -> Iterator[Way]:
    backend = "constance.backends.database.DatabaseBackend"
    os.environ.update(
        BENCH_BACKEND=backend, BENCH_REDIS=lab.redis.url, SITE_FOLDER=str(lab.place())
    )
    # The settings, without which the rest can't be imported.
    importlib.import_module(f"{SITES}.constance_site")
    from constance import base
    from constance.backends.database import DatabaseBackend
    from constance.backends.redisd import CachingRedisBackend, RedisBackend

    for name, kind, loops in (
        ("database", DatabaseBackend, 200),
        ("Redis", RedisBackend, 200),
        ("caching Redis", CachingRedisBackend, LOOPS),
    ):
        config = base.Config()
        config.__dict__["_backend"] = kind()
        config.V0 = 1
        yield Way(
            f"django-constance, {name}: config.X", lambda config=config: config.V0, loops=loops
        )


def measure(lab: Lab) -> list[Table]:
    """Time each way of reading in turn, again and again."""
    ways, left_out = list(flask_ways(lab)), []
    if missing("dynaconf"):
        left_out.append("dynaconf")
    else:
        ways += dynaconf_ways()
    if missing("openfeature"):
        left_out.append("OpenFeature")
    else:
        ways += openfeature_ways()
    if missing("constance"):
        left_out.append("django-constance")
    else:
        ways += constance_ways(lab)
    for _ in range(lab.rounds):
        for way in ways:
            way.run()
    beside = ways[0].taken
    rows = [Row(way.name, way.taken, None if way is ways[0] else beside) for way in ways]
    return [Table("Reading a variable in a request", rows, left_out=left_out, charted=True)]
