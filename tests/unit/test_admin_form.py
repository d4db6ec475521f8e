"""The admin page's form: what it shows, what it changes, and that it overwrites nobody unseen."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt, Len
from flask import Request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import HttpUrl

from uwsgi_waffle.admin.fields import MAX_EDITABLE, Field
from uwsgi_waffle.admin.submission import MAX_FORM
from uwsgi_waffle.schema import Schema

from ..docs.page import ROOT
from ..host import Ordered
from .admin_site import CONFS, Form, Level, Site
from .conftest import Host


@pytest.fixture
def site() -> Site:
    return Site()


class TestForm:
    def test_the_page_lists_all_as_they_are_declared(self, site: Site) -> None:
        names = re.findall(r'<label for="value-(\w+)">\1</label>', site.page())
        assert names == list(CONFS)

    @pytest.mark.parametrize(
        ("declared", "input_type", "type_text"),
        [
            ({"default": True}, "checkbox", "on or off"),
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
            ({"default": datetime(2026, 1, 1)}, "datetime-local", "date and time"),
            ({"default": date(2026, 1, 1)}, "date", "date"),
            ({"default": time(9, 30)}, "time", "time of day"),
            (
                {"default": timedelta(minutes=30)},
                "duration",
                "duration: days and hours:minutes:seconds, such as 1 day 02:30:00, or seconds",
            ),
            (
                {"default": Decimal("1.5"), "type": Annotated[Decimal, Gt(0)] | None},
                "decimal",
                "decimal number, above 0.0 or no value",
            ),
            ({"default": "https://a.example", "type": HttpUrl}, "url", "URL"),
            ({"default": ["a"], "type": list[Literal["a", "b"]]}, "choices", "any of a, b"),
            ({"default": [], "type": list[Level]}, "choices", "any of low, high"),
            ({"default": None, "type": Level | None}, "choice", "one of low, high, no value"),
            ({"default": None, "type": bool | None}, "choice", "one of on, off, no value"),
            ({"default": None, "type": str | None}, "text", "text or no value"),
            ({"default": None, "type": int | str | None}, "json", "JSON"),
            ({"default": []}, "json", "JSON list"),
            ({"default": {}}, "json", "JSON object"),
            ({"default": None, "type": int | None}, "number", "whole number or no value"),
            ({"default": None}, "json", "JSON"),
            ({"default": 1, "secret": True}, "secret", "whole number"),
        ],
    )
    def test_the_input_fits_the_type(self, declared: Any, input_type: str, type_text: str) -> None:
        field = Field(Schema.declare({"NAME": declared}).variables["NAME"])
        assert (field.input_type, field.type_text) == (input_type, type_text)

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
        attributes = [
            attributes
            for tag, attributes in Form(site.page()).tags
            if tag == "option" and "selected" in attributes
        ]
        assert [option["value"] for option in attributes] == [value]

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
    @example(text="x" * (MAX_EDITABLE + 1), items=[])
    @example(text='"&lt;</textarea>', items=["</textarea>"])
    def test_a_page_sent_back_changes_no_value_at_all(self, text: str, items: list[Any]) -> None:
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
        (attributes,) = [
            attributes for _, attributes in Form(answer.text).tags if "aria-invalid" in attributes
        ]
        assert attributes["name"] == "value-LIMIT"
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
        (attributes,) = [
            attributes for _, attributes in Form(page).tags if attributes.get("name") == "value-N"
        ]
        assert (Form.save(page)["value-N"], attributes.get("type")) == (
            str(default),
            None if default == 10**400 else "number",
        )

    @pytest.mark.parametrize("typed", ["1,5", "1e400", "abc", ""])
    def test_what_is_no_number_is_shown_as_it_was_typed(self, site: Site, typed: str) -> None:
        page = site.save(value__LIMIT=typed).text
        (attributes,) = [
            attributes
            for _, attributes in Form(page).tags
            if attributes.get("name") == "value-LIMIT"
        ]
        assert (attributes["value"], attributes.get("type")) == (typed, None)

    @pytest.mark.parametrize("typed", ['{"a": 1,}', "[1", '"a', " {'a': 1}"])
    def test_broken_json_is_not_taken_for_a_text(self, typed: str) -> None:
        site = Site({"ANY": {"default": None}})
        site.waffle.update({"ANY": {"a": 1}})
        answer = site.save(value__ANY=typed)
        assert (answer.status_code, site.waffle.values.ANY) == (422, {"a": 1})
        assert "not JSON: " in answer.text
        assert site.save(value__ANY="a text").status_code == 303
        assert site.waffle.values.ANY == "a text"

    def test_all_errors_are_shown_at_once(self, site: Site) -> None:
        page = site.save(value__LIMIT="x", value__NAMES="[").text
        assert [
            attributes["name"] for _, attributes in Form(page).tags if "aria-invalid" in attributes
        ] == [
            "value-LIMIT",
            "value-NAMES",
        ]

    def test_values_that_do_not_fit_together(self) -> None:
        site = Site(Ordered)
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

    def test_a_new_value_and_a_reset_exclude_each_other(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20})
        answer = site.save(reset__LIMIT="on", value__LIMIT="30")
        assert (answer.status_code, site.waffle.values.LIMIT) == (422, 20)
        assert "choose one" in answer.text

    @pytest.mark.parametrize(
        ("pasted", "kept"), [("tok\r\n", "tok"), ("a\r\nb\r\n\r\n", "a\nb\n"), ("\r\n", "")]
    )
    def test_a_line_end_after_a_secret_is_dropped(self, site: Site, pasted: str, kept: str) -> None:
        """As on the command line: it is pasted along, and nobody sees it."""
        assert site.save(value__TOKEN=pasted).status_code == 303
        assert site.waffle.values["TOKEN"] == kept

    def test_an_empty_secret_is_kept(self, site: Site) -> None:
        site.waffle.update({"TOKEN": "geheim"})
        site.save(value__SITENAME="Gent")
        assert site.waffle.values.TOKEN == "geheim"

    def test_what_is_no_longer_declared_is_named(self, site: Site) -> None:
        answer = site.save(value__GONE="typed", value__SITENAME="Gent")
        assert (answer.status_code, site.waffle.revision) == (422, 0)
        assert "No longer declared: GONE" in answer.text

    def test_what_is_wrong_with_a_row_that_has_no_field_is_said(self, host: Host) -> None:
        """Somebody has edited it by hand."""
        site = Site(store=host.store(), WAFFLE_WATCHER_FILE=str(host.watch_file))
        site.waffle.update({"LIMIT": 20})
        form = site.form()
        host.sql("INSERT INTO waffle_values VALUES ('GONE', '{')")
        for answer in (site.save(form, value__SITENAME="Gent"), site.rollback(0, form)):
            assert answer.status_code == 422
            assert "<li>GONE: the stored text isn&#39;t JSON" in answer.text
            assert "run flask waffle unset GONE" in answer.text
        assert "set GONE=VALUE" not in site.waffle.status()["store_error"]

    def test_the_longest_text_that_is_taken(self, site: Site) -> None:
        long = "x" * (2**20 - 2)  # in JSON it has quotes
        assert site.save(value__SITENAME=long).status_code == 303
        assert long == site.waffle.values.SITENAME
        page = site.page()
        assert len(page) < 100_000
        assert "1,048,574 characters" in page
        assert site.save(value__LIMIT="20").status_code == 303
        assert long == site.waffle.values.SITENAME

    def test_one_mebibyte_of_note_and_name(self) -> None:
        site = Site(authorize=lambda: "a" * 2**20)
        assert site.save(value__SITENAME="Gent", note="n" * 2**20).status_code == 303
        assert site.waffle.history()[0].note == "n" * 2**20
        assert len(site.page()) < 100_000

    def test_a_link_can_not_make_the_page_show_a_message(self, site: Site) -> None:
        assert "555" not in site.page("?saved=1.+Call+555")

    def test_many_long_values_leave_room_for_what_is_typed(self) -> None:
        """What a browser sends back is never more than a form may have, whatever it costs to
        encode.
        """
        site = Site(
            {**{f"TEXT_{n:02}": {"default": ""} for n in range(40)}, "LIMIT": {"default": 1}}
        )
        long = "漢" * (MAX_EDITABLE - 1)
        site.waffle.update({f"TEXT_{n:02}": long for n in range(40)})
        assert site.save(value__LIMIT="2").status_code == 303
        assert site.waffle.values.LIMIT == 2
        assert {getattr(site.waffle.values, f"TEXT_{n:02}") for n in range(40)} == {long}

    def test_a_form_that_is_too_large(self, site: Site) -> None:
        answer = site.save(value__SITENAME="x" * (MAX_FORM + 1))
        assert (answer.status_code, site.waffle.revision) == (413, 0)
        assert f"Nothing was changed: the form has more than {MAX_FORM:,} bytes" in answer.text

    @pytest.mark.skipif(
        not Request.max_content_length.fset, reason="Flask 3.0 has no limit of a request"
    )
    def test_the_applications_limit_is_not_the_pages(self) -> None:
        """It is about what strangers send; the page has its own."""
        site = Site(MAX_CONTENT_LENGTH=1000)
        assert site.save(value__SITENAME="x" * 2000).status_code == 303
        assert site.save(value__SITENAME="x" * (MAX_FORM + 1)).status_code == 413

    def test_the_limits_that_the_page_names(self) -> None:
        text = (ROOT / "docs" / "admin.md").read_text()
        assert f"at most {MAX_FORM // 2**20} MiB at once" in text
        assert f"longer than {MAX_EDITABLE:,} characters" in text

    def test_nothing_declared(self) -> None:
        assert "No variables are declared" in Site({}).page()

    def test_who_changed_it_last(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20}, actor="bob")
        site.waffle.update({"LIMIT": 30}, actor="eve")
        row = re.search(r'data-name="LIMIT .*?data-name="NAMES', site.page(), re.DOTALL)
        assert row
        assert "eve" in row[0]
        assert "bob" not in row[0]
