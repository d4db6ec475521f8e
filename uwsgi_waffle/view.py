"""Which snapshot a reader sees: that of its block or its request, or else the newest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import has_request_context, request

from .overlay import Assigned, Held, enter, leave, open_blocks
from .snapshot import Snapshot
from .sync import Sync

__all__ = ["View"]

_numbers = itertools.count()

_current_request: Any = request._get_current_object  # type: ignore[attr-defined]  # it's public


class View:
    """What the code of one application reads.

    Args:
        sync: how this process follows its host.
        assigned: what tests have assigned in ``app.config``.
    """

    def __init__(self, sync: Sync, assigned: Assigned) -> None:
        self._sync, self._assigned = sync, assigned
        self._key = f"_uwsgi_waffle_{next(_numbers)}"

    def current(self) -> Snapshot:
        """Return the block's snapshot, or that of this request's first read, or the newest."""
        if open_blocks() or self._assigned.layers:
            return self._assigned.apply_to(self.without_overrides())
        try:
            snapshot: Snapshot = _current_request().__dict__[self._key]
        except (RuntimeError, KeyError):  # no request, or its first read
            return self.without_overrides()
        return snapshot

    def without_overrides(self) -> Snapshot:
        """Return the same without the values that tests have given to variables."""
        if (block := self._block()) is not None:
            return block.snapshot
        try:
            known = _current_request().__dict__
        except RuntimeError:  # no request
            return self._sync.current()
        if self._key not in known:
            known[self._key] = self._sync.current()
        snapshot: Snapshot = known[self._key]
        return snapshot

    def latest(self) -> Snapshot:
        """Return the newest snapshot, whatever the block or the request has."""
        return self._assigned.apply_to(self._sync.current())

    def read_before(self) -> Snapshot | None:
        """Return what the block or the request has read, ``None`` if nothing. Look at no file."""
        block = self._block()
        if block is not None:
            return block.snapshot
        if not has_request_context():
            return None
        noted: Snapshot | None = _current_request().__dict__.get(self._key)
        return noted

    def advance_request(self) -> Snapshot:
        """Let the present block and request, if there are any, go on with the newest snapshot."""
        snapshot = self._sync.current()
        block = self._block()
        if block is not None:
            block.snapshot = snapshot
        if has_request_context():
            _current_request().__dict__[self._key] = snapshot
        return snapshot

    @contextmanager
    def hold(self) -> Iterator[Snapshot]:
        """Let all reads in this block see one snapshot. An inner block is part of the outer one."""
        if self._block() is not None:
            yield self.current()
            return
        block = Held(self, self.without_overrides())
        enter(block)
        try:
            yield self.current()
        finally:
            leave(block)

    def _block(self) -> Held | None:
        for block in open_blocks():
            if isinstance(block, Held) and block.view is self and not block.closed:
                return block
        return None
