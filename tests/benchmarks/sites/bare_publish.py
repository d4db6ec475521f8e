"""The least that Redis can do: a thread in each worker subscribes and takes the number that is
published.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import redis
import uwsgi
from flask import Flask, jsonify, request

client = redis.Redis.from_url(os.environ["BENCH_REDIS"])
mine = 0
application = Flask(__name__)


def listen() -> None:
    global mine
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe("bare")
    for message in subscription.listen():
        mine = int(message["data"])


uwsgi.post_fork_hook = lambda: threading.Thread(target=listen, daemon=True).start()


@application.post("/update")
def update() -> Any:
    client.publish("bare", request.args["n"])
    return jsonify(True)


@application.get("/read")
def read() -> Any:
    return jsonify({"V0": mine})
