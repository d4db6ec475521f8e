"""`WaffleConf[Limits]` has typed values, a plain `WaffleConf` has `Any`, and who checks strictly
hears nothing of the package.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

Check = Callable[[Path, Path], str]
SAMPLE = Path(__file__).with_name("sample.py")
APPLICATION = Path(__file__).with_name("application.py")
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


def run_pyright(path: Path, cache: Path) -> str:
    if find_spec("pyright") is None:
        pytest.skip("pyright is not installed: pip install pyright")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return "".join(line for line in done.stdout.splitlines(True) if " - error: " in line)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where mypy keeps what it knows of the packages that all use."""
    return tmp_path_factory.mktemp("mypy")


checkers = pytest.mark.parametrize("check", [run_mypy, run_pyright])


@checkers
def test_it_knows_the_types_of_the_values(check: Check, cache: Path) -> None:
    assert check(SAMPLE, cache) == ""


@checkers
def test_applications_are_clean_in_strict_mode(check: Check, cache: Path) -> None:
    """Hooks, stores, pages and dictionaries: nothing of the public interface is untyped."""
    assert check(APPLICATION, cache) == ""


@checkers
def test_it_refuses_what_the_model_does_not_have(check: Check, cache: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(f"{SAMPLE.read_text()}\nwaffle.values.HIGH\nwaffle.latest.LOW.upper()\n")
    first, second = check(wrong, cache).splitlines()
    assert {"HIGH", "Limits"} <= set(re.findall(r"\w+", first))
    assert {"upper", "int"} <= set(re.findall(r"\w+", second))
