"""What ``update()`` costs, beside the bare transaction on the same store: the driver's, which
changes a value and a revision.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
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

Connects = tuple[
    Callable[[], Any], Callable[[], Any]
]  # for a connection that is kept, and for one that is made for one transaction
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


def filled(url: str) -> str:
    """Create the bare table, on SQLite with the store's journal mode; return the URL."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        if engine.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("CREATE TABLE bare (key varchar(255) PRIMARY KEY, value text)")
        connection.exec_driver_sql("INSERT INTO bare VALUES ('revision', '0'), ('V0', '0')")
        connection.commit()
    engine.dispose()
    return url


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))  # one of its own, for root can't run it
    server = PostgreSQL(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def compared(
    lab: Lab, store: Store, variables: int, connects: Connects, transact: Transact
) -> dict[str, list[float]]:
    """Let a kept connection, one made for the purpose, and ``update()`` take turns."""
    keep, connect = connects
    app = Flask("site", instance_path=str(lab.place()))
    app.config["WAFFLE_CONFS"] = {f"V{number}": {"default": 0} for number in range(variables)}
    app.config["WAFFLE_POLL_INTERVAL"] = 3600.0  # its thread has nothing to do here
    waffle = WaffleConf(app, store)
    waffle.update({f"V{number}": 1 for number in range(variables)})

    def anew(number: int) -> None:
        with closing(connect()) as connection:
            transact(connection, number)

    with closing(keep()) as kept:
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
    app.extensions["waffleconf"].leave()
    return taken


def measure(lab: Lab) -> list[Table]:
    """Measure each store with few variables and with many."""
    tables = []
    with postgresql() as server:
        for variables in lab.sizes(10, 1_000, 10_000):
            # A file for each: SQLite has more to do for a connection that is the only one.
            file, *bare = (lab.place() / "waffle.db" for _ in range(3))
            for path in bare:
                filled(f"sqlite:///{path}")
            schema = filled(server.fresh())
            with lab.redis.client() as client:
                client.flushall()
            connect = partial(
                psycopg.connect,
                str(sa.make_url(schema).set(drivername="postgresql").render_as_string()),
            )
            stores: dict[str, tuple[Store, Connects, Transact]] = {
                "SQLite": (
                    SQLStore(f"sqlite:///{file}"),
                    (partial(sqlite3.connect, bare[0]), partial(sqlite3.connect, bare[1])),
                    transact_sqlite,
                ),
                "PostgreSQL": (SQLStore(schema), (connect, connect), transact_postgresql),
                "Redis": (
                    RedisStore(lab.redis.url),
                    (lab.redis.client, lab.redis.client),
                    transact_redis,
                ),
            }
            for name, (store, connects, transact) in stores.items():
                taken = compared(lab, store, variables, connects, transact)
                anew = taken["bare, over a connection made for it"]
                rows = [
                    Row(way, samples, None if samples is anew else anew)
                    for way, samples in taken.items()
                ]
                tables.append(
                    Table(
                        f"Updating one of {variables} variables, {name}",
                        rows,
                        charted=variables == 10,
                    )
                )
    return tables
