"""The same application with what is there for those who watch it."""

from __future__ import annotations

from flask import request

from tests.live.site import application, waffle
from uwsgi_waffle.health import health_blueprint

application.register_blueprint(health_blueprint(waffle, details=lambda: "details" in request.args))
