"""What only looks as if it would work is refused, with a sentence that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import current_app
from pydantic import BaseModel

from uwsgi_waffle import MemoryStore, SchemaError, WaffleConf, WaffleError

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
