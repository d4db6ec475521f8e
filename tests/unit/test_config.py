"""`app.config` shows the declared variables in every way a dictionary can be read, and refuses to
be written there.
"""

from __future__ import annotations

import copy
import json
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Config, Flask, render_template_string
from pydantic import BaseModel

from uwsgi_waffle import ManagedVariable, MemoryStore, SchemaError, WaffleConf, WaffleError
from uwsgi_waffle.config import Settings, Watching, manage
from uwsgi_waffle.stores import open_store

ALL = {"OWN": 1, "SITENAME": "Waffle", "LIMIT": 5}


class Values(BaseModel):
    SITENAME: str = "Waffle"
    LIMIT: int = 5


class OtherConfig(Config):
    def double(self, key: str) -> Any:
        return 2 * self[key]


@pytest.fixture
def current() -> list[Values]:
    """What the configuration shows now, as its only item."""
    return [Values()]


@pytest.fixture
def config(current: list[Values], tmp_path: Path) -> Config:
    config = Config(tmp_path, {"OWN": 1, "SITENAME": "from before"})
    manage(config, frozenset({"SITENAME", "LIMIT"}), lambda: current[0])
    return config


class TestReading:
    @pytest.mark.parametrize(
        "read",
        [
            dict,
            lambda config: {**config},
            lambda config: config.copy(),
            copy.copy,
            copy.deepcopy,
            lambda config: dict(config.items()),
            lambda config: dict(zip(config.keys(), config.values(), strict=True)),
            lambda config: {key: config[key] for key in config},
            lambda config: {key: config.get(key) for key in list(config.keys())},
            lambda config: config | {},
            lambda config: {} | config,
            lambda config: json.loads(json.dumps(config)),
        ],
        ids=[
            "dict",
            "**",
            "copy()",
            "copy.copy",
            "deepcopy",
            "items",
            "keys, values",
            "iter",
            "get",
            "|",
            "reverse |",
            "json",
        ],
    )
    def test_every_way_shows_everything(
        self, config: Config, read: Callable[[Config], Any]
    ) -> None:
        assert dict(read(config)) == ALL

    def test_a_new_value_is_seen_at_once(self, config: Config, current: list[Values]) -> None:
        current[0] = Values(SITENAME="New")
        assert config["SITENAME"] == config.get("SITENAME") == dict(config)["SITENAME"] == "New"

    def test_what_the_application_had_set_before_is_not_shown(self, config: Config) -> None:
        assert "from before" not in config.values()

    def test_membership_and_length(self, config: Config) -> None:
        assert "SITENAME" in config
        assert "OWN" in config
        assert "OTHER" not in config
        assert (
            len(config)
            == len(list(config))
            == len(config.keys())
            == len(config.items())
            == len(config.values())
            == 3
        )
        assert "SITENAME" in config.keys()  # noqa: SIM118
        assert ("LIMIT", 5) in config.items()

    def test_equality(self, config: Config) -> None:
        assert config == ALL
        assert config != {**ALL, "LIMIT": 6}
        assert config != {"OWN": 1}

    def test_what_is_missing_is_a_key_error(self, config: Config) -> None:
        with pytest.raises(KeyError, match="OTHER"):
            config["OTHER"]
        assert config.get("OTHER") is None
        assert config.get("OTHER", 7) == 7

    def test_get_ignores_the_default_of_a_declared_name(self, config: Config) -> None:
        assert config.get("LIMIT", 7) == 5

    def test_get_namespace_knows_them(self, config: Config) -> None:
        assert config.get_namespace("SITE") == {"name": "Waffle"}

    def test_templates_see_them(self, tmp_path: Path) -> None:
        app = Flask(__name__, instance_path=str(tmp_path))
        app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        waffle = WaffleConf(app, MemoryStore())
        template = "{{ config.SITENAME }} {{ config['SITENAME'] }} {{ config.get('SITENAME') }} {{ 'SITENAME' in config }}"
        with app.test_request_context():
            waffle.update({"SITENAME": "New"})
            assert render_template_string(template) == "New New New True"

    def test_repr_names_them_without_values(self, config: Config) -> None:
        assert "'SITENAME'" in repr(config)
        assert "Waffle" not in repr(config)


class TestWriting:
    @pytest.mark.parametrize(
        "write",
        [
            lambda config: config.__setitem__("SITENAME", "x"),
            lambda config: config.__delitem__("SITENAME"),
            lambda config: config.pop("SITENAME"),
            lambda config: config.pop("SITENAME", None),
            lambda config: config.update({"OWN": 2, "SITENAME": "x"}),
            lambda config: config.update([("OWN", 2), ("SITENAME", "x")]),
            lambda config: config.update(OWN=2, SITENAME="x"),
            lambda config: config.__ior__({"OWN": 2, "SITENAME": "x"}),
            lambda config: config.from_mapping({"SITENAME": "x"}),
            lambda config: config.from_mapping(SITENAME="x"),
            lambda config: config.from_object(type("Settings", (), {"SITENAME": "x"})),
        ],
        ids=[
            "[]=",
            "del",
            "pop",
            "pop default",
            "update",
            "update pairs",
            "update kw",
            "|=",
            "mapping",
            "mapping kw",
            "object",
        ],
    )
    def test_a_declared_variable_is_refused_and_nothing_changed(
        self, config: Config, write: Callable[[Config], Any]
    ) -> None:
        with pytest.raises(
            ManagedVariable, match=r"'SITENAME'.*waffle\.update\({'SITENAME': …}\)"
        ) as caught:
            write(config)
        assert isinstance(caught.value, TypeError)
        assert config == ALL

    def test_all_else_is_written_as_ever(self, config: Config) -> None:
        config["A"] = 1
        config.update({"B": 2}, C=3)
        config |= {"D": 4}
        config.from_mapping(E=5)
        assert config.setdefault("F", 6) == 6
        assert config.setdefault("F", 7) == 6
        assert config == {**ALL, "A": 1, "B": 2, "C": 3, "D": 4, "E": 5, "F": 6}
        assert config.pop("A") == 1
        assert config.pop("A", 8) == 8
        with pytest.raises(KeyError):
            config.pop("A")
        del config["B"]
        assert "B" not in config

    def test_setdefault_of_a_declared_variable_gives_its_value(self, config: Config) -> None:
        assert config.setdefault("LIMIT", 99) == 5

    def test_a_copy_is_the_callers_own(self, config: Config) -> None:
        mine = config.copy()
        mine["SITENAME"] = "mine"
        assert config["SITENAME"] == "Waffle"


class TestIdentity:
    def test_the_object_stays_the_same(self, tmp_path: Path) -> None:
        """Whoever took hold of ``app.config`` before ``init_app`` sees the variables, too."""
        app = Flask(__name__, instance_path=str(tmp_path))
        app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        held = app.config
        WaffleConf(app, MemoryStore())
        assert app.config is held
        assert held["SITENAME"] == "Waffle"
        assert isinstance(held, Config)

    def test_a_class_of_the_applications_own_is_kept(self, tmp_path: Path) -> None:
        class OwnFlask(Flask):
            config_class = OtherConfig

        app = OwnFlask(__name__, instance_path=str(tmp_path))
        app.config["WAFFLE_CONFS"] = {"LIMIT": {"default": 5}}
        WaffleConf(app, MemoryStore())
        assert isinstance(app.config, OtherConfig)
        assert app.config.double("LIMIT") == 10

    def test_other_configurations_are_untouched(self, config: Config, tmp_path: Path) -> None:
        other = Config(tmp_path)
        other["SITENAME"] = "other"
        assert dict(other) == {"SITENAME": "other"}


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["WAFFLE_CONFS"] = {}
    return app


class TestSettings:
    def test_the_defaults(self, app: Flask, tmp_path: Path) -> None:
        assert Settings.read(app) == Settings(
            confs={},
            multiproc=True,
            watching=Watching("file", tmp_path / "waffle.watch", "", "waffleconf"),
            store_url=f"sqlite:///{tmp_path}/waffle.db",
            poll_interval=1.0,
            reconcile_interval=30.0,
        )

    ENVIRON = (
        ("WAFFLE_MULTIPROC", "false", "multiproc", False),
        ("WAFFLE_WATCHTYPE", "redis", "watching.watchtype", "redis"),
        ("WAFFLE_WATCHER_FILE", "/srv/bell", "watching.watcher_file", Path("/srv/bell")),
        ("WAFFLE_REDIS_CHANNEL", "site", "watching.redis_channel", "site"),
        ("WAFFLE_STORE_URL", "sqlite:////srv/x.db", "store_url", "sqlite:////srv/x.db"),
        ("WAFFLE_POLL_INTERVAL", "0.5", "poll_interval", 0.5),
        ("WAFFLE_RECONCILE_INTERVAL", "7", "reconcile_interval", 7.0),
    )

    @pytest.mark.parametrize(("name", "text", "attribute", "value"), ENVIRON)
    def test_each_comes_from_the_application_or_else_the_environment(
        self,
        app: Flask,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        text: str,
        attribute: str,
        value: Any,
    ) -> None:
        read = operator.attrgetter(attribute)
        default = read(Settings.read(app))
        monkeypatch.setenv(name, text)
        assert read(Settings.read(app)) == value
        app.config[name] = default
        assert read(Settings.read(app)) == default

    @pytest.mark.parametrize(
        ("settings", "url"),
        [
            ({"HOST": "cache.example"}, "redis://cache.example:6379"),
            ({"HOST": "::1", "PORT": "6380"}, "redis://[::1]:6380"),
            (
                {"HOST": "cache.example", "URL": "rediss://ann:geheim@cache.example/2"},
                "rediss://ann:geheim@cache.example/2",
            ),
        ],
    )
    def test_redis_is_named_by_host_and_port_or_by_a_url(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], url: str
    ) -> None:
        app.config["WAFFLE_WATCHTYPE"] = "redis"
        for name, text in settings.items():
            monkeypatch.setenv(f"WAFFLE_REDIS_{name}", text)
        settled = Settings.read(app)
        assert settled.watching.redis_url == url
        assert "geheim" not in repr(settled)

    def test_a_port_counts_only_where_it_is_used(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Kubernetes sets it to something else for a service that is called waffle-redis."""
        monkeypatch.setenv("WAFFLE_REDIS_PORT", "tcp://10.0.0.1:6379")
        assert Settings.read(app).watching.redis_url == ""
        app.config.update(WAFFLE_WATCHTYPE="redis", WAFFLE_REDIS_URL="redis://cache.example")
        assert Settings.read(app).watching.redis_url == "redis://cache.example"
        monkeypatch.setenv("WAFFLE_WATCHTYPE", "redis")
        assert Watching.from_environment() is None

    def test_a_url_that_is_no_text_is_refused_without_its_password(self, app: Flask) -> None:
        for name in ("WAFFLE_STORE_URL", "WAFFLE_REDIS_URL"):
            app.config.update(WAFFLE_WATCHTYPE="redis", WAFFLE_REDIS_URL="redis://cache.example")
            app.config[name] = urlsplit("redis://:geheim@cache.example")
            with pytest.raises(SchemaError, match=name) as caught:
                Settings.read(app)
            assert "geheim" not in str(caught.value)
        app.config.update(
            WAFFLE_STORE_URL="redis://:geheim@cache.example",
            WAFFLE_REDIS_URL="redis://:geheim@cache.example",
        )
        assert "geheim" not in repr(Settings.read(app))

    def test_a_process_without_the_application_reads_the_environment(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert Watching.from_environment() is None
        monkeypatch.setenv("WAFFLE_WATCHTYPE", "redis")
        assert Watching.from_environment() is None, "it can't know where the watch file is"
        monkeypatch.setenv("WAFFLE_WATCHER_FILE", "/srv/bell")
        found = Watching.from_environment()
        assert found is not None
        assert (found.watcher_file, found.redis_url) == (
            Path("/srv/bell"),
            "redis://localhost:6379",
        )
        monkeypatch.setenv("WAFFLE_MULTIPROC", "0")
        assert Watching.from_environment() is None, "nothing is watched"

    def test_an_empty_list_of_variables_is_not_a_missing_one(self, app: Flask) -> None:
        del app.config["WAFFLE_CONFS"]
        with pytest.raises(SchemaError, match=r"WAFFLE_CONFS.*is missing"):
            Settings.read(app)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("WAFFLE_MULTIPROC", "perhaps"),
            ("WAFFLE_WATCHTYPE", "pigeon"),
            ("WAFFLE_WATCHER_FILE", 5),
            ("WAFFLE_REDIS_PORT", "six"),
            ("WAFFLE_REDIS_PORT", 0),
            ("WAFFLE_STORE_URL", 5),
            ("WAFFLE_POLL_INTERVAL", "soon"),
            *(
                (f"WAFFLE_{which}_INTERVAL", value)
                for which in ("POLL", "RECONCILE")
                for value in (0, -1, float("nan"), float("inf"))
            ),
        ],
    )
    def test_a_bad_one_is_named(self, app: Flask, name: str, value: Any) -> None:
        app.config["WAFFLE_WATCHTYPE"] = "redis"
        app.config[name] = value
        with pytest.raises(SchemaError, match=rf"^{name} must be"):
            Settings.read(app)

    @pytest.mark.parametrize(
        "url", ["mongodb://db", "waffle.db", "", "sqlite", "sqlite:/x", "postgresql"]
    )
    def test_a_url_of_no_store_is_refused_by_the_settings_name(self, url: str) -> None:
        with pytest.raises(WaffleError, match="WAFFLE_STORE_URL"):
            open_store(url)

    def test_a_url_with_an_unknown_driver_is_refused_without_its_password(self) -> None:
        with pytest.raises(WaffleError) as caught:
            open_store("postgresql+pigeon://ann:geheim@db/site").load()
        assert "pigeon" in str(caught.value)
        assert "geheim" not in str(caught.value)
