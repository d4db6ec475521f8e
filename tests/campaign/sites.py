"""A host on each kind of store; its processes are objects here, and children that are killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.pool import NullPool

from uwsgi_waffle import RedisStore, SQLStore, WaffleConf
from uwsgi_waffle.state import WaffleState
from uwsgi_waffle.stores import Commit, Store, Stored

from .tally import Tally

__all__ = [
    "CONFS",
    "SLOW",
    "Process",
    "Site",
    "StoreKind",
    "in_redis",
    "new_values",
    "served",
    "served_by",
    "sql",
    "sqlite",
    "values_of",
]

CONFS: dict[str, Any] = {
    "A": {"default": 0},
    "B": {"default": 0},
    "TEXT": {"default": ""},
    "TOKEN": {"default": "", "secret": True},
}
SLOW = 20.0  # seconds for which a store may be busy on this machine


@dataclass(frozen=True)
class StoreKind:
    """A kind of store.

    Attributes:
        open: opens it; each process has one of its own.
        edit: changes rows as somebody would by hand; gets JSON texts by name.
    """

    open: Callable[[], Store]
    edit: Callable[[Mapping[str, str]], object]


class Process:
    """What one process of the host has."""

    def __init__(self, app: Flask, waffle: WaffleConf) -> None:
        self.app, self.waffle = app, waffle
        self.state: WaffleState = app.extensions["waffleconf"]

    def follow(self) -> None:
        """Do what the next request does when the last look at the files is 10 ms ago."""
        self.state.sync.sync()

    def tick(self) -> None:
        """Do what a signal, the timer or the thread does."""
        self.state.tick()


class Site:
    """One host and its store.

    Args:
        folder: an empty one.
        kind: the store's.
        settings: of the application, without ``WAFFLE_``.
    """

    def __init__(self, folder: Path, kind: StoreKind, tally: Tally, **settings: Any) -> None:
        self.kind, self.tally = kind, tally
        # No process compares with the store of its own accord.
        self._settings = {"RECONCILE_INTERVAL": 3600.0, **settings}
        self.instance = folder / "instance"
        self.instance.mkdir(parents=True, exist_ok=True)
        self.watch_file = self.instance / "waffle.watch"
        self.folder = self.instance / "waffle.watch.d"
        self.header, self.snapshots = self.folder / "header", self.folder / "snapshots"
        self.store = kind.open()

    def start(self, store: Store | None = None) -> Process:
        """Start one more process of the host, in this process: nothing is shared but files."""
        app = Flask("site", instance_path=str(self.instance))
        app.config["WAFFLE_CONFS"] = CONFS
        app.config.update({f"WAFFLE_{name}": value for name, value in self._settings.items()})
        return Process(app, WaffleConf(app, store or self.kind.open()))

    def truth(self) -> Stored:
        """Return what the store holds, when all that is under way in it is done."""
        return self.store.transact(lambda stored: None)

    def write_elsewhere(self, number: int) -> None:
        """Commit what another host's update would, without a word to this one."""
        self.store.transact(lambda stored: Commit(values_of(number)))

    def edit(self, number: int) -> None:
        """Change the rows as somebody would by hand."""
        self.kind.edit({name: str(number) for name in ("A", "B")})

    def touch(self) -> None:
        """Say that the store may have changed."""
        self.watch_file.touch()

    def judge(self, observers: Mapping[str, Process], what: str) -> Stored:
        """Let everyone serve a request, then ask the store what is true, and hold them to it."""
        for process in observers.values():
            process.follow()
        truth = self.truth()
        for name, process in observers.items():
            self.tally.looks += 1
            seen = served(process)
            if seen == served_by(truth):
                continue
            fault = "stale" if seen[0] == truth.revision else "lost"
            if seen[1] != seen[2]:
                fault = "torn"
            text = f"{name} serves {seen}, the store has {served_by(truth)}"
            self.tally.wrong(fault, f"{what}: {text}")
        return truth


def values_of(number: int) -> dict[str, str | None]:
    return {"A": str(number), "B": str(number)}


def new_values(number: int) -> dict[str, object]:
    """Return what an update with that number sets; its snapshot isn't short."""
    return {"A": number, "B": number, "TEXT": "x" * (number % 3000)}


def served(process: Process) -> tuple[int, object, object]:
    """Return revision, A and B of one look, as a request sees them."""
    snapshot = process.state.current()
    return snapshot.revision, snapshot.values.A, snapshot.values.B  # type: ignore[attr-defined]  # declared by `CONFS`


def served_by(stored: Stored) -> tuple[int, object, object]:
    return stored.revision, *(json.loads(stored.values.get(name, "0")) for name in ("A", "B"))


def sql(url: str) -> StoreKind:
    """Return the kind that is in an SQL database."""

    def edit(values: Mapping[str, str]) -> None:
        with sa.create_engine(url, poolclass=NullPool).begin() as connection:
            for key, text in values.items():
                connection.execute(
                    sa.text("UPDATE waffle_values SET value = :text WHERE key = :key"),
                    {"text": text, "key": key},
                )

    return StoreKind(partial(SQLStore, url, timeout=SLOW), edit)


def sqlite(folder: Path) -> StoreKind:
    """Return the kind that is a SQLite file."""
    return sql(f"sqlite:///{folder}/waffle.db")


def in_redis(url: str) -> StoreKind:
    """Return the kind that is in Redis."""

    def edit(values: Mapping[str, str]) -> None:
        with redis.Redis.from_url(url) as client:
            client.hset("waffle", mapping=values)

    return StoreKind(partial(RedisStore, url, timeout=SLOW), edit)
