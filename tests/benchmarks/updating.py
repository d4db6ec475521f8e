"""What ``update()`` costs, beside the bare transaction on the same store: the driver's, which
changes a value and a revision.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import redis
import sqlalchemy as sa
from flask import Flask

from uwsgi_waffle import RedisStore, SQLStore, WaffleConf
from uwsgi_waffle.stores import Store

from ..sql_servers import MariaDB, PostgreSQL, SQLServer
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


def transact_mariadb(connection: pymysql.Connection[Any], number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE bare SET value = %s WHERE `key` = 'revision'", (str(number),))
        cursor.execute("UPDATE bare SET value = %s WHERE `key` = 'V0'", (str(number),))
    connection.commit()


def transact_redis(client: redis.Redis, number: int) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hset("bare", "V0", number).hincrby("bare", "revision").execute()


def filled(url: str) -> str:
    """Create the bare table, with SQLite's journal and MariaDB's engine as the store has them;
    return the URL.
    """
    engine = sa.create_engine(url)
    bare = sa.Table(
        "bare",
        sa.MetaData(),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("value", sa.Text),
        **({"mysql_engine": "InnoDB"} if engine.name == "mysql" else {}),
    )
    with engine.connect() as connection:
        if engine.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        bare.create(connection)
        rows = [{"key": "revision", "value": "0"}, {"key": "V0", "value": "0"}]
        connection.execute(bare.insert(), rows)
        connection.commit()
    engine.dispose()
    return url


@contextmanager
def started(kind: type[SQLServer]) -> Iterator[SQLServer]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))  # one of its own, for root can't run it
    server = kind(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def connect_postgresql(url: str) -> psycopg.Connection[Any]:
    plain = sa.make_url(url).set(drivername="postgresql")
    return psycopg.connect(plain.render_as_string(hide_password=False))


def connect_mariadb(url: str) -> pymysql.Connection[Any]:
    found = sa.make_url(url)
    return pymysql.connect(
        unix_socket=found.query["unix_socket"],
        user=found.username,
        database=found.database,
        ssl_disabled=True,  # as the store does over a socket: to prepare TLS takes 25 ms
    )


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


def sqlite(lab: Lab) -> tuple[Store, Connects, Transact]:
    # A file for each: SQLite has more to do for a connection that is the only one.
    file, *bare = (lab.place() / "waffle.db" for _ in range(3))
    for path in bare:
        filled(f"sqlite:///{path}")
    connects = (partial(sqlite3.connect, bare[0]), partial(sqlite3.connect, bare[1]))
    return SQLStore(f"sqlite:///{file}"), connects, transact_sqlite


def on_server(
    server: SQLServer, connect: Callable[[str], Any], transact: Transact
) -> tuple[Store, Connects, Transact]:
    url = filled(server.fresh())
    return SQLStore(url), (partial(connect, url), partial(connect, url)), transact


def measure(lab: Lab) -> list[Table]:
    """Measure each store with few variables and with many."""
    tables: list[Table] = []
    left_out = ["MariaDB"] if MariaDB.missing() else []
    with ExitStack() as stack:
        postgresql = stack.enter_context(started(PostgreSQL))
        mariadb = None if left_out else stack.enter_context(started(MariaDB))
        for variables in lab.sizes(10, 1_000, 10_000):
            with lab.redis.client() as client:
                client.flushall()
            redis_client = lab.redis.client
            stores = {
                "SQLite": sqlite(lab),
                "PostgreSQL": on_server(postgresql, connect_postgresql, transact_postgresql),
                "Redis": (RedisStore(lab.redis.url), (redis_client, redis_client), transact_redis),
            }
            if mariadb is not None:
                stores["MariaDB"] = on_server(mariadb, connect_mariadb, transact_mariadb)
            for name, (store, connects, transact) in stores.items():
                taken = compared(lab, store, variables, connects, transact)
                anew = taken["bare, over a connection made for it"]
                rows = [
                    Row(way, samples, None if samples is anew else anew)
                    for way, samples in taken.items()
                ]
                title = f"Updating one of {variables} variables, {name}"
                tables.append(Table(title, rows, left_out=left_out, charted=variables == 10))
    return tables
