"""What ``update()`` costs, beside the bare transaction on the same store: the driver's, which changes a value and a revision."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis
import sqlalchemy as sa
from flask import Flask

from uwsgi_waffle import RedisStore, SQLStore, WaffleConf
from uwsgi_waffle.stores import Store

from ..sql_servers import PostgreSQL
from .lab import Lab
from .table import Row, Table

Connect = Callable[[], Any]
Transact = Callable[[Any, int], object]


def transact_sqlite(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("UPDATE bare SET value = ? WHERE key = 'revision'", (number,))
    connection.execute("UPDATE bare SET value = ? WHERE key = 'V0'", (number,))
    connection.commit()


def transact_postgresql(connection: psycopg.Connection[Any], number: int) -> None:
    connection.execute("UPDATE bare SET value = %s WHERE key = 'revision'", (str(number),))
    connection.execute("UPDATE bare SET value = %s WHERE key = 'V0'", (str(number),))
    connection.commit()


def transact_redis(client: redis.Redis, number: int) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hset("bare", "V0", number).hincrby("bare", "revision").execute()


def filled(url: str) -> None:
    """Create the bare table."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE bare (key varchar(255) PRIMARY KEY, value text)")
        connection.exec_driver_sql("INSERT INTO bare VALUES ('revision', '0'), ('V0', '0')")
    engine.dispose()


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))  # one of its own, for root can't run it
    server = PostgreSQL(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def compared(lab: Lab, store: Store, variables: int, connect: Connect, transact: Transact) -> dict[str, list[float]]:
    """Let a kept connection, one made for the purpose, and ``update()`` take turns."""
    app = Flask("site", instance_path=str(lab.place()))
    app.config["WAFFLE_CONFS"] = {f"V{number}": {"default": 0} for number in range(variables)}
    waffle = WaffleConf(app, store)
    waffle.update({f"V{number}": 1 for number in range(variables)})

    def anew(number: int) -> None:
        with closing(connect()) as connection:
            transact(connection, number)

    with closing(connect()) as kept:
        ways: dict[str, Callable[[int], object]] = {
            "bare, over a connection that is kept": lambda number: transact(kept, number),
            "bare, over a connection made for it": anew,
            "uwsgi_waffle: update()": lambda number: waffle.update({"V0": number}),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(2, lab.rounds + 2):
            for name, way in ways.items():
                begun = time.perf_counter()
                way(number)
                taken[name].append(time.perf_counter() - begun)
    app.extensions["waffleconf"].state.leave()
    return taken


def measure(lab: Lab) -> list[Table]:
    """Measure each store with few variables and with many."""
    tables = []
    with postgresql() as server:
        for variables in lab.sizes(10, 1_000, 10_000):
            path = lab.place() / "waffle.db"
            file, schema = SQLStore(f"sqlite:///{path}"), server.fresh()
            file.prepare()
            filled(f"sqlite:///{path}")
            filled(schema)
            with lab.redis.client() as client:
                client.flushall()
            options = sa.make_url(schema).query["options"]
            stores: dict[str, tuple[Store, Connect, Transact]] = {
                "SQLite": (file, lambda at=path: sqlite3.connect(at), transact_sqlite),
                "PostgreSQL": (
                    SQLStore(schema),
                    lambda o=options: psycopg.connect(host=str(server.folder), user="postgres", dbname="postgres", options=o),
                    transact_postgresql,
                ),
                "Redis": (RedisStore(lab.redis.url), lab.redis.client, transact_redis),
            }
            for name, (store, connect, transact) in stores.items():
                taken = compared(lab, store, variables, connect, transact)
                anew = taken["bare, over a connection made for it"]
                rows = [Row(way, samples, None if samples is anew else anew) for way, samples in taken.items()]
                tables.append(Table(f"Updating one of {variables} variables, {name}", rows, charted=variables == 10))
    return tables
