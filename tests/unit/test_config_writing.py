"""``app.config`` is a mapping that others save, replace, copy and fill."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from flask import Flask
from pydantic import BaseModel, Field

from uwsgi_waffle import InvalidValue, ManagedVariable, MemoryStore, WaffleConf
from uwsgi_waffle.testing import override

from ..host import Ordered

CONFS = {
    "SITENAME": {"default": "Waffle"},
    "LIMIT": {"default": 5},
    "HOSTS": {"default": ["a"]},
    "LIMITS": {"default": {"low": 1}},
}


class Settings:
    API = "new"
    LIMIT = 9
    SITENAME = "Waffle"


class TestSettings(Settings):
    __test__ = False
    TESTING = True


def site(tmp_path: Path, confs: Any = CONFS, **config: Any) -> tuple[Flask, WaffleConf]:
    app = Flask("site", instance_path=str(tmp_path))
    app.config.update(config, API="real", WAFFLE_CONFS=confs)
    return app, WaffleConf(app, MemoryStore())


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return site(tmp_path)[0]


@pytest.fixture
def tested(tmp_path: Path) -> Flask:
    return site(tmp_path, TESTING=True)[0]


WRITES: dict[str, Callable[[Any], Any]] = {
    "[]=": lambda config: config.__setitem__("LIMIT", 9),
    "del": lambda config: config.__delitem__("LIMIT"),
    "pop": lambda config: config.pop("LIMIT"),
    "pop default": lambda config: config.pop("LIMIT", None),
    "update": lambda config: config.update({"API": "new", "LIMIT": 9}),
    "update pairs": lambda config: config.update([("API", "new"), ("LIMIT", 9)]),
    "update keywords": lambda config: config.update(API="new", LIMIT=9),
    "|=": lambda config: config.__ior__({"API": "new", "LIMIT": 9}),
    "from_mapping": lambda config: config.from_mapping({"API": "new", "LIMIT": 9}),
    "from_mapping keywords": lambda config: config.from_mapping(API="new", LIMIT=9),
}


class TestRefused:
    """Outside tests, another value than the one in force is refused."""

    @pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
    def test_nothing_is_half_done(self, app: Flask, write: Callable[[Any], Any]) -> None:
        before = app.config.copy()
        with pytest.raises(ManagedVariable, match=r"'LIMIT'.*waffle\.update\({'LIMIT': …}\)"):
            write(app.config)
        assert app.config == before

    def test_all_are_named(self, app: Flask) -> None:
        with pytest.raises(ManagedVariable, match=r"'LIMIT', 'SITENAME' are declared"):
            app.config.update(LIMIT=9, SITENAME="x", HOSTS=["a"])

    def test_a_deletion_is_told_of_reset(self, app: Flask) -> None:
        with pytest.raises(ManagedVariable, match=r"waffle\.reset\('LIMIT'\)"):
            del app.config["LIMIT"]

    def test_invalid_value(self, app: Flask) -> None:
        with pytest.raises(ManagedVariable):
            app.config["LIMIT"] = "many"


class TestValueInForce:
    """Assigning the value in force is no change, and never an error."""

    @pytest.mark.parametrize("value", [7, "7"])
    def test_assigned(self, tmp_path: Path, value: object) -> None:
        app, waffle = site(tmp_path)
        waffle.update({"LIMIT": 7})
        app.config["LIMIT"] = value
        app.config.update(LIMIT=value, HOSTS=["a"], API="new")
        assert (app.config["LIMIT"], app.config["API"]) == (7, "new")
        waffle.update({"LIMIT": 8})
        assert app.config["LIMIT"] == 8

    def test_true_is_not_one(self, tmp_path: Path) -> None:
        app, _ = site(tmp_path, {"ANY": {"default": 1, "type": "json"}})
        with pytest.raises(ManagedVariable):
            app.config["ANY"] = True

    def test_setdefault(self, app: Flask) -> None:
        assert app.config.setdefault("LIMIT", 99) == 5
        assert app.config.setdefault("OTHER", 6) == 6
        assert app.config["OTHER"] == 6

    def test_patch_dict(self, app: Flask) -> None:
        with mock.patch.dict(app.config, {"API": "fake"}):
            assert app.config["API"] == "fake"
        assert app.config["API"] == "real"

    def test_patch_dict_cleared(self, app: Flask) -> None:
        before = app.config.copy()
        with mock.patch.dict(app.config, {"API": "fake"}, clear=True):
            assert set(app.config) == {"API", *CONFS}
        assert app.config == before

    def test_saved_and_put_back(self, app: Flask) -> None:
        saved = app.config.copy()
        app.config["API"] = "fake"
        app.config.clear()
        app.config.update(saved)
        assert app.config == saved

    @pytest.mark.parametrize("testing", [True, False])
    def test_patch_dict_around_an_update(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, testing: bool
    ) -> None:
        """What was the store's is left to the store."""
        app, waffle = site(tmp_path, TESTING=testing)
        with mock.patch.dict(app.config, {"API": "fake"}):
            waffle.update({"LIMIT": 7})
        assert (app.config["API"], app.config["LIMIT"]) == ("real", 7)
        waffle.update({"LIMIT": 8})
        assert app.config["LIMIT"] == 8
        assert not caplog.records

    @pytest.mark.parametrize("method", ["update", "from_mapping"])
    def test_put_back_after_an_update(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
    ) -> None:
        """A configuration that was emptied is filled again, whatever the store has by now."""
        app, waffle = site(tmp_path)
        saved = dict(app.config)
        waffle.update({"LIMIT": 7})
        waffle.update({"SITENAME": "New"})
        waffle.update({"LIMIT": 8})
        saved["LIMIT"] = 7
        app.config.clear()
        getattr(app.config, method)(saved)
        assert (app.config["API"], app.config["LIMIT"]) == ("real", 8)
        (record,) = caplog.records
        assert "'LIMIT'" in record.getMessage()

    def test_changed_copy(self, tested: Flask) -> None:
        saved = tested.config.copy()
        saved["LIMIT"] = 9
        tested.config.update(saved)
        assert tested.config["LIMIT"] == 9

    def test_popitem(self, app: Flask) -> None:
        """Takes what isn't declared, until nothing of that is left."""
        for _ in range(len(app.config) - len(CONFS)):
            assert app.config.popitem()[0] not in CONFS
        with pytest.raises(KeyError):
            app.config.popitem()

    def test_other_keys(self, app: Flask) -> None:
        config = app.config
        config["A"] = 1
        config.update({"B": 2}, C=3)
        config |= {"D": 4}
        config.from_mapping(E=5, lower=6)
        assert [config.pop(key) for key in "ABCDE"] == [1, 2, 3, 4, 5]
        assert "lower" not in config
        assert config.pop("A", 8) == 8
        with pytest.raises(KeyError):
            config.pop("A")


def from_pyfile(app: Flask, text: str) -> None:
    path = Path(app.instance_path, "settings.py")
    path.write_text(text)
    app.config.from_pyfile(str(path))


def from_file(app: Flask, text: str) -> None:
    path = Path(app.instance_path, "settings.json")
    path.write_text(text)
    app.config.from_file(str(path), load=__import__("json").load)


LOADS: dict[str, Callable[[Flask], Any]] = {
    "from_object": lambda app: app.config.from_object(Settings),
    "from_pyfile": lambda app: from_pyfile(app, "API = 'new'\nLIMIT = 9\nSITENAME = 'Waffle'"),
    "from_file": lambda app: from_file(app, '{"LIMIT": 9, "API": "new", "SITENAME": "Waffle"}'),
    "from_prefixed_env": lambda app: app.config.from_prefixed_env(),
}


class TestLoading:
    """A file, an object or the environment is loaded, but for variables: one warning."""

    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, text in {"API": "new", "LIMIT": "9", "SITENAME": "Waffle"}.items():
            monkeypatch.setenv(f"FLASK_{name}", text)

    @pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
    def test_the_rest_is_taken(
        self, app: Flask, load: Callable[[Flask], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        load(app)
        assert (app.config["API"], app.config["LIMIT"]) == ("new", 5)
        (record,) = caplog.records
        assert "'LIMIT'" in record.getMessage()
        assert "SITENAME" not in record.getMessage()

    @pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
    def test_in_a_test(
        self, tested: Flask, load: Callable[[Flask], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        load(tested)
        assert (tested.config["API"], tested.config["LIMIT"]) == ("new", 9)
        assert not caplog.records

    def test_testing_is_loaded_too(self, app: Flask) -> None:
        app.config.from_object(TestSettings)
        assert app.config["LIMIT"] == 9

    def test_nested(self, tested: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLASK_LIMITS__high", "3")
        tested.config.from_prefixed_env()
        assert tested.config["LIMITS"] == {"low": 1, "high": 3}

    def test_broken_object(self, app: Flask) -> None:
        """The configuration is as usable as before."""

        class Broken:
            LIMIT = 9
            WRONG = property(lambda self: 1 / 0)

        with pytest.raises(ZeroDivisionError):
            app.config.from_object(Broken())
        assert app.config["LIMIT"] == 5
        with pytest.raises(ManagedVariable):
            app.config["LIMIT"] = 9

    def test_what_is_set_meanwhile_stays(self, tmp_path: Path) -> None:
        """A module of settings may set something itself."""
        app, _ = site(tmp_path)
        app.config["LEVEL"] = 1

        class Loaded:
            @property
            def API(self) -> str:
                app.config["LEVEL"] = 7
                return "new"

        app.config.from_object(Loaded())
        assert (app.config["API"], app.config["LEVEL"]) == ("new", 7)

    def test_two_threads(self, tmp_path: Path) -> None:
        """What one thread is loading, no other sees; and afterwards all follow the store."""
        app, waffle = site(tmp_path)
        inside, go_on = threading.Event(), threading.Event()

        class Later(Settings):
            @property
            def WAIT(self) -> int:  # read after LIMIT
                inside.set()
                assert go_on.wait(30)
                return 1

        class First:
            @property
            def START(self) -> int:
                later.start()
                assert inside.wait(30)
                return 1

        later = threading.Thread(target=app.config.from_object, args=(Later(),))
        app.config.from_object(First())
        seen = app.config["LIMIT"]
        go_on.set()
        later.join()
        waffle.update({"LIMIT": 6})
        assert (seen, app.config["LIMIT"]) == (5, 6)
        assert (app.config["START"], app.config["WAIT"], app.config["API"]) == (1, 1, "new")

    def test_refused_value(self, tested: Flask) -> None:
        """Nothing of an object is loaded in a test if a variable refuses its value."""

        class Wrong(Settings):
            LIMIT = "many"

        with pytest.raises(InvalidValue, match="Nothing was changed: LIMIT"):
            tested.config.from_object(Wrong)
        assert (tested.config["API"], tested.config["LIMIT"]) == ("real", 5)


class TestAssignedInTests:
    """Where ``app.testing`` is true, an assigned value counts in this process only."""

    def test_seen_everywhere(self, tmp_path: Path) -> None:
        app, waffle = site(tmp_path, TESTING=True)
        app.config["LIMIT"] = "9"
        assert (app.config["LIMIT"], waffle.values.LIMIT, dict(app.config)["LIMIT"]) == (9, 9, 9)
        assert (waffle.revision, waffle.history()) == (0, [])
        with app.test_request_context():
            assert app.config["LIMIT"] == 9
            app.config["LIMIT"] = 10
            assert waffle.values.LIMIT == 10

    def test_a_deprecated_one_warns_nobody(self, tmp_path: Path) -> None:
        """Only whoever reads it as an attribute; a warning would be an error here."""

        class Confs(BaseModel):
            OLD: int = Field(default=1, deprecated="use NEW")
            NEW: int = 2

        app, _ = site(tmp_path, Confs, TESTING=True, OLD=3)
        for value in (4, 5):
            app.config.update(OLD=value, NEW=value)
            assert app.config["OLD"] == value

    def test_other_threads(self, tested: Flask) -> None:
        tested.config["LIMIT"] = 9
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(tested.config["LIMIT"]))
        thread.start()
        thread.join()
        assert seen == [9]

    UNDO: dict[str, Callable[[Any], Any]] = {  # noqa: RUF012  # read only
        "assigned back": lambda config: config.__setitem__("LIMIT", 5),
        "deleted": lambda config: config.__delitem__("LIMIT"),
        "popped": lambda config: config.pop("LIMIT"),
        "cleared": lambda config: config.clear(),
        "updated": lambda config: config.update(LIMIT=5, API="x"),
    }

    @pytest.mark.parametrize("testing", [True, False])
    @pytest.mark.parametrize("undo", UNDO.values(), ids=UNDO)
    def test_until(self, tmp_path: Path, undo: Callable[[Any], Any], testing: bool) -> None:
        """It is undone, also when testing is over."""
        app, waffle = site(tmp_path, TESTING=True)
        app.config.update(LIMIT=9, SITENAME="x")
        app.testing = testing
        undo(app.config)
        assert app.config["LIMIT"] == 5
        waffle.update({"LIMIT": 7})
        assert app.config["LIMIT"] == 7

    def test_the_rest_stays(self, tested: Flask) -> None:
        tested.config.update(LIMIT=9, SITENAME="x")
        del tested.config["LIMIT"]
        assert (tested.config["LIMIT"], tested.config["SITENAME"]) == (5, "x")

    def test_rejected(self, tested: Flask) -> None:
        with pytest.raises(InvalidValue, match="LIMIT"):
            tested.config.update(API="new", LIMIT="many", SITENAME="x")
        assert (tested.config["API"], tested.config["SITENAME"]) == ("real", "Waffle")

    def test_validated_together(self, tmp_path: Path) -> None:
        app, _ = site(tmp_path, Ordered, TESTING=True)
        app.config.update(LOW=5, HIGH=6)
        with pytest.raises(InvalidValue, match="above"):
            app.config["LOW"] = 7
        assert (app.config["LOW"], app.config["HIGH"]) == (5, 6)

    def test_testing_in_the_same_update(self, app: Flask) -> None:
        app.config.update(TESTING=True, LIMIT=9)
        assert app.config["LIMIT"] == 9

    def test_patch_dict(self, tested: Flask) -> None:
        tested.config["SITENAME"] = "of a fixture"
        with mock.patch.dict(tested.config, {"LIMIT": 9, "SITENAME": "x"}):
            assert (tested.config["LIMIT"], tested.config["SITENAME"]) == (9, "x")
        assert (tested.config["LIMIT"], tested.config["SITENAME"]) == (5, "of a fixture")

    def test_monkeypatch(self, tested: Flask) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tested.config, "LIMIT", 9)
            patch.delitem(tested.config, "SITENAME")
            assert tested.config["LIMIT"] == 9
        assert (tested.config["LIMIT"], tested.config["SITENAME"]) == (5, "Waffle")

    def test_override(self, tested: Flask) -> None:
        """The later of an assignment and an override wins."""
        tested.config["LIMIT"] = 9
        with override(tested, LIMIT=10):
            assert tested.config["LIMIT"] == 10
            tested.config["LIMIT"] = 11
            assert tested.config["LIMIT"] == 11
        assert tested.config["LIMIT"] == 11

    def test_combined(self, tested: Flask) -> None:
        tested.config["HOSTS"] += ["b"]
        tested.config["LIMITS"] |= {"high": 2}
        assert tested.config["HOSTS"] == ["a", "b"]
        assert tested.config["LIMITS"] == {"low": 1, "high": 2}

    def test_other_application(self, tmp_path: Path) -> None:
        app, other = (site(tmp_path, TESTING=True)[0] for _ in range(2))
        app.config["LIMIT"] = 9
        with override(app, SITENAME="x"):
            assert other.config["LIMIT"] == 5
            assert other.config["SITENAME"] == "Waffle"
            other.config["LIMIT"] = 6
            assert other.config["SITENAME"] == "Waffle"
        assert app.config["LIMIT"] == 9
