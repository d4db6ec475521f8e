"""A variable that is read once: the size of a pool. When it changes, uWSGI reloads.

Start it, look at it, and change the size from a second shell:

    uwsgi --ini examples/reload/uwsgi.ini
    curl http://127.0.0.1:8000/
    flask --app examples/reload/app.py waffle set POOL_SIZE=8
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

from annotated_types import Ge, Le
from flask import Flask

import uwsgi_waffle

try:
    import uwsgi
except ImportError:  # a shell, a job: nothing to reload
    uwsgi = None

app = Flask(__name__)
app.config["WAFFLE_CONFS"] = {
    "POOL_SIZE": {
        "desc": "Threads a worker",
        "default": 4,
        "type": Annotated[int, Ge(1), Le(64)],
    },
}
waffle = uwsgi_waffle.WaffleConf(app)
size = waffle.values.POOL_SIZE
pool = ThreadPoolExecutor(size)  # its threads start at their first work, after the fork


# on_change: on each host it runs in all workers. on_update would run in one process, perhaps in a
# shell, or on another host.
@waffle.on_change("POOL_SIZE")
def reload(change: uwsgi_waffle.Change) -> None:
    if uwsgi is not None:
        uwsgi.reload()  # from however many workers: uWSGI reloads once


@app.get("/")
def page() -> str:
    """Let the pool do something."""
    return pool.submit(lambda: f"one of {size} threads\n").result()
