"""The admin page's inputs: nothing is lost on the way to a browser and back."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Gt, Len
from flask import request
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import HttpUrl

from uwsgi_waffle.admin.fields import NO_VALUE, Field
from uwsgi_waffle.schema import Schema

from .admin_site import Form, Level, Site

Methods = Literal["card", "cash", "invoice"]
NOON = dt.datetime(2026, 11, 27, 12, 0)
UTC_NOON = NOON.replace(tzinfo=dt.timezone.utc)


def field_of(default: Any, annotation: Any = None) -> Field:
    return Field(
        Schema.declare({"NAME": {"default": default, "type": annotation}}).variables["NAME"]
    )


def control(page: str, name: str = "value-NAME") -> dict[str, str | None]:
    (found,) = [attributes for _, attributes in Form(page).tags if attributes.get("name") == name]
    return found


@pytest.mark.parametrize(
    ("default", "annotation", "input_type", "shown", "typed", "value"),
    [
        (dt.date(2026, 1, 2), None, "date", "2026-01-02", "2026-12-24", dt.date(2026, 12, 24)),
        (dt.time(9, 30), None, "time", "09:30", "10:00:30", dt.time(10, 0, 30)),
        (
            NOON,
            None,
            "datetime-local",
            "2026-11-27T12:00",
            "2026-11-27T13:30",
            NOON.replace(hour=13, minute=30),
        ),
        (
            UTC_NOON,
            None,
            None,
            "2026-11-27T12:00:00Z",
            "2026-11-27T13:00Z",
            UTC_NOON.replace(hour=13),
        ),
        (dt.timedelta(minutes=30), None, None, "00:30:00", "1 day 02:30:00", dt.timedelta(1, 9000)),
        (dt.timedelta(days=2), None, None, "2 days 00:00:00", "90", dt.timedelta(seconds=90)),
        (-dt.timedelta(hours=1), None, None, "-PT1H", "PT1H", dt.timedelta(hours=1)),
        (Decimal("12.50"), None, None, "12.50", "0.10", Decimal("0.10")),
        (None, Decimal | None, None, "", "1.10", Decimal("1.10")),
        (
            "https://a.example/",
            HttpUrl,
            None,
            "https://a.example/",
            "https://b.example/x",
            HttpUrl("https://b.example/x"),
        ),
        (5, int | None, "number", "5", "6", 6),
        ("a", str | None, None, "a", "null", "null"),
        ("a", str | None, None, "a", "", ""),
    ],
    ids=str,
)
def test_a_value_is_shown_and_changed(
    default: Any, annotation: Any, input_type: str | None, shown: str, typed: str, value: Any
) -> None:
    """The browser's own input where it holds the value exactly, else one line of text."""
    site = Site({"NAME": {"default": default, "type": annotation}})
    attributes = control(site.page())
    assert (attributes.get("type"), attributes["value"]) == (input_type, shown)
    assert site.save().headers["Location"] == "/waffle/?saved=nothing"
    assert site.save(value__NAME=typed, none__NAME=None).status_code == 303
    assert value == site.waffle.values.NAME


def test_a_word_is_no_decimal() -> None:
    """There is a box for "no value"."""
    site = Site({"NAME": {"default": Decimal("1.10"), "type": Decimal | None}})
    assert site.save(value__NAME="null").status_code == 422


@pytest.mark.parametrize("typed", ["yesterday", ""], ids=["a word", "empty"])
def test_a_date_that_is_none_has_its_message(typed: str) -> None:
    site = Site({"NAME": {"default": dt.date(2026, 1, 2)}})
    answer = site.save(value__NAME=typed)
    assert answer.status_code == 422
    assert control(answer.text)["value"] == typed
    assert control(answer.text).get("type") is None, "a browser would drop what is no date"


@settings(max_examples=100, deadline=None, database=None)
@given(
    st.dates()
    | st.times()
    | st.datetimes()
    | st.timedeltas()
    | st.datetimes(timezones=st.just(dt.timezone.utc))
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.none()
)
@example(Decimal("8259.488927008254"))
@example(dt.timedelta(days=1))
@example(dt.timedelta(microseconds=-1))
@example(dt.time(0, 0, 0, 120000))
@example(dt.datetime(1, 1, 1, 10, 0, 10, 500000))
def test_no_value_is_changed_by_its_text(value: Any) -> None:
    """What a form shows is the same value when it comes back."""
    kind = type(value) if value is not None else int
    field = field_of(value, kind | None)
    assert field.parse(field.text(field.variable.default)) == field.variable.default


class TestNoValue:
    @pytest.fixture
    def site(self) -> Site:
        return Site({"QUOTA": {"default": 5, "type": Annotated[int, Gt(0)] | None}})

    def test_the_box(self, site: Site) -> None:
        """A number may stand beside it: what was there is what the page showed."""
        assert "none-QUOTA" not in site.form()
        assert site.save(none__QUOTA="on").status_code == 303
        assert site.waffle.values.QUOTA is None
        assert (site.form()["none-QUOTA"], site.form()["value-QUOTA"]) == ("on", "")
        assert site.save().headers["Location"] == "/waffle/?saved=nothing"
        assert site.save(none__QUOTA=None, value__QUOTA="7").status_code == 303
        assert site.waffle.values.QUOTA == 7

    def test_a_new_value_beside_a_ticked_box_is_refused(self, site: Site) -> None:
        answer = site.save(none__QUOTA="on", value__QUOTA="7")
        assert (answer.status_code, site.waffle.values.QUOTA) == (422, 5)
        assert "choose one" in answer.text

    def test_neither_box_nor_value(self, site: Site) -> None:
        site.waffle.update({"QUOTA": None})
        answer = site.save(none__QUOTA=None)
        assert (answer.status_code, site.waffle.values.QUOTA) == (422, None)

    def test_it_is_named(self) -> None:
        """A text may be empty, and may be the word null."""
        field = field_of(None, str | None)
        assert [field.text(value) for value in (None, "", "null")] == [NO_VALUE, "", "null"]
        assert field.in_words(NO_VALUE) == "no value"

    def test_a_choice_has_it_among_the_others(self) -> None:
        site = Site({"NAME": {"default": None, "type": bool | None}})
        assert "no value</option>" in site.page()
        site.save(value__NAME="false")
        assert site.waffle.values.NAME is False
        site.save(value__NAME="null")
        assert site.waffle.values.NAME is None


class TestBoxes:
    """A list of choices is one box for each."""

    @pytest.fixture
    def site(self) -> Site:
        return Site({"METHODS": {"default": ["card"], "type": Annotated[list[Methods], Len(1)]}})

    def test_ticked_and_unticked(self, site: Site) -> None:
        assert site.form()["item-METHODS"] == ['"card"']
        assert site.save().headers["Location"] == "/waffle/?saved=nothing"
        site.save(item__METHODS=['"card"', '"invoice"'])
        assert site.waffle.values.METHODS == ["card", "invoice"]

    def test_a_hook_that_makes_a_plain_dict_of_the_form(self, site: Site) -> None:
        """As SearXNG's; a dict has each key once."""

        @site.app.before_request
        def replace_form() -> None:
            request.form = dict(request.form.items())  # type: ignore[assignment]  # as it does

        assert site.save(item__METHODS=['"card"', '"invoice"']).status_code == 303
        assert site.waffle.values.METHODS == ["card", "invoice"]
        site.rollback(0)
        assert site.waffle.values.METHODS == ["card"]

    def test_none_ticked(self, site: Site) -> None:
        answer = site.save(item__METHODS=None)
        assert (answer.status_code, site.waffle.values.METHODS) == (422, ["card"])
        assert "at least 1 item" in answer.text

    def test_an_order_that_boxes_cant_show_is_kept(self, site: Site) -> None:
        """Such a list is edited as JSON."""
        site.waffle.update({"METHODS": ["cash", "card"]})
        assert site.form()["value-METHODS"] == '["cash","card"]'
        assert site.save().headers["Location"] == "/waffle/?saved=nothing"
        site.save(value__METHODS='["invoice", "card"]')
        assert site.waffle.values.METHODS == ["invoice", "card"]

    def test_a_set_has_no_order(self) -> None:
        site = Site({"LEVELS": {"default": {"low", "high"}, "type": set[Level]}})
        assert site.form()["item-LEVELS"] == ['"low"', '"high"']
        site.save(item__LEVELS=['"high"'])
        assert {Level.HIGH} == site.waffle.values.LEVELS

    @pytest.mark.parametrize("forged", ['"card"]', "x", '"gold"', '{"a": 1}'])
    def test_what_no_box_sends(self, site: Site, forged: str) -> None:
        answer = site.save(item__METHODS=[forged])
        assert (answer.status_code, site.waffle.values.METHODS) == (422, ["card"])


def test_a_switch_says_its_state() -> None:
    page = Site({"OPEN": {"default": True}}).page()
    assert control(page, "value-OPEN")["role"] == "switch"
    assert ">on</span>" in page
    assert ">off</span>" in page


@pytest.mark.parametrize(
    ("desc", "default", "unit"),
    [
        ("Largest upload (MB)", 1, "MB"),
        ("Time between two tries (seconds).", 1.5, "seconds"),
        ("Largest upload, in MB", 1, "MB"),
        ("Largest upload", 1, ""),
        ("Uploads in total", 1, ""),
        ("Name (of the site)", "a", ""),
        ("Limit (what is larger is refused at once)", 1, ""),
    ],
)
def test_the_unit_stands_beside_a_number(desc: str, default: Any, unit: str) -> None:
    """It is in brackets, or after "in", at the end of the title or the description."""
    field = Field(Schema.declare({"N": {"default": default, "desc": desc}}).variables["N"])
    assert field.unit == unit
