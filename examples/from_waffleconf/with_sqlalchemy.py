"""A site that used Flask-WaffleConf with SQLAlchemy: its variables stay in its own table. Run it in
this folder:

uwsgi --master --processes 4 --shared-import uwsgi_waffle --http-socket 127.0.0.1:8000 --module
with_sqlalchemy
"""

from __future__ import annotations

import os

from flask import Flask, current_app, request
from flask_sqlalchemy import SQLAlchemy

from uwsgi_waffle import AlchemyWaffleStore, WaffleConf, WaffleMixin

application = Flask(__name__, instance_path=os.environ.get("EXAMPLE_FOLDER"))
application.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///site.db"  # in the instance folder
application.config["WAFFLE_CONFS"] = {
    "SITENAME": {"desc": "Name of the site", "default": "Waffle"},
    "MAX_FILESIZE": {"desc": "Upload limit in bytes", "default": 1000},
}
db = SQLAlchemy(application)


class Variable(db.Model, WaffleMixin):  # type: ignore[name-defined, misc]  # Flask-SQLAlchemy makes the base at run time
    """The table that Flask-WaffleConf's manual asks for, as it is."""

    __tablename__ = "confs"

    id = db.Column(db.Integer, primary_key=True)
    key = db.Column(db.String(255), unique=True)
    value = db.Column(db.Text)


with application.app_context():
    db.create_all()
    db.engine.dispose()  # so that the workers don't inherit the connection

waffle = WaffleConf(application, AlchemyWaffleStore(db=db, model=Variable))


@application.get("/")
def show() -> str:
    """Show the name of the site, by the names that Flask-WaffleConf gave to things."""
    values = current_app.extensions["waffleconf"].parse_conf()
    return (
        f"{values['SITENAME']} takes {values['MAX_FILESIZE']} bytes, says process {os.getpid()}\n"
    )


@application.post("/")
def change() -> str:
    """Change what the form names; for all processes."""
    current_app.extensions["waffleconf"].update_db(request.form)
    return show()
