"""The tests' own database servers: when one isn't well, the error says why, and nothing is left
running.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from .. import sql_servers
from ..sql_servers import SQLServer


class Broken(SQLServer):
    """A server that says something and never listens."""

    program = ""

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    @property
    def url(self) -> str:
        return "postgresql+psycopg://postgres@/postgres?host=/nowhere"

    def install(self) -> None:
        """Create nothing."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", f"print('the disk is full', flush=True); {self.program}"]

    def fresh(self) -> str:
        return self.url


def test_one_that_ends_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "program", "raise SystemExit(3)")
    with pytest.raises(
        RuntimeError,
        match=r"has ended with 3 \(load [^)]+\): .*No such file[^\n]*\n"
        r"Its log ends with:\nthe disk is full",
    ):
        Broken(tmp_path)


def test_one_that_never_answers_is_told_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "program", "import time; time.sleep(1000)")
    monkeypatch.setattr(sql_servers, "PATIENCE", 0)
    with pytest.raises(RuntimeError, match=r"runs \(load"):
        Broken(tmp_path)
    assert [
        child for child in psutil.Process().children() if "time.sleep(1000)" in child.cmdline()
    ] == []


def test_one_that_has_died_since_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SQLServer, "start", lambda server: None)
    server = Broken(tmp_path)
    server.process = psutil.Popen([sys.executable, "-c", "raise SystemExit(9)"])  # type: ignore[assignment]  # it is like one
    server.process.wait()
    (tmp_path / "log").write_text("killed by somebody\n")
    with pytest.raises(RuntimeError, match=r"has ended with 9[\s\S]*killed by somebody"):
        server.execute("SELECT 1")
