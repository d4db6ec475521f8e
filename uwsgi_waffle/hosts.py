"""The channel between hosts that an application uses: over its store, or a server of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable

from . import wake
from .host import HostFiles
from .settings import Watching
from .stores import Store

__all__ = ["notify_on_commit", "open_listener"]

log = logging.getLogger("uwsgi_waffle")


def notify_on_commit(
    store: Store, host: HostFiles, watching: Watching, own_url: str
) -> tuple[Store, Watching]:
    """If commits are to notify the other hosts, have the store do so.

    Args:
        store: where the values are.
        host: whose id the messages carry.
        watching: the settings.
        own_url: ``WAFFLE_STORE_URL``, if the store was made of that.

    Raises:
        SchemaError: the store can't notify them.
    """
    if watching.watchtype != "postgres":
        return store, watching
    store = store.notifying(watching.channel_name, lambda: str(host.notes().host_id))
    return store, watching.beside_store(own_url or store.libpq_url)


def open_listener(
    host: HostFiles, watching: Watching, is_needed: Callable[[], bool]
) -> wake.Listener | None:
    """Return what talks to the other hosts, if that is wanted and can be.

    Args:
        host: the files of this host.
        watching: the settings.
        is_needed: called now and then; whether this process still may listen.
    """
    watchtype = watching.watchtype
    if watchtype not in wake.CHANNELS:
        return None
    try:
        channel = wake.open_channel(watchtype, watching.channel_url, watching.channel_name)
    except ImportError:
        log.warning(
            "uwsgi_waffle: WAFFLE_WATCHTYPE is %r and %s, so hosts don't tell each other of "
            "changes. %s",
            *(watchtype, *wake.CHANNELS[watchtype].missing()),
        )
        return None
    return wake.Listener(host, channel, is_needed=is_needed)
