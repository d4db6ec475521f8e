"""`WaffleConf[Limits]` has typed values, and a plain `WaffleConf` has `Any`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SAMPLE = Path(__file__).with_name("sample.py")
ROOT = Path(__file__).parents[2]


def run_mypy(path: Path, cache: Path) -> str:
    if find_spec("mypy") is None and not os.environ.get("CI"):
        pytest.skip("mypy is not installed")
    options = ["--config-file=", "--strict", "--no-error-summary", "--follow-imports=silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, f"--cache-dir={cache}", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_mypy_knows_the_types_of_the_values(tmp_path: Path) -> None:
    assert run_mypy(SAMPLE, tmp_path / "cache") == ""


def test_mypy_refuses_what_the_model_does_not_have(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(f"{SAMPLE.read_text()}\nwaffle.values.HIGH\nwaffle.latest.LOW.upper()\n")
    found = run_mypy(wrong, tmp_path / "cache")
    assert '"Limits" has no attribute "HIGH"' in found
    assert '"int" has no attribute "upper"' in found
