"""A page that says hello, with the extension or, without ``BENCH_WITH``, of Flask alone; and who
updates meanwhile.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from flask import Flask, jsonify

FOLDER = Path(os.environ["SITE_FOLDER"])
application = Flask(__name__, instance_path=str(FOLDER / "instance"))
if "BENCH_WITH" in os.environ:
    from uwsgi_waffle import SQLStore, WaffleConf

    application.config["WAFFLE_CONFS"] = {
        f"V{number}": {"desc": "", "default": 0} for number in range(10)
    }
    waffle = WaffleConf(application, SQLStore(f"sqlite:///{FOLDER}/waffle.db"))


@application.get("/")
def hello() -> str:
    return "Hello, World!"


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
