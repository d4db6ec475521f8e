"""The same application with what is there for those who watch it."""

from __future__ import annotations

import os

from flask import Response, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    generate_latest,
    multiprocess,
)

from tests.live.site import application, waffle
from uwsgi_waffle.health import health_blueprint
from uwsgi_waffle.metrics import WaffleCollector

application.register_blueprint(health_blueprint(waffle, details=lambda: "details" in request.args))
registry = CollectorRegistry()
registry.register(WaffleCollector(waffle))
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    multiprocess.MultiProcessCollector(registry)
scrapes = Counter(
    "site_scrapes",
    "The application's own",
    registry=None if "PROMETHEUS_MULTIPROC_DIR" in os.environ else registry,
)


@application.get("/metrics")
def metrics() -> Response:
    scrapes.inc()
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
