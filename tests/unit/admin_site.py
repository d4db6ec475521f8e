"""An application with the admin page, and a browser without JavaScript that visits it."""

from __future__ import annotations

import enum
import html
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Annotated, Any

from annotated_types import Gt
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from uwsgi_waffle import MemoryStore, WaffleConf
from uwsgi_waffle.admin import admin_blueprint

SCRIPT = "<script>alert(1)</script>"


class Level(str, enum.Enum):
    LOW = "low"
    HIGH = "high"


CONFS: dict[str, Any] = {
    "SITENAME": {"desc": f"Name {SCRIPT}", "default": "Waffle"},
    "LIMIT": {"desc": "Upload limit", "default": 10, "type": Annotated[int, Gt(0)]},
    "OPEN": {"default": True},
    "LEVEL": {"default": Level.LOW},
    "NAMES": {"default": ["a", "é"]},
    "TOKEN": {"desc": "Token of the payment API", "default": "", "secret": True},
}


class Form(HTMLParser):
    """What a browser makes of the page: the form that saves, and the others."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._name: str | None = None
        self._select: str | None = None
        self.feed(page)

    @classmethod
    def save(cls, page: str) -> dict[str, Any]:
        """Return the form that saves, line ends as a browser sends them."""
        return {
            name: re.sub(r"\r\n|\r|\n", "\r\n", text) if isinstance(text, str) else text
            for name, text in cls(page).forms[0].items()
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        name = attributes.get("name") or ""
        if tag == "form":
            self.forms.append({})
        elif (
            tag == "input"
            and name
            and (attributes.get("type") != "checkbox" or "checked" in attributes)
        ):
            value = attributes.get("value") or (
                "on" if attributes.get("type") == "checkbox" else ""
            )
            if name.startswith("item-"):  # one of several boxes
                self.forms[-1].setdefault(name, []).append(value)
            elif "disabled" not in attributes:
                self.forms[-1][name] = value
        elif tag == "textarea":
            self._name = name
            self.forms[-1][name] = ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in attributes:
            assert self._select
            self.forms[-1][self._select] = attributes["value"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._name:  # its first line end isn't part of it
            self.forms[-1][self._name] = self.forms[-1][self._name].removeprefix("\n")
            self._name = None

    def handle_data(self, data: str) -> None:
        if self._name:
            self.forms[-1][self._name] += data


def changes(page: str) -> list[tuple[str, str, str]]:
    """Return what the page says that is changed: names with their old and new values."""
    found = []
    for part in re.findall(r"<li>(.*?)</li>", page, re.DOTALL):
        name, old, new = re.findall(r"<(?:strong|a |code class)[^>]*>([^<]+)<", part)[-3:]
        found.append((html.unescape(name), html.unescape(old), html.unescape(new)))
    return found


class Site:
    """An application with the page, and one visitor."""

    def __init__(
        self,
        confs: Any = None,
        *,
        authorize: Callable[[], Any] = lambda: "ann",
        may_change: Callable[[str], Any] | None = None,
        store: Any = None,
        jinja_options: Any = None,
        prefix: str | None = None,
        **config: Any,
    ) -> None:
        self.app = Flask("site")
        self.app.jinja_options = {**self.app.jinja_options, **(jinja_options or {})}
        self.app.config.update(
            {
                "SECRET_KEY": "of the test",
                "WAFFLE_CONFS": CONFS if confs is None else confs,
                **config,
            }
        )
        self.waffle = WaffleConf(self.app, store or MemoryStore())
        self.app.register_blueprint(
            admin_blueprint(self.waffle, authorize=authorize, may_change=may_change),
            **({} if prefix is None else {"url_prefix": prefix}),
        )
        self.client: FlaskClient = self.app.test_client()

    def page(self, query: str = "") -> str:
        answer = self.client.get(f"/waffle/{query}")
        assert answer.status_code == 200
        return answer.text

    def form(self) -> dict[str, Any]:
        return Form.save(self.page())

    def save(self, form: dict[str, Any] | None = None, **fields: Any) -> TestResponse:
        """Send a form, by default that of a page loaded now; ``None`` takes a field out."""
        sent = {
            **(self.form() if form is None else form),
            **{name.replace("__", "-"): text for name, text in fields.items()},
        }
        return self.client.post(
            "/waffle/", data={name: text for name, text in sent.items() if text is not None}
        )

    def rollback(self, to: object, form: dict[str, str] | None = None) -> TestResponse:
        form = form or self.form()
        return self.client.post(
            "/waffle/rollback",
            data={"csrf_token": form["csrf_token"], "revision": form["revision"], "to": str(to)},
        )
