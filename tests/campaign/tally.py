"""What a part of the campaign has tried and found, for the table at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The parts that have run in this process, by name.
parts: dict[str, Tally] = {}

HEADING = (
    f"{'':<44} {'faults':>7} {'looks':>9} {'lost':>5} {'stale':>6} {'torn':>5} {'other':>6} "
    f"{'died':>5} {'slowest recovery':>17}"
)


@dataclass
class Tally:
    """Counts of one part; `said` has a line for each violation.

    Attributes:
        faults: what was done to it: kills, failing stores, damaged files, …
        looks: answers that were judged.
        lost: updates that had returned, or were committed, and aren't in the store, or aren't
            served.
        stale: looks that began after an update had returned and showed an older revision, or one
            that was never committed.
        torn: looks that showed values of two revisions.
        other: whatever else was wrong.
        died: processes that ended and that nobody had killed.
        slowest: seconds until all processes agreed again after a fault; ``None`` where no time
            passes.
    """

    part: str
    faults: int = 0
    looks: int = 0
    lost: int = 0
    stale: int = 0
    torn: int = 0
    other: int = 0
    died: int = 0
    slowest: float | None = None
    said: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, part: str) -> Tally:
        """Return the part's tally, a new one if it has none yet."""
        return parts.setdefault(part, cls(part))

    def wrong(self, what: str, text: str) -> None:
        """Count a violation: ``lost``, ``stale``, ``torn``, ``other`` or ``died``."""
        setattr(self, what, getattr(self, what) + 1)
        self.said.append(f"{what}: {text}")

    def recovered(self, seconds: float) -> None:
        """Note how long it took until all agreed."""
        self.slowest = max(seconds, self.slowest or 0.0)

    def verdict(self) -> None:
        """Raise if there was any violation."""
        assert not self.said, f"{len(self.said)} violations:\n" + "\n".join(self.said[:10])

    def __str__(self) -> str:
        slowest = "-" if self.slowest is None else f"{self.slowest:.2f} s"
        numbers = f"{self.lost:>5} {self.stale:>6} {self.torn:>5} {self.other:>6} {self.died:>5}"
        return f"{self.part:<44} {self.faults:>7} {self.looks:>9} {numbers} {slowest:>17}"
