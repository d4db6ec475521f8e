"""Rows of figures: medians and spread, and the ratio to what they are compared with in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms"


def nanoseconds(seconds: float) -> str:
    return f"{seconds * 1e9:.0f} ns"


@dataclass
class Row:
    """One thing measured, and what it is compared with."""

    name: str
    samples: Sequence[float]
    unit: Callable[[float], str]
    beside: Sequence[float] | None = None

    def __str__(self) -> str:
        ordered = sorted(self.samples)
        median, last = statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))]
        ratio = f"{median / statistics.median(self.beside):.2f}" if self.beside else ""
        return f"{self.name:<80} {self.unit(median):>12} {self.unit(ordered[0]):>12} {self.unit(last):>12} {ratio:>6}"


HEADING = f"{'':<80} {'median':>12} {'least':>12} {'p99':>12} {'ratio':>6}"
