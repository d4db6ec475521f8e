"""One page that shows three variables, and a form that changes them in every process at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Gt, Len
from flask import Flask, redirect, render_template, request, url_for
from werkzeug import Response

import uwsgi_waffle  # in uWSGI's master this registers the signal that wakes the workers

application = Flask(__name__)
application.config["WAFFLE_CONFS"] = {
    "SITENAME": {
        "desc": "Name of the site",
        "default": "Waffle",
        "type": Annotated[str, Len(1, 40)],
    },
    "MAX_FILESIZE": {
        "desc": "Upload limit in bytes",
        "default": 1_000_000,
        "type": Annotated[int, Gt(0)],
    },
    "OPEN": {"desc": "Whether uploads are accepted", "default": True},
}
waffle = uwsgi_waffle.WaffleConf(application)


@application.get("/")
def show() -> str:
    """Show the values, and who answered."""
    return page(waffle.values)


@application.post("/")
def save() -> Response | tuple[str, int]:
    """Change all three variables in one update; whatever fails, the form keeps what was typed."""
    typed = {
        "SITENAME": request.form.get("SITENAME", ""),
        "MAX_FILESIZE": request.form.get("MAX_FILESIZE", ""),
        "OPEN": "OPEN" in request.form,  # a browser doesn't send a box that isn't ticked
    }
    seen = request.form.get(
        "revision", -1, type=int
    )  # the one that the form was made of; -1 is none of any store
    try:
        result = waffle.update(
            typed, expect_revision=seen, actor=request.remote_addr, note="quickstart form", wait=1.0
        )
    except uwsgi_waffle.InvalidValue as error:
        return page(typed, problems=error.problems), 422
    except uwsgi_waffle.RevisionConflict:
        waffle.refresh()  # the form is made again, of the revision that was in the way
        return page(typed, conflict=True), 409
    except uwsgi_waffle.WaffleError as error:
        return page(typed, trouble=str(error)), 503
    return redirect(url_for("show", saved=result.revision), 303)


def page(
    typed: Mapping[str, object],
    *,
    problems: Mapping[str, str] | None = None,
    conflict: bool = False,
    trouble: str = "",
) -> str:
    """Render the page: the values in force at the top, ``typed`` in the form."""
    return render_template(
        "index.html",
        values=waffle.values,
        revision=waffle.revision,
        status=waffle.status(),
        typed=typed,
        problems=problems or {},
        conflict=conflict,
        trouble=trouble,
        saved=request.args.get("saved", type=int),
    )
