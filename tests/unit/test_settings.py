"""The extension's settings: from the application, or else from the process environment."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from flask import Config, Flask
from sqlalchemy import make_url

from uwsgi_waffle import MemoryStore, SchemaError, SQLStore, WaffleConf, WaffleError
from uwsgi_waffle.settings import Settings, Watching
from uwsgi_waffle.stores import open_store


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["WAFFLE_CONFS"] = {}
    return app


def watching(app: Flask) -> Watching:
    return Watching.of(Settings.read(app.config), Path(app.instance_path))


def test_the_defaults(app: Flask, tmp_path: Path) -> None:
    settings = Settings.read(app.config).model_dump()
    expected = {
        "multiproc": True,
        "store_url": "sqlite:///waffle.db",
        "namespace": "",
        "env_prefix": "",
        "poll_interval": 1.0,
        "reconcile_interval": 30.0,
        "max_value_size": 1048576,
    }
    assert {name: settings[name] for name in expected} == expected
    assert watching(app) == Watching("file", tmp_path / "waffle.watch", "", "waffleconf")


ENVIRON = (
    ("WAFFLE_MULTIPROC", "false", "multiproc", False),
    ("WAFFLE_WATCHTYPE", "redis", "watchtype", "redis"),
    ("WAFFLE_WATCHER_FILE", "/srv/bell", "watcher_file", Path("/srv/bell")),
    ("WAFFLE_REDIS_CHANNEL", "site", "redis_channel", "site"),
    ("WAFFLE_STORE_URL", "sqlite:////srv/x.db", "store_url", "sqlite:////srv/x.db"),
    ("WAFFLE_NAMESPACE", "shop_2", "namespace", "shop_2"),
    ("WAFFLE_ENV_PREFIX", "MYSITE_", "env_prefix", "MYSITE_"),
    ("WAFFLE_POLL_INTERVAL", "0.5", "poll_interval", 0.5),
    ("WAFFLE_RECONCILE_INTERVAL", "7", "reconcile_interval", 7.0),
    ("WAFFLE_MAX_VALUE_SIZE", "5000", "max_value_size", 5000),
)


@pytest.mark.parametrize(("name", "text", "attribute", "value"), ENVIRON)
def test_each_comes_from_the_application_or_else_the_environment(
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
    attribute: str,
    value: Any,
) -> None:
    read = operator.attrgetter(attribute)
    default = read(Settings.read(app.config))
    monkeypatch.setenv(name, text)
    assert read(Settings.read(app.config)) == value
    app.config[name] = default
    assert read(Settings.read(app.config)) == default


@pytest.mark.parametrize("channel", ["waffleconf", "news"])
def test_the_channel_is_in_the_namespace(
    app: Flask, monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    """A mule that has no application finds the same one."""
    settings = {"NAMESPACE": "shop", "WATCHTYPE": "redis", "REDIS_CHANNEL": channel}
    for name, text in {**settings, "WATCHER_FILE": "/srv/bell"}.items():
        monkeypatch.setenv(f"WAFFLE_{name}", text)
    found = watching(app)
    assert found.channel_name == f"shop_{channel}"
    assert Watching.from_environment() == found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_VALUE_SIZE", "1M"),
        ("POLL_INTERVAL", "often"),
        ("RECONCILE_INTERVAL", "never"),
        ("ENV_PREFIX", "my site"),
    ],
)
def test_a_mule_minds_only_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    """The application may override the others, so it listens beside a bad one."""
    monkeypatch.setenv("WAFFLE_WATCHTYPE", "redis")
    monkeypatch.setenv("WAFFLE_WATCHER_FILE", "/srv/bell")
    expected = Watching.from_environment()
    assert expected is not None
    monkeypatch.setenv(f"WAFFLE_{name}", text)
    with pytest.raises(SchemaError, match=name):
        Settings.read({})
    assert Watching.from_environment() == expected


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
    app: Flask, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], url: str
) -> None:
    app.config["WAFFLE_WATCHTYPE"] = "redis"
    for name, text in settings.items():
        monkeypatch.setenv(f"WAFFLE_REDIS_{name}", text)
    assert watching(app).channel_url == url
    assert "geheim" not in repr((Settings.read(app.config), watching(app)))


def test_a_port_counts_only_where_it_is_used(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets it to something else for a service that is called waffle-redis."""
    monkeypatch.setenv("WAFFLE_REDIS_PORT", "tcp://10.0.0.1:6379")
    monkeypatch.setenv("WAFFLE_REDIS_HOST", "")
    assert watching(app).channel_url == ""
    app.config.update(WAFFLE_WATCHTYPE="redis", WAFFLE_REDIS_URL="redis://cache.example")
    assert watching(app).channel_url == "redis://cache.example"
    monkeypatch.setenv("WAFFLE_WATCHTYPE", "redis")
    assert Watching.from_environment() is None


def test_a_url_that_is_no_text_is_refused_without_its_password(app: Flask) -> None:
    for name in ("WAFFLE_STORE_URL", "WAFFLE_REDIS_URL"):
        app.config.update(WAFFLE_WATCHTYPE="redis", WAFFLE_REDIS_URL="redis://cache.example")
        app.config[name] = urlsplit("redis://:geheim@cache.example")
        with pytest.raises(SchemaError, match=name) as caught:
            Settings.read(app.config)
        assert "geheim" not in str(caught.value)
    app.config.update(
        WAFFLE_STORE_URL="redis://:geheim@cache.example",
        WAFFLE_REDIS_URL="redis://:geheim@cache.example",
    )
    assert "geheim" not in repr(Settings.read(app.config))


def test_a_process_without_the_application_reads_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Watching.from_environment() is None
    monkeypatch.setenv("WAFFLE_WATCHTYPE", "redis")
    assert Watching.from_environment() is None, "it can't know where the watch file is"
    monkeypatch.setenv("WAFFLE_WATCHER_FILE", "/srv/bell")
    found = Watching.from_environment()
    assert found is not None
    assert (found.watcher_file, found.channel_url) == (
        Path("/srv/bell"),
        "redis://localhost:6379",
    )
    monkeypatch.setenv("WAFFLE_MULTIPROC", "0")
    assert Watching.from_environment() is None, "nothing is watched"


class TestMisspelt:
    """A setting that nobody reads is named, with the one that may be meant."""

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("WAFFLE_CONF", "Did you mean WAFFLE_CONFS?"),
            ("WAFFLE_WATCH_TYPE", "Did you mean WAFFLE_WATCHTYPE?"),
            ("WAFFLE_COLOUR", "Correct or remove it."),
        ],
    )
    def test_in_the_configuration(
        self, app: Flask, caplog: pytest.LogCaptureFixture, name: str, advice: str
    ) -> None:
        app.config[name] = "x"
        WaffleConf(app, MemoryStore())
        assert caplog.messages == [
            f"uwsgi_waffle: {name} is no setting and has no effect. {advice}"
        ]

    def test_in_the_environment(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It has others, too: these are Kubernetes' for services that are called like ours."""
        for name in ("PORT", "REDIS_SERVICE_HOST", "REDIS_PORT_6379_TCP", "STORE_PORT", "CONF"):
            monkeypatch.setenv(f"WAFFLE_{name}", "10.0.0.1")
        app.config.update(os.environ)
        monkeypatch.setenv("WAFFLE_STORE_ULR", "memory:")
        WaffleConf(app, MemoryStore())
        (line,) = caplog.messages
        assert line.endswith(
            "WAFFLE_STORE_ULR is no setting and has no effect. Did you mean WAFFLE_STORE_URL?"
        )


def test_an_empty_list_of_variables_is_not_a_missing_one(app: Flask) -> None:
    del app.config["WAFFLE_CONFS"]
    with pytest.raises(SchemaError, match=r"WAFFLE_CONFS.*is missing"):
        WaffleConf(app, MemoryStore())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WAFFLE_MULTIPROC", "perhaps"),
        ("WAFFLE_WATCHTYPE", "pigeon"),
        ("WAFFLE_WATCHER_FILE", 5),
        ("WAFFLE_REDIS_PORT", "six"),
        ("WAFFLE_REDIS_PORT", 0),
        ("WAFFLE_STORE_URL", 5),
        ("WAFFLE_NAMESPACE", "my shop"),
        ("WAFFLE_ENV_PREFIX", "MY-SITE_"),
        ("WAFFLE_ENV_PREFIX", "WAFFLE_"),
        ("WAFFLE_NAMESPACE", "ä"),
        ("WAFFLE_NAMESPACE", "n" * 33),
        ("WAFFLE_NAMESPACE", "shop\n"),
        ("WAFFLE_POLL_INTERVAL", "soon"),
        ("WAFFLE_MAX_VALUE_SIZE", "much"),
        ("WAFFLE_MAX_VALUE_SIZE", 0),
        *(
            (f"WAFFLE_{which}_INTERVAL", value)
            for which in ("POLL", "RECONCILE")
            for value in (0, -1, float("nan"), float("inf"))
        ),
    ],
)
def test_a_bad_one_is_named(app: Flask, name: str, value: Any) -> None:
    app.config["WAFFLE_WATCHTYPE"] = "redis"
    app.config[name] = value
    with pytest.raises(SchemaError, match=rf"^{name} can't ") as caught:
        Settings.read(app.config)
    assert "Value error" not in str(caught.value), "pydantic's words for ours"


@pytest.mark.parametrize(
    "url", ["mongodb://db", "waffle.db", "", "sqlite", "sqlite:/x", "postgresql"]
)
def test_a_url_of_no_store_is_refused_by_the_settings_name(url: str) -> None:
    with pytest.raises(WaffleError, match="WAFFLE_STORE_URL"):
        open_store(url)


def test_a_url_with_an_unknown_driver_is_refused_without_its_password() -> None:
    with pytest.raises(WaffleError) as caught:
        open_store("postgresql+pigeon://ann:geheim@db/site").load()
    assert "pigeon" in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlite://waffle.db", "three slashes before a relative path"),
        ("sqlite+aiosqlite:///waffle.db", "Python's own driver"),
        ("sqlite+pysqlcipher://:geheim@/waffle.db", "nothing would be encrypted"),
        ("sqlite:///waffle.db?timeout=long", "a number of seconds"),
        ("postgresql+asyncpg://ann:geheim@db/site", "asynchronous driver"),
        ("mysql+aiomysql://ann:geheim@db/site", "asynchronous driver"),
        ("mysql+pymysql://ann:geheim@db/", "names no database"),
        ("unix://run/redis.sock", "path is absolute"),
        ("unix://redis.sock", "path is absolute"),
        ("redis://ann:ge@heim/x@db", "an '@' or '#' in the wrong place"),
        ("redis://ann:geheim@cache.example/waffle", "the number of a database"),
        ("redis+sentinel://one,two/mymaster/waffle", "the number of a database"),
        ("valkeys://cache.example/1/2", "the number of a database"),
    ],
)
def test_a_url_that_would_be_read_as_something_else(url: str, advice: str) -> None:
    with pytest.raises(SchemaError, match=advice) as caught:
        open_store(url)
    assert "geheim" not in str(caught.value)


def test_sqlalchemys_url_keeps_its_password(app: Flask) -> None:
    """Its text would have three asterisks instead."""
    url = "postgresql://ann:geheim@db/site"
    app.config["WAFFLE_STORE_URL"] = make_url(url)
    assert Settings.read(app.config).store_url == url


class TestPaths:
    """Relative paths are in the instance folder, and each has one spelling."""

    @pytest.fixture
    def instance(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A link to the real instance folder; the working folder is another one."""
        (tmp_path / "releases/5").mkdir(parents=True)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "current").symlink_to("releases/5")
        monkeypatch.chdir(tmp_path / "elsewhere")
        return tmp_path / "current"

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:///waffle.db", "{real}/waffle.db"),
            ("sqlite+pysqlite:///data/../waffle.db", "{real}/waffle.db"),
            ("sqlite:///{link}/waffle.db", "{real}/waffle.db"),
            ("sqlite:///file:waffle.db?uri=true", "{real}/waffle.db"),
            ("sqlite:///file:/srv/waffle.db?uri=true", "/srv/waffle.db"),
        ],
    )
    def test_sqlite(self, instance: Path, url: str, path: str) -> None:
        spelled = {"real": instance.resolve(), "link": instance}
        store = open_store(url.format_map(spelled)).beside(instance)
        assert store.file == Path(path.format_map(spelled))

    def test_a_store_that_is_given(self, instance: Path) -> None:
        """From whichever folder a command is started, it is the server's store."""
        app = Flask("site", instance_path=str(instance))
        app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        WaffleConf(app, SQLStore("sqlite:///site.db")).update({"SITENAME": "New"})
        assert SQLStore(f"sqlite:///{instance}/site.db").load().values == {"SITENAME": '"New"'}

    def test_no_url(self) -> None:
        with pytest.raises(SchemaError, match="WAFFLE_STORE_URL"):
            open_store("sqlite:waffle.db")

    @pytest.mark.parametrize("name", ["waffle.watch", "{link}/waffle.watch"])
    def test_watch_file(self, instance: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        app = Flask("site", instance_path=str(instance))
        name = name.format(link=instance)
        app.config.update(WAFFLE_CONFS={}, WAFFLE_WATCHER_FILE=name, WAFFLE_WATCHTYPE="redis")
        found = watching(app)
        assert found.watcher_file == instance.resolve() / "waffle.watch"
        if os.path.isabs(name):
            monkeypatch.setenv("WAFFLE_WATCHTYPE", "redis")
            monkeypatch.setenv("WAFFLE_WATCHER_FILE", name)
            assert Watching.from_environment() == found

    def test_two_spellings(self, instance: Path) -> None:
        """A process that came through the link and one that didn't use the same store."""
        waffles = []
        for path in (instance, instance.resolve()):
            app = Flask("site", instance_path=str(path))
            app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
            waffles.append((app, WaffleConf(app)))
        waffles[0][1].update({"SITENAME": "New"})
        assert waffles[1][1].values.SITENAME == "New"

    def test_watch_file_that_is_a_link(self, instance: Path) -> None:
        """The file itself isn't followed, so that it can be refused."""
        (instance / "waffle.watch").symlink_to("/etc/passwd")
        app = Flask("site", instance_path=str(instance))
        app.config["WAFFLE_CONFS"] = {}
        assert watching(app).watcher_file.name == "waffle.watch"

    @pytest.mark.parametrize("url", [None, "sqlite:///waffle.db"])
    @pytest.mark.parametrize("name", ["a?b", "a#b", "a%2Fb", "a b&c=d", "ü@:", "%"])
    def test_folder_with_odd_name(self, tmp_path: Path, name: str, url: str | None) -> None:
        """SQLAlchemy 2.0 and 2.1 read such a path in different ways when it is in a URL."""
        instance = tmp_path / name
        app = Flask("site", instance_path=str(instance))
        app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        if url is not None:
            app.config["WAFFLE_STORE_URL"] = url
        waffle = WaffleConf(app)
        waffle.update({"SITENAME": "New"})
        assert (instance / "waffle.db").exists()
        assert [path.name for path in tmp_path.iterdir()] == [name]


def test_memory() -> None:
    """``memory:`` needs no file and starts no thread."""
    assert isinstance(open_store("memory:"), MemoryStore)


class TestTooLate:
    """Settings are read once: what is set later has no effect, and the log says so."""

    @pytest.fixture
    def served(self, app: Flask) -> Flask:
        app.config["WAFFLE_POLL_INTERVAL"] = 2.0
        app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        WaffleConf(app, MemoryStore())
        return app

    @pytest.mark.parametrize(
        "change",
        [
            lambda config: operator.setitem(config, "WAFFLE_STORE_URL", "memory:"),
            lambda config: config.update(TESTING=True, WAFFLE_STORE_URL="memory:"),
            lambda config: config.from_mapping(WAFFLE_STORE_URL="memory:"),
            lambda config: config.from_object(type("Late", (), {"WAFFLE_STORE_URL": "memory:"})),
            lambda config: config.setdefault("WAFFLE_STORE_URL", "memory:"),
            lambda config: config.from_prefixed_env("MYSITE"),
        ],
    )
    def test_it_is_named_once(
        self,
        served: Flask,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        change: Callable[[Config], object],
    ) -> None:
        monkeypatch.setenv("MYSITE_WAFFLE_STORE_URL", "memory:")
        change(served.config)
        change(served.config)
        (line,) = caplog.messages
        assert "app.config sets WAFFLE_STORE_URL too late" in line
        assert "Set it before WaffleConf gets the application" in line

    def test_another_configuration(self, served: Flask, caplog: pytest.LogCaptureFixture) -> None:
        config = Config(served.root_path, served.config.copy())
        config["WAFFLE_POLL_INTERVAL"] = 5
        served.config = config
        (line,) = caplog.messages
        assert "WAFFLE_POLL_INTERVAL" in line

    def test_what_was_read_may_be_put_back(
        self, served: Flask, caplog: pytest.LogCaptureFixture
    ) -> None:
        with mock.patch.dict(served.config, OTHER=1):
            served.config["WAFFLE_POLL_INTERVAL"] = 2.0
        assert caplog.messages == []
