"""A page that says hello, with the extension or, without ``BENCH_WITH``, of Flask alone; and who
updates meanwhile.
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
if "BENCH_WITH" not in os.environ:
    application.config.update(dict.fromkeys(NAMES, 0))
else:
    from uwsgi_waffle import SQLStore, WaffleConf

    application.config["WAFFLE_CONFS"] = {name: {"desc": "", "default": 0} for name in NAMES}
    waffle = WaffleConf(application, SQLStore(f"sqlite:///{FOLDER}/waffle.db"))


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
