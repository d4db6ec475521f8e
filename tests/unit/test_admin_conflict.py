"""Two people at the admin page: neither overwrites the other unseen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from uwsgi_waffle import MemoryStore
from uwsgi_waffle.admin.fields import MAX_EDITABLE
from uwsgi_waffle.stores import Commit
from uwsgi_waffle.stores.row_history import HISTORY_ROWS

from ..contract.models import peewee_store
from .admin_site import Form, Site
from .conftest import Host


@pytest.fixture
def site() -> Site:
    return Site()


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

    def test_who_made_it_is_named_behind_many_newer_changes(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"SITENAME": "Theirs"}, actor="bob")
        for limit in range(20, 50):
            site.waffle.update({"LIMIT": limit}, actor="eve")
        answer = site.save(form, value__SITENAME="Mine")
        assert re.search(
            r"In force now\s*: <code>Theirs</code>\s+\(by bob, revision 1\)", answer.text
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
        site.waffle.update({"SITENAME": "x" * (MAX_EDITABLE + 1)})
        answer = site.save(form, value__SITENAME="Mine")
        again = Form.save(answer.text)
        assert (answer.status_code, again["value-SITENAME"]) == (409, "Mine")
        assert site.save(again).status_code == 303
        assert site.waffle.values.SITENAME == "Mine"

    def test_what_another_release_wrote_under_the_former_name(self) -> None:
        store = MemoryStore()
        old = Site({"NAME": {"default": "x"}}, store=store)
        new = Site({"TITLE": {"default": "x", "was": "NAME"}}, store=store)
        old.waffle.update({"NAME": "First"})
        form = new.form()
        old.waffle.update({"NAME": "Theirs"})
        assert new.save(form, value__TITLE="Mine").status_code == 409
        assert new.waffle.values.TITLE == "Theirs"

    def test_another_variable_is_none(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"LIMIT": 20})
        assert site.save(form, value__SITENAME="Mine").status_code == 303
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Mine", 20)

    @pytest.mark.parametrize("length", [None, 255])
    def test_what_the_history_has_forgotten(self, tmp_path: Path, length: int | None) -> None:
        """In a table of the application's own it keeps few changes."""
        site = Site(store=peewee_store(tmp_path, length=length), WAFFLE_MULTIPROC=False)
        form = site.form()
        site.waffle.update({"SITENAME": "Theirs"})
        for limit in range(20, 21 + HISTORY_ROWS):
            site.waffle.update({"LIMIT": limit})
        answer = site.save(form, value__SITENAME="Mine")
        assert (answer.status_code, site.waffle.values.SITENAME) == (409, "Theirs")
        assert site.save(Form.save(answer.text)).status_code == 303
        assert site.waffle.values.SITENAME == "Mine"

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

    @pytest.mark.parametrize("revision", [None, "", "x", "-1", "7"])
    def test_a_form_that_does_not_say_its_revision(self, site: Site, revision: str | None) -> None:
        """Or says one that the store isn't at yet, as after a restored backup."""
        site.waffle.update({"LIMIT": 20})
        answer = site.save(revision=revision, value__SITENAME="Mine")
        assert (answer.status_code, site.waffle.revision) == (409, 1)
        assert site.save(Form.save(answer.text)).status_code == 303

    def test_others_may_change_other_variables_all_the_time(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The update is tried again, and its own variable is compared each time."""
        transact, limits = MemoryStore.transact, ["30", "20"]

        def overtaken(store: MemoryStore, build: Any) -> Any:
            if limits:
                transact(store, lambda _: Commit({"LIMIT": limits.pop()}))
            return transact(store, build)

        form = site.form()
        monkeypatch.setattr(MemoryStore, "transact", overtaken)
        assert site.save(form, value__SITENAME="Mine").status_code == 303
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Mine", 30)

    def test_an_error_keeps_what_the_form_was_made_of(self, site: Site) -> None:
        """Also of the fields that nobody has edited yet."""
        form = site.form()
        site.waffle.update({"NAMES": ["theirs"]})
        again = Form.save(site.save(form, value__LIMIT="-5").text)
        assert (again["revision"], again["value-NAMES"]) == ("0", form["value-NAMES"])
        site.save(again, value__LIMIT="5")
        assert site.waffle.values.NAMES == ["theirs"]

    def test_only_the_conflict_is_shown_beside_its_field(self, site: Site) -> None:
        form = site.form()
        site.waffle.update({"SITENAME": "Theirs", "LIMIT": 20, "OPEN": False}, actor="bob")
        answer = site.save(form, value__SITENAME="Mine", value__NAMES="[]")
        assert answer.text.count("In force now") == 1
        again = Form.save(answer.text)
        assert (again["value-SITENAME"], again["original-SITENAME"]) == ("Mine", "Theirs")
        assert (again["value-LIMIT"], "value-OPEN" in again) == ("20", False)

    def test_a_value_that_the_declaration_rejects_can_be_replaced(self, host: Host) -> None:
        """Another version of the application has written it."""
        settings = {"WAFFLE_WATCHER_FILE": str(host.watch_file)}
        site = Site(store=host.store(), **settings)
        loose = Site({"LIMIT": {"default": ""}}, store=host.store(), **settings)
        form = site.form()
        loose.waffle.update({"LIMIT": "many"})
        answer = site.save(form, value__LIMIT="30")
        assert (answer.status_code, Form.save(answer.text)["value-LIMIT"]) == (409, "30")
        assert site.save(Form.save(answer.text)).status_code == 303
        assert site.waffle.values.LIMIT == 30

    def test_a_value_that_a_validator_changes_is_no_conflict(self) -> None:
        """The page shows what the validator makes of what is stored."""

        class Names(BaseModel):
            HOST: str = "a"

            @field_validator("HOST")
            @classmethod
            def lower(cls, host: str) -> str:
                return host.lower()

        store = MemoryStore()
        Site({"HOST": {"default": ""}}, store=store).waffle.update({"HOST": "B"})
        site = Site(Names, store=store)
        assert site.save(value__HOST="b").headers["Location"] == "/waffle/?saved=nothing"
        assert site.save(value__HOST="c").status_code == 303
        assert site.waffle.values.HOST == "c"
