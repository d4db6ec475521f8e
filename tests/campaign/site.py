"""The application of the long run: two variables that are always equal, and what this process sees
of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from flask import Flask, jsonify, request

import uwsgi_waffle

application = Flask(__name__, instance_path=str(Path(os.environ["SITE_FOLDER"]) / "instance"))
application.config["WAFFLE_CONFS"] = {
    "A": {"default": 0},
    "B": {"default": 0},
    "TEXT": {"default": ""},
    "TOKEN": {"default": "", "secret": True},
}
waffle = uwsgi_waffle.WaffleConf(application)


@application.get("/read")
def read() -> Any:
    values = waffle.values
    return jsonify(
        pid=os.getpid(),
        revision=waffle.revision,
        all=[values.A, application.config["B"], waffle.values["A"], waffle.values.B],
    )


@application.post("/update")
def update() -> Any:
    """Change both; what the package refuses is told as 503 with its reason."""
    number = request.args["n"]
    try:
        changes = {"A": int(number), "B": int(number), "TEXT": "x" * (int(number) % 5000)}
        result = waffle.update(changes, wait=request.args.get("wait", type=float))
    except uwsgi_waffle.WaffleError as error:
        return jsonify(error=f"{type(error).__name__}: {error}"), 503
    return jsonify(
        revision=result.revision,
        pending=[p.kind for p in result.pending],
        applied=[p.kind for p in result.applied],
    )


@application.post("/set")
def set_() -> Any:
    return jsonify(waffle.update(request.get_json()).revision)


@application.get("/status")
def status() -> Any:
    return jsonify(waffle.status())


@application.get("/history")
def history() -> Any:
    return jsonify([[entry.key, entry.old, entry.new] for entry in waffle.history()])
