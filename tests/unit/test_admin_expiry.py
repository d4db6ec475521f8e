"""The admin page sets values for a while only, and shows which are."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest

from .admin_site import Form, Site


@pytest.fixture
def site() -> Site:
    return Site()


def ends(site: Site) -> dict[str, datetime]:
    found = site.waffle.status()["temporary"].items()
    return {name: datetime.fromisoformat(until) for name, until in found}


def test_it_counts_for_all_changes_of_the_save(site: Site) -> None:
    """Resets, too; the page says until when, beside the value."""
    site.waffle.update({"LEVEL": "high"})
    answer = site.save(value__SITENAME="Gent", reset__LEVEL="on", time=" 1h 30m ")
    assert answer.status_code == 303
    until = ends(site)
    assert until.keys() == {"SITENAME", "LEVEL"}
    left = until["SITENAME"] - datetime.now(timezone.utc)
    assert timedelta(hours=1.4) < left <= timedelta(hours=1.5)
    page = site.page()
    assert len(re.findall(r"until <time", page)) == 2
    assert f'only until <time datetime="{until["SITENAME"].isoformat()}"' in page


def test_the_save_says_until_when(site: Site) -> None:
    """A save without a time, of another variable, doesn't."""
    site.save(value__SITENAME="Gent", time="30m")
    assert "then the old values come back" in site.page("?saved=1")
    site.save(value__LIMIT="20")
    assert "then the old values come back" not in site.page("?saved=2")


def test_a_closed_group_says_how_many_are_temporary() -> None:
    names = [f"V{number}" for number in range(20)]
    confs = {name: {"default": 1, "group": f"G{name[-1]}"} for name in names}
    site = Site(confs)
    site.save(value__V3="2", value__V13="2", time="30m")
    assert site.page().count("2 variables, 2 changed, 2 for a while only") == 1


def test_without_a_time_it_is_for_good(site: Site) -> None:
    """So a save ends that a value is temporary."""
    site.save(value__SITENAME="Gent", time="30m")
    assert site.form()["time"] == "", "the next save is a new decision"
    site.save(value__SITENAME="Namur")
    assert ends(site) == {}
    assert "until <time" not in site.page()


def test_the_preview_says_it_and_keeps_it(site: Site) -> None:
    answer = site.save(preview="1", value__SITENAME="Gent", time="30m")
    assert "For 30m only; then the old values come back." in answer.text
    assert site.waffle.revision == 0
    site.save(Form.save(answer.text))
    assert ends(site).keys() == {"SITENAME"}


@pytest.mark.parametrize("time", ["30", "soon", "0m", "-5m", "<b>"])
@pytest.mark.parametrize("preview", [None, "1"])
def test_what_is_no_time_changes_nothing(site: Site, time: str, preview: str | None) -> None:
    """What was typed stays, and the focus goes to the time."""
    answer = site.save(preview=preview, value__SITENAME="Gent", time=time)
    assert (answer.status_code, site.waffle.revision) == (422, 0)
    assert "is no time; write 90s, 30m, 12h, 7d, or 1h30m" in answer.text
    form, tags = Form.save(answer.text), Form(answer.text).tags
    assert (form["value-SITENAME"], form["time"]) == ("Gent", time)
    assert [a["name"] for _, a in tags if "autofocus" in a] == ["time"]
    assert [a["name"] for _, a in tags if a.get("aria-invalid")] == ["time"]


def test_what_a_person_may_not_change_they_may_not_change_for_a_while() -> None:
    site = Site(may_change=lambda name: name != "LIMIT")
    assert site.save(value__LIMIT="20", original__LIMIT="10", time="30m").status_code == 403
    assert site.save(value__SITENAME="Gent", time="soon").status_code == 422
    assert (site.waffle.revision, ends(site)) == (0, {})
