"""An application over the rows of Flask-WaffleConf, and the command that converts them."""

from __future__ import annotations

import datetime
import getpass
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from uwsgi_waffle import (
    AlchemyWaffleStore,
    InvalidValue,
    PeeweeWaffleStore,
    WaffleConf,
    sync,
    update,
)
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.documents import convert_legacy
from uwsgi_waffle.schema import MASK, Schema
from uwsgi_waffle.stores import Store, Stored
from uwsgi_waffle.stores.rows import RowStore

from ..contract.conftest import put
from ..contract.models import OwnStore, alchemy_app, peewee_model
from ..redis_server import RedisServer
from .test_legacy import Evil, written

CONFS: dict[str, Any] = {
    "SITENAME": {"default": "Waffle"},
    "MAX_FILESIZE": {"default": 1000},
    "TAGS": {"default": [], "type": "json"},
    "TOKEN": {"default": "", "secret": True},
}


class Site:
    """An application that used Flask-WaffleConf, and its table."""

    def __init__(self, folder: Path, library: str) -> None:
        self.folder, self._library = folder, library
        self.confs: Any = CONFS
        self.settings: dict[str, object] = {}
        self.make()  # the table, too

    def make(self) -> tuple[Flask, AlchemyWaffleStore | PeeweeWaffleStore]:
        """Make the application, with its declarations, and its store."""
        store: AlchemyWaffleStore | PeeweeWaffleStore
        if self._library == "peewee":
            app = Flask("site", instance_path=str(self.folder))
            store = PeeweeWaffleStore(model=peewee_model(self.folder))
        else:
            made = alchemy_app(self.folder)
            app, store = made.app, AlchemyWaffleStore(db=made.db, model=made.model)
        app.config.update({"WAFFLE_CONFS": self.confs, **self.settings})
        return app, store

    def start(self) -> Flask:
        """Make the application anew, as a process that starts does."""
        app, store = self.make()
        WaffleConf(app, store)
        return app

    @property
    def store(self) -> Store:
        """One more store over the table, that no application uses."""
        app, store = self.make()
        store._context = app.app_context
        return store

    def run(self, *words: str) -> Result:
        """Run ``flask waffle`` in a process of its own, as far as the application can tell."""
        return CliRunner().invoke(command, words, obj=ScriptInfo(create_app=self.start))

    def write(self, **texts: str) -> None:
        """Write rows as something else than this package does."""
        connection = sqlite3.connect(self.folder / "site.db")
        try:
            with connection:
                for row in texts.items():
                    connection.execute("INSERT INTO confs (key, value) VALUES (?, ?)", row)
        finally:
            connection.close()

    def rows(self) -> dict[str, str]:
        return dict(self.store.rows())


@pytest.fixture(params=["alchemy", "peewee"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, request.param)


class TestApplication:
    """Rows that Flask-WaffleConf wrote are read as they are."""

    def test_it_starts_with_them(self, site: Site) -> None:
        site.write(SITENAME=written("Old"), TAGS=written({2, 1}), MAX_FILESIZE="7")
        app = site.start()
        assert (app.config["SITENAME"], app.config["TAGS"]) == ("Old", [1, 2])
        assert app.config["MAX_FILESIZE"] == 7
        assert site.rows()["SITENAME"] == written("Old"), "nothing was written"

    def test_the_first_update_of_a_row_writes_json(self, site: Site) -> None:
        site.write(SITENAME=written("Old"), MAX_FILESIZE=written(5))
        app = site.start()
        result = app.extensions["waffleconf"].update_db({"SITENAME": "New"})
        assert result.revision == 1
        assert site.rows() == {"SITENAME": '"New"', "MAX_FILESIZE": written(5)}
        (row,) = site.store.history(10)
        assert (row.old, row.new) == ('"Old"', '"New"')
        assert site.store.values_at(0) == {"SITENAME": '"Old"', "MAX_FILESIZE": "5"}

    def test_two_processes_read_the_same_so_neither_sees_a_change(self, site: Site) -> None:
        site.write(TAGS=written(["b", {"a": (1, 2)}]))
        first, second = site.start(), site.start()
        for app in (first, second, first):
            app.extensions["waffleconf"].update_conf()
        assert site.store.load().revision == 0

    def test_what_cannot_be_converted_is_named_with_the_reason(self, site: Site) -> None:
        site.write(SITENAME=written(1j))
        with pytest.raises(
            InvalidValue,
            match=r"SITENAME: .*asks for 'builtins.complex'; .*"
            "Run flask waffle set SITENAME=VALUE, or flask waffle unset SITENAME",
        ):
            site.start()

    def test_a_row_that_is_neither_stays_as_it_is_in_the_store(self, site: Site) -> None:
        site.write(SITENAME="not JSON", TOKEN=written(1j))
        assert site.store.load() == Stored(0, {"SITENAME": "not JSON", "TOKEN": written(1j)})

    def test_rows_that_are_not_declared_dont_matter(self, site: Site) -> None:
        site.write(GONE=written(1j), THEIRS="not JSON")
        assert site.start().config["SITENAME"] == "Waffle"


class TestRows:
    """What becomes of the rows of a store that aren't JSON."""

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            ("GONE", written("x"), "not declared in WAFFLE_CONFS"),
            ("SITENAME", written(datetime.date(2020, 1, 1)), "asks for 'datetime.date'"),
            ("MAX_FILESIZE", written("many"), "not 'many'"),
            ("SITENAME", "gA==", "neither JSON nor a value of Flask-WaffleConf"),
        ],
    )
    def test_what_does_not_fit_is_named(self, name: str, text: str, problem: str) -> None:
        rows = {name: text, "TOKEN": written("t"), "TAGS": "[1]"}
        converted, problems = convert_legacy(Schema.declare(CONFS), rows, max_size=1000)
        assert converted == {"TOKEN": '"t"'}
        assert list(problems) == [name]
        assert problem in problems[name]

    def test_a_secret_is_not_quoted(self) -> None:
        schema = Schema.declare({"PIN": {"default": 1, "secret": True}})
        _, problems = convert_legacy(schema, {"PIN": written("geheim")}, max_size=1000)
        assert list(problems) == ["PIN"]
        assert "geheim" not in problems["PIN"]


class TestCommand:
    def test_all_rows_are_one_update(self, site: Site) -> None:
        site.write(SITENAME=written("Brüssel"), MAX_FILESIZE=written(2000), TAGS=written(["a", 1]))
        result = site.run("import-legacy")
        assert result.output.splitlines() == [
            "MAX_FILESIZE: 2000",
            'SITENAME: "Brüssel"',
            'TAGS: ["a",1]',
            "3 converted, revision 1",
        ]
        assert result.exit_code == 0
        app = site.start()
        assert (app.config["SITENAME"], app.config["MAX_FILESIZE"], app.config["TAGS"]) == (
            "Brüssel",
            2000,
            ["a", 1],
        )
        told = app.extensions["waffleconf"].store.history(10)
        assert {(row.revision, row.actor, row.note) for row in told} == {
            (1, getpass.getuser(), "import-legacy")
        }

    def test_a_rollback_to_what_was_before_finds_the_same_values(self, site: Site) -> None:
        site.write(SITENAME=written("Old"))
        site.run("import-legacy")
        app, store = site.make()
        waffle = WaffleConf(app, store)
        waffle.update({"SITENAME": "New"})
        waffle.rollback(0)
        assert waffle.values.SITENAME == "Old"
        assert [entry.old for entry in waffle.history()][-1] == "Old"

    def test_a_second_time_there_is_nothing_to_do(self, site: Site) -> None:
        site.write(SITENAME=written("Old"))
        site.run("import-legacy")
        result = site.run("import-legacy")
        assert (result.exit_code, result.output) == (0, "nothing to convert\n")
        assert site.store.load().revision == 1

    def test_as_json(self, site: Site) -> None:
        site.write(SITENAME=written("Old"), TOKEN=written("geheim"), GONE=written(1))
        told = {
            "converted": {"SITENAME": "Old", "TOKEN": MASK},
            "left": {"GONE": "it is not declared in WAFFLE_CONFS"},
        }
        assert json.loads(site.run("import-legacy", "--json", "--dry-run").output) == {
            "revision": None,
            "dry_run": True,
            **told,
        }
        assert json.loads(site.run("import-legacy", "--json").output) == {
            "revision": 1,
            "dry_run": False,
            **told,
        }

    def test_rows_that_are_json_stay_as_they_are(self, site: Site) -> None:
        site.write(SITENAME='"New"', TAGS=written([1]))
        site.run("import-legacy")
        assert site.rows() == {"SITENAME": '"New"', "TAGS": "[1]"}

    def test_a_store_of_the_applications_own(self, tmp_path: Path) -> None:
        store = OwnStore()
        store.kept["SITENAME"] = written("Old")

        def start() -> Flask:
            app = Flask("site", instance_path=str(tmp_path))
            app.config["WAFFLE_CONFS"] = CONFS
            WaffleConf(app, store)
            return app

        result = CliRunner().invoke(command, ["import-legacy"], obj=ScriptInfo(create_app=start))
        assert result.exit_code == 0, result.output
        assert start().config["SITENAME"] == "Old"
        assert put(store, SITENAME='"New"') == 2

    def test_a_dry_run_changes_no_row(self, site: Site) -> None:
        site.write(SITENAME=written("Old"), GONE=written(1))
        rows = site.rows()
        result = site.run("import-legacy", "--dry-run")
        assert 'SITENAME: "Old"\n' in result.output
        assert "1 would be converted; nothing was written\n" in result.output
        assert result.exit_code == 1, "for GONE would be left"
        assert site.rows() == rows
        assert site.store.load().revision == 0

    def test_what_is_left_alone_is_named_and_exit_code_1(self, site: Site) -> None:
        site.write(GONE=written("x"), TOKEN=written("geheim"))
        result = site.run("import-legacy")
        assert "GONE: left alone, it is not declared" in result.output
        assert f"TOKEN: {MASK}" in result.output
        assert "geheim" not in result.output
        assert result.exit_code == 1
        assert site.rows() == {"GONE": written("x"), "TOKEN": '"geheim"'}

    def test_a_value_that_another_writes_meanwhile_is_kept(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.write(SITENAME=written("Old"))

        def rows(store: RowStore) -> Any:
            found = genuine(store)
            put(site.store, SITENAME='"Newer"')
            return found

        genuine = RowStore.rows
        monkeypatch.setattr(RowStore, "rows", rows)
        assert site.run("import-legacy").exit_code == 0
        assert site.rows() == {"SITENAME": '"Newer"'}

    def test_the_command_waits_for_another_writer_of_this_host(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.write(SITENAME=written("Old"))
        files = site.start().extensions["waffleconf"].host
        for module in (sync, update):
            monkeypatch.setattr(module, "LOCK_TIMEOUT", 0.01)
        with files.lock(1.0):
            result = site.run("import-legacy")
        assert (result.exit_code, site.rows()) == (1, {"SITENAME": written("Old")})
        assert "Another process has held the lock" in result.output
        assert site.run("import-legacy").exit_code == 0

    def test_the_command_tells_other_hosts(self, site: Site, redis_server: RedisServer) -> None:
        site.settings = {"WAFFLE_WATCHTYPE": "redis", "WAFFLE_REDIS_URL": redis_server.url}
        site.write(SITENAME=written("Old"))
        with (
            redis_server.client() as client,
            client.pubsub(ignore_subscribe_messages=True) as channel,
        ):
            channel.subscribe("waffleconf")
            client.publish("waffleconf", "first")
            while channel.get_message(timeout=1) is None:  # the first one: it listens
                pass
            site.run("import-legacy")
            client.publish("waffleconf", "last")
            heard = []
            while heard[-1:] != [b"last"]:
                message = channel.get_message(timeout=1)
                heard += [message["data"]] if message else []
        assert len(heard) == 2, "the command's own, and ours"


class TestHostile:
    """Each would create the canary if anything of it ran."""

    @pytest.fixture
    def canary(self, tmp_path: Path) -> Path:
        return tmp_path / "canary"

    @pytest.fixture
    def hostile(self, canary: Path) -> str:
        return written(Evil(os.system, f"touch {canary}"))

    def test_the_application_executes_nothing(self, hostile: str, canary: Path, site: Site) -> None:
        site.write(SITENAME=hostile)
        with pytest.raises(InvalidValue, match=r"SITENAME: Flask-WaffleConf wrote it, and the"):
            site.start()
        assert not canary.exists()

    def test_nor_does_the_command(self, hostile: str, canary: Path, site: Site) -> None:
        site.write(GONE=hostile, MAX_FILESIZE=written(2000))
        result = site.run("import-legacy")
        assert result.exit_code == 1
        assert "GONE: left alone, the pickle" in result.output
        assert "MAX_FILESIZE: 2000" in result.output
        assert site.rows()["GONE"] == hostile
        assert not canary.exists()
