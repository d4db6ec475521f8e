"""``app.config`` shows the declared variables in every way a dictionary can be read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Config, Flask, render_template_string
from pydantic import BaseModel

from uwsgi_waffle import ManagedVariable, MemoryStore, SchemaError, WaffleConf

CONFS = {"SITENAME": {"default": "Waffle"}, "LIMIT": {"default": 5}}


class OwnConfig(Config):
    """Reads numbers in its own way, and has a method."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        return f"own {value}" if isinstance(value, int) else value

    def get(self, key: str, default: Any = None) -> Any:
        value = super().get(key, default)
        return f"own {value}" if isinstance(value, int) else value

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def double(self, key: str) -> Any:
        return 2 * self[key]


class ForgivingConfig(Config):
    def __missing__(self, key: str) -> str:
        return f"no {key}"


def site(
    tmp_path: Path, confs: Any = CONFS, config_class: type[Config] = Config, **config: Any
) -> tuple[Flask, WaffleConf]:
    class Site(Flask):
        pass

    Site.config_class = config_class
    app = Site("site", instance_path=str(tmp_path))
    app.config.clear()
    app.config.update(config, OWN=1, WAFFLE_CONFS=confs)
    return app, WaffleConf(app, MemoryStore())


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return site(tmp_path)[0]


ALL = {"OWN": 1, "SITENAME": "Waffle", "LIMIT": 5, "WAFFLE_CONFS": CONFS}

READS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "**": lambda config: {**config},
    "copy()": lambda config: config.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "items": lambda config: dict(config.items()),
    "keys, values": lambda config: dict(zip(config.keys(), config.values(), strict=True)),
    "iter": lambda config: {key: config[key] for key in config},
    "get": lambda config: {key: config.get(key) for key in list(config.keys())},
    "|": lambda config: config | {},
    "reverse |": lambda config: {} | config,
    "json": lambda config: json.loads(json.dumps(config)),
}


class TestReading:
    @pytest.mark.parametrize("read", READS.values(), ids=READS)
    def test_every_way(self, app: Flask, read: Callable[[Config], Any]) -> None:
        """Shows what is set and what is declared."""
        assert dict(read(app.config)) == ALL

    def test_membership_and_length(self, app: Flask) -> None:
        config = app.config
        assert "SITENAME" in config
        assert "OTHER" not in config
        assert len(config) == len(list(config)) == len(config.items()) == 4
        assert ("LIMIT", 5) in config.items()
        assert list(reversed(config)) == list(config)[::-1]

    def test_equality(self, app: Flask) -> None:
        assert app.config == ALL
        assert app.config != {**ALL, "LIMIT": 6}

    def test_missing(self, app: Flask) -> None:
        """A name that nobody declared or set is a KeyError."""
        with pytest.raises(KeyError, match="OTHER"):
            app.config["OTHER"]
        assert app.config.get("OTHER", 7) == 7
        assert app.config.get("LIMIT", 7) == 5

    def test_namespace(self, app: Flask) -> None:
        assert app.config.get_namespace("SITE") == {"name": "Waffle"}

    def test_templates(self, tmp_path: Path) -> None:
        app, waffle = site(tmp_path)
        text = "{{ config.SITENAME }} {{ config['SITENAME'] }} {{ 'SITENAME' in config }}"
        app.config.update(app.default_config)
        with app.test_request_context():
            waffle.update({"SITENAME": "New"})
            assert render_template_string(text) == "New New True"

    def test_repr(self, app: Flask) -> None:
        """Names the variables and shows no value of theirs."""
        assert "'SITENAME'" in repr(app.config)
        assert "'Waffle'" not in repr(app.config).partition("WAFFLE_CONFS")[0]

    def test_other_keys_are_plain_reads(self, app: Flask) -> None:
        """Reading any other key runs no code of the package."""
        assert type(app.config).__getitem__ is dict.__getitem__


class TestOtherObjects:
    """The configuration in force shows the variables, whatever object it is."""

    def test_same_object(self, tmp_path: Path) -> None:
        """Whoever took hold of it before sees the values."""
        app = Flask("site", instance_path=str(tmp_path))
        app.config["WAFFLE_CONFS"] = CONFS
        held = app.config
        WaffleConf(app, MemoryStore())
        assert app.config is held
        assert held["SITENAME"] == "Waffle"

    def test_class_with_own_reading(self, tmp_path: Path) -> None:
        app, waffle = site(tmp_path, config_class=OwnConfig)
        waffle.update({"LIMIT": 7})
        config = app.config
        assert isinstance(config, OwnConfig)
        assert (config["LIMIT"], config.get("LIMIT"), config.LIMIT) == (7, 7, 7)
        assert config.double("LIMIT") == 14
        assert (config["OWN"], config.get("OWN"), config.OWN) == ("own 1", "own 1", "own 1")
        assert not hasattr(config, "OTHER")
        assert dict(config)["LIMIT"] == 7

    def test_class_with_own_missing(self, tmp_path: Path) -> None:
        config = site(tmp_path, config_class=ForgivingConfig)[0].config
        assert (config["LIMIT"], config["OTHER"]) == (5, "no OTHER")
        assert (config["limit"], hasattr(config, "limit")) == ("no limit", False)

    def test_replaced_later(self, tmp_path: Path) -> None:
        """Another configuration put in its place shows the variables, too."""
        app, waffle = site(tmp_path)
        held = app.config
        app.config = OwnConfig(tmp_path, {**app.config, "LIMIT": 9})
        assert app.config["LIMIT"] == 5
        waffle.update({"LIMIT": 7})
        assert (app.config["LIMIT"], held["LIMIT"]) == (7, 7)
        app.config = held
        assert app.config is held
        assert app.config["LIMIT"] == 7

    @pytest.mark.parametrize("save", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
    def test_replaced_by_a_copy(self, tmp_path: Path, save: Callable[[Config], Config]) -> None:
        """A copy is a configuration as well; in the place of the original it is as live."""
        app, waffle = site(tmp_path)
        app.config = saved = save(app.config)
        waffle.update({"LIMIT": 7})
        assert app.config is saved
        assert app.config["LIMIT"] == 7
        assert app.config.get_namespace("LIM") == {"it": 7}

    def test_application_class(self, tmp_path: Path) -> None:
        """The application is still of its class."""
        app, _ = site(tmp_path)
        assert isinstance(app, Flask)
        assert type(app).__name__ == "Site"

    def test_two_applications(self, tmp_path: Path) -> None:
        app, waffle = site(tmp_path)
        other, _ = site(tmp_path)
        waffle.update({"LIMIT": 7})
        assert (app.config["LIMIT"], other.config["LIMIT"]) == (7, 5)

    @pytest.mark.parametrize("first", [True, False], ids=["dynaconf first", "dynaconf later"])
    def test_dynaconf(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
        dynaconf = pytest.importorskip("dynaconf")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "settings.toml").write_text('[default]\nSITENAME = "toml"\nOTHER = 3\n')
        app = Flask("site", instance_path=str(tmp_path))
        app.config["WAFFLE_CONFS"] = CONFS
        waffle = WaffleConf()
        steps = [
            lambda: dynaconf.FlaskDynaconf(app, settings_files=["settings.toml"]),
            lambda: waffle.init_app(app, MemoryStore()),
        ]
        for step in steps if first else reversed(steps):
            step()
        config: Any = app.config
        assert (config["SITENAME"], config["OTHER"]) == ("Waffle", 3)
        waffle.update({"SITENAME": "New"})
        shown = (
            config["SITENAME"],
            config.get("SITENAME"),
            config.SITENAME,
            dict(config)["SITENAME"],
        )
        assert shown == ("New", "New", "New", "New")
        assert config.OTHER == 3
        assert list(config).count("SITENAME") == 1
        lower = config["sitename"], config.get("sitename"), config.sitename
        assert lower == ("New", "New", "New")
        assert "sitename" in config
        with pytest.raises(ManagedVariable):
            config["sitename"] = "other"
        assert copy.deepcopy(config)["SITENAME"] == "New"


class TestWarning:
    """Values that somebody has set, and that don't count, are named once."""

    def test_set_before(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        app, _ = site(tmp_path, SITENAME="old", LIMIT=6)
        assert app.config["SITENAME"] == "Waffle"
        (record,) = caplog.records
        assert "'SITENAME', 'LIMIT'" in record.getMessage()

    def test_same_as_default(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        site(tmp_path, SITENAME="Waffle", LIMIT=5)
        assert not caplog.records

    def test_flasks_defaults(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Nobody has set Flask's own defaults."""
        confs = {
            "MAX_CONTENT_LENGTH": {"default": 1000, "type": int},
            "SESSION_COOKIE_NAME": {"default": "waffle"},
        }
        app = Flask("site", instance_path=str(tmp_path))
        app.config["WAFFLE_CONFS"] = confs
        waffle = WaffleConf(app, MemoryStore())
        assert not caplog.records
        waffle.update({"MAX_CONTENT_LENGTH": 9})
        with app.test_request_context():
            from flask import request

            assert request.max_content_length == 9

    def test_flasks_default_set(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        app = Flask("site", instance_path=str(tmp_path))
        confs = {"SESSION_COOKIE_NAME": {"default": "waffle"}}
        app.config.update(WAFFLE_CONFS=confs, SESSION_COOKIE_NAME="other")
        WaffleConf(app, MemoryStore())
        assert "SESSION_COOKIE_NAME" in caplog.text


class Needed(BaseModel):
    LIMIT: int
    NAMES: list[str] = ["b"]


class TestDefaults:
    def test_from_config(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A declaration without a default takes what the configuration has."""
        confs = {"LIMIT": {"type": int}, "NAMES": {}}
        app, waffle = site(tmp_path, confs, LIMIT="8", NAMES=["a"])
        assert (app.config["LIMIT"], app.config["NAMES"]) == (8, ["a"])
        waffle.update({"LIMIT": 9})
        waffle.reset("LIMIT")
        assert app.config["LIMIT"] == 8
        assert not caplog.records

    def test_of_a_model(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        app, waffle = site(tmp_path, Needed, LIMIT="8")
        assert (waffle.values.LIMIT, waffle.values.NAMES) == (8, ["b"])
        waffle.update({"LIMIT": 9})
        waffle.reset("LIMIT")
        assert app.config["LIMIT"] == 8
        assert not caplog.records

    @pytest.mark.parametrize("confs", [{"LIMIT": {"type": int}}, Needed])
    def test_nowhere(self, tmp_path: Path, confs: Any) -> None:
        with pytest.raises(SchemaError, match=r"'LIMIT' needs a default.*app\.config"):
            site(tmp_path, confs)

    def test_from_config_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SchemaError, match=r"'LIMIT'.*'many'"):
            site(tmp_path, {"LIMIT": {"type": int}}, LIMIT="many")

    def test_untyped_none(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """None says nothing of the type, so any JSON fits: one warning."""
        confs = {
            "USER": {"default": None},
            "HOST": {},
            "JSON": {"default": None, "type": "json"},
            "TEXT": {"default": None, "type": str | None},
        }
        site(tmp_path, confs, HOST=None)
        (record,) = caplog.records
        assert "'USER', 'HOST'" in record.getMessage()
        assert "JSON'" not in record.getMessage()
