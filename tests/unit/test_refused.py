"""What only looks as if it would work is refused, with a sentence that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask, current_app
from pydantic import BaseModel

from uwsgi_waffle import MemoryStore, SchemaError, SQLStore, WaffleConf, WaffleError

from ..host import CONFS, Host


class TestApplications:
    def test_another_framework(self) -> None:
        """Quart's application looks like Flask's; then each request would be an error."""
        other = SimpleNamespace(config={"WAFFLE_CONFS": CONFS}, extensions={}, name="site")
        with pytest.raises(WaffleError, match=r"serves flask\.Flask applications.*Quart"):
            WaffleConf(other, MemoryStore())  # type: ignore[arg-type]  # that is what is tested

    def test_quart(self) -> None:
        quart = pytest.importorskip("quart")
        with pytest.raises(WaffleError, match=r"is a quart\.app\.Quart"):
            WaffleConf(quart.Quart("site"), MemoryStore())

    def test_a_proxy_of_the_application_is_taken(self, host: Host) -> None:
        app = host.start().app
        with app.app_context(), pytest.raises(WaffleError, match="has a WaffleConf already"):
            WaffleConf(current_app)  # type: ignore[arg-type]  # a proxy is typed as what it is


class TestStores:
    def test_a_url_in_the_place_of_a_store(self, tmp_path: Path) -> None:
        app = Flask("site", instance_path=str(tmp_path))
        app.config["WAFFLE_CONFS"] = CONFS
        url: Any = "redis://:geheim@cache"
        with pytest.raises(SchemaError, match=r"not str\. A URL .* WAFFLE_STORE_URL") as caught:
            WaffleConf(app, url)
        assert "geheim" not in str(caught.value)

    def test_a_path_in_the_place_of_a_url(self) -> None:
        with pytest.raises(SchemaError, match=r"Write it as sqlite:///waffle\.db"):
            SQLStore("waffle.db")


class TestModels:
    def test_pydantic_settings(self, host: Host) -> None:
        settings = pytest.importorskip("pydantic_settings")
        model = type("Site", (settings.BaseSettings,), {"__module__": __name__})
        with pytest.raises(SchemaError, match=r"'Site' is a model of pydantic-settings"):
            host.start(confs=model)

    def test_what_is_derived_from_its_classes(self, host: Host) -> None:
        base = type("BaseSettings", (BaseModel,), {"__module__": "pydantic_settings.main"})
        model = type("Site", (base,), {"__module__": __name__})
        with pytest.raises(SchemaError, match=r"BaseModel\. To give .* set WAFFLE_ENV_PREFIX"):
            host.start(confs=model)


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {program}"],
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestUwsgi:
    @pytest.mark.parametrize("more", ["", "uwsgi.register_signal = uwsgi.add_timer = print;"])
    def test_one_without_signals_is_told_of_and_a_thread_looks(
        self, tmp_path: Path, more: str
    ) -> None:
        present = "import types; sys.modules['uwsgi'] = uwsgi = types.ModuleType('uwsgi');"
        present = f"{present} uwsgi.masterpid = lambda: 1; {more}"
        program = f"{present} import uwsgi_waffle; print(uwsgi_waffle.wake.process_name())"
        done = run(tmp_path, program)
        assert (done.returncode, done.stdout) == (0, "-c\n")
        assert "this uWSGI has no signals" in done.stderr

    def test_a_mock_is_none(self, tmp_path: Path) -> None:
        """A test suite puts one there, so that the application can be imported."""
        mock = "from unittest import mock; sys.modules['uwsgi'] = mock.MagicMock();"
        done = run(tmp_path, f"{mock} import uwsgi_waffle; print(uwsgi_waffle.wake.process_name())")
        assert (done.stdout, done.stderr) == ("-c\n", "")

    def test_an_entry_file_of_that_name_is_not_run(self, tmp_path: Path) -> None:
        """`gunicorn uwsgi:application`, and a command in the same folder."""
        (tmp_path / "site_app.py").write_text(
            "import uwsgi_waffle\n\ndef create_app():\n    return uwsgi_waffle.WaffleConf()\n"
        )
        (tmp_path / "uwsgi.py").write_text("import site_app\n\nmade = site_app.create_app()\n")
        for program in ("import site_app; print(site_app.create_app())", "import uwsgi"):
            done = run(tmp_path, program)
            assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
class TestNamesOfLibraries:
    """A folder or module of the project's own that is called like a library we need."""

    SITE = (
        "import sys; from flask import Flask; from uwsgi_waffle import WaffleConf\n"
        "app = Flask('site', instance_path=sys.path[0] + '/instance')\n"
        "app.config.update(WAFFLE_CONFS={'A': {'default': 1}}, WAFFLE_STORE_URL='sqlite:///x.db')\n"
        "app.config.update(WAFFLE_REDIS_URL='redis://x', WAFFLE_LISTEN_URL='postgresql://x/x')\n"
    )

    @pytest.mark.parametrize(
        ("name", "code", "text"),
        [
            ("redis/__init__.py", "w.RedisStore('redis://x')", "name of redis-py. Rename that"),
            (
                "redis.py",
                SITE + "app.config['WAFFLE_WATCHTYPE'] = 'redis'; WaffleConf(app)",
                "name of redis-py, so hosts don't tell each other of changes. Rename that",
            ),
            ("peewee/__init__.py", "w.PeeweeWaffleStore(model=1)", "name of peewee. Rename that"),
            ("sqlalchemy/__init__.py", SITE + "WaffleConf(app)", "name of SQLAlchemy. Rename that"),
            ("sqlalchemy/__init__.py", "w.AlchemyWaffleStore", "name of SQLAlchemy. Rename that"),
            (
                "prometheus_client/__init__.py",
                "import uwsgi_waffle.metrics",
                "_client. Rename that",
            ),
            (
                "openfeature/__init__.py",
                "import uwsgi_waffle.openfeature",
                "openfeature-sdk. Rename that",
            ),
            (
                "psycopg/__init__.py",
                "w.SQLStore('postgresql+psycopg://x/x').load()",
                "which has its name",
            ),
            ("pymysql.py", "w.SQLStore('mysql+pymysql://x/x').load()", "which has its name"),
        ],
    )
    def test_the_path_is_named_and_nothing_is_to_be_installed(
        self, tmp_path: Path, name: str, code: str, text: str
    ) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        error = run_beside(tmp_path, code).stderr.splitlines()[-1]
        assert str(path) in error
        assert text in error
        assert "nstall" not in error

    def test_a_folder_that_is_no_package_is_in_nobodys_way(self, tmp_path: Path) -> None:
        for name in ("redis", "sqlalchemy", "peewee", "playhouse"):
            (tmp_path / name).mkdir()
        code = "w.RedisStore('redis://x'); w.SQLStore('sqlite:////x.db'); import playhouse.pool"
        done = run_beside(tmp_path, code)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("there", [False, True])
    def test_what_is_missing_is_to_be_installed(self, tmp_path: Path, there: bool) -> None:
        """Also beside such a folder, since that is in nobody's way then."""
        if there:
            (tmp_path / "redis").mkdir()
        code = (
            "import os; "
            "sys.path[:] = [p for p in sys.path if not os.path.isfile(p + '/redis/__init__.py')]; "
            "w.RedisStore('redis://x')"
        )
        error = run_beside(tmp_path, code).stderr.splitlines()[-1]
        assert "redis-py isn't installed. Run: pip install 'uwsgi_waffle[redis]'" in error

    @pytest.mark.parametrize(
        ("part", "code"),
        [
            ("redis.asyncio", "w.RedisStore('redis://x')"),
            ("peewee", "w.PeeweeWaffleStore(model=1)"),
            ("prometheus_client.metrics", "import uwsgi_waffle.metrics"),
            ("openfeature.provider", "import uwsgi_waffle.openfeature"),
            ("redis.asyncio", SITE + "app.config['WAFFLE_WATCHTYPE'] = 'redis'; WaffleConf(app)"),
        ],
    )
    def test_what_a_library_lacks_is_named(self, tmp_path: Path, part: str, code: str) -> None:
        """As redis-py lacks async_timeout on Python 3.10."""
        finder = (
            "class Finder:\n"
            "    def find_spec(self, name, *_):\n"
            f"        if name == {part!r}:\n"
            "            raise ModuleNotFoundError('No module named x_y', name='x_y')\n"
            "sys.meta_path.insert(0, Finder())\n"
        )
        error = run_beside(tmp_path, finder + code).stderr.splitlines()[-1]
        assert "can't be imported: No module named x_y" in error
        assert "Run: pip install 'uwsgi_waffle[" in error


def run_beside(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the project in this folder."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); import uwsgi_waffle as w"
    return subprocess.run(
        [sys.executable, "-c", f"{start}\n{code}"], capture_output=True, text=True, timeout=60
    )
