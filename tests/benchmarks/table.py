"""Rows of figures: medians and quartiles, and the ratio to what they are compared with in the same
run.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

UNITS = {
    "time": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((2.0**20, "MiB"), (2.0**10, "KiB")),
    "number": ((1.0, ""),),
}
ROW = "{:<72} {:>11} {:>22} {:>24}  {}"


@dataclass(frozen=True)
class Row:
    """One thing measured, round by round, and what it is compared with."""

    name: str
    samples: Sequence[float]
    beside: Sequence[float] | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round where both were measured in each, else of each sample to the
        other's median.
        """
        if not self.beside:
            return []
        others = (
            self.beside
            if len(self.beside) == len(self.samples)
            else [statistics.median(self.beside)] * len(self.samples)
        )
        return [mine / other for mine, other in zip(self.samples, others, strict=True) if other]


@dataclass
class Table:
    """Rows that were measured side by side."""

    title: str
    rows: list[Row] = field(default_factory=list)
    unit: str = "time"
    left_out: Sequence[str] = ()
    charted: bool = False

    def shown(self, value: float, digits: int = 3) -> str:
        """Return a value in the unit that suits it."""
        scale, name = next(
            (unit for unit in UNITS[self.unit] if abs(value) >= unit[0] * 0.9999),
            UNITS[self.unit][-1],
        )
        scaled = value / scale
        places = max(0, digits - len(str(int(scaled)))) if digits else 0
        return f"{scaled:.{places}f} {name}".strip()

    def __str__(self) -> str:
        lines = [self.title, ROW.format("", "median", "quartiles", "ratio (quartiles)", "")]
        for row in self.rows:
            low, high = quartiles(row.samples)
            ratio = (
                "{:.2f} ({:.2f} to {:.2f})".format(
                    statistics.median(row.ratios), *quartiles(row.ratios)
                )
                if row.ratios
                else ""
            )
            spread = f"{self.shown(low)} to {self.shown(high)}"
            lines.append(
                ROW.format(row.name, self.shown(row.median), spread, ratio, row.note).rstrip()
            )
        lines += [f"left out: {name}; pip install '.[test,bench]'" for name in self.left_out]
        return "\n".join([*lines, ""])


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high
