"""What each of the two hosts serves: one variable, and a word of every worker that is told of its
change.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from flask import Flask, jsonify, request

import uwsgi_waffle

HOST = os.environ.get("EXAMPLE_HOST", "here")

application = Flask(__name__, instance_path=os.environ.get("EXAMPLE_FOLDER"))
application.config["WAFFLE_CONFS"] = {"SITENAME": {"desc": "Name of the site", "default": "Waffle"}}
waffle = uwsgi_waffle.WaffleConf(application)


@application.get("/")
def show() -> Any:
    """Tell who answers, and what is in force here."""
    return jsonify(host=HOST, revision=waffle.revision, SITENAME=waffle.values.SITENAME)


@application.post("/")
def rename() -> Any:
    """Change the name."""
    return jsonify(
        revision=waffle.update({"SITENAME": request.form["SITENAME"]}, actor=HOST).revision
    )


@waffle.on_change("SITENAME")
def renamed(change: uwsgi_waffle.Change) -> None:
    """Runs in every worker of every host, without a request to it."""
    worker = waffle.status()["kind"]
    # One write with its line end, so that two workers' lines never mix in the log they share.
    sys.stdout.write(f"{HOST}, {worker}: {change.old['SITENAME']} -> {change.new['SITENAME']}\n")
    sys.stdout.flush()
