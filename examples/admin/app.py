"""A site whose variables are changed on the admin page, by whoever knows the password.

    pip install 'uwsgi_waffle[uwsgi,admin]'
    export ADMIN_PASSWORD=waffle
    uwsgi --http-socket 127.0.0.1:8000 --master --processes 4 --wsgi-file examples/admin/app.py

Open http://127.0.0.1:8000/admin/ and log in with any name and the password ``waffle``.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt
from flask import Flask, Response, request

import uwsgi_waffle
from uwsgi_waffle.admin import admin_blueprint

application = Flask("uploads", instance_path=str(Path(__file__).resolve().parent / "instance"))
# The workers that uWSGI forks have the same random one; with lazy-apps, and to outlast a restart,
# it has to be given.
application.secret_key = os.environ.get("SECRET_KEY") or secrets.token_hex()
application.config["WAFFLE_CONFS"] = {
    "SITENAME": {"desc": "Name of the site", "default": "Waffle"},
    "MAX_FILESIZE": {
        "desc": "Upload limit in bytes",
        "default": 1_000_000,
        "type": Annotated[int, Gt(0)],
    },
    "OPEN": {"desc": "Whether uploads are accepted", "default": True},
    "LOG_LEVEL": {
        "desc": "What is logged",
        "default": "INFO",
        "type": Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    },
    "MIRRORS": {
        "desc": "Where downloads come from",
        "default": ["https://one.example", "https://two.example"],
    },
    "API_TOKEN": {"desc": "Token of the payment API", "default": "", "secret": True},
}
waffle = uwsgi_waffle.WaffleConf(application)
password = os.environ["ADMIN_PASSWORD"]


def authorize() -> str | Response:
    """Ask for a name and the password, over HTTP Basic (RFC 7617); the name is the actor in the
    history.
    """
    told = request.authorization
    if (
        told
        and told.type == "basic"
        and hmac.compare_digest((told.password or "").encode(), password.encode())
    ):
        return told.username or "somebody"
    return Response(
        "The password, please.", 401, {"WWW-Authenticate": 'Basic realm="admin", charset="UTF-8"'}
    )


application.register_blueprint(admin_blueprint(waffle, authorize=authorize), url_prefix="/admin")


@application.get("/")
def show() -> str:
    """Show a value, as a page of the site would."""
    return f"{waffle.values.SITENAME} takes {waffle.values.MAX_FILESIZE} bytes.\n"
