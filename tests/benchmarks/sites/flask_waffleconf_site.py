"""Flask-WaffleConf as its manual says, on SQLAlchemy, under ``lazy-apps`` and ``enable-threads``.

With two patches, without which it doesn't run today: its thread gets an application context, and,
for it can only publish to
localhost:6379, its Redis clients are those of the benchmark's server.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import redis
from flask import Flask, jsonify, request
from flask_sqlalchemy import SQLAlchemy
from flask_waffleconf import AlchemyWaffleStore, WaffleConf, WaffleMixin
from flask_waffleconf.core import _WaffleState

FOLDER = Path(os.environ.get("SITE_DATABASE", os.environ["SITE_FOLDER"]))
application = Flask(__name__)
application.config.update(
    SQLALCHEMY_DATABASE_URI=f"sqlite:///{FOLDER}/legacy.db",
    WAFFLE_CONFS={
        f"V{number}": {"desc": "", "default": 0}
        for number in range(int(os.environ.get("SITE_VARIABLES", "10")))
    },
    WAFFLE_WATCHTYPE=os.environ.get("SITE_WATCHTYPE", "file"),
    WAFFLE_WATCHER_FILE=f"{FOLDER}/legacy.txt",
)
db = SQLAlchemy(application)


class Conf(db.Model, WaffleMixin):  # type: ignore[name-defined, misc]  # made at run time
    id = db.Column(db.Integer, primary_key=True)
    key = db.Column(db.String(255), unique=True)
    value = db.Column(db.Text)


unpatched = _WaffleState.update_conf


def update_conf(state: Any) -> None:
    with application.app_context():
        unpatched(state)


_WaffleState.update_conf = update_conf
if "BENCH_REDIS" in os.environ:
    redis.client.StrictRedis = lambda **_: redis.Redis.from_url(os.environ["BENCH_REDIS"])
store = AlchemyWaffleStore(db=db, model=Conf)
waffle = WaffleConf()
with (FOLDER / "legacy.lock").open("w") as lock, application.app_context():
    # One worker after the other, and before its thread starts, which would die if two created the
    # same row.
    fcntl.flock(lock, fcntl.LOCK_EX)
    db.create_all()
    WaffleConf(application, store).state.update_conf()
application.config["WAFFLE_MULTIPROC"] = True
waffle.init_app(application, store)


@application.post("/update")
def update() -> Any:
    waffle.state.update_db({"V0": int(request.args["n"])})
    return jsonify(True)


@application.get("/read")
def read() -> Any:
    return jsonify({"V0": application.config["V0"], "pid": os.getpid()})
