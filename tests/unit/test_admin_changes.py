"""The admin page says what a save will change and has changed, and what nobody may change."""

from __future__ import annotations

import pytest

from uwsgi_waffle import MemoryStore
from uwsgi_waffle.schema import MASK
from uwsgi_waffle.stores import Commit

from ..host import Ordered
from .admin_site import Form, Site, changes


@pytest.fixture
def site() -> Site:
    return Site()


class TestPreview:
    """Without JavaScript the button asks for this first."""

    def test_it_shows_all_and_changes_nothing(self, site: Site) -> None:
        site.waffle.update({"LEVEL": "high"})
        answer = site.save(
            preview="1", value__SITENAME="Gent", value__OPEN=None, reset__LEVEL="on", note="why"
        )
        assert (answer.status_code, site.waffle.revision) == (200, 1)
        assert "Not saved yet" in answer.text
        assert changes(answer.text) == [
            ("SITENAME", "Waffle", "Gent"),
            ("OPEN", "on", "off"),
            ("LEVEL", "high", "low"),
        ]
        assert "Save 3 changes</button>" in answer.text
        assert site.save(Form.save(answer.text)).headers["Location"] == "/waffle/?saved=2"
        assert (site.waffle.values.SITENAME, site.waffle.values.OPEN) == ("Gent", False)
        assert site.waffle.history()[0].note == "why"

    def test_the_button_asks_for_it(self, site: Site) -> None:
        buttons = [a for tag, a in Form(site.page()).tags if tag == "button"]
        assert ("preview", "1") in [(a.get("name"), a.get("value")) for a in buttons]

    def test_what_is_refused_is_said_here(self) -> None:
        answer = Site(Ordered).save(preview="1", value__LOW="11")
        assert answer.status_code == 422
        assert "LOW must not be above HIGH" in answer.text

    def test_a_conflict_is_said_here(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"SITENAME": "Theirs"})
        assert site.save(form, preview="1", value__SITENAME="Mine").status_code == 409
        assert site.save(form, preview="1", value__LIMIT="20").status_code == 200

    @pytest.mark.parametrize("damaged", ['"abc"', "abc"])
    def test_a_value_that_does_not_fit_is_shown_as_it_is_stored(self, damaged: str) -> None:
        """The page is one way to mend it, when it has said that somebody else has changed it."""
        site = Site(store=(store := MemoryStore()))
        store.transact(lambda stored: Commit({"LIMIT": damaged}))
        answer = site.save(preview="1", value__LIMIT="20")
        assert changes(answer.text) == [("LIMIT", damaged, "20")]
        conflict = site.save(Form.save(answer.text))
        assert conflict.status_code == 409
        site.save(Form.save(conflict.text))
        assert site.waffle.values.LIMIT == 20

    def test_nothing_to_change(self, site: Site) -> None:
        for typed in ("10", "1e1"):
            answer = site.save(preview="1", value__LIMIT=typed)
            assert answer.headers["Location"] == "/waffle/?saved=nothing"

    def test_a_secret_is_typed_again_where_something_else_was_wrong(self, site: Site) -> None:
        """The page never shows it, so the second attempt must not go without it."""
        refused = site.save(value__TOKEN="geheim", value__LIMIT="-3")
        assert refused.status_code == 422
        again = site.save(Form.save(refused.text), value__LIMIT="3")
        assert (again.status_code, site.waffle.revision) == (422, 0)
        assert site.save(Form.save(again.text), value__TOKEN="geheim").status_code == 303
        assert (site.waffle.values.TOKEN, site.waffle.values.LIMIT) == ("geheim", 3)

    def test_a_secret_is_typed_again(self, site: Site) -> None:
        """It isn't in the page, so saving must not leave it out unseen."""
        answer = site.save(preview="1", value__TOKEN="geheim", value__LIMIT="20")
        assert changes(answer.text) == [("LIMIT", "10", "20"), ("TOKEN", MASK, "another value")]
        assert "geheim" not in answer.text
        form = Form.save(answer.text)
        refused = site.save(form)
        assert (refused.status_code, site.waffle.values.LIMIT) == (422, 10)
        assert "type the new value again" in refused.text
        assert site.save(form, value__TOKEN="geheim").status_code == 303
        assert (site.waffle.values.TOKEN, site.waffle.values.LIMIT) == ("geheim", 20)


class TestSaved:
    def test_it_says_what_has_changed(self, site: Site) -> None:
        where = site.save(value__SITENAME="Gent", value__OPEN=None, value__TOKEN="geheim")
        page = site.client.get(where.headers["Location"]).text
        assert "Saved as revision 1" in page
        assert changes(page) == [
            ("SITENAME", "Waffle", "Gent"),
            ("OPEN", "on", "off"),
            ("TOKEN", MASK, MASK),
        ]

    def test_a_revision_that_the_history_lacks(self, site: Site) -> None:
        assert changes(site.page("?saved=7")) == []


class TestMayChange:
    """What a person may not change they see, but can't change in any way."""

    @pytest.fixture
    def site(self) -> Site:
        return Site(may_change=lambda name: name not in ("LIMIT", "OPEN", "TOKEN"))

    def test_it_is_disabled(self, site: Site) -> None:
        page = site.page()
        disabled = {a.get("name") for _, a in Form(page).tags if "disabled" in a}
        assert disabled == {"value-LIMIT", "value-OPEN", "value-TOKEN"}
        assert page.count("You may not change this variable.") == 3

    def test_the_rest_can_be_saved(self, site: Site) -> None:
        """A browser doesn't send what is disabled."""
        form = site.form()
        assert "value-OPEN" not in form
        assert site.save(value__SITENAME="Gent").status_code == 303
        assert (site.waffle.values.SITENAME, site.waffle.values.OPEN) == ("Gent", True)

    @pytest.mark.parametrize(
        "sent",
        [
            {"value-LIMIT": "20"},
            {"value-LIMIT": "-20"},
            {"value-LIMIT": "20", "preview": "1"},
            {"original-OPEN": "true"},
            {"value-TOKEN": "geheim"},
            {"reset-LIMIT": "on"},
            {"reset-LIMIT": "on", "value-SITENAME": "Gent"},
        ],
        ids=str,
    )
    def test_a_request_is_refused(self, site: Site, sent: dict[str, str]) -> None:
        site.waffle.update({"LIMIT": 15})
        answer = site.save({**site.form(), **sent})
        assert (answer.status_code, site.waffle.revision) == (403, 1)
        assert "You may not change" in answer.text

    def test_a_rollback_is_refused_if_it_would_change_one(self, site: Site) -> None:
        site.waffle.update({"LIMIT": 15})
        site.waffle.update({"SITENAME": "Gent"})
        assert "Roll back to revision" not in site.page("?rollback=0")
        assert "You may not change LIMIT" in site.page("?rollback=0")
        assert (site.rollback(0).status_code, site.waffle.revision) == (403, 2)
        assert "Roll back to revision 1</button>" in site.page("?rollback=1")
        assert site.rollback(1).status_code == 303
        assert site.waffle.values.SITENAME == "Waffle"

    def test_a_rollback_is_refused_if_it_would_unset_one(self, site: Site) -> None:
        """Also if it is set to its default: that may be another one after the next deploy."""
        site.waffle.update({"LIMIT": 10})
        assert (site.rollback(0).status_code, site.waffle.revision) == (403, 1)

    def test_a_rollback_from_a_stale_page_is_a_conflict(self, site: Site) -> None:
        """What the person was shown is no longer what it would change."""
        site.waffle.update({"SITENAME": "Gent"})
        form = site.form()
        site.waffle.update({"LIMIT": 15})
        assert (site.rollback(1, form).status_code, site.waffle.values.LIMIT) == (409, 15)

    def test_it_is_asked_for_each_request(self) -> None:
        allowed = {"SITENAME"}
        site = Site(may_change=lambda name: name in allowed)
        form = site.form()
        allowed.clear()
        assert site.save(form, value__SITENAME="Gent").status_code == 403

    @pytest.mark.parametrize("answer", ["yes", ("no", 403), object()], ids=str)
    def test_what_is_true_but_not_meant_so_is_no_permission(self, answer: object) -> None:
        site = Site(may_change=lambda name: answer, PROPAGATE_EXCEPTIONS=False)
        assert site.client.get("/waffle/").status_code == 500

    def test_a_coroutine_is_no_permission(self) -> None:
        async def nobody(name: str) -> bool:
            return False

        site = Site(may_change=nobody, PROPAGATE_EXCEPTIONS=False)
        page = site.client.get("/waffle/")
        # 500 where Flask has no asgiref to run it
        assert page.status_code == 500 or "You may not change" in page.text


class TestPinned:
    """What the environment pins is shown with its reason."""

    @pytest.fixture
    def site(self, monkeypatch: pytest.MonkeyPatch) -> Site:
        monkeypatch.setenv("MYSITE_LIMIT", "77")
        return Site(WAFFLE_ENV_PREFIX="MYSITE_")

    def test_it_is_disabled_with_its_reason(self, site: Site) -> None:
        page = site.page()
        assert {a.get("name") for _, a in Form(page).tags if "disabled" in a} == {"value-LIMIT"}
        assert "Set by the environment variable MYSITE_LIMIT" in page
        assert site.save(value__SITENAME="Gent").status_code == 303

    @pytest.mark.parametrize("sent", [{"value-LIMIT": "20"}, {"reset-LIMIT": "on"}], ids=str)
    def test_a_request_is_refused(self, site: Site, sent: dict[str, str]) -> None:
        answer = site.save({**site.form(), **sent})
        assert (answer.status_code, site.waffle.revision) == (400, 0)
        assert "MYSITE_LIMIT" in answer.text

    def test_a_rollback_leaves_it_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = MemoryStore()
        Site(store=store).waffle.update({"SITENAME": "Gent", "LIMIT": 15})
        monkeypatch.setenv("MYSITE_LIMIT", "77")
        site = Site(store=store, WAFFLE_ENV_PREFIX="MYSITE_")
        assert changes(site.page("?rollback=0")) == [("SITENAME", "Gent", "Waffle")]
        assert site.rollback(0).status_code == 303
        assert store.load().values == {"LIMIT": "15"}
