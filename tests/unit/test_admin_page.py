"""What the admin page shows and never shows, whatever the application around it does."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Response
from jinja2 import DictLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, Field
from werkzeug.test import TestResponse

from uwsgi_waffle import HostBusy, HostFilesError, MemoryStore, StoreUnavailable
from uwsgi_waffle.admin.page import HISTORY, MAX_HISTORY
from uwsgi_waffle.schema import MASK
from uwsgi_waffle.state import state_of

from .admin_site import SCRIPT, Form, Site, changes


@pytest.fixture
def site() -> Site:
    return Site()


class TestWhatLeaves:
    def test_all_is_escaped(self, site: Site) -> None:
        site = Site(authorize=lambda: SCRIPT)
        site.save(value__SITENAME=SCRIPT, value__NAMES=f'["{SCRIPT}"]', note=SCRIPT)
        assert site.waffle.values.NAMES == [SCRIPT]
        for page in (site.page(), site.save(value__LIMIT=f'"{SCRIPT}', value__LEVEL=SCRIPT).text):
            scripts = [attributes for tag, attributes in Form(page).tags if tag == "script"]
            assert [set(attributes) for attributes in scripts] == [{"src", "defer"}]
            assert SCRIPT not in page

    def test_a_deprecated_variable_warns_nobody(self) -> None:
        """The application's code is to go on without it; a warning would be an error here."""

        class Confs(BaseModel):
            OLD: int = Field(default=1, deprecated="use NEW")

        site = Site(Confs)
        assert site.save(value__OLD="2", preview="1").status_code == 200
        assert site.save(value__OLD="2").status_code == 303
        assert 'value="2"' in site.page()

    def test_markup_from_authorize_is_plain_text(self) -> None:
        site = Site(authorize=lambda: Markup(SCRIPT))
        assert site.save(value__SITENAME="Gent").status_code == 303
        assert SCRIPT not in site.page()
        assert type(site.waffle.history()[0].actor) is str

    @pytest.mark.parametrize(
        "options",
        [
            {"autoescape": False},
            {"undefined": StrictUndefined},
            {"trim_blocks": True, "lstrip_blocks": True},
            {"variable_start_string": "[[", "variable_end_string": "]]"},
            {"block_start_string": "<%", "block_end_string": "%>", "comment_start_string": "<#"},
            {"line_statement_prefix": "#", "finalize": lambda value: "spoilt"},
        ],
        ids=str,
    )
    def test_the_applications_jinja_does_not_matter(self, options: dict[str, Any]) -> None:
        """Nor its filters, globals, context processors and templates of the same name."""
        site = Site(jinja_options=options)
        site.app.jinja_env.filters["truncate"] = site.app.jinja_env.filters["sort"] = None
        site.app.jinja_env.globals["url_for"] = None
        site.app.context_processor(lambda: dict.fromkeys(("page", "rows", "status"), "spoilt"))
        names = ("admin.html", "uwsgi_waffle/admin.html")
        site.app.jinja_loader = DictLoader(dict.fromkeys(names, "spoilt"))  # type: ignore[misc]  # Flask's own way, though declared read-only
        stale = site.form()
        site.waffle.update({"SITENAME": SCRIPT}, note=SCRIPT, actor=SCRIPT)
        conflict = site.save(stale, value__SITENAME="x", value__LIMIT="3").text
        pages = site.page() + conflict + site.save(value__LIMIT="-3").text
        assert not [word for word in (SCRIPT, "spoilt", "{{", "[[", "{%") if word in pages]
        assert site.save().headers["Location"] == "/waffle/?saved=nothing"

    @pytest.mark.parametrize(
        "path",
        ["/waffle/", "/waffle/processes", "/waffle/nowhere", "/waffle/waffle-static/admin.js"],
    )
    def test_a_policy_that_the_application_sets_later_does_not_hold_here(
        self, site: Site, path: str
    ) -> None:
        ours = Site().client.get("/waffle/").headers.getlist("Content-Security-Policy")

        @site.app.after_request
        def set_policy(response: Response) -> Response:
            response.headers.add("Content-Security-Policy", "default-src 'self' 'unsafe-inline'")
            response.headers["Content-Security-Policy"] = "script-src 'none'"
            response.headers.add("Content-Security-Policy", "img-src *")
            return response

        with site.client.get(path) as answer:
            policies = answer.headers.getlist("Content-Security-Policy")
        theirs = ["script-src 'none'", "img-src *"]
        assert policies == (theirs if path == "/waffle/nowhere" else ours)
        assert len(ours) == 1

    @pytest.mark.parametrize(
        ("root", "prefix"),
        [("", "/waffle"), ("/shop", "/waffle"), ("", "/intern/konfig"), ("/shop", "/intern")],
    )
    def test_links_and_forms_lead_back_to_the_page(self, root: str, prefix: str) -> None:
        """Wherever the blueprint is, and the application behind its proxy (``SCRIPT_NAME``)."""
        site = Site(prefix=prefix)
        place = f"{root}{prefix}/"

        def visit(path: str, **sent: Any) -> TestResponse:
            assert path.startswith(place)
            call = site.client.post if sent else site.client.get
            return call(path.removeprefix(root), base_url=f"http://localhost{root}", **sent)

        for limit in (3, 4):
            form = {**Form.save(visit(place).text), "value-LIMIT": str(limit)}
            assert visit(place, data=form).headers["Location"].startswith(place)
        page = visit(place).text + visit(f"{place}?rollback=1").text
        leading = {
            path
            for _, attributes in Form(page).tags
            for name, path in attributes.items()
            if name in ("href", "src", "action", "data-processes") and path and path[0] != "#"
        }
        assert {f"{place}{name}" for name in ("", "processes", "rollback")} <= {
            path.partition("?")[0] for path in leading
        }
        for path in leading - {f"{place}rollback"}:
            with visit(path) as answer:
                assert answer.status_code == 200, path

    def test_a_response_that_the_application_makes_anew_has_it(self, site: Site) -> None:
        @site.app.after_request
        def anew(response: Response) -> Response:
            return Response(response.get_data(), response.status, response.headers)

        policy = site.client.get("/waffle/").headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy

    def test_an_application_whose_responses_are_json(self, site: Site) -> None:
        class Answer(Response):
            default_mimetype = "application/json"

        site.app.response_class = Answer
        assert site.client.get("/waffle/").mimetype == "text/html"

    def test_nothing_is_inline(self, site: Site) -> None:
        for tag, attributes in Form(site.page()).tags:
            assert tag != "style"
            assert not [name for name in attributes if name == "style" or name.startswith("on")]

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


class TestHistory:
    def test_rollback_asks_once(self, site: Site) -> None:
        """It shows what will change, changes nothing before the answer, and is one new revision."""
        site.waffle.update({"SITENAME": "Gent"})
        site.waffle.update({"SITENAME": "Namur", "LIMIT": 20})
        assert "Roll back to revision 1</button>" in site.page()
        question = site.page("?rollback=1")
        assert "Back to revision 1?" in question
        assert changes(question) == [("SITENAME", "Namur", "Gent"), ("LIMIT", "20", "10")]
        assert site.waffle.revision == 2
        (form,) = Form(question).forms
        answer = site.client.post("/waffle/rollback", data={**form, "to": "1"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/waffle/?saved=3")
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Gent", 10)
        assert (site.waffle.history()[0].actor, site.waffle.history()[0].note) == (
            "ann",
            "rollback to revision 1",
        )

    def test_back_to_before_the_first_change(self, site: Site) -> None:
        """Revision 0 is offered; not where it is in force."""
        assert "Roll back to revision" not in site.page()
        site.waffle.update({"SITENAME": "Gent", "TOKEN": "geheim"})
        assert "Roll back to revision 0</button>" in site.page()
        question = site.page("?rollback=0")
        assert changes(question) == [
            ("SITENAME", "Gent", "Waffle"),
            ("TOKEN", MASK, "another value"),
        ]
        assert site.rollback(0).status_code == 303
        assert (site.waffle.values.SITENAME, site.waffle.values.TOKEN) == ("Waffle", "")

    def test_a_rollback_that_changes_nothing_is_not_offered(self, site: Site) -> None:
        site.waffle.update({"SITENAME": "Gent"})
        question = site.page("?rollback=1")
        assert "nothing to change" in question
        assert Form(question).forms == []

    @pytest.mark.parametrize("to", ["99", "-1"])
    def test_asking_for_an_unknown_revision(self, site: Site, to: str) -> None:
        answer = site.client.get(f"/waffle/?rollback={to}")
        assert answer.status_code == 400
        assert f"no revision {to}" in answer.text

    def test_an_error_says_nothing_of_a_history_that_is_empty(self, site: Site) -> None:
        answer = site.client.get("/waffle/?rollback=99")
        assert "Nothing has been changed yet." in answer.text

    def test_what_a_button_shows_is_its_name(self, site: Site) -> None:
        """Who speaks to the browser says what they read (WCAG 2.5.3)."""
        site.waffle.update({"SITENAME": "Gent"})
        page = site.page()
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
        assert isinstance(entry.old, str)
        assert entry.old.removesuffix(":00") in site.page()
        assert entry.new == new

    def test_it_speaks_as_the_form_does(self) -> None:
        confs = {"OPEN": {"default": True}, "WAIT": {"default": timedelta(minutes=30)}}
        site = Site({**confs, "LIMIT": {"default": 5, "type": int | None}})
        site.save(value__OPEN=None, value__WAIT="02:00:00", none__LIMIT="on")
        shown = re.findall(r"<td data-label=[^>]*><code>([^<]*)<", site.page())
        assert sorted(shown) == sorted(["00:30:00", "02:00:00", "5", "no value", "on", "off"])

    def test_a_row_that_is_no_json_is_shown_as_it_is(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20})
        store = state_of(site.app).store
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

    @pytest.mark.parametrize(
        ("asked", "read"),
        [("", HISTORY), ("?history=5", 5), ("?history=9999", MAX_HISTORY), ("?history=-1", 1)],
    )
    def test_no_more_is_read_than_shown(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, asked: str, read: int
    ) -> None:
        """A value may be long."""
        limits: list[int] = []
        history = MemoryStore.history

        def count(store: MemoryStore, limit: int, key: str | None = None, **options: Any) -> Any:
            limits.append(limit)
            return history(store, limit, key, **options)

        monkeypatch.setattr(MemoryStore, "history", count)
        site.page(asked)
        assert limits == [read]

    def test_long_values_are_cut(self, site: Site) -> None:
        site.waffle.update({"SITENAME": "x" * 1000})
        assert "1,000 characters" in site.page()

    def test_of_long_values_only_the_beginning_is_read(self, site: Site) -> None:
        """Reading them whole would take megabytes for each view; their letters stay readable."""
        read: list[str] = []

        class Noting(MemoryStore):
            def history(self, *args: Any, **options: Any) -> Any:
                rows = super().history(*args, **options)
                read.extend(row.new for row in rows if row.new is not None)
                return rows

        site = Site(store=Noting())
        site.waffle.update({"SITENAME": "über " * 60_000})
        page = site.page("?saved=1")
        assert f'"{("über " * 60)[:254]}… (more than 4,096 characters)' in html.unescape(page)
        assert max(map(len, read)) < 5_000


class DownStore(MemoryStore):
    down = False

    def transact(self, build_commit: Any) -> Any:
        if self.down:
            raise StoreUnavailable("the store is down")
        return super().transact(build_commit)

    def history(self, limit: int, key: str | None = None, **options: Any) -> Any:
        if self.down:
            raise StoreUnavailable("the store is down")
        return super().history(limit, key, **options)


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
    status = site.client.get("/waffle/processes").json
    assert status == {"revision": 1, "processes": [], "error": ""}
