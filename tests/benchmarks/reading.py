"""What reading a variable costs in a request, beside plain Flask's ``current_app.config["X"]`` in the same run."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from pathlib import Path

from flask import Flask, current_app

from uwsgi_waffle import SQLStore, WaffleConf

from .table import Row, nanoseconds

LOOPS = 20_000


def measure(folder: Path, rounds: int) -> list[Row]:
    """Time each way of reading in turn, again and again."""
    plain = Flask("plain")
    plain.config["X"] = 1
    app = Flask("site", instance_path=str(folder))
    app.config["WAFFLE_CONFS"] = {"X": {"desc": "", "default": 1}}
    app.config["WAFFLE_POLL_INTERVAL"] = 3600.0
    waffle = WaffleConf(app, SQLStore(f"sqlite:///{folder}/waffle.db"))
    look = app.extensions["waffleconf"].state.look
    ways: list[tuple[str, Flask, Callable[[], object]]] = [
        ('reading: current_app.config["X"] of plain Flask', plain, lambda: current_app.config["X"]),
        ("reading: waffle.values.X in a request", app, lambda: waffle.values.X),
        ('reading: current_app.config["X"] of a declared variable', app, lambda: current_app.config["X"]),
        ("reading: the look at the start of a request", app, look),
    ]
    taken: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    for _ in range(rounds):
        for name, owner, read in ways:
            with owner.test_request_context():
                taken[name].append(timeit.timeit(read, number=LOOPS) / LOOPS)
    beside = taken[ways[0][0]]
    return [Row(name, taken[name], nanoseconds, beside) for name, _, _ in ways]
