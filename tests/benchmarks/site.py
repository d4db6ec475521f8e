"""The application that `propagation` measures: idle workers write down when they were told."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import uwsgi
from flask import Flask, jsonify, request

from uwsgi_waffle import SQLStore, WaffleConf

FOLDER = Path(os.environ["SITE_FOLDER"])
BARE = 10  # a signal number of our own
times = memoryview(mmap.mmap(-1, 4096)).cast("q")  # made before the fork: shared by all workers


def told(_: object) -> None:
    """Note when this worker was told."""
    if uwsgi.worker_id():  # not a mule
        times[uwsgi.worker_id()] = time.monotonic_ns()


class TimedStore(SQLStore):
    """Notes when a transaction is committed."""

    def transact(self, decide: Any) -> Any:
        stored = super().transact(decide)
        times[0] = time.monotonic_ns()
        return stored


uwsgi.register_signal(BARE, "active-workers", told)
application = Flask(__name__, instance_path=str(FOLDER / "instance"))
application.config["WAFFLE_CONFS"] = {
    f"V{number}": {"desc": "", "default": 0} for number in range(int(os.environ.get("SITE_VARIABLES", "10")))
}
waffle = WaffleConf(application, TimedStore(f"sqlite:///{os.environ.get('SITE_DATABASE', FOLDER)}/waffle.db"))
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


@application.get("/times")
def read() -> Any:
    """Return the moment of the commit or of the signal, then the moment at which each worker was told."""
    return jsonify(times[: uwsgi.numproc + 1].tolist())


@application.get("/pid")
def pid() -> Any:
    """Return this worker's process id."""
    return jsonify(os.getpid())


@application.get("/read")
def ready() -> Any:
    """Say that this worker answers."""
    return jsonify(uwsgi.worker_id())
