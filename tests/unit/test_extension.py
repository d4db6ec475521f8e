"""WaffleConf and its applications, and Flask-WaffleConf's names for them."""

from __future__ import annotations

import gc
import json
import logging
import weakref

import pytest
from flask import Flask
from pydantic import BaseModel

from uwsgi_waffle import (
    InvalidValue,
    MemoryStore,
    SchemaError,
    SQLStore,
    UnknownVariable,
    WaffleConf,
    WaffleError,
)
from uwsgi_waffle.state import state_of

from ..host import CONFS, Host, Process, count_open_files, eventually, forked, logged


class TestApplications:
    def test_several_in_one_waffle_conf_need_a_context(self, host: Host) -> None:
        waffle = WaffleConf()
        first = host.start(MemoryStore(), waffle=waffle)
        second = host.start(MemoryStore(), waffle=waffle)
        with pytest.raises(WaffleError, match=r"several applications.*app_context"):
            _ = waffle.values
        with first.app.app_context():
            waffle.update({"LIMIT": 20})
            assert waffle.values.LIMIT == 20
        with second.app.app_context():
            assert (waffle.values.LIMIT, waffle.revision) == (10, 0)
        assert (first.app.config["LIMIT"], second.app.config["LIMIT"]) == (20, 10)

    def test_a_foreign_applications_context_does_not_mislead_the_only_one(
        self, site: Process
    ) -> None:
        with Flask("foreign").app_context():
            assert site.waffle.values.LIMIT == 10

    def test_without_an_application_the_error_says_so(self) -> None:
        with pytest.raises(WaffleError, match=r"no application yet.*init_app"):
            _ = WaffleConf().values
        with pytest.raises(SchemaError, match="'bare' has no WaffleConf: call WaffleConf"):
            state_of(Flask("bare"))

    def test_a_second_init_app_is_refused(self, site: Process) -> None:
        with pytest.raises(WaffleError, match="'site' has a WaffleConf already"):
            site.waffle.init_app(site.app)
        with pytest.raises(WaffleError, match="already"):
            WaffleConf(site.app)

    def test_an_application_can_be_forgotten(self, host: Host) -> None:
        waffle = WaffleConf()
        process = host.start(waffle=waffle)
        process.waffle.on_change(lambda change: None)
        process.waffle.update({"LIMIT": 20})
        forgotten = weakref.ref(process.app)
        del process
        gc.collect()
        assert forgotten() is None

    def test_forgotten_ones_leave_no_file_open_and_are_not_waited_for(
        self, host: Host, site: Process
    ) -> None:
        host.start().tick()
        gc.collect()
        before = count_open_files()
        for _ in range(5):
            host.start().tick()
        gc.collect()
        assert count_open_files() <= before
        assert len(site.waffle.update({"LIMIT": 20}, wait=20).applied) == 1

    def test_a_shell_has_the_extension_at_hand(self, site: Process) -> None:
        """Unless the application has a name of its own there."""
        assert site.app.make_shell_context()["waffle"] is site.waffle
        site.app.shell_context_processor(lambda: {"waffle": "theirs"})
        assert site.app.make_shell_context()["waffle"] == "theirs"

    def test_a_model_shows_its_values_in_the_configuration(self, host: Host) -> None:
        class Page(BaseModel):
            size: int = 10

        process = host.start(confs=Page)
        process.waffle.update({"size": 20})
        assert process.app.config["size"] == process.waffle.values["size"] == 20

    def test_a_static_value_of_a_declared_variable_is_warned_of(
        self, host: Host, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was set before the extension came, and it doesn't count."""
        app = Flask("site", instance_path=str(host.instance))
        app.config.update(WAFFLE_CONFS={"S": {"default": "declared"}}, S="from a file")
        WaffleConf(app, MemoryStore())
        assert app.config["S"] == "declared"
        (text,) = logged(caplog, logging.WARNING)
        assert "app.config sets 'S'" in text


class TestStores:
    def test_the_store_may_be_given_to_either(self, host: Host) -> None:
        store = MemoryStore()
        app = Flask("site", instance_path=str(host.instance))
        app.config["WAFFLE_CONFS"] = CONFS
        WaffleConf(app, store).update({"LIMIT": 20})
        assert host.start(store).waffle.values.LIMIT == 20

    def test_the_default_is_a_sqlite_file_in_the_instance_folder(
        self, host: Host, site: Process
    ) -> None:
        assert host.database.is_file()
        assert site.waffle.status()["store"] == f"sqlite:///{host.database}"

    def test_without_multiproc_nothing_is_shared_but_the_store(self, host: Host) -> None:
        first, second = (host.start(MULTIPROC=False) for _ in range(2))
        first.waffle.update({"LIMIT": 20})
        assert (first.waffle.values.LIMIT, second.waffle.values.LIMIT) == (20, 10)
        assert second.waffle.refresh() == 1
        assert second.waffle.values.LIMIT == 20
        assert second.waffle.update({"SITENAME": "New"}, wait=5).pending == ()
        assert [path.name for path in host.instance.iterdir()] == ["waffle.db"]
        assert json.dumps(second.waffle.status())

    def test_a_relative_watch_file_is_in_the_instance_folder(self, host: Host) -> None:
        """Wherever the process was started: a shell elsewhere is no other host."""
        process = host.start(WATCHER_FILE="here/my.watch")
        assert process.files.watch_file == host.instance / "here" / "my.watch"


class TestTwoStores:
    """Two stores behind one watch file are refused."""

    def second(self, host: Host) -> SQLStore:
        return SQLStore(f"sqlite:///{host.instance}/second.db")

    def test_in_this_process(self, host: Host, site: Process) -> None:
        site.waffle.update({"SITENAME": "Shop one"})
        text = r"WAFFLE_WATCHER_FILE .*waffle\.watch is used for the store .*, not for .*second\.db"
        with pytest.raises(SchemaError, match=text):
            host.start(self.second(host))
        assert site.waffle.values.SITENAME == "Shop one"

    def test_in_another_living_process(self, host: Host) -> None:
        text = "is used for the store"
        with forked(lambda: host.start().tick()), pytest.raises(SchemaError, match=text):
            host.start(self.second(host))

    @pytest.mark.parametrize("then", ["read", "update"])
    def test_also_after_the_header_was_removed(self, host: Host, site: Process, then: str) -> None:
        host.header.unlink()
        if then == "read":
            assert site.waffle.values.SITENAME == "Waffle"
        else:
            site.waffle.update({"LIMIT": 20})
        with pytest.raises(SchemaError, match="is used for the store"):
            host.start(self.second(host))

    def test_once_nobody_uses_the_files_they_may_belong_to_another(self, host: Host) -> None:
        """Nothing of the first is left in them."""
        with forked(lambda: host.start().waffle.update({"SITENAME": "Old"})):
            pass
        moved = eventually(lambda: host.start(self.second(host)))
        assert (moved.waffle.values.SITENAME, moved.waffle.revision) == ("Waffle", 0)


class TestOldNames:
    def test_parse_conf_gives_a_dictionary(self, site: Process) -> None:
        old = site.app.extensions["waffleconf"]
        assert old is site.waffle.state
        assert old.parse_conf() == {"SITENAME": "Waffle", "LIMIT": 10, "TOKEN": ""}
        assert old.parse_conf(keys=["LIMIT"]) == old.parse_conf(["LIMIT"]) == {"LIMIT": 10}
        with pytest.raises(UnknownVariable):
            old.parse_conf(["SITE"])

    def test_update_db_leaves_unknown_keys_out_with_a_warning(
        self, site: Process, other: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        site.app.extensions["waffleconf"].update_db({"LIMIT": 20, "SITE": "x"})
        assert other.waffle.values.LIMIT == 20
        (text,) = logged(caplog, logging.WARNING)
        assert "'SITE'" in text
        with pytest.raises(InvalidValue):
            site.app.extensions["waffleconf"].update_db({"LIMIT": -1})

    def test_update_conf_reads_the_store(self, host: Host, site: Process) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        with site.app.test_request_context():
            assert site.app.config["LIMIT"] == 10
            site.app.extensions["waffleconf"].update_conf()
            assert site.app.config["LIMIT"] == 20
