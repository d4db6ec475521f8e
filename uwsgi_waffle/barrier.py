"""Wait until every process of every host that listens has applied an update."""

from __future__ import annotations

from collections.abc import Callable

from .host import Notes
from .snapshot import Snapshot
from .wake import HostInfo, Listener, RollCall

__all__ = ["NO_CHANNEL", "Barrier"]

NO_CHANNEL = (
    "There is no channel to other hosts: it needs WAFFLE_WATCHTYPE to be 'redis' or 'postgres', "
    "its driver, and WAFFLE_MULTIPROC not to be False."
)


class Barrier:
    """Asks the hosts until they are done.

    Args:
        listener: asks.
        notes: returns the notes of this host, whose own processes are waited for elsewhere.
        newest: returns the newest snapshot that this process knows.
    """

    def __init__(
        self, listener: Listener, notes: Callable[[], Notes], newest: Callable[[], Snapshot]
    ) -> None:
        self._listener, self._notes, self._newest = listener, notes, newest

    def wait_for(
        self, revision: int, seconds: float
    ) -> tuple[tuple[HostInfo, ...], tuple[str, ...]]:
        """Return the hosts that have answered, and what isn't done after ``seconds``."""
        call = self._listener.ask_hosts(
            until=lambda call: not self._pending(call, revision), seconds=seconds
        )
        found = self._pending(call, revision)
        if call.error:
            found.append(f"other hosts: {call.error}")
        return call.hosts, tuple(found)

    def _pending(self, call: RollCall, revision: int) -> list[str]:
        found = [
            f"{host.name}: {', '.join((*host.behind, *host.errors)) or 'not yet'}"
            for host in call.hosts
            if not self._is_done(host, revision)
        ]
        silent = call.silent - self._is_busy(call)
        if silent > 0:
            found.append(f"{silent} of {call.subscribed} hosts: no answer")
        return found

    def _is_busy(self, call: RollCall) -> bool:
        """Return whether this host listens and hasn't answered: its listener may run our caller."""
        own = self._notes().host_id
        answered = any(host.host_id == own for host in call.hosts)
        status = self._listener.status()
        return not answered and status["listener"] is not None and not status["error"]

    def _is_done(self, host: HostInfo, revision: int) -> bool:
        if host.host_id == self._notes().host_id:
            return True
        if not host.processes:
            return not host.errors
        # A store that was restored goes back.
        return revision <= host.oldest <= self._newest().revision
