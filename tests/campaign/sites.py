"""A host on each kind of store, whose processes are objects here and children that may be killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from flask import Flask

from uwsgi_waffle import RedisStore, SQLStore, WaffleConf
from uwsgi_waffle.stores import Commit, Store, Stored

from ..unit.conftest import Host, Process
from .tally import Tally

CONFS: dict[str, Any] = {"A": {"default": 0}, "B": {"default": 0}, "TEXT": {"default": ""}}
SLOW = 20.0  # seconds for which a store may be busy on this machine

OpenStore = Callable[[], Store]


class Site:
    """One host and its store.

    Args:
        folder: an empty one.
        open_store: opens the store; each process has one of its own.
        settings: of the application, without ``WAFFLE_``.
    """

    def __init__(self, folder: Path, open_store: OpenStore, tally: Tally, **settings: Any) -> None:
        self.host, self.open_store, self.tally, self._settings = (
            Host(folder),
            open_store,
            tally,
            settings,
        )
        self.host.instance.mkdir(parents=True, exist_ok=True)
        self.store = open_store()

    def start(self, store: Store | None = None) -> Process:
        return self.host.start(store or self.open_store(), confs=CONFS, **self._settings)

    def truth(self) -> Stored:
        """Return what the store holds, when all that is under way in it is done."""
        return self.store.transact(lambda stored: None)

    def write_elsewhere(self, number: int) -> None:
        """Commit what another host's update would, without a word to this one."""
        self.store.transact(lambda stored: Commit(values_of(number)))

    def edit(self, number: int) -> None:
        """Change the rows as somebody would by hand."""
        if isinstance(self.store, RedisStore):
            with self.store._connected() as client:
                client.hset(self.store._hash, mapping=values_of(number))
            return
        # the other store here is SQL
        with self.store._connect().begin() as connection:  # type: ignore[attr-defined]
            for key, text in values_of(number).items():
                connection.execute(
                    sa.text("UPDATE waffle_values SET value = :text WHERE key = :key"),
                    {"text": text, "key": key},
                )

    def touch(self) -> None:
        self.host.watch_file.touch()

    def judge(self, observers: Mapping[str, Process], what: str) -> Stored:
        """Have everyone look, then ask the store what is true, and hold them to it."""
        for process in observers.values():
            process.state._lease = 0.0
            process.state.look()
        truth = self.truth()
        for name, process in observers.items():
            process.state._lease = 0.0
            self.tally.looks += 1
            seen = served(process)
            if seen != served_by(truth):
                kind = (
                    "torn"
                    if seen[1] != seen[2]
                    else "lost"
                    if seen[0] != truth.revision
                    else "stale"
                )
                self.tally.wrong(
                    kind, f"{what}: {name} serves {seen}, the store has {served_by(truth)}"
                )
        return truth


def values_of(number: int) -> dict[str, str | None]:
    return {"A": str(number), "B": str(number)}


def new_values(number: int) -> dict[str, object]:
    """Return what an update with that number sets; its snapshot isn't short."""
    return {"A": number, "B": number, "TEXT": "x" * (number % 3000)}


def served(process: Process) -> tuple[int, object, object]:
    """Return revision, A and B of one look."""
    snapshot = process.state.look()
    # declared by `CONFS`
    return snapshot.revision, snapshot.values.A, snapshot.values.B  # type: ignore[attr-defined]


def served_by(stored: Stored) -> tuple[int, object, object]:
    return stored.revision, *(json.loads(stored.values.get(name, "0")) for name in ("A", "B"))


def sqlite(folder: Path) -> OpenStore:
    return lambda: SQLStore(f"sqlite:///{folder}/waffle.db", timeout=SLOW)


__all__ = [
    "CONFS",
    "Flask",
    "Site",
    "WaffleConf",
    "new_values",
    "served",
    "served_by",
    "sqlite",
    "values_of",
]
