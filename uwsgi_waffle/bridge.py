"""Between this host's files and the Redis channel: one process of a host listens for all of it."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

from . import server
from .hostfiles import HostFiles
from .server import Channel, ChannelDown

__all__ = ["Bridge"]

log = logging.getLogger("uwsgi_waffle")

FIRST_PAUSE, LAST_PAUSE = 0.05, 2.0  # seconds between two attempts to reach Redis
STAND_AGAIN = 0.5  # seconds between two candidatures
SLOW, SILENCE = (
    0.2,
    2.0,
)  # after an attempt to publish that took longer than the first, none for the second; in seconds
CONSEQUENCE = "Until that is mended, changes reach other hosts, and theirs this one, after WAFFLE_RECONCILE_INTERVAL only"


class Bridge:
    """Rings this host's bell when another host has changed something, and tells the other hosts of
    this one's changes.

    Args:
        host: the files that this host's processes share.
        channel: where hosts talk.
        needed: asked now and then whether this process still wants to listen.
    """

    def __init__(self, host: HostFiles, channel: Channel, *, needed: Callable[[], bool]) -> None:
        self._host, self._channel, self._needed = host, channel, needed
        self._listening_in = 0  # the pid of the process in which the thread was started
        self._stand_at = self._publish_at = 0.0
        self._untold = b""  # what other hosts had not been told at the listener's last turn
        self._told = ""  # what this process has logged last, so that it isn't logged again

    def stand(self) -> None:
        """Stand for election: if no process of the host listens, this one does, in a thread.

        When the listener dies the kernel frees its lock, and the next one that stands is elected.
        """
        if self._listening_in == os.getpid() or monotonic() < self._stand_at:
            return
        self._stand_at = monotonic() + STAND_AGAIN
        try:
            elected = self._host.elect()
        except OSError as error:  # the folder can't be used now
            self._tell_once(f"can't use the folder: {error}")
            return
        if elected and self._listening_in != os.getpid():
            self._listening_in = os.getpid()
            threading.Thread(target=self._listen, name="uwsgi_waffle listener", daemon=True).start()

    def publish(self) -> None:
        """Tell the other hosts that the store has something new. Never raises: what couldn't be
        sent is sent later.
        """
        began = monotonic()
        if began < self._publish_at:
            return
        try:
            untold, listener = self._host.untold(), self._host.listener()
            try:
                self._channel.publish(listener.number)
            except ChannelDown as error:
                if monotonic() - began > SLOW:
                    self._publish_at = monotonic() + SILENCE
                self._host.note_trouble(telling=str(error))
                if not (listener.telling or listener.listening):
                    self._tell(str(error))
                return
            self._host.note_told(untold)
            if listener.telling:
                self._host.note_trouble(telling="")
        except Exception as error:  # whatever it is: the update is in the store
            self._tell_once(f"{type(error).__name__}: {error}", error)

    def status(self) -> dict[str, Any]:
        """Return the channel's name, the pid of the host's listener (``None``: there is none), and
        what is wrong with Redis.
        """
        listener = self._host.listener()
        return {
            "channel": self._channel.name,
            "listener": listener.pid or None,
            "error": listener.listening or listener.telling,
        }

    def _listen(self) -> None:
        server.leave_signals_to_the_main_thread()
        pause = FIRST_PAUSE
        try:
            while True:
                began = monotonic()
                try:
                    if not self._goes_on():
                        break
                    if self._listens():
                        continue
                except Exception as error:  # whatever it is: it is tried again
                    self._tell_once(f"{type(error).__name__}: {error}", error)
                pause = (
                    FIRST_PAUSE if monotonic() - began > LAST_PAUSE else min(2 * pause, LAST_PAUSE)
                )
                time.sleep(pause * random.uniform(0.5, 1.0))
        finally:
            self._listening_in = 0
            self._host.resign()

    def _listens(self) -> bool:
        """Listen until this process is no longer the listener; ``False`` if Redis doesn't answer."""
        try:
            self._channel.listen(
                self._ring, sender=lambda: self._host.listener().number, go_on=self._goes_on
            )
        except ChannelDown as error:
            known = self._host.listener()
            self._host.note_trouble(listening=str(error))
            if not (known.listening or known.telling):
                self._tell(str(error))
            return False
        return True

    def _goes_on(self) -> bool:
        """Tell whether this process is the listener still; at this opportunity tell other hosts
        what they weren't told.
        """
        if not self._needed() or not self._host.elect():
            return False
        untold = self._host.untold()
        if (
            any(untold) and untold == self._untold
        ):  # since the last turn; a writer that lives has told it by now
            self.publish()
        self._untold = untold
        return True

    def _ring(self) -> None:
        """Say to all processes of this host that the store may have changed."""
        self._host.verify()
        self._told = ""
        if self._host.listener().listening:
            self._host.note_trouble(listening="")
            log.warning("uwsgi_waffle: Redis is back (pid %d)", os.getpid())
            self.publish()  # what this host has told meanwhile may be lost
        self._host.ring()
        self._host.knock()
        server.tick_here()

    def _tell_once(self, trouble: str, cause: Exception | None = None) -> None:
        """Log what nobody foresaw, unless this process has just done so."""
        if trouble != self._told:
            self._tell(trouble, cause)
        self._told = trouble

    def _tell(self, trouble: str, cause: Exception | None = None) -> None:
        log.error(
            "uwsgi_waffle: %s. %s (pid %d)",
            trouble.rstrip("."),
            CONSEQUENCE,
            os.getpid(),
            exc_info=cause,
        )
