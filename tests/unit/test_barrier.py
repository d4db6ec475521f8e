"""Which hosts count as done when an update waits for all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import BaseModel

from uwsgi_waffle.barrier import Barrier
from uwsgi_waffle.host import UNKNOWN, Notes, ProcessInfo
from uwsgi_waffle.snapshot import Snapshot
from uwsgi_waffle.update import UpdateResult
from uwsgi_waffle.wake import HostInfo, Listener, RollCall

OWN, OTHER = 1, 2


class Empty(BaseModel):
    """The values of nobody."""


class Processes(list[ProcessInfo]):
    """Those of a host, seen by one that has no file there."""

    token = ""


class Asked:
    """A listener that gets these answers; such hosts can't be had when one wants them."""

    def __init__(self, call: RollCall, error: str = "") -> None:
        self._call, self._error = call, error

    def ask_hosts(self, **_: Any) -> RollCall:
        return self._call

    def status(self) -> dict[str, Any]:
        return {"listener": 4711, "error": self._error}


def pending(asked: Asked) -> tuple[str, ...]:
    host = SimpleNamespace(notes=lambda: Notes(host_id=OWN), processes=())
    sync = SimpleNamespace(sync=lambda: Snapshot(7, b"", Empty()))
    barrier = Barrier(cast(Any, host), cast(Any, sync), cast(Any, None), cast(Listener, asked))
    return barrier.wait_for(UpdateResult(7, ()), 0, hosts=True).pending_hosts


def host(**facts: Any) -> HostInfo:
    return HostInfo(**{"name": "web2", "host_id": OTHER, "processes": 1, "oldest": 7, **facts})


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (host(), ()),
        (host(oldest=6, behind=("worker 3 (pid 41)",)), ("web2: worker 3 (pid 41)",)),
        (host(processes=0), ()),
        (host(processes=0, host_id=0, errors=("no header",)), ("web2: no header",)),
    ],
)
def test_a_host_is_done_if_nothing_lags_or_is_wrong_there(
    other: HostInfo, found: tuple[str, ...]
) -> None:
    own = HostInfo(name="web1", host_id=OWN)
    assert pending(Asked(RollCall((own, other), subscribed=2))) == found


def test_what_cannot_be_seen_is_pending_also_for_a_process_without_a_file() -> None:
    """Nobody knows whether there are others who haven't applied it."""
    unseen = ProcessInfo(0, UNKNOWN, error="no free descriptor")
    host = SimpleNamespace(processes=Processes([unseen]))
    sync = SimpleNamespace(sync=lambda: Snapshot(7, b"snapshot", Empty()))
    served = SimpleNamespace(log=lambda *_: None)
    barrier = Barrier(cast(Any, host), cast(Any, sync), cast(Any, served), None)
    result = barrier.wait_for(UpdateResult(7, ()), 0)
    assert (result.applied, result.pending) == ((), (unseen,))


@pytest.mark.parametrize(("error", "found"), [("", ()), ("lost", ("1 of 2 hosts: no answer",))])
def test_only_this_hosts_own_answer_may_be_missing(error: str, found: tuple[str, ...]) -> None:
    """Its listener may be busy with our caller; without a connection it isn't counted."""
    assert pending(Asked(RollCall((host(),), subscribed=2), error)) == found
