"""Who may use the admin page, and which forms it accepts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import werkzeug.utils
import werkzeug.wrappers
from flask import Response, redirect, request
from flask_wtf import CSRFProtect
from werkzeug.exceptions import Unauthorized
from werkzeug.formparser import FormDataParser

from uwsgi_waffle import WaffleError
from uwsgi_waffle.admin import admin_blueprint
from uwsgi_waffle.admin.submission import MAX_FORM

from .admin_site import Form, Site


class Later:
    """What a function returns that was meant to be awaited."""

    def __await__(self) -> Iterator[object]:
        yield


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
    @pytest.mark.parametrize("refusal", [False, None, "", 0, 0.0, ()])
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

    @pytest.mark.parametrize("size", [MAX_FORM // 2, MAX_FORM + 1])
    def test_a_form_is_read_only_for_those_who_may(
        self, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        """Parsing takes time and memory; a form that is too large is no way around the question."""
        asked: list[int] = []
        parsed: list[int] = []
        monkeypatch.setattr(FormDataParser, "parse", lambda *_: parsed.append(size))
        site = Site(authorize=lambda: asked.append(size))
        answer = site.client.post("/waffle/", data={"value-SITENAME": "x" * size})
        assert (answer.status_code, asked, parsed) == (403, [size], [])

    def test_a_response_is_sent_instead(self) -> None:
        site = Site(authorize=lambda: redirect("/login", 302))
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
            *((lambda number=number: number, 500) for number in (403, 401, -1, 1, 1.5)),
            (lambda: b"ann", 500),
            (lambda: {"ann"}, 500),
            (lambda: werkzeug.utils.redirect("/login"), 302),
            (lambda: werkzeug.wrappers.Response("no", 401), 401),
            (lambda: Unauthorized(), 401),
            (lambda: ("no", 401), 500),
            (lambda: {"error": "no"}, 500),
            (Later, 500),
            (lambda: lambda: False, 500),
        ],
        ids=[
            *("403", "401", "-1", "1", "1.5", "bytes", "set"),
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
        with pytest.raises(TypeError, match="authorize must be a function, not None"):
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

    def test_a_hook_of_the_application_may_read_the_body(self, site: Site) -> None:
        """As one does that checks its signature."""
        bodies: list[bytes] = []
        site.app.before_request(lambda: bodies.append(request.get_data()))
        assert site.save(value__SITENAME="Gent", note="the end").status_code == 303
        assert site.waffle.values.SITENAME == "Gent"
        assert {b"value-SITENAME=Gent", b"note=the+end"} <= set(bodies[-1].split(b"&"))

    def test_no_secret_key_is_said(self) -> None:
        site = Site(SECRET_KEY=None, TESTING=True)
        with pytest.raises(WaffleError, match=r"set app\.secret_key"):
            site.client.get("/waffle/")
