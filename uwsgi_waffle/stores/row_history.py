"""The history of a `RowStore`, which is kept in one row."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from .contract import HistoryRow

__all__ = ["HISTORY_ROWS", "RowHistory"]

log = logging.getLogger("uwsgi_waffle")

HISTORY_ROWS = 100


@dataclass(frozen=True)
class RowHistory:
    """The history as one row keeps it: changes, oldest first, and the revision before them."""

    since: int
    rows: list[HistoryRow]

    @classmethod
    def parse(cls, text: str | None, revision: int) -> RowHistory:
        """Read what `to_json` wrote.

        Anything else than a history that leads to ``revision`` is read as an empty one.
        """
        try:
            fields = json.loads(text or "")
            history = cls(int(fields["since"]), [*map(HistoryRow.from_fields, fields["rows"])])
            if all(row.revision <= revision for row in history.rows):
                return history
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            if text:
                log.warning(
                    "uwsgi_waffle: the row WAFFLE_HISTORY can't be read (%s); it starts anew",
                    type(error).__name__,
                )
        return cls(revision, [])

    def to_json(self, max_length: int) -> str:
        """Write as many of the newest changes as are kept and fit."""
        newest = [row.to_json() for row in self.rows[: -HISTORY_ROWS - 1 : -1]]
        frame = '{{"since":{},"rows":[{}]}}'
        room = max_length - len(frame.format(2**63, ""))
        lengths = accumulate(len(text) + 1 for text in newest)
        kept = sum(length <= room for length in lengths)
        since = self.since if kept == len(self.rows) else self.rows[-kept - 1].revision
        return frame.format(since, ",".join(reversed(newest[:kept])))

    def undo(self, values: Mapping[str, str], revision: int) -> dict[str, str]:
        """Return what ``values`` were at an earlier revision."""
        texts: dict[str, str | None] = dict(values)
        texts.update({row.key: row.old for row in reversed(self.rows) if row.revision > revision})
        return {key: text for key, text in texts.items() if text is not None}
