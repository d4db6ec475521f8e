"""An application with uwsgi_waffle: idle workers write down when they were told."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import uwsgi
from flask import Flask, jsonify, request

from uwsgi_waffle import SQLStore, WaffleConf
from uwsgi_waffle.state import WaffleState

FOLDER = Path(os.environ["SITE_FOLDER"])
LOADS, TICKS = 128, 256  # where the counters of each worker begin
BARE = 10  # a signal number of our own
times = memoryview(mmap.mmap(-1, 4096)).cast("q")  # made before the fork: shared by all workers


def told(_: object) -> None:
    """Note when this worker was told."""
    if uwsgi.worker_id():  # not a mule
        times[uwsgi.worker_id()] = time.monotonic_ns()


class TimedStore(SQLStore):
    """Notes when a transaction is committed."""

    def load_after_pending_writes(self) -> Any:
        times[LOADS + uwsgi.worker_id()] += 1
        return super().load_after_pending_writes()

    def transact(self, build_commit: Any) -> Any:
        stored = super().transact(build_commit)
        times[0] = time.monotonic_ns()
        return stored


def tick(state: WaffleState) -> None:
    times[TICKS + uwsgi.worker_id()] += 1
    uncounted(state)


uncounted, WaffleState.tick = WaffleState.tick, tick
uwsgi.register_signal(BARE, "active-workers", told)
application = Flask(__name__, instance_path=str(FOLDER / "instance"))
application.config["WAFFLE_CONFS"] = {
    f"V{number}": {"desc": "", "default": 0}
    for number in range(int(os.environ.get("SITE_VARIABLES", "10")))
}
SQLITE = f"sqlite:///{os.environ.get('SITE_DATABASE', FOLDER)}/waffle.db"
waffle = WaffleConf(application, TimedStore(os.environ.get("SITE_SQL", SQLITE)))
waffle.on_change()(told)


@application.post("/update")
def update() -> Any:
    """Change one variable."""
    waffle.update({"V0": request.args.get("n", type=int)})
    return jsonify(True)


@application.post("/fill")
def fill() -> Any:
    """Give every variable a value in the store."""
    waffle.update(dict.fromkeys(waffle.values.model_dump(), 1))
    return jsonify(True)


@application.post("/bare")
def bare() -> Any:
    """Send a bare signal."""
    times[0] = time.monotonic_ns()
    uwsgi.signal(BARE)
    return jsonify(True)


@application.post("/burst")
def burst() -> Any:
    """Update many times, so many a second if that can be."""
    pause, due = 1 / int(request.args["rate"]), time.monotonic()
    for _ in range(int(request.args["n"])):
        waffle.update({"V0": waffle.values.V0 + 1})
        due += pause
        time.sleep(max(0.0, due - time.monotonic()))
    return jsonify(True)


@application.get("/counters")
def counters() -> Any:
    """Return how often this instance's workers have read the store, and been woken by a signal."""
    return jsonify(loads=sum(times[LOADS:TICKS]), ticks=sum(times[TICKS:]))


@application.get("/times")
def read() -> Any:
    """Return the moment of the commit or of the signal, then the moment at which each worker was
    told.
    """
    return jsonify(times[: uwsgi.numproc + 1].tolist())


@application.get("/read")
def served() -> Any:
    return jsonify({"V0": waffle.values.V0, "pid": os.getpid()})
