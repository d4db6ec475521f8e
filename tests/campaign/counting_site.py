"""The application of the run over several hosts: a counter, and a pair that always equals it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

from flask import Flask, has_request_context, jsonify, request
from pydantic import AfterValidator

FOLDER = Path(os.environ["SITE_FOLDER"])
genuine_time = time.time


def shifted_time() -> float:
    """Return this host's clock, which jumps when its file says so."""
    try:
        return genuine_time() + float((FOLDER / "clock").read_text() or 0)
    except FileNotFoundError:
        return genuine_time()


time.time = shifted_time
import uwsgi_waffle  # noqa: E402  # with that clock


def hold(value: int) -> int:
    """Stay in the middle of an update that asks for it, for as long as there is a file ``hold``.

    A variable that isn't changed is validated only when the new snapshot is made, in the
    transaction.
    """
    if has_request_context() and "hold" in request.args and (FOLDER / "hold").exists():
        (FOLDER / "held").touch()
        while (FOLDER / "hold").exists():
            time.sleep(0.005)
    return value


application = Flask(__name__, instance_path=str(FOLDER / "instance"))
application.config["WAFFLE_CONFS"] = {
    "COUNT": {"default": 0},
    "PAIR": {"default": 0},
    "GATE": {"default": 0, "type": Annotated[int, AfterValidator(hold)]},
}
waffle = uwsgi_waffle.WaffleConf(application)


@application.get("/read")
def read() -> Any:
    values = waffle.values
    return jsonify(
        pid=os.getpid(),
        revision=waffle.revision,
        all=[values.COUNT, application.config["PAIR"], waffle.values["COUNT"], values.PAIR],
    )


@application.post("/count")
def count() -> Any:
    """Add one, whoever else does so; what the package refuses is told as 503."""
    try:
        while True:
            number = waffle.values.COUNT + 1
            try:
                changes = {"COUNT": number, "PAIR": number}
                result = waffle.update(changes, expect_revision=waffle.revision)
            except uwsgi_waffle.RevisionConflict:
                waffle.refresh()  # the request goes on with what somebody else has counted
            else:
                return jsonify(revision=result.revision, count=number)
    except uwsgi_waffle.WaffleError as error:
        return jsonify(error=f"{type(error).__name__}: {error}"), 503


@application.get("/status")
def status() -> Any:
    return jsonify(waffle.status(hosts="hosts" in request.args))
