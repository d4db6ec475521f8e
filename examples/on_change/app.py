"""Three things that follow a variable in every worker, whether or not it gets requests: a log
level, a feature switch, a rate limit.

Start it, and change the log level of all four workers from a second shell:

    uwsgi --http-socket 127.0.0.1:8000 --master --processes 4 --wsgi-file examples/on_change/app.py
    flask --app examples/on_change/app.py waffle set LOG_LEVEL=DEBUG --wait 2

No hook is called at the start, so each of them is also called once here, with the values that there
are.
"""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import Annotated, Literal

from annotated_types import Ge
from flask import Flask, Response, abort, jsonify, request

import uwsgi_waffle

application = Flask(__name__)
application.config["WAFFLE_CONFS"] = {
    "LOG_LEVEL": {
        "desc": "What is logged",
        "default": "INFO",
        "type": Literal["DEBUG", "INFO", "WARNING"],
    },
    "SUGGESTIONS": {"desc": "Whether names are suggested", "default": False},
    "RATE": {
        "desc": "Requests an hour that one worker answers",
        "default": 3600,
        "type": Annotated[int, Ge(1)],
    },
}
waffle = uwsgi_waffle.WaffleConf(application)
logging.basicConfig(format="%(process)d %(levelname)s %(message)s")
log = logging.getLogger("site")


# A log level: set where it is kept, in the logger.
@waffle.on_change("LOG_LEVEL")
def set_log_level(change: uwsgi_waffle.Change | None = None) -> None:
    log.setLevel(waffle.values.LOG_LEVEL)
    log.warning("the log level is %s", waffle.values.LOG_LEVEL)


# A feature switch: what the feature needs is built before the first request for it, and let go when
# it is switched off.
CITIES = ["Antwerpen", "Brugge", "Gent", "Genk", "Geel", "Hasselt", "Kortrijk", "Leuven"]
suggestions: dict[str, list[str]] | None = None


@waffle.on_change("SUGGESTIONS")
def switch_suggestions(change: uwsgi_waffle.Change | None = None) -> None:
    global suggestions
    if not waffle.values.SUGGESTIONS:
        suggestions = None
        return
    starts = {city[:length].lower() for city in CITIES for length in range(1, len(city) + 1)}
    suggestions = {
        start: [city for city in CITIES if city.lower().startswith(start)] for start in starts
    }
    log.warning("suggestions for %d beginnings are ready", len(suggestions))


# A rate limit: a change goes on from what was used already, it gives nobody a fresh allowance.
class Bucket:
    """Lets ``rate`` requests an hour through, so many at once if there were none for long."""

    def __init__(self, rate: int) -> None:
        self._rate, self._left, self._at = rate, float(rate), monotonic()
        self._lock = threading.Lock()

    def change(self, rate: int) -> None:
        with self._lock:
            self._rate, self._left = rate, max(0.0, self._left + rate - self._rate)

    def take(self) -> bool:
        with self._lock:
            now = monotonic()
            self._left, self._at = (
                min(self._rate, self._left + (now - self._at) * self._rate / 3600),
                now,
            )
            if self._left < 1:
                return False
            self._left -= 1
            return True


bucket = Bucket(waffle.values.RATE)


@waffle.on_change("RATE")
def change_rate(change: uwsgi_waffle.Change) -> None:
    bucket.change(waffle.values.RATE)
    log.warning("the rate is %d", waffle.values.RATE)


set_log_level()
switch_suggestions()


@application.get("/")
def page() -> str:
    """Answer, if the rate allows that."""
    if not bucket.take():
        abort(429)
    log.debug("somebody was answered")
    return "Hello\n"


@application.get("/suggest")
def suggest() -> Response:
    """Suggest names that begin with ``q``, as long as the feature is on."""
    if suggestions is None:
        abort(404)
    return jsonify(suggestions.get(request.args.get("q", "").lower(), []))
