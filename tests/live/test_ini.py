"""`uwsgi.ini.example` has no line that a uWSGI here doesn't know: ours, and the system's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ..conftest import needed
from .servers import script
from .test_examples import AS_IT_IS

ROOT = Path(__file__).parents[2]
SYSTEMS = "/usr/bin/uwsgi"
MISSING = ("^module = .*$", "module = no_such_module")


@pytest.mark.parametrize("program", ["uwsgi", SYSTEMS])
def test_it_knows_each_line(program: str, tmp_path: Path) -> None:
    """It is strict. It reads every line, and only then finds no application."""
    if not Path(script(program)).exists():
        needed(f"there is no {program}: apt-get install uwsgi-core uwsgi-plugin-python3")
    plugin = ["--plugin", "python3"] if program == SYSTEMS else []
    text = (ROOT / "uwsgi.ini.example").read_text()
    for pattern, replacement in (AS_IT_IS, MISSING):
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    ini = tmp_path / "uwsgi.ini"
    ini.write_text(text)
    command = [script(program), *plugin, "--ini", str(ini)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "unknown config directive" not in done.stderr
    assert "no app loaded" in done.stderr
