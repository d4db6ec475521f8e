"""A site that used Flask-WaffleConf with peewee: its variables stay in its own table. Run it in
this folder:

uwsgi --master --processes 4 --shared-import uwsgi_waffle --http-socket 127.0.0.1:8000 --module
with_peewee
"""

from __future__ import annotations

import os
from pathlib import Path

import peewee
from flask import Flask, current_app, request

from uwsgi_waffle import PeeweeWaffleStore, WaffleConf, WaffleMixin

application = Flask(__name__, instance_path=os.environ.get("EXAMPLE_FOLDER"))
application.config["WAFFLE_CONFS"] = {
    "SITENAME": {"desc": "Name of the site", "default": "Waffle"},
    "MAX_FILESIZE": {"desc": "Upload limit in bytes", "default": 1000},
}
folder = Path(application.instance_path)
folder.mkdir(parents=True, exist_ok=True)
database = peewee.SqliteDatabase(folder / "site.db")


class Variable(peewee.Model, WaffleMixin):  # type: ignore[misc]  # peewee has no types
    """The table that Flask-WaffleConf's manual asks for, as it is."""

    key = peewee.CharField(max_length=255, unique=True)
    value = peewee.TextField()

    class Meta:
        database = database
        table_name = "confs"


with (
    database.connection_context()
):  # closed again, so that the workers don't inherit the connection
    database.create_tables([Variable])

waffle = WaffleConf(application, PeeweeWaffleStore(model=Variable))


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
