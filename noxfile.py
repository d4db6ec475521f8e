"""What is run on the checkout: ``nox --list`` tells, ``nox -s NAME`` runs it."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "test", "docs"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# For later Pythons the lowest versions have no wheels.
MATRIX = [*((python, "newest") for python in PYTHONS), (PYTHONS[0], "lowest")]


@nox.session
def test(session: nox.Session) -> None:
    """Run the fast suite, as the README does."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def thorough(session: nox.Session) -> None:
    """Run every test; CI does."""
    session.install(".[test]")
    session.run("pytest", "--thorough", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Say which lines and branches the unit tests don't reach."""
    session.install(".[test]")
    session.run("coverage", "run", "-m", "pytest", "--thorough", "tests/unit", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--show-missing")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    session.install(".[test,dev]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, without a warning, and do what they say."""
    session.install(".[test,docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "build/docs")
    session.run("pytest", "tests/docs", "tests/live/test_readme.py", *session.posargs)


@nox.session
def pictures(session: nox.Session) -> None:
    """Make the pictures in docs/images again, from the running program."""
    session.install(".[test,uwsgi,admin,docs]")
    session.run("python", "-m", "docs.pictures", *session.posargs)


@nox.session
def campaign(session: nox.Session) -> None:
    """Break things on purpose; ``-- --seconds 1200 --seed 7`` for longer."""
    session.install(".[test,fuzz]")
    session.run("python", "-m", "tests.campaign", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure; ``-- --chart FILE`` draws the chart."""
    session.install(".[test,bench]")
    session.run("python", "-m", "tests.benchmarks", *session.posargs)


@nox.session
@nox.parametrize("python,versions", MATRIX)
def matrix(session: nox.Session, versions: str) -> None:
    """Run the fast suite on each Python, and with the lowest versions that setup.cfg allows."""
    if versions == "newest":
        session.install(".[test]")
        session.run("pytest", *session.posargs)
        return
    constraints = Path(session.virtualenv.location) / "lowest.txt"
    constraints.write_text("".join(f"{line}\n" for line in lowest_versions()))
    session.install(".[test]", "--constraint", str(constraints))
    session.run("pytest", *session.posargs)


def lowest_versions() -> list[str]:
    """Return what the package and its extra ``test`` need, each in the lowest version allowed."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = f"{setup['options']['install_requires']}\n{setup['options.extras_require']['test']}"
    return [
        f"{name}=={version}"
        for name, version in re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)$", lines, re.MULTILINE)
    ]
