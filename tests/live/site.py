"""The application that the live tests serve, in every mode; it tells what it sees and changes what
it is told.

``SITE_DECORATORS`` says whether uwsgidecorators is imported ``before`` or ``after`` the package, or
``late``, when the application is complete; or that its hook is set ``by hand``.
"""

# ruff: noqa: E402  # the order of imports is what some tests are about

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask, current_app, jsonify, request

try:
    import uwsgi
except ImportError:
    uwsgi = None

DECORATORS = os.environ.get("SITE_DECORATORS")
if DECORATORS == "before":
    import uwsgidecorators
elif DECORATORS == "by hand":
    uwsgi.post_fork_hook = lambda: record("births", "by hand")

import uwsgi_waffle
from uwsgi_waffle import RedisStore, SQLStore, WaffleConf
from uwsgi_waffle.stores import Stored

if DECORATORS == "after":
    import uwsgidecorators

FOLDER = Path(os.environ["SITE_FOLDER"])


class CountedStore(RedisStore if "SITE_REDIS" in os.environ else SQLStore):  # type: ignore[misc]  # one of them
    """Writes down each of its calls, so that a test can count what a host asks of its store."""

    def load(self) -> Stored:
        record("store", "load")
        return super().load()

    def load_after_pending_writes(self) -> Stored:
        if isinstance(self, SQLStore):  # Redis has nothing pending, and calls `load`
            record("store", "load")
        return super().load_after_pending_writes()

    def transact(self, build_commit: Any) -> Stored:
        record("store", "transact")
        stored = super().transact(build_commit)
        record("commits", stored.revision)
        if (FOLDER / "die-after-commit").exists():
            (FOLDER / "die-after-commit").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return stored


def record(kind: str, *words: object) -> None:
    """Append a line to ``<kind>.log``, in one write: several processes append."""
    line = " ".join(map(str, (os.getpid(), time.monotonic_ns(), *words))) + "\n"
    fd = os.open(FOLDER / f"{kind}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


waffle = WaffleConf()

if DECORATORS in ("before", "after"):
    uwsgidecorators.postfork(lambda: record("births", "decorated"))

if uwsgi and "spooler" in uwsgi.opt:

    def spooled(job: dict[bytes, bytes]) -> int:
        record("spooled", waffle.values.A)
        return int(uwsgi.SPOOL_OK)

    uwsgi.spooler = spooled


@waffle.on_change("A")
def changed(change: uwsgi_waffle.Change) -> None:
    assert current_app.config["A"] >= change.new["A"]
    record("changes", change.revision, change.old["A"], change.new["A"])


def seen() -> dict[str, Any]:
    """What this request sees, in every way there is to see it."""
    values = waffle.values
    return {
        "pid": os.getpid(),
        "worker": uwsgi.worker_id() if uwsgi else 0,
        "revision": waffle.revision,
        "all": [
            values.A,
            values["B"],
            current_app.config["A"],
            current_app.config.get("B"),
            waffle.values.A,
            waffle.values.B,
        ],
    }


pool: ProcessPoolExecutor | None = None  # of this worker


def pool_job() -> tuple[int, int]:
    return (os.getpid(), waffle.values.A)


def create_app() -> Flask:
    app = Flask(__name__, instance_path=str(FOLDER / "instance"))
    app.config["WAFFLE_CONFS"] = {
        "A": {"desc": "a number", "default": 0},
        "B": {"desc": "the same number", "default": 0},
        "N": {"desc": "a counter", "default": 0},
        "S": {"desc": "a text", "default": ""},
    }
    url = (
        os.environ.get("SITE_REDIS")
        or os.environ.get("SITE_SQL")
        or f"sqlite:///{os.environ.get('SITE_DATABASE', FOLDER)}/waffle.db"
    )
    waffle.init_app(app, CountedStore(url, timeout=float(os.environ.get("SITE_TIMEOUT", "5"))))

    @app.get("/read")
    def read() -> Any:
        return jsonify(seen())

    @app.get("/nothing")
    def nothing() -> Any:
        """Read no variable."""
        return jsonify(pid=os.getpid())

    @app.post("/update")
    def update() -> Any:
        number = request.args.get("n", type=int)
        seconds = request.args.get("expires", type=float)
        result = waffle.update(
            {"A": number, "B": number},
            wait=request.args.get("wait", type=float),
            expires=timedelta(seconds=seconds) if seconds else None,
        )
        own = seen()
        return jsonify(
            revision=result.revision,
            seen=own,
            pending=[p.kind for p in result.pending],
            applied=len(result.applied),
        )

    @app.post("/count")
    def count() -> Any:
        while True:
            try:
                return jsonify(
                    waffle.update(
                        {"N": waffle.values.N + 1}, expect_revision=waffle.revision
                    ).revision
                )
            except uwsgi_waffle.RevisionConflict:
                waffle.refresh()

    @app.post("/set")
    def set_() -> Any:
        return jsonify(waffle.update(request.get_json()).revision)

    @app.get("/values")
    def values() -> Any:
        return jsonify(waffle.values.model_dump())

    @app.get("/long")
    def long() -> Any:
        first = seen()
        record("long", "begun")
        samples = []
        deadline = time.monotonic() + 60
        while not (FOLDER / "finish").exists() and time.monotonic() < deadline:
            samples.append(seen())
            time.sleep(0.005)
        return jsonify(first=first, samples=samples, last=seen(), moved=[waffle.refresh(), seen()])

    @app.post("/spool")
    def spool() -> Any:
        uwsgi.spool({b"any": b"job"})
        return jsonify(True)

    @app.post("/pool")
    def in_pool() -> Any:
        global pool
        pool = pool or ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
        return jsonify(pool.submit(pool_job).result(30))

    @app.get("/history")
    def history() -> Any:
        told = waffle.history(limit=request.args.get("limit", 20, type=int))
        return jsonify([[entry.revision, entry.old, entry.new] for entry in told])

    @app.get("/status")
    def status() -> Any:
        return jsonify(waffle.status())

    return app


application = create_app()

if DECORATORS == "late":
    import uwsgidecorators
