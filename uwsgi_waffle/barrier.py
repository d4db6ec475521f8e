"""Wait until an update is applied: by the processes of this host, then by those of all hosts."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from time import monotonic

from .errors import WaffleError
from .host import UNKNOWN, Host, ProcessInfo
from .served import Served
from .sync import Sync
from .update import UpdateResult
from .wake import HostInfo, Listener, RollCall

__all__ = ["NO_CHANNEL", "Barrier"]

PAUSE = 0.002  # seconds between two looks at the other processes
NO_CHANNEL = (
    "There is no channel to other hosts: it needs WAFFLE_WATCHTYPE to be 'redis' or 'postgres', "
    "its driver, and WAFFLE_MULTIPROC not to be False."
)


class Barrier:
    """Waits for others of one application.

    Args:
        host: has the processes of this host.
        sync: how this process follows it.
        served: writes the log.
        listener: asks the other hosts, if there is a channel to them.
    """

    def __init__(self, host: Host, sync: Sync, served: Served, listener: Listener | None) -> None:
        self._host, self._sync, self._served, self._listener = host, sync, served, listener

    def check(self, wait: float | None, *, hosts: bool) -> None:
        """Check, before anything is written, that others can be waited for.

        Raises:
            TypeError: ``wait`` is no number.
            WaffleError: there is no way to wait for all hosts.
        """
        if wait is not None and not isinstance(wait, (int, float)):
            raise TypeError(f"wait= is a number of seconds, not {wait!r}. Nothing was changed.")
        if hosts and wait is None:
            raise WaffleError("hosts=True waits for all hosts: say with wait= for how long.")
        if hosts and self._listener is None:
            raise WaffleError(NO_CHANNEL)

    def wait_for(self, result: UpdateResult, wait: float, *, hosts: bool = False) -> UpdateResult:
        """Return the result of an update with who has applied it after ``wait`` seconds at most."""
        deadline = monotonic() + wait
        result = self._wait_here(result, deadline)
        if not hosts or self._listener is None:
            return result
        left = deadline - monotonic()
        found, pending = self._wait_for_hosts(self._listener, result.revision, left)
        return replace(result, hosts=found, pending_hosts=pending)

    def _wait_here(self, result: UpdateResult, deadline: float) -> UpdateResult:
        while True:
            newest = self._sync.sync()
            applied: list[ProcessInfo] = []
            pending: list[ProcessInfo] = []
            for process in self._host.processes:
                # A hook of this process may have called us: the others are called afterwards.
                ours = process.token == self._host.processes.token != ""
                same = process.snapshot == newest.id.hex()
                done = same or result.revision <= process.revision <= newest.revision
                (applied if done or ours else pending).append(process)
            if not pending or not monotonic() < deadline:
                self._warn_of_unknown(result.revision, pending)
                return replace(result, applied=tuple(applied), pending=tuple(pending))
            time.sleep(PAUSE)

    def _warn_of_unknown(self, revision: int, pending: list[ProcessInfo]) -> None:
        for error in {process.error for process in pending if process.kind == UNKNOWN}:
            text = f"revision {revision} is stored; who has applied it can't be seen: {error}"
            self._served.log(logging.WARNING, text)

    def _wait_for_hosts(
        self, listener: Listener, revision: int, seconds: float
    ) -> tuple[tuple[HostInfo, ...], tuple[str, ...]]:
        """Return the hosts that have answered, and what isn't done there."""

        def pending(call: RollCall) -> list[str]:
            own, status = self._host.notes().host_id, listener.status()
            found = [
                f"{host.name}: {', '.join((*host.behind, *host.errors)) or 'not yet'}"
                for host in call.hosts
                if host.host_id != own and not self._is_done(host, revision)
            ]
            # This host's listener can't answer while it runs our caller.
            listens = status["listener"] is not None and not status["error"]
            busy = listens and all(host.host_id != own for host in call.hosts)
            if call.silent > busy:
                found.append(f"{call.silent - busy} of {call.subscribed} hosts: no answer")
            return found

        call = listener.ask_hosts(until=lambda call: not pending(call), seconds=seconds)
        found = pending(call)
        if call.error:
            found.append(f"other hosts: {call.error}")
        return call.hosts, tuple(found)

    def _is_done(self, host: HostInfo, revision: int) -> bool:
        if not host.processes:
            return not host.errors
        # A store that was restored goes back.
        return revision <= host.oldest <= self._sync.sync().revision
