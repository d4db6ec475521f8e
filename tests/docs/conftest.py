"""What pages set in this process doesn't last."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

LOGGERS = ("", "uwsgi_waffle", "uwsgi_waffle.audit")


@pytest.fixture(autouse=True)
def nothing_lasts() -> Iterator[None]:
    environ, loggers = dict(os.environ), [logging.getLogger(name) for name in LOGGERS]
    before = [(each.level, each.propagate, [*each.handlers]) for each in loggers]
    yield
    os.environ.clear()
    os.environ.update(environ)
    for each, (level, propagate, handlers) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.propagate, each.handlers = propagate, handlers
