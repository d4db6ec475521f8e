"""Which snapshot a reader sees: that of its block or its request, or else the newest."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import has_request_context, request

from .overlay import Assigned, Held, enter, leave, open_blocks
from .schema import Schema
from .snapshot import Snapshot
from .sync import Sync

__all__ = ["View"]

_numbers = itertools.count()

#: Returns this request's context. flask's proxy, which does that too, takes three times as long.
_context: Any = request.__wrapped__.get  # type: ignore[attr-defined]  # as of werkzeug's proxies


class View:
    """What the code of one application reads.

    Args:
        sync: how this process follows its host.
        assigned: what tests have assigned in ``app.config``.
        schema: the declared variables.
    """

    def __init__(self, sync: Sync, assigned: Assigned, schema: Schema) -> None:
        self._sync, self._assigned, self._schema = sync, assigned, schema
        self._key = f"_uwsgi_waffle_{next(_numbers)}"

    def read(self, name: str) -> Any:
        """Return a variable of `current`.

        Raises:
            KeyError: it isn't declared.
        """
        try:
            if not (open_blocks() or self._assigned.layers):
                return _context().request.__dict__[self._key].values.__dict__[name]
        except (LookupError, RuntimeError):
            pass  # no request, its first read, or no such variable
        if name not in self._schema.variables:
            raise KeyError(name)
        return self.current().values.__dict__[name]

    def current(self) -> Snapshot:
        """Return the block's snapshot, or that of this request's first read, or the newest."""
        if open_blocks() or self._assigned.layers:
            return self._assigned.apply_to(self.without_overrides())
        return self._of_request()

    def without_overrides(self) -> Snapshot:
        """Return the same without the values that tests have given to variables."""
        block = self._block()
        return self._of_request() if block is None else block.snapshot

    def _of_request(self) -> Snapshot:
        try:
            known = _context().request.__dict__
        except (LookupError, RuntimeError):  # no request
            return self._sync.latest()
        snapshot: Snapshot | None = known.get(self._key)
        if snapshot is None:
            snapshot = known.setdefault(self._key, self._sync.latest())  # threads may share it
        return snapshot

    def latest(self) -> Snapshot:
        """Return the newest snapshot, whatever the block or the request has."""
        return self._assigned.apply_to(self._sync.latest())

    def read_before(self) -> Snapshot | None:
        """Return what the block or the request has read, ``None`` if nothing. Look at no file."""
        block = self._block()
        if block is not None:
            return block.snapshot
        if not has_request_context():
            return None
        noted: Snapshot | None = _context().request.__dict__.get(self._key)
        return noted

    def advance_request(self) -> None:
        """Let the present block and request, if there are any, go on with the newest snapshot."""
        snapshot = self._sync.latest()
        block = self._block()
        if block is not None:
            block.snapshot = snapshot
        if has_request_context():
            _context().request.__dict__[self._key] = snapshot

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
