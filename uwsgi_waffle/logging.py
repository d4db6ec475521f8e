"""The revision in log lines: `RevisionFilter`."""

from __future__ import annotations

import logging

from .errors import WaffleError
from .extension import WaffleConf

__all__ = ["RevisionFilter"]


class RevisionFilter(logging.Filter):
    """Sets ``record.waffle_revision``: the revision that the code which logs has read.

    In a request or a block that has read no variable, and outside of both, it is the one that this
    process serves; ``None`` without an application, or where there are several and none is active.
    It looks at no file and at no store, and never raises.

    Args:
        waffle: the application's extension.

    Example:
        >>> import logging, sys
        >>> from flask import Flask
        >>> from uwsgi_waffle import MemoryStore, WaffleConf
        >>> from uwsgi_waffle.logging import RevisionFilter
        >>> app = Flask(__name__)
        >>> app.config["WAFFLE_CONFS"] = {"SITENAME": {"default": "Waffle"}}
        >>> waffle = WaffleConf(app, MemoryStore())
        >>> handler = logging.StreamHandler(sys.stdout)
        >>> handler.addFilter(RevisionFilter(waffle))
        >>> handler.setFormatter(logging.Formatter("[%(waffle_revision)s] %(message)s"))
        >>> log = logging.getLogger("shop")
        >>> log.addHandler(handler)
        >>> result = waffle.update({"SITENAME": "New"})
        >>> log.warning("sold out")
        [1] sold out
    """

    def __init__(self, waffle: WaffleConf) -> None:
        super().__init__()
        self._waffle = waffle

    def filter(self, record: logging.LogRecord) -> bool:
        """Let each record pass."""
        record.waffle_revision = self.revision()
        return True

    def revision(self) -> int | None:
        """Return the revision, for traces and error reports."""
        try:
            state = self._waffle.state
        except WaffleError:
            return None
        return (state.view.read_before() or state.served.current.snapshot).revision
