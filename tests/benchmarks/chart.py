"""A chart of tables as SVG: a dot for each median, a line between the quartiles, on a logarithmic
scale.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from html import escape

from .table import Row, Table, quartiles

OURS = "uwsgi_waffle"
LABELS, PLOT, FIGURES, LINE = 400, 380, 180, 22  # pixels
WIDTH = LABELS + PLOT + FIGURES
KEY = (
    "Median and quartiles. The factor is that beside the line of the group that has none, "
    "taken round by round."
)
STYLE = """
svg { --ground: #ffffff; --ink: #1f2328; --faint: #d0d7de; --theirs: #59636e; --ours: #0969da; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --ink: #f0f6fc; --faint: #3d444d; --theirs: #9198a1; --ours: #4493f8; }
}
text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.title { font-weight: 600; font-size: 14px; }
.small { font-size: 11px; fill: var(--theirs); }
.ground { fill: var(--ground); }
.grid { stroke: var(--faint); }
.theirs { fill: var(--theirs); stroke: var(--theirs); }
.ours { fill: var(--ours); stroke: var(--ours); }
.spread { stroke-width: 4; stroke-opacity: 0.4; stroke-linecap: round; }
"""


def drawn(tables: Sequence[Table]) -> str:
    """Return the chart of those tables that are worth one."""
    top, parts = 12, []
    for table in tables:
        if table.charted:
            parts += list(panel(table, top))
            top += LINE * (len(table.rows) + 2) + 16
    parts.append(f'<text class="small" x="16" y="{top + 8}">{KEY}</text>')
    top += 24
    size = f'viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    about = f"<title>{escape('; '.join(table.title for table in tables if table.charted))}</title>"
    ground = f'<rect class="ground" width="{WIDTH}" height="{top}"/>'
    return "\n".join([head, about, f"<style>{STYLE}</style>", ground, *parts, "</svg>", ""])


def panel(table: Table, top: int) -> Iterator[str]:
    """Yield a table's title, scale and rows."""
    values = [value for row in table.rows for value in (row.median, *quartiles(row.samples))]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def x(value: float) -> float:
        return LABELS + 12 + (PLOT - 24) * (math.log10(value) - first) / max(1, last - first)

    yield f'<text class="title" x="16" y="{top + 16}">{escape(table.title)}</text>'
    bottom = top + LINE * (len(table.rows) + 1) + 4
    for power in range(first, last + 1):
        at, shown = f"{x(10.0**power):.1f}", escape(table.shown(10.0**power, 0))
        yield f'<line class="grid" x1="{at}" x2="{at}" y1="{top + LINE + 2}" y2="{bottom}"/>'
        place = f'x="{at}" y="{bottom + 13}" text-anchor="middle"'
        yield f'<text class="small" {place}>{shown}</text>'
    for number, row in enumerate(table.rows, 1):
        yield from line(table, row, top + LINE * number + 14, x)


def line(table: Table, row: Row, y: int, x: Callable[[float], float]) -> Iterator[str]:
    kind = "ours" if OURS in row.name else "theirs"
    low, high = (x(value) for value in quartiles(row.samples))
    ratio = (
        f"  \N{MULTIPLICATION SIGN}{figure(statistics.median(row.ratios))}" if row.ratios else ""
    )
    yield f'<text x="16" y="{y + 4}">{escape(row.name)}</text>'
    yield f'<line class="{kind} spread" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
    yield f'<circle class="{kind}" cx="{x(row.median):.1f}" cy="{y}" r="4"/>'
    place, shown = f'x="{LABELS + PLOT + 12}" y="{y + 4}"', escape(table.shown(row.median) + ratio)
    yield f'<text {place} xml:space="preserve">{shown}</text>'


def figure(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"
