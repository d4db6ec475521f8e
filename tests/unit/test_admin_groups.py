"""The admin page with many variables: groups, titles, and the filter."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .admin_site import Form, Site

GROUPED: dict[str, Any] = {
    "LOOSE": {"default": "a", "desc": "In no group"},
    "LIMIT": {"default": 10, "group": "Uploads", "title": "Largest upload (MB)"},
    "SENDER": {"default": "ann@example.org", "group": "Mail", "desc": "Who writes"},
    "TYPES": {"default": ["pdf"], "group": "Uploads"},
    "TOKEN": {"default": "geheim", "group": "Mail", "secret": True},
    **{f"OTHER_{n:02}": {"default": n, "group": "Others of them"} for n in range(10)},
}

FLAT: dict[str, Any] = {
    "SITENAME": {"default": "Waffle", "desc": "Name of the site"},
    "OPEN": {"default": True, "desc": "Whether uploads are accepted"},
    "TOKEN": {"default": "geheim", "secret": True},
    **{f"SPARE_{n}": {"default": n} for n in range(8)},
}


def shown(page: str) -> list[str]:
    """Return the variables that the page shows, in its order."""
    rows = [a for tag, a in Form(page).tags if tag == "div" and "data-name" in a]
    return [(a["data-name"] or "").split()[0] for a in rows if "hidden" not in a]


def summaries(page: str) -> list[str]:
    texts = re.findall(r"<summary>(.*?)</summary>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", text).split()) for text in texts]


def open_groups(page: str) -> list[str]:
    return re.findall(r"<details[^>]* open[^>]*>\s*<summary><h3>([^<]*)", page)


class TestGroups:
    @pytest.fixture
    def site(self) -> Site:
        return Site(GROUPED)

    def test_they_stand_as_they_are_declared(self, site: Site) -> None:
        """Last those that name no group."""
        page = site.page()
        assert shown(page)[:4] == ["LIMIT", "TYPES", "SENDER", "TOKEN"]
        assert shown(page)[-1] == "LOOSE"
        assert summaries(page) == [
            "Uploads 2 variables",
            "Mail 2 variables",
            "Others of them 10 variables",
            "Others 1 variable",
        ]

    def test_each_counts_its_changes(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 20})
        assert summaries(site.page())[0] == "Uploads 2 variables, 1 changed"
        answer = site.save(value__LIMIT="-", value__TYPES='["png"]', value__SENDER="bob")
        assert summaries(answer.text)[:2] == [
            "Uploads 2 variables, 1 changed 2 not saved",
            "Mail 2 variables 1 not saved",
        ]

    def test_those_that_need_a_look_are_open(self, site: Site) -> None:
        assert open_groups(site.page()) == []
        assert open_groups(site.save(value__LIMIT="x").text) == ["Uploads"]
        assert open_groups(site.page("?q=sender")) == ["Mail"]
        few = {name: GROUPED[name] for name in ("LIMIT", "SENDER")}
        assert open_groups(Site(few).page()) == ["Uploads", "Mail"]

    def test_the_title_is_the_label(self, site: Site) -> None:
        page = site.page()
        assert '<label for="value-LIMIT">Largest upload (MB)</label>' in page
        assert '<code class="name">LIMIT</code>' in page
        assert '<span class="unit" aria-hidden="true">MB</span>' in page

    def test_the_focus_goes_to_the_first_error_of_the_page(self, site: Site) -> None:
        """Not to the first by name, or as it was declared."""
        answer = site.save(value__OTHER_03="x", value__LIMIT="x", value__SENDER="bob")
        focused = [a["name"] for _, a in Form(answer.text).tags if "autofocus" in a]
        assert focused == ["value-LIMIT"]
        links = re.findall(r'<li><a href="#value-(\w+)">', answer.text)
        assert links == ["LIMIT", "OTHER_03"]


class TestFilter:
    @pytest.fixture
    def site(self) -> Site:
        return Site(FLAT)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("sitename", ["SITENAME"]),
            ("OF+THE", ["SITENAME"]),
            ("affl", ["SITENAME"]),
            ("accepted", ["OPEN"]),
            ("geheim", []),
            ("", list(FLAT)),
        ],
    )
    def test_it_finds(self, site: Site, text: str, found: list[str]) -> None:
        """By name, description and value, never by a secret's; without JavaScript, too."""
        page = site.page(f"?q={text}")
        assert shown(page) == found
        assert ("No variable has that" in page and '<p id="none" hidden' not in page) == (not found)

    def test_it_finds_by_title(self) -> None:
        assert shown(Site(GROUPED).page("?q=largest")) == ["LIMIT"]

    def test_only_changed(self, site: Site) -> None:
        site.waffle.update({"OPEN": False, "SPARE_3": 7})
        assert shown(site.page("?changed=on")) == ["OPEN", "SPARE_3"]
        assert shown(site.page("?changed=on&q=spare")) == ["SPARE_3"]
        assert "2 of 11" in site.page("?changed=on")

    def test_what_it_hides_is_saved_all_the_same(self, site: Site) -> None:
        """The form has all variables, so a save loses nothing."""
        form = Form.save(site.page("?q=sitename"))
        assert site.save(form, value__SITENAME="Gent").status_code == 303
        assert (site.waffle.values.OPEN, site.waffle.values.SPARE_7) == (True, 7)

    @pytest.mark.parametrize(("count", "there"), [(8, False), (9, True)])
    def test_a_few_need_none(self, count: int, there: bool) -> None:
        page = Site({f"A{n}": {"default": 1} for n in range(count)}).page()
        assert ('id="filter"' in page) == there

    def test_it_looks_at_the_beginning_of_a_value(self, site: Site) -> None:
        site.waffle.update({"SITENAME": "x" * 190 + " early " + "x" * 100 + " late"})
        assert shown(site.page("?q=early")) == ["SITENAME"]
        assert shown(site.page("?q=late")) == []


def test_the_focus_goes_to_the_first_error() -> None:
    site = Site({"Z": {"default": 1}, "A": {"default": 1}})
    answer = site.save(value__A="x", value__Z="x")
    assert [a["name"] for _, a in Form(answer.text).tags if "autofocus" in a] == ["value-Z"]


def test_five_hundred_variables() -> None:
    """One save of all of them."""
    site = Site({f"NAME_{n:03}": {"default": n, "desc": "long " * 50} for n in range(500)})
    page = site.page()
    assert len(page) < 1_500_000
    form = {
        name: str(int(text) + 1) if name.startswith("value-") else text
        for name, text in Form.save(page).items()
    }
    answer = site.save(form)
    assert (answer.status_code, site.waffle.values.NAME_499) == (303, 500)
    assert "There may be more: see the history" in site.client.get(answer.headers["Location"]).text
