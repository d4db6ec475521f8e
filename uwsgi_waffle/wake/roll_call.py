"""The roll call: each listener describes its host to whoever asks.

Nothing is stored, and no clock is compared.
"""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from time import monotonic

from pydantic import TypeAdapter

from ..host import HostFiles, snapshot_id_in
from .channel import ASK, OpenChannel

__all__ = ["HostInfo", "RollCall", "ask_hosts", "describe_host"]

LARGEST_ANSWER = 7500  # bytes; a payload of PostgreSQL's NOTIFY must have less than 8000
LONGEST_TEXT = 300  # characters of an error
LIST_SIZES = (100, 20, 5, 0)  # so many texts of a list are sent; fewer if the answer is too large


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One host that listens, as it describes itself.

    Attributes:
        name: its host name; with the watch file where several with that name have answered.
        revision: the newest revision that it has.
        processes: how many processes serve the variables there.
        oldest: the lowest revision that one of them serves.
        behind: those that serve another than its newest revision, such as ``worker 3 (pid 41)``.
        errors: what is wrong there.
        watch_file: its ``WAFFLE_WATCHER_FILE``.
        host_id: a random number, another one for each life of its listener.
    """

    name: str
    revision: int = 0
    processes: int = 0
    oldest: int = 0
    behind: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    watch_file: str = field(default="", repr=False)
    host_id: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True)
class RollCall:
    """What a roll call has found.

    Attributes:
        hosts: those that have answered in time, by name.
        subscribed: how many listen.
        error: why they couldn't be asked, ``""`` if they could.
    """

    hosts: tuple[HostInfo, ...] = ()
    subscribed: int = 0
    error: str = ""

    @property
    def silent(self) -> int:
        """How many listen and haven't answered."""
        return max(0, self.subscribed - len(self.hosts))


def ask_hosts(channel: OpenChannel, seconds: float) -> RollCall:
    """Ask who is there, and return when all listeners have answered or the time is up.

    Raises:
        ChannelDown: the connection is lost.
    """
    deadline, found = monotonic() + seconds, dict[int, HostInfo]()
    subscribed = channel.count_listeners()
    channel.send(ASK)
    while len(found) < subscribed and (left := deadline - monotonic()) > 0:
        for _, text in channel.receive(left):
            host = _parse(text)
            if host is not None:
                found[host.host_id] = host
    return RollCall(_with_distinct_names(list(found.values())), subscribed)


def describe_host(host: HostFiles) -> str:
    """Describe this host in fewer bytes than a message may have. Never raise an `OSError`."""
    info = HostInfo(socket.gethostname(), watch_file=str(host.watch_file))
    try:
        info = _look_around(host, info)
    except OSError as error:
        info = replace(info, errors=(f"the host's files can't be used: {error}",))
    for size in LIST_SIZES:
        behind, errors = _shortened(info.behind, size), _shortened(info.errors, size)
        text = json.dumps(asdict(replace(info, behind=behind, errors=errors)), ensure_ascii=False)
        if len(text.encode(errors="replace")) <= LARGEST_ANSWER:
            break
    return text.encode(errors="replace").decode()  # a path may hold what isn't UTF-8


def _look_around(host: HostFiles, info: HostInfo) -> HostInfo:
    while True:
        notes, newest = host.notes(), snapshot_id_in(host.words())
        published = host.snapshots.read(newest)
        if published is not None or snapshot_id_in(host.words()) == newest:
            break  # else it was replaced before it was read
    processes = list(host.processes)
    revision = 0 if published is None else published.revision
    errors = [f"store: {notes.error}"] if notes.error else []
    errors += [f"{p.kind} (pid {p.pid}): {p.error}" for p in processes if p.error]
    return replace(
        info,
        revision=revision,
        processes=len(processes),
        oldest=min((process.revision for process in processes), default=revision),
        behind=tuple(
            f"{process.kind} (pid {process.pid})"
            for process in processes
            if process.snapshot != newest.hex()
        ),
        errors=tuple(errors),
        host_id=notes.host_id,
    )


def _shortened(texts: Sequence[str], size: int) -> tuple[str, ...]:
    shown = [text[:LONGEST_TEXT] for text in texts[:size]]
    left = len(texts) - len(shown)
    return (*shown, f"{left} more") if left else tuple(shown)


def _parse(text: str) -> HostInfo | None:
    """Return the host that a text describes; ``None`` if it is something else."""
    try:
        return _adapter().validate_python(json.loads(text))
    except (ValueError, RecursionError):
        return None


@cache
def _adapter() -> TypeAdapter[HostInfo]:
    return TypeAdapter(HostInfo)  # takes milliseconds, and few processes ask other hosts


def _with_distinct_names(hosts: list[HostInfo]) -> tuple[HostInfo, ...]:
    """Name the watch file, too, where several instances run on one host."""
    count = Counter(host.name for host in hosts)
    named = (
        replace(host, name=f"{host.name} {host.watch_file}") if count[host.name] > 1 else host
        for host in hosts
    )
    return tuple(sorted(named, key=lambda host: host.name))
