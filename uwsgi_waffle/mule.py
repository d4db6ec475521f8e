"""The uWSGI mule that listens to other hosts; in uwsgi.ini: ``mule = uwsgi_waffle.mule``.

uWSGI imports nothing for that line. It starts a bare mule, and the package's hook runs in it. In
prefork mode the application is there, too, and brings the listener along. Under ``lazy-apps`` it
isn't, and the mule reads the environment.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from . import wake
from .errors import SchemaError
from .host import HostFiles
from .settings import Watching

__all__ = ["after_fork", "run"]

log = logging.getLogger("uwsgi_waffle")


def after_fork() -> None:
    """In a mule that has no application: listen to what the environment names."""
    if not (wake.process_name() or "").startswith("mule") or wake.watchers:
        return
    watching = Watching.from_environment()
    if watching is not None:
        wake.start_background("uwsgi_waffle candidate", partial(_lead, watching))
    elif wake.is_our_mule():
        log.warning(
            "uwsgi_waffle: this mule has no application (lazy-apps), so it doesn't know where to "
            "listen; a worker does instead. Add to the ini, as the application has them: "
            "env = WAFFLE_WATCHTYPE=..., env = WAFFLE_WATCHER_FILE=<an absolute path>, and what "
            "the watch type needs."
        )


def run() -> None:
    """Be the mule's program: ``mule = uwsgi_waffle.mule:run``. This handles uWSGI's signals.

    The listener is there already.
    """
    wake.serve_as_mule()


def _lead(watching: Watching) -> None:
    try:
        listener = wake.open_listener(
            HostFiles(watching.watcher_file),
            watching.watchtype,
            watching.channel_url,
            watching.channel_name,
            is_needed=lambda: True,
        )
    except SchemaError as error:
        log.error("uwsgi_waffle: the mule can't listen to other hosts: %s", error)
        return
    if listener is None:  # without the channel's driver, which is logged
        return
    while True:
        listener.try_to_lead()
        time.sleep(wake.ELECTION_INTERVAL)
