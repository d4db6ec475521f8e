"""The admin page as a browser without JavaScript sees it: who may, what a form tells and changes,
and what never leaves the server.
"""

from __future__ import annotations

import enum
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import werkzeug.utils
import werkzeug.wrappers
from annotated_types import Gt, Len
from flask import Flask, Response, redirect
from flask.testing import FlaskClient
from flask_wtf import CSRFProtect
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from pydantic import BaseModel, field_validator, model_validator
from werkzeug.exceptions import Unauthorized
from werkzeug.test import TestResponse

import uwsgi_waffle
from uwsgi_waffle import HostBusy, HostFilesError, MemoryStore, StoreUnavailable, WaffleConf
from uwsgi_waffle.admin import admin_blueprint
from uwsgi_waffle.admin.fields import EDITABLE, Field
from uwsgi_waffle.admin.page import HISTORY, MAX_FORM
from uwsgi_waffle.schema import MASK, Schema

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


class Later:
    """What a function returns that was meant to be awaited."""

    def __await__(self) -> Iterator[object]:
        yield


class Form(HTMLParser):
    """What a browser makes of the page: the form that saves, and the others."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: list[dict[str, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._name: str | None = None
        self._select: str | None = None
        self.feed(page)

    @classmethod
    def save(cls, page: str) -> dict[str, str]:
        """Return the form that saves, line ends as a browser sends them."""
        return {
            name: re.sub(r"\r\n|\r|\n", "\r\n", text) for name, text in cls(page).forms[0].items()
        }

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append((tag, told))
        name = told.get("name") or ""
        if tag == "form":
            self.forms.append({})
        elif tag == "input" and name and (told.get("type") != "checkbox" or "checked" in told):
            self.forms[-1][name] = told.get("value") or (
                "on" if told.get("type") == "checkbox" else ""
            )
        elif tag == "textarea":
            self._name = name
            self.forms[-1][name] = ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and "selected" in told:
            assert self._select
            self.forms[-1][self._select] = told["value"] or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._name:  # its first line end isn't part of it
            self.forms[-1][self._name] = self.forms[-1][self._name].removeprefix("\n")
            self._name = None

    def handle_data(self, data: str) -> None:
        if self._name:
            self.forms[-1][self._name] += data


class Site:
    """An application with the page, and one visitor."""

    def __init__(
        self,
        confs: Any = None,
        *,
        authorize: Callable[[], Any] = lambda: "ann",
        store: Any = None,
        **config: Any,
    ) -> None:
        self.app = Flask("site")
        self.app.config.update(
            {
                "SECRET_KEY": "of the test",
                "WAFFLE_CONFS": CONFS if confs is None else confs,
                **config,
            }
        )
        self.waffle = WaffleConf(self.app, store or MemoryStore())
        self.app.register_blueprint(admin_blueprint(self.waffle, authorize=authorize))
        self.client: FlaskClient = self.app.test_client()

    def page(self, query: str = "") -> str:
        answer = self.client.get(f"/waffle/{query}")
        assert answer.status_code == 200
        return answer.text

    def form(self) -> dict[str, str]:
        return Form.save(self.page())

    def save(self, form: dict[str, str] | None = None, **fields: str | None) -> TestResponse:
        """Send a form, the one of a page loaded now if none is given; ``None`` takes a field out."""
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


@pytest.fixture
def site() -> Site:
    return Site()


class TestWhoMay:
    ROUTES = (
        ("GET", "/waffle/"),
        ("POST", "/waffle/"),
        ("POST", "/waffle/rollback"),
        ("GET", "/waffle/processes"),
    )
    STATIC = (
        ("GET", "/waffle/waffle-static/admin.js"),
        ("HEAD", "/waffle/"),
        ("OPTIONS", "/waffle/"),
    )

    @pytest.mark.parametrize(("method", "path"), [*ROUTES, *STATIC])
    @pytest.mark.parametrize("refusal", [False, None, "", 0])
    def test_who_isnt_allowed_gets_nothing(self, method: str, path: str, refusal: object) -> None:
        asked: list[object] = []
        site = Site(authorize=lambda: asked.append(refusal) or refusal)
        answer = site.client.open(path, method=method)
        assert (answer.status_code, len(asked)) == (403, 1)
        assert "SITENAME" not in answer.text

    def test_it_is_asked_at_every_request(self) -> None:
        answers = iter(["ann", False])
        site = Site(authorize=lambda: next(answers))
        form = site.form()
        assert site.save(form, value__SITENAME="Gent").status_code == 403
        assert site.waffle.revision == 0

    def test_a_response_is_sent_instead(self) -> None:
        site = Site(authorize=lambda: redirect("/login"))
        answer = site.client.get("/waffle/")
        assert (answer.status_code, answer.headers["Location"]) == (302, "/login")
        site = Site(authorize=lambda: Response("no", 401))
        assert site.client.get("/waffle/").status_code == 401

    def test_a_coroutine_is_not_taken_for_permission(self) -> None:
        async def nobody() -> bool:
            return False

        site = Site(authorize=nobody, PROPAGATE_EXCEPTIONS=False)
        assert site.client.get("/waffle/").status_code in (
            403,
            500,
        )  # 500 where Flask has no asgiref to run it

    @pytest.mark.parametrize(
        ("returned", "status"),
        [
            (lambda: werkzeug.utils.redirect("/login"), 302),
            (lambda: werkzeug.wrappers.Response("no", 401), 401),
            (lambda: Unauthorized(), 401),
            (lambda: ("no", 401), 500),
            (lambda: {"error": "no"}, 500),
            (Later, 500),
            (lambda: lambda: False, 500),
        ],
        ids=[
            "werkzeug's redirect",
            "werkzeug's response",
            "exception",
            "tuple",
            "dictionary",
            "awaitable",
            "function",
        ],
    )
    def test_what_is_true_but_not_meant_so_is_no_permission(
        self, returned: Callable[[], object], status: int
    ) -> None:
        site = Site(authorize=returned, PROPAGATE_EXCEPTIONS=False)
        answer = site.client.get("/waffle/")
        assert answer.status_code == status
        assert "SITENAME" not in answer.text

    def test_an_error_of_its_own_is_no_permission(self) -> None:
        site = Site(authorize=lambda: 1 / 0, PROPAGATE_EXCEPTIONS=False)
        assert site.client.get("/waffle/").status_code == 500

    def test_it_is_required(self) -> None:
        waffle = Site().waffle
        with pytest.raises(TypeError, match="authorize"):
            admin_blueprint(waffle)  # type: ignore[call-arg]  # that is the point
        with pytest.raises(
            TypeError,
            match="authorize must be a function that tells who may use the page, not None",
        ):
            admin_blueprint(waffle, authorize=None)  # type: ignore[arg-type]  # likewise

    @pytest.mark.parametrize(("allowed", "actor"), [("ann", "ann"), (True, None)])
    def test_what_it_returns_is_the_actor(self, allowed: object, actor: str | None) -> None:
        site = Site(authorize=lambda: allowed)
        site.save(value__SITENAME="Gent")
        assert site.waffle.history()[0].actor == actor

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("PUT", "/waffle/"),
            ("DELETE", "/waffle/"),
            ("GET", "/waffle/rollback"),
            ("POST", "/waffle/processes"),
        ],
    )
    def test_wrong_methods(self, site: Site, method: str, path: str) -> None:
        assert site.client.open(path, method=method).status_code == 405

    def test_without_flask_wtf_it_says_what_to_install(self) -> None:
        program = "import sys; sys.modules['flask_wtf'] = None\nimport uwsgi_waffle.admin"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert "pip install 'uwsgi_waffle[admin]'" in done.stderr.splitlines()[-1]


class TestToken:
    @pytest.mark.parametrize("token", [None, "", "forged"])
    @pytest.mark.parametrize("path", ["/waffle/", "/waffle/rollback"])
    def test_without_it_nothing_is_changed(self, site: Site, token: str | None, path: str) -> None:
        site.waffle.update({"LIMIT": 20})
        form = {**site.form(), "value-SITENAME": "Forged", "note": "Forged", "to": "0"}
        form = {name: text for name, text in form.items() if name != "csrf_token"} | (
            {} if token is None else {"csrf_token": token}
        )
        answer = site.client.post(path, data=form)
        assert answer.status_code == 400
        assert site.waffle.revision == 1
        assert "Forged" not in answer.text, (
            "the page has a good token, so it must not be filled in by a stranger"
        )

    def test_another_visitors_is_refused(self, site: Site) -> None:
        stranger = site.app.test_client()
        token = Form.save(stranger.get("/waffle/").text)["csrf_token"]
        assert site.save(csrf_token=token, value__SITENAME="Forged").status_code == 400

    @pytest.mark.parametrize("protected", [False, True])
    def test_an_old_page_keeps_what_was_typed(self, protected: bool) -> None:
        """Where the application has a CSRFProtect of its own, too, which refuses it before the page
        sees it.
        """
        site = Site(WTF_CSRF_TIME_LIMIT=-1)
        if protected:
            CSRFProtect(site.app)
        answer = site.save(value__SITENAME="Gent", note="rename")
        assert answer.status_code == 400
        form = Form.save(answer.text)
        assert (form["value-SITENAME"], form["note"], site.waffle.revision) == ("Gent", "rename", 0)
        site.app.config["WTF_CSRF_TIME_LIMIT"] = None
        assert site.save(form).status_code == 303
        assert site.waffle.values.SITENAME == "Gent"

    def test_what_the_applications_own_protection_refuses_is_shown_to_nobody_else(self) -> None:
        answers = iter(["ann", False])
        site = Site(authorize=lambda: next(answers), WTF_CSRF_TIME_LIMIT=-1)
        CSRFProtect(site.app)
        answer = site.save(value__SITENAME="Gent")
        assert (answer.status_code, "SITENAME" in answer.text) == (403, False)

    def test_the_applications_own_protection_takes_it(self) -> None:
        site = Site(WTF_CSRF_FIELD_NAME="its_own")
        CSRFProtect(site.app)
        assert site.save(value__SITENAME="Gent").status_code == 303
        assert site.save(value__SITENAME="Namur", its_own="x").status_code == 400

    def test_no_secret_key_is_said(self) -> None:
        site = Site(SECRET_KEY=None, TESTING=True)
        with pytest.raises(uwsgi_waffle.WaffleError, match=r"set app\.secret_key"):
            site.client.get("/waffle/")


class TestWhatLeaves:
    def test_all_is_escaped(self, site: Site) -> None:
        site = Site(authorize=lambda: SCRIPT)
        site.save(value__SITENAME=SCRIPT, value__NAMES=f'["{SCRIPT}"]', note=SCRIPT)
        assert site.waffle.values.NAMES == [SCRIPT]
        for page in (site.page(), site.save(value__LIMIT=f'"{SCRIPT}', value__LEVEL=SCRIPT).text):
            scripts = [told for tag, told in Form(page).tags if tag == "script"]
            assert [set(told) for told in scripts] == [{"src", "defer"}]
            assert SCRIPT not in page

    @pytest.mark.parametrize(
        "jinja",
        [
            {"autoescape": False},
            {"undefined": StrictUndefined},
            {"trim_blocks": True, "lstrip_blocks": True},
        ],
        ids=str,
    )
    def test_whatever_the_applications_jinja_does(self, site: Site, jinja: dict[str, Any]) -> None:
        for name, setting in jinja.items():
            setattr(site.app.jinja_env, name, setting)
        stale = site.form()
        site.waffle.update({"SITENAME": SCRIPT}, note=SCRIPT, actor=SCRIPT)
        assert (
            SCRIPT
            not in site.page()
            + site.save(stale, value__SITENAME="x", value__LIMIT="3").text
            + site.save(value__LIMIT="-3").text
        )
        assert site.save().headers["Location"] == "/waffle/?saved=nothing"

    def test_nothing_is_inline(self, site: Site) -> None:
        for tag, told in Form(site.page()).tags:
            assert tag != "style"
            assert not [name for name in told if name == "style" or name.startswith("on")]

    @pytest.mark.parametrize(
        "path", ["/waffle/", "/waffle/processes", "/waffle/waffle-static/admin.js"]
    )
    def test_headers(self, site: Site, path: str) -> None:
        with site.client.get(path) as answer:
            headers = answer.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == (
            "no-store",
            "nosniff",
        )

    def test_refusals_have_them_too(self) -> None:
        assert (
            "Content-Security-Policy"
            in Site(authorize=lambda: False).client.get("/waffle/").headers
        )

    def test_secrets_never_leave(self, site: Site) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        site.waffle.update({"TOKEN": "geheim2"})
        stale = site.form()
        site.waffle.update({"TOKEN": "geheim3"})
        answers = [
            site.page(),
            site.save(value__TOKEN="geheim4", value__LIMIT="-1").text,
            site.save(stale, value__TOKEN="geheim5").text,
            site.save(value__TOKEN="geheim6").text,
            site.page(),
            site.client.get("/waffle/processes").text,
        ]
        assert site.waffle.values.TOKEN == "geheim6"
        assert not [answer for answer in answers if "geheim" in answer]
        assert MASK in answers[0]


class TestForm:
    def test_the_page_lists_all_by_name(self, site: Site) -> None:
        names = re.findall(r'<label for="value-(\w+)">\1</label>', site.page())
        assert names == sorted(CONFS)

    @pytest.mark.parametrize(
        ("declared", "kind", "wanted"),
        [
            ({"default": True}, "checkbox", "yes or no"),
            ({"default": 1, "type": Annotated[int, Gt(0)]}, "number", "whole number, above 0"),
            ({"default": 0.5}, "number", "number"),
            (
                {"default": "a", "type": Annotated[str, Len(1, 9)]},
                "text",
                "text, at least 1 characters, at most 9 characters",
            ),
            ({"default": "a", "type": Literal["a", "b"]}, "choice", "one of a, b"),
            ({"default": 1, "type": Literal[1, "b"]}, "choice", "one of 1, b"),
            ({"default": 1, "type": Literal[1, "1"]}, "json", "JSON"),
            ({"default": Level.LOW}, "choice", "one of low, high"),
            ({"default": datetime(2026, 1, 1)}, "text", "text"),
            ({"default": []}, "json", "JSON list"),
            ({"default": {}}, "json", "JSON object"),
            ({"default": None, "type": int | None}, "json", "JSON"),
            ({"default": None}, "json", "JSON"),
            ({"default": 1, "secret": True}, "secret", "whole number"),
        ],
    )
    def test_the_input_fits_the_type(self, declared: Any, kind: str, wanted: str) -> None:
        field = Field(Schema.declare({"NAME": declared}).variables["NAME"])
        assert (field.kind, field.wanted) == (kind, wanted)

    def test_several_edits_are_one_update(self, site: Site) -> None:
        answer = site.save(
            value__SITENAME="Gent",
            value__LIMIT="20",
            value__OPEN=None,
            value__LEVEL="high",
            value__NAMES="[]",
            note="why",
        )
        assert (answer.status_code, answer.headers["Location"]) == (303, "/waffle/?saved=1")
        values = site.waffle.values
        assert (values.SITENAME, values.LIMIT, values.OPEN, values.LEVEL, values.NAMES) == (
            "Gent",
            20,
            False,
            Level.HIGH,
            [],
        )
        assert {(entry.revision, entry.actor, entry.note) for entry in site.waffle.history()} == {
            (1, "ann", "why")
        }
        assert "Saved as revision 1" in site.page("?saved=1")

    @pytest.mark.parametrize("value", ["a ", " b", "c  d", ""])
    def test_a_choice_is_sent_to_the_letter(self, value: str) -> None:
        """Without a value of its own a browser sends what an option shows, without the spaces."""
        site = Site({"CHOICE": {"default": value, "type": Literal["a ", " b", "c  d", ""]}})
        told = [
            told for tag, told in Form(site.page()).tags if tag == "option" and "selected" in told
        ]
        assert [option["value"] for option in told] == [value]

    def test_a_box_is_ticked(self, site: Site) -> None:
        site.waffle.update({"OPEN": False})
        site.save(value__OPEN="true")
        assert site.waffle.values.OPEN is True

    def test_a_page_sent_back_as_it_is_changes_nothing(self, site: Site) -> None:
        answer = site.save()
        assert (answer.headers["Location"], site.waffle.revision) == ("/waffle/?saved=nothing", 0)
        assert "Nothing to change" in site.page("?saved=nothing")

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
        items=st.lists(st.text() | st.integers() | st.none()),
    )
    @example(text="\na\r\nb\rc\n", items=["\r\n"])
    @example(text="a\0b\x0c", items=["\0"])
    @example(text="x" * (EDITABLE + 1), items=[])
    @example(text='"&lt;</textarea>', items=["</textarea>"])
    def test_whatever_the_values_a_page_sent_back_changes_nothing(
        self, text: str, items: list[Any]
    ) -> None:
        """What a form can't hold isn't in it."""
        site = Site({"TEXT": {"default": ""}, "ITEMS": {"default": []}, "OTHER": {"default": 1}})
        site.waffle.update({"TEXT": text, "ITEMS": items})
        assert site.save().headers["Location"] == "/waffle/?saved=nothing"
        site.save(value__OTHER="2")
        assert (text, items, 2) == (
            site.waffle.values.TEXT,
            site.waffle.values.ITEMS,
            site.waffle.values.OTHER,
        )

    def test_the_browsers_line_ends_are_not_kept(self, site: Site) -> None:
        site.save(value__SITENAME="one\r\ntwo")
        assert site.waffle.values.SITENAME == "one\ntwo"

    def test_a_refused_value_has_its_message_at_the_field(self, site: Site) -> None:
        answer = site.save(value__SITENAME="Gent", value__LIMIT="-5", value__OPEN=None, note="why")
        assert (answer.status_code, site.waffle.revision) == (422, 0)
        form = Form.save(answer.text)
        assert (
            form["value-SITENAME"],
            form["value-LIMIT"],
            "value-OPEN" in form,
            form["note"],
        ) == ("Gent", "-5", False, "why")
        (told,) = [told for _, told in Form(answer.text).tags if "aria-invalid" in told]
        assert told["name"] == "value-LIMIT"
        assert "greater than 0, not &#39;-5&#39;" in answer.text
        assert site.save(form, value__LIMIT="5").status_code == 303
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT, site.waffle.values.OPEN) == (
            "Gent",
            5,
            False,
        )

    @pytest.mark.parametrize(
        "default",
        [10**400, 10**30, 1e300, 5e-324, -0.5],
        ids=["too big", "big", "large", "small", "negative"],
    )
    def test_a_number_input_holds_its_value(self, default: float) -> None:
        """A browser sends nothing back for a number that is too big for it."""
        page = Site({"N": {"default": default}}).page()
        (told,) = [told for _, told in Form(page).tags if told.get("name") == "value-N"]
        assert (Form.save(page)["value-N"], told.get("type")) == (
            str(default),
            None if default == 10**400 else "number",
        )

    @pytest.mark.parametrize("typed", ["1,5", "1e400", "abc", ""])
    def test_what_is_no_number_is_shown_as_it_was_typed(self, site: Site, typed: str) -> None:
        page = site.save(value__LIMIT=typed).text
        (told,) = [told for _, told in Form(page).tags if told.get("name") == "value-LIMIT"]
        assert (told["value"], told.get("type")) == (typed, None)

    @pytest.mark.parametrize("typed", ['{"a": 1,}', "[1", '"a', " {'a': 1}"])
    def test_broken_json_is_not_taken_for_a_text(self, typed: str) -> None:
        site = Site({"ANY": {"default": None}})
        site.waffle.update({"ANY": {"a": 1}})
        answer = site.save(value__ANY=typed)
        assert (answer.status_code, site.waffle.values.ANY) == (422, {"a": 1})
        assert "not JSON: " in answer.text
        assert site.save(value__ANY="a text").status_code == 303
        assert site.waffle.values.ANY == "a text"

    def test_all_problems_are_told_at_once(self, site: Site) -> None:
        page = site.save(value__LIMIT="x", value__NAMES="[").text
        assert [told["name"] for _, told in Form(page).tags if "aria-invalid" in told] == [
            "value-LIMIT",
            "value-NAMES",
        ]

    def test_a_problem_of_all_together(self) -> None:
        class Limits(BaseModel):
            LOW: int = 1
            HIGH: int = 10

            @model_validator(mode="after")
            def ordered(self) -> Any:
                if self.LOW > self.HIGH:
                    raise ValueError("LOW must not be above HIGH")
                return self

        site = Site(Limits)
        answer = site.save(value__LOW="11")
        assert (answer.status_code, Form.save(answer.text)["value-LOW"]) == (422, "11")
        assert "LOW must not be above HIGH" in answer.text
        assert site.save(value__LOW="11", value__HIGH="12").status_code == 303

    def test_reset(self, site: Site) -> None:
        assert "reset-LIMIT" not in site.page()
        site.waffle.update({"LIMIT": 20, "TOKEN": "geheim"})
        assert "reset-LIMIT" in site.page()
        site.save(reset__LIMIT="on", reset__TOKEN="on", value__SITENAME="Gent")
        assert (
            site.waffle.values.LIMIT,
            site.waffle.values.TOKEN,
            site.waffle.values.SITENAME,
            site.waffle.revision,
        ) == (
            10,
            "",
            "Gent",
            2,
        )

    def test_a_new_value_and_a_reset_are_one_too_many(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20})
        answer = site.save(reset__LIMIT="on", value__LIMIT="30")
        assert (answer.status_code, site.waffle.values.LIMIT) == (422, 20)
        assert "choose one" in answer.text

    def test_an_empty_secret_is_kept(self, site: Site) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        site.save(value__SITENAME="Gent")
        assert site.waffle.values.TOKEN == "geheim"

    def test_what_is_no_longer_declared_is_named(self, site: Site) -> None:
        answer = site.save(seen__GONE="x", value__GONE="typed", value__SITENAME="Gent")
        assert (answer.status_code, site.waffle.revision) == (422, 0)
        assert "No longer declared: GONE" in answer.text

    def test_one_mebibyte(self, site: Site) -> None:
        long = "x" * 2**20
        assert site.save(value__SITENAME=long).status_code == 303
        assert long == site.waffle.values.SITENAME
        page = site.page()
        assert len(page) < 100_000
        assert "1,048,576 characters" in page
        assert site.save(value__LIMIT="20").status_code == 303
        assert long == site.waffle.values.SITENAME

    def test_one_mebibyte_of_note_and_name(self) -> None:
        site = Site(authorize=lambda: "a" * 2**20)
        assert site.save(value__SITENAME="Gent", note="n" * 2**20).status_code == 303
        assert site.waffle.history()[0].note == "n" * 2**20
        assert len(site.page()) < 100_000

    def test_nobody_can_put_words_into_its_mouth(self, site: Site) -> None:
        assert "555" not in site.page("?saved=1.+Call+555")

    def test_many_long_values_leave_room_for_what_is_typed(self) -> None:
        """What a browser sends back is never more than a form may have, whatever it costs to
        encode.
        """
        site = Site(
            {**{f"TEXT_{n:02}": {"default": ""} for n in range(40)}, "LIMIT": {"default": 1}}
        )
        long = "漢" * (EDITABLE - 1)
        site.waffle.update({f"TEXT_{n:02}": long for n in range(40)})
        assert site.save(value__LIMIT="2").status_code == 303
        assert site.waffle.values.LIMIT == 2
        assert {getattr(site.waffle.values, f"TEXT_{n:02}") for n in range(40)} == {long}

    def test_more_than_a_form_may_have(self, site: Site) -> None:
        answer = site.save(value__SITENAME="x" * (MAX_FORM + 1))
        assert (answer.status_code, site.waffle.revision) == (413, 0)
        assert "Nothing was changed" in answer.text

    def test_nothing_declared(self) -> None:
        assert "No variables are declared" in Site({}).page()

    def test_who_changed_it_last(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20}, actor="bob")
        site.waffle.update({"LIMIT": 30}, actor="eve")
        row = re.search(r'data-name="LIMIT .*?data-name="NAMES', site.page(), re.DOTALL)
        assert row
        assert "eve" in row[0]
        assert "bob" not in row[0]


class TestConflict:
    def test_both_values_are_shown_and_nothing_is_lost(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"SITENAME": "Theirs"}, actor="bob")
        answer = site.save(form, value__SITENAME="Mine", value__LIMIT="20", note="why")
        assert (answer.status_code, site.waffle.values.SITENAME, site.waffle.values.LIMIT) == (
            409,
            "Theirs",
            10,
        )
        again = Form.save(answer.text)
        assert (again["value-SITENAME"], again["value-LIMIT"], again["note"]) == (
            "Mine",
            "20",
            "why",
        )
        assert re.search(
            r"In force now\s*: <code>Theirs</code>\s+\(by bob, revision 1\)", answer.text
        )
        assert answer.text.count("In force now") == 1

        assert site.save(again).status_code == 303
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT, site.waffle.revision) == (
            "Mine",
            20,
            2,
        )

    def test_a_third_is_not_overwritten_either(self, site: Site) -> None:
        """Correcting a refused value doesn't make the form forget what it was made of."""
        form = site.form()
        site.waffle.update({"SITENAME": "Theirs"})
        refused = site.save(form, value__SITENAME="Mine", value__LIMIT="-5")
        assert refused.status_code == 422
        assert site.save(Form.save(refused.text), value__LIMIT="5").status_code == 409
        assert site.waffle.values.SITENAME == "Theirs"

    def test_what_was_typed_is_there_even_where_theirs_fits_no_form(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"SITENAME": "x" * (EDITABLE + 1)})
        answer = site.save(form, value__SITENAME="Mine")
        again = Form.save(answer.text)
        assert (answer.status_code, again["value-SITENAME"]) == (409, "Mine")
        assert site.save(again).status_code == 303
        assert site.waffle.values.SITENAME == "Mine"

    def test_another_variable_is_none(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"LIMIT": 20})
        assert site.save(form, value__SITENAME="Mine").status_code == 303
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Mine", 20)

    def test_of_a_secret(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"TOKEN": "theirs"})
        answer = site.save(form, value__TOKEN="mine")
        assert (answer.status_code, site.waffle.values.TOKEN) == (409, "theirs")
        assert "Type it again" in answer.text

    def test_of_a_reset(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20})
        form = site.form()
        site.waffle.update({"LIMIT": 30})
        answer = site.save(form, reset__LIMIT="on")
        assert (answer.status_code, site.waffle.values.LIMIT) == (409, 30)
        assert "reset-LIMIT" in Form.save(answer.text)

    def test_a_form_that_doesnt_say_what_it_has_seen(self, site: Site) -> None:
        answer = site.save(seen__SITENAME=None, value__SITENAME="Forged")
        assert (answer.status_code, site.waffle.revision) == (409, 0)

    def test_what_a_validator_makes_of_a_row_is_what_was_seen(self) -> None:
        """A row that is older than the validator, or from outside, is shown as the validator leaves
        it.
        """

        class Names(BaseModel):
            HOST: str = "a"

            @field_validator("HOST")
            @classmethod
            def lower(cls, host: str) -> str:
                return host.lower()

        store = MemoryStore()
        store._stored = type(store._stored)(1, {"HOST": '"B"'})
        site = Site(Names, store=store)
        assert site.save(value__HOST="c").status_code == 303
        assert site.waffle.values.HOST == "c"

    def test_a_row_that_nobody_can_read_can_be_mended(self) -> None:
        store = MemoryStore()
        site = Site(store=store)
        site.waffle.update({"LIMIT": 20})
        form = site.form()
        store._stored = type(store._stored)(2, {"LIMIT": '"damaged"'})
        assert site.save(form, value__LIMIT="30").status_code == 303
        assert site.waffle.values.LIMIT == 30


class TestHistory:
    def test_rollback_is_one_click(self, site: Site) -> None:
        site.waffle.update({"SITENAME": "Gent"})
        site.waffle.update({"SITENAME": "Namur", "LIMIT": 20})
        (form,) = Form(site.page()).forms[1:]
        answer = site.client.post("/waffle/rollback", data={**form, "to": "1"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/waffle/?saved=3")
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Gent", 10)
        assert (site.waffle.history()[0].actor, site.waffle.history()[0].note) == (
            "ann",
            "rollback to revision 1",
        )

    def test_what_a_button_shows_is_in_its_name(self, site: Site) -> None:
        """Who speaks to the browser says what they read (WCAG 2.5.3)."""
        site.waffle.update({"SITENAME": "Gent"})
        site.waffle.update({"SITENAME": "Namur"})
        page = site.page()
        assert 'Roll back<span class="hidden"> to revision 1</span></button>' in page
        assert "aria-label" not in page.partition('id="variables"')[2].replace(
            'aria-labelledby="', ""
        )

    def test_somebody_was_faster(self, site: Site) -> None:
        site.waffle.update({"SITENAME": "Gent"})
        form = site.form()
        site.waffle.update({"LIMIT": 20})
        answer = site.rollback(1, form)
        assert answer.status_code == 409
        assert "roll back again" in answer.text
        assert "What you typed" not in answer.text
        assert site.waffle.values.LIMIT == 20

    @pytest.mark.parametrize("to", [99, "x", -1])
    def test_an_unknown_revision(self, site: Site, to: object) -> None:
        answer = site.rollback(to)
        assert answer.status_code == 400
        assert "revision" in answer.text.lower()

    def test_more_of_it(self, site: Site) -> None:
        for number in range(1, HISTORY + 2):
            site.waffle.update({"LIMIT": 100 + number})
        short, long = site.page(), site.page("?history=100")
        assert (short.count('<tr class="first"'), long.count('<tr class="first"')) == (
            HISTORY,
            HISTORY + 1,
        )
        assert ("Show more" in short, "Show more" in long) == (True, False)

    @pytest.mark.parametrize(
        ("default", "new"),
        [(datetime(2026, 1, 1), "2027-01-01T00:00:00"), (Decimal("1.1"), "2.2"), (Path("a"), "b")],
    )
    def test_a_default_that_json_has_no_word_for(self, default: object, new: str) -> None:
        site = Site({"VALUE": {"default": default}})
        assert site.save(value__VALUE=new).status_code == 303
        entry = site.waffle.history()[0]
        assert entry.old in site.page()
        assert entry.new == new

    def test_a_row_that_is_no_json_is_shown_as_it_is(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20})
        store = site.waffle.state.state.store
        assert isinstance(store, MemoryStore)
        store._history[0] = replace(store._history[0], old="<damaged")
        assert "&lt;damaged" in site.page()

    def test_what_was_a_secret_stays_one_when_it_is_no_longer_declared(self) -> None:
        store = MemoryStore()
        Site(store=store).waffle.update({"TOKEN": "geheim"})
        renamed = Site({"API_TOKEN": {"default": "", "secret": True}}, store=store)
        page = renamed.page()
        assert "<td>TOKEN</td>" in page
        assert "geheim" not in page

    def test_long_values_are_cut(self, site: Site) -> None:
        site.waffle.update({"SITENAME": "x" * 1000})
        assert "1,002 characters" in site.page()


class DownStore(MemoryStore):
    down = False

    def transact(self, decide: Any) -> Any:
        if self.down:
            raise StoreUnavailable("the store is down")
        return super().transact(decide)

    def history(self, limit: int, key: str | None = None) -> Any:
        if self.down:
            raise StoreUnavailable("the store is down")
        return super().history(limit, key)


def test_while_the_store_is_down_nothing_typed_is_lost() -> None:
    store = DownStore()
    site = Site(store=store)
    form = site.form()
    store.down = True
    answer = site.save(form, value__SITENAME="Gent")
    assert (answer.status_code, Form.save(answer.text)["value-SITENAME"]) == (503, "Gent")
    assert "the store is down" in answer.text
    assert "the store is down" in site.page()
    store.down = False
    assert site.save(Form.save(answer.text)).status_code == 303


@pytest.mark.parametrize("error", [HostBusy, HostFilesError])
def test_while_the_host_cant_write_nothing_typed_is_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    form = site.form()
    monkeypatch.setattr(MemoryStore, "transact", lambda *_: raise_(error("not now")))
    answer = site.save(form, value__SITENAME="Gent")
    assert (answer.status_code, Form.save(answer.text)["value-SITENAME"]) == (503, "Gent")
    assert "not now" in answer.text


def raise_(error: Exception) -> None:
    raise error


def test_the_processes_as_json(site: Site) -> None:
    site.waffle.update({"LIMIT": 20})
    told = site.client.get("/waffle/processes").json
    assert told == {"revision": 1, "processes": [], "trouble": ""}
