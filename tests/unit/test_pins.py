"""What the process environment pins wins over the store, in that process only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydantic import BaseModel, Field, field_validator, model_validator

from uwsgi_waffle import InvalidValue, PinnedVariable, SchemaError, UnknownVariable, WaffleError
from uwsgi_waffle.admin import admin_blueprint
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.schema import MASK
from uwsgi_waffle.testing import override

from ..host import CONFS, recorded, report_process
from .admin_site import Form
from .conftest import Host, Process

Start = Callable[..., Process]
PREFIX = {"ENV_PREFIX": "MYSITE_"}


@pytest.fixture
def start(host: Host, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start a process in an environment that has these variables."""

    def start(confs: Any = CONFS, **environment: str) -> Process:
        with monkeypatch.context() as context:
            for name, value in environment.items():
                context.setenv(name, value)
            return host.start(confs=confs, **PREFIX)

    return start


def run(site: Process, *words: str) -> Result:
    return site.app.test_cli_runner().invoke(command, words)


class TestWhatCounts:
    def test_it_wins_over_default_and_store(self, start: Start, site: Process) -> None:
        pinned = start(MYSITE_SITENAME="Pinned", MYSITE_LIMIT="30")
        assert (pinned.waffle.values.SITENAME, pinned.app.config["LIMIT"]) == ("Pinned", 30)
        site.waffle.update({"SITENAME": "Stored"})
        assert (pinned.waffle.values.SITENAME, pinned.waffle.revision) == ("Pinned", 1)
        assert site.waffle.values.SITENAME == "Stored"

    def test_without_a_prefix_nothing_is_pinned(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SITENAME", "Pinned")
        monkeypatch.setenv("MYSITE_SITENAME", "Pinned")
        assert host.start().waffle.values.SITENAME == "Waffle"

    def test_the_prefix_may_come_from_the_environment(self, host: Host, start: Start) -> None:
        with pytest.MonkeyPatch.context() as context:
            context.setenv("WAFFLE_ENV_PREFIX", "SHOP_")
            context.setenv("SHOP_SITENAME", "Pinned")
            assert host.start().waffle.values.SITENAME == "Pinned"

    def test_a_later_change_of_the_environment_changes_nothing(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        monkeypatch.setenv("MYSITE_SITENAME", "Other")
        pinned.waffle.refresh()
        assert pinned.waffle.values.SITENAME == "Pinned"

    @pytest.mark.parametrize(
        ("content", "value"),
        [
            (b"geheim\n", "geheim"),
            (b"geheim\r\n", "geheim"),
            (b"geheim", "geheim"),
            (b"two\nlines\n\n", "two\nlines\n"),
            (b"\n", ""),
        ],
    )
    def test_from_a_file_without_its_last_line_end(
        self, start: Start, tmp_path: Path, content: bytes, value: str
    ) -> None:
        secret = tmp_path / "token"
        secret.write_bytes(content)
        assert value == start(MYSITE_TOKEN_FILE=str(secret)).waffle.values.TOKEN

    def test_a_variable_that_is_called_file_has_its_own_name(self, start: Start) -> None:
        confs = {"KEY": {"default": "k"}, "KEY_FILE": {"default": "f"}}
        values = start(confs, MYSITE_KEY_FILE="/etc/key").waffle.values
        assert (values.KEY, values.KEY_FILE) == ("k", "/etc/key")

    @pytest.mark.parametrize(
        ("text", "default", "value"),
        [("[1, 2]", [], [1, 2]), ("true", False, True), ("1", "", "1"), ("null", "", "null")],
    )
    def test_it_is_parsed_as_the_command_line_does(
        self, start: Start, text: str, default: object, value: object
    ) -> None:
        site = start({"X": {"default": default}}, MYSITE_X=text)
        assert value == site.waffle.values.X

    def test_a_hook_does_not_hear_of_what_does_not_count(self, start: Start, site: Process) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        changes = recorded(pinned)
        site.waffle.update({"SITENAME": "Stored"})
        site.waffle.update({"LIMIT": 20})
        assert pinned.waffle.values.LIMIT == 20
        assert [dict(change.new) for change in changes] == [{"LIMIT": 20}]

    def test_a_test_may_override_it(self, start: Start) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        with override(pinned.app, SITENAME="Test", LIMIT=1):
            assert pinned.waffle.values.SITENAME == "Test"
        with override(pinned.app, LIMIT=1):
            assert pinned.waffle.values.SITENAME == "Pinned"
        pinned.app.testing = True
        pinned.app.config["SITENAME"] = "Assigned"
        assert pinned.waffle.values.SITENAME == "Assigned"


class TestRefused:
    @pytest.mark.parametrize(
        "change",
        [
            lambda waffle: waffle.update({"SITENAME": "New", "LIMIT": 20}),
            lambda waffle: waffle.reset("SITENAME"),
            lambda waffle: waffle.state.update_db({"SITENAME": "New"}),
        ],
        ids=["update", "reset", "update_db"],
    )
    def test_changing_it(self, start: Start, change: Callable[[Any], object]) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        with pytest.raises(PinnedVariable, match=r"'SITENAME' is pinned by .* MYSITE_SITENAME"):
            change(pinned.waffle)
        assert (pinned.waffle.revision, pinned.waffle.values.LIMIT) == (0, 10)
        assert issubclass(PinnedVariable, WaffleError)

    def test_the_page_says_so(self, start: Start) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        pinned.app.config.update(SECRET_KEY="k", WTF_CSRF_ENABLED=False)
        pinned.app.register_blueprint(admin_blueprint(pinned.waffle, authorize=lambda: True))
        client = pinned.app.test_client()
        form = Form.save(client.get("/waffle/").text)
        answer = client.post("/waffle/", data={**form, "value-SITENAME": "New"})
        assert answer.status_code == 400
        assert "pinned by the environment variable MYSITE_SITENAME" in answer.text

    def test_what_is_not_declared_is_unknown(self, start: Start) -> None:
        with pytest.raises(UnknownVariable):
            start(MYSITE_SITENAME="Pinned").waffle.update({"SITENAM": "New"})

    def test_a_rollback_leaves_it_out(self, start: Start, site: Process) -> None:
        site.waffle.update({"SITENAME": "One", "LIMIT": 20})
        site.waffle.update({"SITENAME": "Two", "LIMIT": 30})
        pinned = start(MYSITE_SITENAME="Pinned")
        assert pinned.waffle.rollback(1).changed == ("LIMIT",)
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Two", 20)

    def test_a_process_that_pins_it_has_an_update_and_serves_its_pin(
        self, start: Start, site: Process
    ) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        site.waffle.update({"SITENAME": "Stored"})
        pinned.tick()
        result = site.waffle.update({"SITENAME": "Stored"}, wait=10)
        assert (len(result.applied), result.pending) == (2, ())
        assert (pinned.waffle.values.SITENAME, pinned.waffle.revision) == ("Pinned", 1)

    def test_a_file_that_does_not_name_it_leaves_it_out(self, start: Start, site: Process) -> None:
        """`apply --reset-others` resets the other ones."""
        site.waffle.update({"SITENAME": "Stored", "LIMIT": 30})
        pinned = start(MYSITE_SITENAME="Pinned")
        words = ["apply", "-", "--reset-others", "--yes"]
        result = pinned.app.test_cli_runner().invoke(command, words, input="TOKEN=x\n")
        assert result.exit_code == 0
        assert site.waffle.refresh() == 2
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Stored", 10)
        refused = pinned.app.test_cli_runner().invoke(command, words, input="SITENAME=x\n")
        assert (refused.exit_code, site.waffle.refresh()) == (1, 2)

    def test_other_variables_can_be_changed(self, start: Start, site: Process) -> None:
        """And the store keeps what it has for the pinned one."""
        site.waffle.update({"SITENAME": "Stored"})
        pinned = start(MYSITE_SITENAME="Pinned")
        pinned.waffle.update({"LIMIT": 20})
        assert (site.waffle.values.SITENAME, site.waffle.values.LIMIT) == ("Stored", 20)


class Ordered(BaseModel):
    LOW: int = 1
    HIGH: int = 10
    NAME: str = Field(default="Waffle", json_schema_extra={"secret": True})

    @field_validator("NAME")
    @classmethod
    def short(cls, value: str) -> str:
        if len(value) > 10:
            raise ValueError("too long")
        return value

    @model_validator(mode="after")
    def ordered(self) -> Ordered:
        if self.LOW > self.HIGH:
            raise ValueError("LOW must not be above HIGH")
        return self


class TestWrong:
    def test_a_value_that_does_not_fit(self, start: Start) -> None:
        with pytest.raises(SchemaError, match=r"MYSITE_LIMIT can't be the value of 'LIMIT': .*-5"):
            start(MYSITE_LIMIT="-5")

    def test_a_value_that_the_model_refuses(self, start: Start) -> None:
        with pytest.raises(SchemaError, match="MYSITE_NAME can't be the value") as error:
            start(Ordered, MYSITE_NAME="much too long")
        assert "much" not in str(error.value)

    def test_values_that_fit_the_stored_ones_but_not_the_defaults(self, start: Start) -> None:
        start(Ordered).waffle.update({"HIGH": 100})
        assert start(Ordered, MYSITE_LOW="50").waffle.values.LOW == 50

    def test_values_that_do_not_fit_the_stored_ones(self, start: Start) -> None:
        with pytest.raises(InvalidValue, match=r"LOW must not be above HIGH|value_error"):
            start(Ordered, MYSITE_LOW="50")

    def test_both_forms_at_once(self, start: Start) -> None:
        with pytest.raises(SchemaError, match="MYSITE_TOKEN and MYSITE_TOKEN_FILE are both set"):
            start(MYSITE_TOKEN="a", MYSITE_TOKEN_FILE="/nowhere")

    def test_a_file_that_is_not_there(self, start: Start, tmp_path: Path) -> None:
        with pytest.raises(SchemaError, match=r"MYSITE_TOKEN_FILE: the file .*none.*No such file"):
            start(MYSITE_TOKEN_FILE=str(tmp_path / "none"))

    def test_a_file_that_is_not_text(self, start: Start, tmp_path: Path) -> None:
        (tmp_path / "token").write_bytes(b"\xff")
        with pytest.raises(SchemaError, match="it isn't a text in UTF-8"):
            start(MYSITE_TOKEN_FILE=str(tmp_path / "token"))


class TestShown:
    def test_status_says_by_what(self, start: Start) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        assert pinned.waffle.status()["pinned"] == {"SITENAME": "MYSITE_SITENAME"}
        assert "pinned:        SITENAME by MYSITE_SITENAME\n" in run(pinned, "status").output

    def test_list_says_by_what(self, start: Start) -> None:
        pinned = start(MYSITE_SITENAME="Pinned")
        lines = run(pinned, "list").output.splitlines()
        assert lines[0].startswith('SITENAME  "Pinned"')
        assert lines[1].split() == ["pinned", "by", "MYSITE_SITENAME"]
        document = json.loads(run(pinned, "list", "--json").output)
        assert document["pinned"] == {"SITENAME": "MYSITE_SITENAME"}

    def test_secrets_are_masked(self, start: Start, tmp_path: Path, host: Host) -> None:
        (tmp_path / "token").write_text("geheim\n")
        pinned = start(MYSITE_TOKEN_FILE=str(tmp_path / "token"))
        outputs = [run(pinned, *words).output for words in (["list"], ["status"], ["doctor"])]
        assert MASK in outputs[0]
        shown = [*outputs, str(pinned.waffle.status()), repr(pinned.waffle.values)]
        shown += [repr(pinned.state.schema.pins), str(pinned.app.config)]
        shown += [path.read_text() for path in (host.folder / "processes").iterdir()]
        assert not [text for text in shown if "geheim" in text]

    def test_doctor_compares_server_and_shell(self, start: Start, host: Host) -> None:
        shell = start(MYSITE_SITENAME="Pinned", MYSITE_LIMIT="20")
        server = start(MYSITE_SITENAME="Other", MYSITE_TOKEN="t")
        row = next(
            p for p in host.open_files().processes if p.token == server.files.processes.token
        )
        server.state.leave()
        theirs = report_process(host.open_files(), 4711, "worker 1", server=row.server)
        output = run(shell, "doctor").output
        assert "pins SITENAME to one value here and to another in worker 1 (pid 4711)" in output
        assert "pins LIMIT here and not in worker 1 (pid 4711)" in output
        assert "does not pin TOKEN here, as it does in worker 1 (pid 4711)" in output
        theirs.processes.leave()

    def test_doctor_is_content_where_both_are_alike(self, start: Start, host: Host) -> None:
        shell = start(MYSITE_SITENAME="Pinned")
        row = next(iter(host.open_files().processes))
        theirs = report_process(host.open_files(), 4711, "worker 1", server=row.server)
        assert "SITENAME by MYSITE_SITENAME" in run(shell, "doctor").output
        assert "not in worker" not in run(shell, "doctor").output
        theirs.processes.leave()
