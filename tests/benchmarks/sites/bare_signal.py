"""The least that uWSGI can do: a number in shared memory, and a signal on which each worker takes
it.
"""

from __future__ import annotations

import mmap
from typing import Any

import uwsgi
from flask import Flask, jsonify, request

BARE = 10  # a signal number of our own
shared = memoryview(mmap.mmap(-1, 8)).cast("q")  # made before the fork
mine = 0
application = Flask(__name__)


def take(_: int) -> None:
    global mine
    mine = shared[0]


uwsgi.register_signal(BARE, "active-workers", take)


@application.post("/update")
def update() -> Any:
    shared[0] = int(request.args["n"])
    uwsgi.signal(BARE)
    return jsonify(True)


@application.get("/read")
def read() -> Any:
    return jsonify({"V0": mine})
