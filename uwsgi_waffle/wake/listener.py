"""Between this host's files and the channel: one process of a host listens for all of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from random import SystemRandom
from time import monotonic
from typing import Any

from ..errors import error_text
from ..host import HostFiles, new_host_id
from .channel import CHANNELS, GAP, Channel, ChannelDown, listen, open_channel
from .roll_call import RollCall, ask_hosts, describe_host
from .thread import start_background, tick_in_thread

__all__ = ["ELECTION_INTERVAL", "Listener", "open_listener"]

log = logging.getLogger("uwsgi_waffle")

RETRY_PAUSE = 1.0  # seconds at most between two attempts to reach the server
ELECTION_INTERVAL = 0.5  # seconds between two attempts to become the host's listener
ANSWER_TIMEOUT, LEAST_TIMEOUT = 0.8, 0.2  # seconds that hosts have to answer a roll call
DOWN_HINT = (
    "Until {} responds, changes reach other hosts, and theirs this one, only after "
    "WAFFLE_RECONCILE_INTERVAL"
)


def open_listener(
    host: HostFiles, watchtype: str, url: str, name: str, *, is_needed: Callable[[], bool]
) -> Listener | None:
    """Return what talks to the other hosts over a channel; ``None`` without the channel's driver.

    Raises:
        SchemaError: the URL can't be used.
    """
    try:
        return Listener(host, open_channel(watchtype, url, name), is_needed=is_needed)
    except ImportError:
        log.warning(
            "uwsgi_waffle: WAFFLE_WATCHTYPE is %r and %s, so hosts don't tell each other of "
            "changes. %s",
            *(watchtype, *CHANNELS[watchtype].missing()),
        )
        return None


class Listener:
    """Invalidates this host when another one has news, and tells the others of this one's.

    Args:
        is_needed: called now and then; whether this process still may listen.
    """

    def __init__(self, host: HostFiles, channel: Channel, *, is_needed: Callable[[], bool]) -> None:
        self._host, self._channel, self._is_needed = host, channel, is_needed
        self._listener_pid = 0  # of the process in which the thread was started
        self._next_attempt = 0.0
        self._last_logged = ""

    def try_to_lead(self) -> None:
        """Start to listen, in a thread, if no process of the host does.

        When the listening process dies, the kernel frees its lock, and the next to try gets it.
        """
        if self._listener_pid == os.getpid() or monotonic() < self._next_attempt:
            return
        self._next_attempt = monotonic() + ELECTION_INTERVAL
        try:
            self._host.open()
            elected = self._host.listener_lock.acquire()
            if elected and not self._renew_host_id():
                self._host.listener_lock.release()
                return
        except OSError as error:
            self._log_once(str(error), hint="")
            return
        if elected and self._listener_pid != os.getpid():
            self._listener_pid = os.getpid()
            try:
                start_background("uwsgi_waffle listener", self._run)
            except RuntimeError as error:
                self._listener_pid = 0
                self._host.listener_lock.release()
                self._log_once(f"this process can't listen: {error}")

    def _renew_host_id(self) -> bool:
        """Take another id: the files may be a copy of another host's, whose messages we'd miss.

        Return whether that was possible.
        """
        with self._host.header.try_lock() as header:
            if header is not None:
                header.set_notes(host_id=new_host_id())
            return header is not None

    def notify_hosts(self) -> None:
        """Tell the other hosts that the store has something new. Never raise.

        What couldn't be sent reaches them after their reconcile interval.
        """
        try:
            self._channel.publish(self._host.notes().host_id)
            self._last_logged = ""
        except Exception as error:  # whatever it is, the update is stored
            text, cause = error_text(error)
            if cause is not None or not self._host.listener().get("error"):
                self._log_once(text, cause)

    def status(self) -> dict[str, Any]:
        """Return the channel, the pid of the host's listener (or ``None``), and what is wrong."""
        listener = self._host.listener()
        return {
            "channel": self._channel.name,
            "listener": listener.get("pid"),
            "error": listener.get("error", ""),
        }

    def ask_hosts(
        self,
        *,
        until: Callable[[RollCall], bool] = lambda _: True,
        seconds: float = ANSWER_TIMEOUT,
    ) -> RollCall:
        """Ask all hosts that listen to describe themselves. Never raise a `ChannelDown`.

        Args:
            until: returns whether the answers are as they should be.
            seconds: how long to ask again until they are. Ask once, at least.
        """
        deadline, call = monotonic() + seconds, RollCall()
        try:
            with self._channel.open(listen=False) as channel:
                while True:
                    left = max(LEAST_TIMEOUT, deadline - monotonic())
                    call = ask_hosts(channel, min(left, ANSWER_TIMEOUT))
                    if until(call) or monotonic() >= deadline:
                        return call
                    time.sleep(GAP)
        except ChannelDown as down:
            return replace(call, error=str(down))

    def _run(self) -> None:
        try:
            while self._should_continue():
                try:
                    for _ in listen(
                        self._channel,
                        own_id=lambda: self._host.notes().host_id,
                        should_continue=self._should_continue,
                        answer=lambda: describe_host(self._host),
                    ):
                        self._notify()
                except Exception as error:  # whatever it is, it is tried again
                    self._note_error(*error_text(error))
                    time.sleep(RETRY_PAUSE * SystemRandom().uniform(0.5, 1.0))
        finally:
            self._host.listener_lock.release()
            self._listener_pid = 0  # only now: the next tick may lead again

    def _should_continue(self) -> bool:
        return self._is_needed() and self._host.listener_lock.is_ours()

    def _note_error(self, error: str, cause: Exception | None) -> None:
        known = self._host.listener().get("error")
        if not known:  # else the same incident, whatever its words are now
            self._log_once(error, cause)
        self._host.listener_lock.write({"pid": os.getpid(), "error": error})

    def _notify(self) -> None:
        """Make all processes of this host look at the store; this one does so first."""
        self._last_logged = ""
        failed = self._host.listener().get("error")
        if failed:
            log.warning("uwsgi_waffle: %s is back (pid %d)", self._channel.server, os.getpid())
        self._host.listener_lock.write({"pid": os.getpid(), "error": ""})
        self._host.invalidate()
        if not tick_in_thread():  # a mule without the application can't read the store
            self._host.wake()
        if failed:
            self.notify_hosts()  # what this host has sent meanwhile may be lost

    def _log_once(
        self, error: str, cause: Exception | None = None, *, hint: str = DOWN_HINT
    ) -> None:
        if error != self._last_logged:
            text = f"{error.rstrip('.')}. {hint.format(self._channel.server)}".rstrip()
            log.error("uwsgi_waffle: %s (pid %d)", text, os.getpid(), exc_info=cause)
        self._last_logged = error
