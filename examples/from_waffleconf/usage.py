"""Views of one's own and a store of one's own, by the names that Flask-WaffleConf gave to things.
Run it in this folder:

uwsgi --master --processes 4 --shared-import uwsgi_waffle --http-socket 127.0.0.1:8000 --module
usage
"""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa
from flask import Flask, abort, current_app, request
from flask_sqlalchemy import SQLAlchemy

from uwsgi_waffle import WaffleConf, WaffleMixin, WaffleStore

application = Flask(__name__, instance_path=os.environ.get("EXAMPLE_FOLDER"))
application.config.update(
    SQLALCHEMY_DATABASE_URI="sqlite:///site.db",  # in the instance folder
    SQLALCHEMY_ENGINE_OPTIONS={
        "poolclass": sa.NullPool
    },  # so that the workers inherit no connection
    WAFFLE_CONFS={
        "SITENAME": {"desc": "Name of the site", "default": "Waffle"},
        "DESCRIPTION": {"desc": "What it is about", "default": ""},
        "MAX_FILESIZE": {"desc": "Upload limit in bytes", "type": "int", "default": 1000},
    },
    WAFFLE_MULTIPROC=True,
    WAFFLE_WATCHTYPE="file",
)
db = SQLAlchemy(application)


class Setting(db.Model, WaffleMixin):  # type: ignore[name-defined, misc]  # Flask-SQLAlchemy makes the base at run time
    """A table whose columns have names of their own, so that the mixin has to be told."""

    name = db.Column(db.String(255), primary_key=True)
    content = db.Column(db.Text)

    def get_key(self) -> str:
        """Return the variable's name."""
        return str(self.name)

    def get_value(self) -> str:
        """Return the text that is stored for it."""
        return str(self.content)


class SettingStore(WaffleStore):
    """A store by the four methods that it needs."""

    def commit(self) -> None:
        """Commit what was put and deleted."""
        self.db.session.commit()

    def delete(self, key: str) -> Any:
        """Remove a record."""
        record = self.get(key)
        if record is not None:
            self.db.session.delete(record)
        return record

    def get(self, key: str) -> Any:
        """Return a record."""
        return self.db.session.get(self.model, key)

    def put(self, key: str, value: str) -> Any:
        """Insert or change a record."""
        record = self.get(key) or self.model(name=key)
        record.content = value
        self.db.session.add(record)
        return record


with application.app_context():
    db.create_all()

waffle = WaffleConf(application, SettingStore(db=db, model=Setting))


@application.get("/all")
def get_all() -> dict[str, Any]:
    """Return all values, and who says so."""
    return {"values": current_app.extensions["waffleconf"].parse_conf(), "pid": os.getpid()}


@application.get("/<key>")
def get_key(key: str) -> dict[str, Any]:
    """Return one value."""
    if key not in current_app.config["WAFFLE_CONFS"]:
        abort(404)
    values: dict[str, Any] = current_app.extensions["waffleconf"].parse_conf([key])
    return values


@application.post("/update")
def update() -> dict[str, Any]:
    """Change what the form names; for all processes."""
    current_app.extensions["waffleconf"].update_db(request.form)
    return {
        "MAX_FILESIZE": current_app.config["MAX_FILESIZE"],
        "SITENAME": waffle.state.parse_conf(["SITENAME"])["SITENAME"],
    }
