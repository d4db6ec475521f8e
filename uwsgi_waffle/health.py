"""An endpoint for those who want to know whether a process is well: load balancers, Kubernetes,
monitoring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify

from .extension import WaffleConf

__all__ = ["health_blueprint"]


def health_blueprint(waffle: WaffleConf, details: Callable[[], bool] | None = None) -> Blueprint:
    """Return a blueprint that answers ``GET /health``: 200 if this process serves what the store
    holds, else 503.

    Args:
        waffle: the application's.
        details: asked in each request whether who asks may see `WaffleConf.status`, which holds
            paths, process ids and the
            texts of errors. Default: nobody may.

    Example:
        >>> from flask import Flask
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> from uwsgi_waffle.health import health_blueprint
        >>> app = Flask(__name__)
        >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        >>> app.register_blueprint(health_blueprint(WaffleConf(app, MemoryStore())))
        >>> app.test_client().get("/health").json
        {'healthy': True, 'problems': []}
    """
    blueprint = Blueprint("uwsgi_waffle_health", __name__)

    @blueprint.get("/health")
    def health() -> Response:
        problems = waffle.state.problems()
        answer: dict[str, Any] = {"healthy": not problems, "problems": problems}
        if details is not None and current_app.ensure_sync(details)():
            answer["status"] = waffle.status()
        response = jsonify(answer)
        response.status_code = 503 if problems else 200
        response.cache_control.no_store = True
        return response

    return blueprint
