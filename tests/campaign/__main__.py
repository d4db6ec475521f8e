"""Run the fault campaign and print its table: ``python -m tests.campaign``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from . import fuzz


def main() -> int:
    """Run all parts, or fuzz."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60, help="of the long run (default: 60; by hand 1200)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="of the long run: which faults, in which order (default: 1)",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="as pytest does it: fewer examples, not both sides of each step",
    )
    commands = parser.add_subparsers(dest="command")
    fuzzing = commands.add_parser(
        "fuzz", help="fuzz what reads foreign bytes, with atheris; the findings stay in the corpus"
    )
    fuzzing.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    if options.command == "fuzz":
        return fuzz.run(options.minutes)
    os.environ.update(CAMPAIGN_SECONDS=str(options.seconds), CAMPAIGN_SEED=str(options.seed))
    if not options.short:
        os.environ["CAMPAIGN_DEEP"] = "1"
    arguments = ["-q", "--show-capture=no", "--thorough", "-o", "timeout=0"]
    return int(pytest.main([*arguments, str(Path(__file__).parent)]))


if __name__ == "__main__":
    sys.exit(main())
