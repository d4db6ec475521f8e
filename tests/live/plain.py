"""The same server without the package: what a worker holds and does of its own."""

import os

from flask import Flask, jsonify

application = Flask(__name__)


@application.get("/read")
@application.get("/nothing")
def read():  # type: ignore[no-untyped-def]  # as short as an application can be
    return jsonify(pid=os.getpid())
