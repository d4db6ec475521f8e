"""A page that says hello, of Flask alone or with what ``BENCH_WITH`` names: ``pydantic``, or the
extension with its values in ``sqlite`` or ``redis``; and who updates meanwhile.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from flask import Flask, current_app, jsonify

FOLDER = Path(os.environ["SITE_FOLDER"])
application = Flask(__name__, instance_path=str(FOLDER / "instance"))
NAMES = [f"V{number}" for number in range(10)]
WITH = os.environ.get("BENCH_WITH")
if WITH in ("sqlite", "redis"):
    from uwsgi_waffle import WaffleConf

    url = f"sqlite:///{FOLDER}/waffle.db" if WITH == "sqlite" else os.environ["BENCH_REDIS"]
    application.config["WAFFLE_CONFS"] = {name: {"desc": "", "default": 0} for name in NAMES}
    application.config["WAFFLE_STORE_URL"] = url
    waffle = WaffleConf(application)
else:
    application.config.update(dict.fromkeys(NAMES, 0))
    if WITH == "pydantic":
        from pydantic import create_model

        create_model("Values", **dict.fromkeys(NAMES, (int, 0)))  # type: ignore[call-overload]  # names of ours


@application.get("/")
def hello() -> str:
    return "Hello, World!"


@application.get("/three")
def three() -> str:
    config = current_app.config
    return f"Hello, {config['V0']}, {config['V1']}, {config['V2']}!"


@application.get("/read")
def read() -> object:
    return jsonify({"V0": 1, "pid": os.getpid()})


@application.post("/update")
def ignore() -> object:
    return jsonify(True)


def update(rate: int) -> None:
    """Update so many times a second until this process is ended."""
    number, due = 0, time.monotonic()
    while True:
        number, due = number + 1, due + 1 / rate
        waffle.update({"V0": number})
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    update(int(sys.argv[1]))
