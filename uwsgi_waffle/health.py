"""A health endpoint for load balancers, Kubernetes and monitoring: `health_blueprint`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app, jsonify

from . import report
from .extension import WaffleConf

__all__ = ["health_blueprint"]


def health_blueprint(waffle: WaffleConf, details: Callable[[], Any] | None = None) -> Blueprint:
    """Return a blueprint for ``GET /health``.

    It responds with 200 if this process serves what the store holds, else with 503.

    Args:
        waffle: the application's extension.
        details: called in each request; return ``True``, or a person's name, to include
            `WaffleConf.status`, which shows paths, process ids and error texts. Anything else
            doesn't. Default: never included.

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
        problems = report.problems(waffle.state)
        body: dict[str, Any] = {"healthy": not problems, "problems": problems}
        if details is not None and _allows(current_app.ensure_sync(details)()):
            body["status"] = waffle.status()
        response = jsonify(body)
        response.status_code = 503 if problems else 200
        response.cache_control.no_store = True
        return response

    return blueprint


def _allows(answer: object) -> bool:
    """Return whether an answer is permission; 403, or ("no", 401), is true and isn't."""
    return answer is True or (isinstance(answer, str) and bool(answer))
