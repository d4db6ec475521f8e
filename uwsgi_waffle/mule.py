"""The uWSGI mule that listens for other hosts; in uwsgi.ini: ``mule = uwsgi_waffle.mule``.

uWSGI imports nothing for that line; it starts a bare mule, and the package's hook runs in it. In
prefork mode the
application is there, too, and brings the listener along. Under ``lazy-apps`` it isn't, and the mule
asks the environment.
"""

from __future__ import annotations

import logging
import threading
import time

from . import server
from .bridge import STAND_AGAIN, Bridge
from .config import Watching
from .errors import SchemaError
from .hostfiles import HostFiles

__all__ = ["born", "run"]

log = logging.getLogger("uwsgi_waffle")


def born() -> None:
    """In a mule that has no application: listen to what the environment names."""
    if not (server.kind() or "").startswith("mule") or server.members():
        return
    watching = Watching.from_environment()
    if watching is not None:
        threading.Thread(
            target=_stand, args=(watching,), name="uwsgi_waffle candidate", daemon=True
        ).start()
    elif server.is_our_mule():
        log.warning(
            "uwsgi_waffle: this mule has no application (lazy-apps), so it doesn't know where "
            "to listen; a worker does instead. "
            "Add to the ini: env = WAFFLE_WATCHTYPE=redis, env = WAFFLE_WATCHER_FILE=<an "
            "absolute path>, and WAFFLE_REDIS_* likewise."
        )


def run() -> None:
    """Be the mule's program: ``mule = uwsgi_waffle.mule:run``. The listener is there already; this
    handles uWSGI's signals.
    """
    server.serve_as_mule()


def _stand(watching: Watching) -> None:
    server.leave_signals_to_the_main_thread()
    try:
        bridge = Bridge(
            HostFiles(watching.watcher_file),
            server.Channel(watching.redis_url, watching.redis_channel),
            needed=lambda: True,
        )
    except (SchemaError, ImportError) as error:
        log.error(
            "uwsgi_waffle: the mule can't listen for other hosts: %s. Is redis-py there? pip "
            "install 'uwsgi_waffle[redis]'",
            error,
        )
        return
    while True:
        bridge.stand()
        time.sleep(STAND_AGAIN)
