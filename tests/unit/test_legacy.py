"""Values that Flask-WaffleConf wrote: recognised, never loaded, and converted by a reader that
executes nothing.
"""

from __future__ import annotations

import base64
import collections
import datetime
import getpass
import io
import json
import logging
import math
import os
import pickle
import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo
from pydantic import BaseModel, model_validator

from uwsgi_waffle import (
    AlchemyWaffleStore,
    InvalidValue,
    PeeweeWaffleStore,
    WaffleConf,
    extension,
    legacy,
)
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.hostfiles import header as header_module
from uwsgi_waffle.legacy import MAX_DEPTH, MAX_SIZE, convert, is_legacy, read_pickle
from uwsgi_waffle.schema import MASK, Schema
from uwsgi_waffle.stores import Decide, Store, Stored
from uwsgi_waffle.stores.rows import RowStore

from ..contract.conftest import put
from ..contract.models import OwnStore, alchemy_app, peewee_model
from ..redis_server import RedisServer

CONFS: dict[str, Any] = {
    "SITENAME": {"default": "Waffle"},
    "MAX_FILESIZE": {"default": 1000},
    "TAGS": {"default": [], "type": "json"},
    "TOKEN": {"default": "", "secret": True},
}
DONE = "it was executed"


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def written(value: object, protocol: int | None = None) -> str:
    """Return what Flask-WaffleConf stores for a value."""
    return text_of(pickle.dumps(value, protocol))


def nested(depth: int) -> bytes:
    return b"]" * depth + b"a" * (depth - 1) + b"."


def doubled(times: int) -> bytes:
    """Return a list that holds one list twice, that holds one list twice, and so on."""
    parts = b"".join(
        b"]r"
        + struct.pack("<I", n)
        + b"(j"
        + struct.pack("<I", n - 1)
        + b"j"
        + struct.pack("<I", n - 1)
        + b"e0"
        for n in range(1, times)
    )
    return (
        b"\x80\x02]r"
        + struct.pack("<I", 0)
        + b"0"
        + parts
        + b"j"
        + struct.pack("<I", times - 1)
        + b"."
    )


class Limits(BaseModel):
    """Two variables of which one bounds the other."""

    LOW: int = 1
    HIGH: int = 10

    @model_validator(mode="after")
    def ordered(self) -> Limits:
        if self.LOW > self.HIGH:
            raise ValueError("LOW must not be above HIGH")
        return self


class Evil:
    """Pickled, it is a call of whatever it is given."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> Any:
        return self._call


class Persistent(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return "them" if value == "them" else None


def persistent() -> bytes:
    file = io.BytesIO()
    Persistent(file, 4).dump(["them"])
    return file.getvalue()


VALUES: list[object] = [
    *(None, True, False, 0, 1, -1, 255, 65536, 2**40, -(2**90), 1.5, -0.0),
    *("", "Waffle", "Größe 🧇", "a\nb'\\\"", "x" * 70_000),
    *(
        [],
        [1, [2, ["x"]]],
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        {},
        {"a": {"b": [None]}},
        {1: 2, None: 3},
    ),
    *(set(), {1, 2}, {"x"}, list(range(2_000)), {str(number): number for number in range(2_000)}),
]


class TestReader:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_plain_values_come_back_from_every_protocol(self, protocol: int) -> None:
        for value in VALUES:
            text = written(value, protocol)
            assert is_legacy(text)
            found = read_pickle(text)
            assert found == value
            assert type(found) is type(value)

    @pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
    def test_bytes_too(self, protocol: int) -> None:
        assert read_pickle(written([b"", b"\0\xff" * 300], protocol)) == [b"", b"\0\xff" * 300]

    def test_one_object_in_two_places(self) -> None:
        part = ["a"]
        assert read_pickle(written([part, part])) == [["a"], ["a"]]

    @pytest.mark.parametrize(
        ("data", "value"),
        [
            (b"S'Waffle'\np0\n.", "Waffle"),
            (b"\x80\x02U\x06Gr\xc3\xbc\xc3\x9fq\x00.", "Grüß"),
            (b"I01\n.", True),
            (b"L5L\n.", 5),
        ],
    )
    def test_what_python_2_wrote(self, data: bytes, value: object) -> None:
        assert read_pickle(text_of(data)) == value

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (pickle.dumps(datetime.date(2020, 1, 1)), "asks for datetime.date"),
            (pickle.dumps(collections.OrderedDict(a=1)), "asks for collections.OrderedDict"),
            (pickle.dumps(frozenset([1])), "FROZENSET"),
            (pickle.dumps(1j), "asks for builtins.complex"),
            (pickle.dumps(bytearray(b"x"), 5), "BYTEARRAY8"),
            (pickle.dumps(Evil(print, DONE)), "asks for builtins.print"),
            (persistent(), "BINPERSID"),
            (b"Pthem\n.", "PERSID"),
            (b"\x80\x02\x82\x01.", "EXT1"),
            (b"(ios\nsystem\n.", "asks for os.system"),
            (b"(cos\nsystem\no.", "asks for os.system"),
            (b"\x80\x02cbuiltins\nset\n.", "no plain value"),
            (b"\x80\x02cbuiltins\nset\n)R.", "calls something"),
            (b"\x80\x02cbuiltins\nset\n)\x81.", "NEWOBJ"),
            (b"\x80\x02]}b.", "BUILD"),
            (b"\x80\x02]N\x85R.", "calls something"),
            (b"\x80\x02]]\x85R.", "calls something"),
            (b"}K\x01a.", "appends to what is no list"),
            (b"](K\x01K\x02u.", "puts keys into what is no dictionary"),
            (b"}(K\x01u.", "puts keys into what is no dictionary"),
            (b"\x80\x04}(X\x02\0\0\0ab\x90.", "adds to what is no set"),
            (b"\x80\x04\x8c\x02osN\x93.", "asks for os.None"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_all_else_is_refused_by_its_name(self, data: bytes, told: str) -> None:
        with pytest.raises(ValueError, match=told):
            read_pickle(text_of(data))

    @pytest.mark.timeout(20)
    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (b"\x80\x02]q\x00h\x00a.", "contains itself"),
            (b"\x80\x02}q\x00X\x01\0\0\0ah\x00s.", "contains itself"),
            (nested(MAX_DEPTH + 2), "nested more than"),
            (nested(90_000), "nested more than"),
            (doubled(40), "parts when it is written out"),
            (doubled(2_000), "nested more than"),
            (b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b"q\x01}h\x01Ns.", "key that is neither"),
            (b"\x80\x02(" + b"N0" * 100_001 + b"t.", "more than 200000 steps"),
            (b"N." + b"x" * MAX_SIZE, "at most"),
            (b"\x80\x02X\xff\xff\xff\x7fx.", "damaged"),
            (b"\x80\x04\x8d" + b"\xff" * 8 + b"x.", "damaged"),
            (b"\x80\x02\x8b\xff\xff\xff\x7fx.", "damaged"),
            (b"L" + b"9" * 100_000 + b"L\n.", "damaged"),
        ],
        ids=[
            "list in itself",
            "dict in itself",
            "deep",
            "deeper",
            "doubled",
            "doubled more",
            "slow to hash",
            "steps",
            "size",
            *"abcd",
        ],
    )
    def test_what_would_take_too_much_is_refused(self, data: bytes, told: str) -> None:
        with pytest.raises(ValueError, match=told):
            read_pickle(text_of(data))

    @pytest.mark.parametrize(
        "part", ["x" * 2**20, b"x" * 2**20, 2 ** (2**23)], ids=["text", "bytes", "number"]
    )
    def test_so_is_what_is_large_and_shared(self, part: object) -> None:
        def shared(times: int) -> str:
            return text_of(pickle.dumps(part, 3)[:-1] + b"q\x070(" + b"h\x07" * times + b"l.")

        assert read_pickle(shared(4)) == [part] * 4
        with pytest.raises(ValueError, match="parts when it is written out"):
            read_pickle(shared(20))

    def test_a_text_that_is_too_long_to_look_at_is_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = written("Waffle")
        assert is_legacy(text)
        monkeypatch.setattr(legacy, "MAX_SIZE", len(text) - 1)
        assert not is_legacy(text)

    def test_a_place_in_the_memo_costs_nothing_whatever_its_number(self) -> None:
        assert read_pickle(text_of(b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.")) is None

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b".",
            b"\x80",
            b"\x80\x04.",
            b"a.",
            b"0.",
            b"(((.",
            b"h\x05.",
            b"\x80\x02]N",
            b"\x80\x02)Na.",
            b"}Nu.",
        ],
    )
    def test_damage_is_a_value_error_and_nothing_else(self, data: bytes) -> None:
        with pytest.raises(ValueError, match=r"damaged|appends|no list"):
            read_pickle(text_of(data))

    def test_every_cut_and_every_changed_byte_is_a_value_or_a_value_error(self) -> None:
        data = pickle.dumps([1, "x", {"a": {2.5, b"y"}}, (None, True)])
        for at in range(len(data)):
            for changed in (
                data[:at],
                *(data[:at] + bytes([byte]) + data[at + 1 :] for byte in range(0, 256, 5)),
            ):
                try:
                    read_pickle(text_of(changed))
                except ValueError:
                    continue

    @pytest.mark.parametrize("text", ["", "x", "====", "Ti4", "no base64 at all", "é", "Ti4=\0"])
    def test_what_is_no_base64_is_told(self, text: str) -> None:
        assert not is_legacy(text)
        with pytest.raises(ValueError, match=r"base64|damaged"):
            read_pickle(text)

    @pytest.mark.parametrize("value", [1, 1.5, "Waffle", True, None, [1], {"a": 1}])
    def test_no_json_is_taken_for_a_pickle(self, value: object) -> None:
        assert not is_legacy(json.dumps(value))


class TestHostile:
    """Each would create the canary if anything of it ran."""

    @pytest.fixture
    def canary(self, tmp_path: Path) -> Path:
        return tmp_path / "canary"

    @pytest.fixture(
        params=["os.system", "eval", "exec", "nested", "in a set", "protocol 0", "build", "getattr"]
    )
    def hostile(self, request: pytest.FixtureRequest, canary: Path) -> str:
        shell, python = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
        evil = Evil(os.system, shell)
        data = {
            "os.system": lambda: pickle.dumps(evil),
            "eval": lambda: pickle.dumps(Evil(eval, python)),
            "exec": lambda: pickle.dumps(Evil(exec, python)),
            "nested": lambda: pickle.dumps({"a": [1, {"b": (evil,)}]}),
            "in a set": lambda: (
                b"\x80\x02cbuiltins\nset\n](" + pickle.dumps(evil, 2)[2:-1] + b"e\x85R."
            ),
            "protocol 0": lambda: pickle.dumps(evil, 0),
            "build": lambda: (
                b"\x80\x02]}X\x0c\0\0\0__setstate__" + pickle.dumps(evil, 2)[2:-1] + b"sb."
            ),
            "getattr": lambda: pickle.dumps(Evil(getattr, "", "join")),
        }[request.param]()
        return text_of(data)

    def test_the_canary_sings_when_they_are_loaded(self, canary: Path) -> None:
        """A test of the test."""
        pickle.loads(pickle.dumps(Evil(os.system, f"touch {canary}")))
        assert canary.exists()

    def test_it_is_recognised_and_refused(self, hostile: str, canary: Path) -> None:
        assert is_legacy(hostile)
        with pytest.raises(ValueError, match=r"asks for (posix|builtins|__builtin__)\."):
            read_pickle(hostile)
        assert not canary.exists()

    def test_the_application_and_the_command_execute_nothing(
        self, hostile: str, canary: Path, site: Site
    ) -> None:
        site.write(SITENAME=hostile, MAX_FILESIZE=written(2000))
        with pytest.raises(InvalidValue, match=r"SITENAME.*import-legacy"):
            site.start()
        result = site.run("import-legacy")
        assert result.exit_code == 1
        assert "SITENAME: left alone, the pickle asks for" in result.output
        assert "MAX_FILESIZE: 2000" in result.output
        assert site.rows()["SITENAME"] == hostile
        assert not canary.exists()


class Site:
    """An application that used Flask-WaffleConf, and its table."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self._kind = folder, kind
        self.confs: Any = CONFS
        self.settings: dict[str, object] = {}
        self._make()  # the table, too

    def _make(self) -> tuple[Flask, AlchemyWaffleStore | PeeweeWaffleStore]:
        if self._kind == "peewee":
            return Flask("site", instance_path=str(self.folder)), PeeweeWaffleStore(
                model=peewee_model(self.folder)
            )
        made = alchemy_app(self.folder)
        return made.app, AlchemyWaffleStore(db=made.db, model=made.model)

    def start(self) -> Flask:
        """Make the application anew, as a process that starts does."""
        app, store = self._make()
        app.config.update({"WAFFLE_CONFS": self.confs, **self.settings})
        WaffleConf(app, store)
        return app

    @property
    def store(self) -> Store:
        """One more store over the table, that no application uses."""
        app, store = self._make()
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

    def write_over(self, key: str, text: str) -> None:
        """Change a row as something else than this package does."""
        connection = sqlite3.connect(self.folder / "site.db")
        try:
            with connection:
                connection.execute("UPDATE confs SET value = ? WHERE key = ?", (text, key))
        finally:
            connection.close()

    def rows(self) -> dict[str, str]:
        return dict(self.store.rows())


@pytest.fixture(params=["alchemy", "peewee"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, request.param)


class TestApplication:
    def test_it_refuses_to_start_with_them_and_says_what_to_do(self, site: Site) -> None:
        site.write(SITENAME=written("Old"))
        with pytest.raises(
            InvalidValue,
            match=r"The store is damaged: SITENAME: Flask-WaffleConf wrote it.*`flask waffle import-legacy`",
        ):
            site.start()

    def test_while_it_runs_it_serves_on_and_says_so_once(
        self, site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(header_module, "FIRST_RETRY", 0.0)
        app = site.start()
        binding = app.extensions["waffleconf"]
        binding.update_db({"MAX_FILESIZE": 7})
        site.write(SITENAME=written("Old"))
        with caplog.at_level(logging.ERROR):
            for _ in range(2):
                with pytest.raises(InvalidValue):
                    binding.update_conf()
        assert (app.config["SITENAME"], app.config["MAX_FILESIZE"]) == ("Waffle", 7)
        assert caplog.text.count("import-legacy") == 1
        assert site.run("import-legacy").exit_code == 0
        binding.state._lease = 0.0
        assert (app.config["SITENAME"], app.config["MAX_FILESIZE"]) == ("Old", 7)

    @pytest.mark.parametrize("left", [{}, {"TOKEN": written(1j)}], ids=["all", "some"])
    def test_what_the_command_converted_is_in_force_when_it_returns(
        self, site: Site, left: dict[str, str]
    ) -> None:
        app = site.start()
        app.extensions["waffleconf"].state._lease = math.inf  # so that it looks at the header only
        site.write(SITENAME=written("Old"), **left)
        site.run("import-legacy")
        assert app.config["SITENAME"] == ("Waffle" if left else "Old")
        if left:
            site.write_over("TOKEN", '"t"')
            app.extensions["waffleconf"].update_conf()
            assert (app.config["SITENAME"], app.config["TOKEN"]) == ("Old", "t")

    def test_a_command_that_is_killed_after_its_commit_has_told_it(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(store: RowStore, decide: Decide) -> Stored:
            committed(store, decide)
            raise SystemExit

        app, committed = site.start(), RowStore.transact
        app.extensions["waffleconf"].state._lease = math.inf
        site.write(SITENAME=written("Old"))
        monkeypatch.setattr(RowStore, "transact", killed)
        site.run("import-legacy")
        monkeypatch.undo()
        assert app.config["SITENAME"] == "Old"

    def test_it_holds_the_hosts_lock_and_leaves_a_snapshot_for_all(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def watched(store: RowStore, decide: Decide) -> Stored:
            with state.host.try_lock() as free:
                seen.append(free)
            return committed(store, decide)

        app, committed = site.start(), RowStore.transact
        state = app.extensions["waffleconf"].state
        seen: list[bool] = []
        site.write(SITENAME=written("Old"))
        monkeypatch.setattr(RowStore, "transact", watched)
        site.run("import-legacy")
        assert seen == [False]
        monkeypatch.setattr(
            RowStore, "load", lambda store: pytest.fail("nobody needs to ask the store")
        )
        assert app.config["SITENAME"] == "Old"

    def test_the_command_waits_for_another_writer_of_this_host(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(extension, "LOCK_TIMEOUT", 0.01)
        files = site.start().extensions["waffleconf"].state.host
        site.write(SITENAME=written("Old"))
        with files.lock(1.0):
            result = site.run("import-legacy")
        assert (result.exit_code, site.rows()) == (1, {"SITENAME": written("Old")})
        assert "has been writing" in result.output
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

    def test_rows_that_are_not_declared_dont_matter(self, site: Site) -> None:
        site.write(GONE=written("x"), THEIRS="not JSON")
        assert site.start().config["SITENAME"] == "Waffle"


class TestCommand:
    def test_all_rows_are_one_update(self, site: Site) -> None:
        site.write(SITENAME=written("Brüssel"), MAX_FILESIZE=written(2000), TAGS=written(["a", 1]))
        result = site.run("import-legacy")
        assert result.output.splitlines() == [
            "MAX_FILESIZE: 2000",
            'SITENAME: "Br\\u00fcssel"',
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
        told = app.extensions["waffleconf"].state.store.history(10)
        assert {(row.revision, row.actor, row.note) for row in told} == {
            (1, getpass.getuser(), "import-legacy")
        }

    def test_a_rollback_to_what_was_before_finds_the_same_values(self, site: Site) -> None:
        site.write(SITENAME=written("Old"))
        site.run("import-legacy")
        app = site.start()
        waffle = WaffleConf()
        waffle._bindings[app] = waffle._only = app.extensions["waffleconf"]
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

    def test_a_dry_run_writes_nothing_at_all(self, site: Site) -> None:
        site.write(SITENAME=written("Old"), GONE=written(1))
        before = {path: path.stat().st_mtime_ns for path in site.folder.rglob("*")}
        rows = site.rows()
        result = site.run("import-legacy", "--dry-run")
        assert 'SITENAME: "Old"\n' in result.output
        assert "1 would be converted; nothing was written\n" in result.output
        assert result.exit_code == 1, "for GONE would be left"
        assert site.rows() == rows
        assert {path: path.stat().st_mtime_ns for path in site.folder.rglob("*")} == before

    @pytest.mark.parametrize(
        ("name", "text", "told"),
        [
            ("GONE", written("x"), "not declared in WAFFLE_CONFS"),
            ("SITENAME", written(datetime.date(2020, 1, 1)), "asks for datetime.date"),
            ("MAX_FILESIZE", written("many"), "not 'many'"),
            ("TAGS", written({1, 2}), "not {1, 2}"),
            ("SITENAME", "gA==", "neither JSON nor a value of Flask-WaffleConf's"),
        ],
    )
    def test_what_is_left_alone_is_named_and_exit_code_1(
        self, site: Site, name: str, text: str, told: str
    ) -> None:
        site.write(**{name: text, "TOKEN": written("t")})
        result = site.run("import-legacy")
        assert f"{name}: left alone, " in result.output
        assert told in result.output
        assert result.exit_code == 1
        assert site.rows() == {name: text, "TOKEN": '"t"'}

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

    def test_secrets_are_masked(self, site: Site) -> None:
        site.confs = {**CONFS, "PIN": {"default": 1, "secret": True}}
        site.write(TOKEN=written("geheim"), PIN=written("verborgen"))
        for words in (["--dry-run"], []):
            output = site.run("import-legacy", *words).output
            assert f"TOKEN: {MASK}" in output
            assert "PIN: left alone" in output
            assert "geheim" not in output
            assert "verborgen" not in output

    def test_values_that_dont_fit_together_change_nothing(self, site: Site) -> None:
        site.confs = Limits
        site.write(LOW=written(11))
        result = site.run("import-legacy")
        assert result.exit_code == 1
        assert "LOW must not be above HIGH" in result.output
        assert site.rows() == {"LOW": written(11)}
        with pytest.raises(
            InvalidValue, match="LOW must not be above HIGH"
        ):  # what else may have been written meanwhile
            convert(Schema.declare(Limits), "ann")(Stored(1, {"LOW": written(5), "HIGH": "4"}))

    def test_an_application_that_updates_while_it_is_loaded_writes_nothing(
        self, site: Site
    ) -> None:
        site.write(SITENAME=written("Old"))

        def start() -> Flask:
            app = site.start()
            app.extensions["waffleconf"].update_db({"MAX_FILESIZE": 5})
            return app

        result = CliRunner().invoke(command, ["import-legacy"], obj=ScriptInfo(create_app=start))
        assert "nothing is written while" in result.output
        assert (result.exit_code, site.rows()) == (1, {"SITENAME": written("Old")})

    def test_an_application_that_looks_back_while_it_is_loaded_sees_the_past(
        self, site: Site
    ) -> None:
        put(site.store, SITENAME='"First"')
        put(site.store, SITENAME='"Second"')
        seen: list[object] = []

        def start() -> Flask:
            app = site.start()
            store = app.extensions["waffleconf"].state.store
            seen.extend([[row.new for row in store.history(10)], store.values_at(1)])
            return app

        assert (
            CliRunner()
            .invoke(command, ["import-legacy"], obj=ScriptInfo(create_app=start))
            .exit_code
            == 0
        )
        assert seen == [['"Second"', '"First"'], {"SITENAME": '"First"'}]

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


@pytest.mark.parametrize("value", [{2**61 - 1}, {-(2**60): 1}, {float(2**61): 1}, {1, 2**70}])
def test_a_key_that_can_be_made_to_collide_is_refused(value: object) -> None:
    """A set of such numbers takes the square of its size to build."""
    with pytest.raises(ValueError, match="a key that is a number beyond"):
        read_pickle(written(value))


def test_shared_parts_are_not_written_out_without_end() -> None:
    """Each list holds the one before twice: a row of some hundred characters that would become
    megabytes.
    """
    value: list[object] = []
    for _ in range(19):
        value = [value, value]
    with pytest.raises(ValueError, match="parts when it is written out"):
        read_pickle(written(value))
