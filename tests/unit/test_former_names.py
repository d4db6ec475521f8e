"""`was`: a value that is stored under a former name counts, and a rolling deploy loses nothing."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import Result
from pydantic import BaseModel, Field

from uwsgi_waffle import SchemaError
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.served import repairing

from ..host import recorded
from .conftest import Host, Process

OLD: dict[str, Any] = {"NAME": {"default": "Waffle"}, "LIMIT": {"default": 10}}
NEW: dict[str, Any] = {"TITLE": {"default": "Waffle", "was": "NAME"}, "LIMIT": {"default": 10}}
LATER: dict[str, Any] = {"TITLE": {"default": "Waffle"}, "LIMIT": {"default": 10}}


class Model(BaseModel):
    TITLE: str = Field(default="Waffle", json_schema_extra={"was": ["HEADING", "NAME"]})
    LIMIT: int = 10


@pytest.fixture
def old(host: Host) -> Process:
    """A process of the former release."""
    return host.start(confs=OLD)


@pytest.fixture
def new(host: Host, old: Process) -> Process:
    """A process of the new release, beside that of the former one."""
    return host.start(confs=NEW)


class TestOneRelease:
    def test_the_value_under_the_former_name_counts(self, host: Host, old: Process) -> None:
        old.waffle.update({"NAME": "Gent"})
        for confs in (NEW, Model):
            new = host.start(confs=confs)
            assert new.waffle.values.TITLE == new.app.config["TITLE"] == "Gent"

    def test_it_counts_until_the_new_name_is_set(self, new: Process, old: Process) -> None:
        old.waffle.update({"NAME": "Gent"})
        assert new.waffle.update({"TITLE": "Brugge"}).changed == ("TITLE",)
        assert new.waffle.values.TITLE == "Brugge"

    def test_the_next_update_moves_it(self, host: Host, new: Process, old: Process) -> None:
        """So that a later release no longer needs to know the former name."""
        old.waffle.update({"NAME": "Gent"})
        new.waffle.update({"LIMIT": 20})
        assert host.start(confs=LATER).waffle.values.TITLE == "Gent"

    def test_commands_know_the_new_name_only(self, new: Process, old: Process) -> None:
        old.waffle.update({"NAME": "Gent"})

        def run(*words: str, stdin: str = "") -> Result:
            return new.app.test_cli_runner().invoke(command, words, input=stdin)

        assert run("list").output.splitlines()[0].split() == ["TITLE", '"Gent"']
        for result in (run("set", "NAME=x"), run("get", "NAME"), run("apply", "-", stdin="NAME=x")):
            assert result.exit_code == 1
            assert "'NAME'" in result.stderr
        assert new.waffle.refresh() == 1

    def test_a_rollback_finds_it(self, new: Process, old: Process) -> None:
        old.waffle.update({"NAME": "Gent"})
        new.waffle.update({"TITLE": "Brugge"})
        new.waffle.rollback(1)
        assert new.waffle.values.TITLE == "Gent"

    def test_a_reset_gives_the_default_back(self, new: Process, old: Process) -> None:
        old.waffle.update({"NAME": "Gent"})
        new.waffle.reset("TITLE")
        assert new.waffle.values.TITLE == old.waffle.values.NAME == "Waffle"

    def test_the_latest_of_several_names_counts(self, host: Host) -> None:
        host.start(confs={"NAME": {"default": ""}}).waffle.update({"NAME": "first"})
        host.start(confs={"HEADING": {"default": ""}}).waffle.update({"HEADING": "second"})
        new = host.start(confs=Model)
        assert new.waffle.values.TITLE == "second"
        new.waffle.update({"TITLE": "third"})
        assert new.waffle.values.TITLE == "third"

    def test_nothing_stored_is_the_default(self, new: Process) -> None:
        assert new.waffle.values.TITLE == "Waffle"
        new.waffle.update({"TITLE": "Gent"})
        assert set(new.state.store.load().values) == {"TITLE"}

    def test_a_value_that_does_not_fit_can_be_repaired(self, host: Host, old: Process) -> None:
        old.waffle.update({"NAME": "text"})
        confs = {"COUNT": {"default": 1, "was": "NAME"}, "LIMIT": {"default": 10}}
        with repairing():
            shell = host.start(confs=confs)
        assert (shell.waffle.values.COUNT, set(shell.state.served.misfits)) == (1, {"COUNT"})
        listed = shell.app.test_cli_runner().invoke(command, ["list"]).output
        assert '! "text" is stored, which can\'t be used' in listed
        shell.waffle.update({"COUNT": 5})
        assert host.start(confs=confs).waffle.values.COUNT == 5


class TestRollingDeploy:
    """For an hour processes of both releases serve, and change values."""

    def test_each_release_sees_what_either_writes(self, old: Process, new: Process) -> None:
        old.waffle.update({"NAME": "one"})
        assert new.waffle.values.TITLE == "one"
        new.waffle.update({"LIMIT": 20})
        assert (old.waffle.values.NAME, new.waffle.values.TITLE) == ("one", "one")
        new.waffle.update({"TITLE": "two"})
        assert (old.waffle.values.NAME, new.waffle.values.TITLE) == ("two", "two")
        old.waffle.update({"NAME": "three"})
        assert (old.waffle.values.NAME, new.waffle.values.TITLE) == ("three", "three")
        old.waffle.update({"LIMIT": 30})
        new.waffle.update({"LIMIT": 40})
        assert (old.waffle.values.NAME, new.waffle.values.TITLE) == ("three", "three")

    def test_what_the_other_release_has_set_can_be_set_back(
        self, old: Process, new: Process
    ) -> None:
        """It is a change, though the row under the new name stays as it is."""
        new.waffle.update({"TITLE": "Brugge"})
        old.waffle.update({"NAME": "Gent"})
        assert new.waffle.update({"TITLE": "Brugge"}).changed == ("TITLE",)

    def test_nothing_is_lost_when_it_is_over(self, host: Host, old: Process, new: Process) -> None:
        old.waffle.update({"NAME": "one"})
        new.waffle.update({"TITLE": "two"})
        old.waffle.update({"NAME": "three"})
        new.waffle.update({"LIMIT": 20})
        values = host.start(confs=LATER).waffle.values
        assert (values.TITLE, values.LIMIT) == ("three", 20)

    def test_nothing_is_lost_when_it_is_given_up(
        self, host: Host, old: Process, new: Process
    ) -> None:
        old.waffle.update({"NAME": "one"})
        new.waffle.update({"TITLE": "two", "LIMIT": 20})
        values = host.start(confs=OLD).waffle.values
        assert (values.NAME, values.LIMIT) == ("two", 20)

    def test_moving_is_no_change(self, old: Process, new: Process) -> None:
        old.waffle.update({"NAME": "one"})
        assert new.waffle.values.TITLE == "one"
        heard = recorded(new)
        assert new.waffle.update({"LIMIT": 20}).changed == ("LIMIT", "TITLE")
        assert [dict(change.new) for change in heard] == [{"LIMIT": 20}]


@pytest.mark.parametrize(
    ("confs", "text"),
    [
        (
            {"A": {"default": 1, "was": "B"}, "B": {"default": 1}},
            "'was' names 'B', which is declared",
        ),
        ({"A": {"default": 1, "was": "A"}}, "'was' names 'A', which is declared"),
        (
            {"A": {"default": 1, "was": "C"}, "B": {"default": 1, "was": ["D", "C"]}},
            "'A' and 'B' both say that they were 'C'",
        ),
        ({"A": {"default": 1, "was": 5}}, "'was' must be a former name or a list of them, not 5"),
        ({"A": {"default": 1, "was": [5]}}, "'was' must be a former name or a list of them"),
        ({"A": {"default": 1, "was": "no name"}}, "'no name' can't be a variable's name"),
    ],
)
def test_wrong_former_names_are_refused(host: Host, confs: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        host.start(confs=confs)


def test_group_and_title_in_the_order_of_declaration(host: Host) -> None:
    """In a dictionary and in a model."""

    class Limits(BaseModel):
        ZOOM: int = Field(default=1, title="Zoom, in %", json_schema_extra={"group": "Map"})
        ALPHA: int = 2

    confs = {"ZOOM": {"default": 1, "title": "Zoom, in %", "group": "Map"}, "ALPHA": {"default": 2}}
    for declared in (Limits, confs):
        variables = host.start(confs=declared).state.schema.variables
        shown = [(v.name, v.group, v.title, v.was) for v in variables.values()]
        assert shown == [("ZOOM", "Map", "Zoom, in %", ()), ("ALPHA", "", "", ())]
