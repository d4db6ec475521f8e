"""docs/troubleshooting.md explains every error class and every log line of the package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import uwsgi_waffle
from uwsgi_waffle import WaffleError

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "troubleshooting.md").read_text().replace("\\|", "|").split())
LOGGERS = {"log", "logger"}
HELPERS = {"log", "report_error", "_log_once"}
SHORTEST = 12  # characters of a text that can be looked for


def literal_parts(node: ast.expr) -> list[str]:
    """Return what is the same in each line that this expression gives."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value.removeprefix("uwsgi_waffle: ")
        for placeholder in ("%s", "%r", "%d", "%g"):
            text = text.replace(placeholder, "\0")
        return text.split("\0")
    if isinstance(node, ast.JoinedStr):
        texts = [literal_parts(part) for part in node.values if isinstance(part, ast.Constant)]
        return [part for parts in texts for part in parts]
    return []


def log_lines() -> Iterator[tuple[str, str]]:
    """Yield where each log line is written, and the longest part that is the same each time."""
    for path in sorted((ROOT / "uwsgi_waffle").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            if not (
                node.func.attr in HELPERS or (isinstance(owner, ast.Name) and owner.id in LOGGERS)
            ):
                continue
            parts = [part.strip(" .,:;()'`") for arg in node.args for part in literal_parts(arg)]
            longest = max(parts, key=len, default="")
            if len(longest) >= SHORTEST:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", longest


@pytest.mark.parametrize(
    ("place", "text"), [pytest.param(*line, id=line[0]) for line in log_lines()]
)
def test_each_log_line_is_explained(place: str, text: str) -> None:
    assert " ".join(text.split()) in PAGE, (
        f"docs/troubleshooting.md doesn't explain {place}: {text}"
    )


@pytest.mark.parametrize(
    "error",
    [
        name
        for name, found in vars(uwsgi_waffle).items()
        if isinstance(found, type) and issubclass(found, WaffleError)
    ],
)
def test_each_error_is_explained(error: str) -> None:
    assert f"`{error}`" in PAGE
