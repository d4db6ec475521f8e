"""Measure on this machine, beside others that are installed: ``python -m tests.benchmarks [PART
…]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import footprint, growth, hello, hosts, propagation, reading, updating, woken
from .chart import drawn
from .lab import lab

PARTS = {
    "propagation": (propagation.measure, 20),
    "woken": (woken.measure, 200),
    "hosts": (hosts.measure, 100),
    "reading": (reading.measure, 20),
    "hello": (hello.measure, 10),
    "updating": (updating.measure, 50),
    "growth": (growth.measure, 40),
    "footprint": (footprint.measure, 10),
}


def main() -> None:
    """Run the parts that are asked for, print their tables, and draw what is worth it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all if there is none"
    )
    parser.add_argument(
        "--rounds", type=int, help="how often each is measured; each part has a default of its own"
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="only the smallest sizes and what is quick, to see that it runs",
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="write a chart as SVG")
    asked = parser.parse_args()
    unknown = sorted(set(asked.parts) - PARTS.keys())
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    tables = []
    for name in asked.parts or PARTS:
        measure, rounds = PARTS[name]
        with lab(asked.rounds or rounds, asked.small) as opened:
            for table in measure(opened):
                print(table, flush=True)
                tables.append(table)
    if asked.chart:
        asked.chart.write_text(drawn(tables))


if __name__ == "__main__":
    main()
