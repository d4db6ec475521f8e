"""A store in the memory of one process, for tests."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import datetime, timezone

from .contract import CommitBuilder, HistoryRow, Store, Stored

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Keeps values in memory: not shared with other processes, gone when this one ends.

    An application sees what another one has changed in the same object at its next `refresh`.
    """

    shared = False

    def __init__(self) -> None:
        self._stored = Stored(0, {})
        self._history: list[HistoryRow] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return "memory"

    @property
    def identity(self) -> str:
        return "memory:"

    def prepare(self) -> None:
        """Do nothing: memory is always ready."""

    def load(self) -> Stored:
        return self._stored

    def transact(self, build_commit: CommitBuilder) -> Stored:
        with self._lock:
            commit = build_commit(self._stored)
            if commit is not None:
                self._history.extend(commit.rows(self._stored, datetime.now(timezone.utc)))
                self._stored = self._stored.with_commit(commit)
            return self._stored

    def history(
        self, limit: int, key: str | None = None, *, max_length: int | None = None
    ) -> list[HistoryRow]:
        rows = [row for row in reversed(self._history) if key is None or row.key == key]
        return [row.cut(max_length) for row in rows[: max(0, limit)]]

    def values_at(self, revision: int) -> Mapping[str, str]:
        self._stored.check_revision(revision)
        texts = {row.key: row.new for row in self._history if row.revision <= revision}
        return {key: text for key, text in texts.items() if text is not None}
