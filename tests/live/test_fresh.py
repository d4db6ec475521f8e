"""P1 and P2: no request that starts after an update sees an old value, none sees half of an update."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from .servers import GUNICORN, ROOT, SITE, UWSGI, Server, Servers, script

UPDATES = 300
READERS = 4

PREFORK = ["--master", "--processes", "4"]
MODES = {
    "prefork": [*UWSGI, *PREFORK],
    "lazy-apps": [*UWSGI, *PREFORK, "--lazy-apps"],
    "lazy-apps, shared-import": [
        *UWSGI,
        *PREFORK,
        "--lazy-apps",
        "--shared-import",
        "uwsgi_waffle",
    ],
    "threads": [*UWSGI, "--master", "--processes", "2", "--threads", "4"],
    "gevent": [*UWSGI, "--master", "--processes", "2", "--gevent", "20", "--gevent-monkey-patch"],
    "gevent without monkey patch": [*UWSGI, "--master", "--processes", "2", "--gevent", "20"],
    "cheaper": [
        *UWSGI,
        *PREFORK,
        "--cheaper",
        "1",
        "--cheaper-initial",
        "1",
        "--cheaper-algo",
        "manual",
    ],
    "no master": [*UWSGI],
    "gunicorn": [*GUNICORN, "--workers", "3"],
    "gunicorn --preload": [*GUNICORN, "--preload", "--workers", "3"],
    "flask run": ["flask", "--app", f"{SITE}:application", "run", "--port", "0"],
}


@dataclass
class Tally:
    """What the readers saw."""

    committed: int = 0
    done: bool = False
    answers: int = 0
    pids: set[int] = field(default_factory=set)
    stale: list[tuple[int, object]] = field(default_factory=list)
    torn: list[object] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def read(self, servers: list[Server]) -> None:
        """Read until all is done; what was committed *before* a request began is the least that it
        must show.
        """
        try:
            while not self.done:
                for server in servers:
                    least = self.committed
                    answer = server.read()
                    self.answers += 1
                    self.pids.add(answer["pid"])
                    if len(set(answer["all"])) != 1:
                        self.torn.append(answer)
                    if answer["all"][0] < least:
                        self.stale.append((least, answer))
        except BaseException as error:
            self.errors.append(error)


def hammer(
    servers: list[Server], write: Callable[[int], None], *, processes: int, readers: int = READERS
) -> Tally:
    """Read with several threads while ``write`` makes one update after the other, until so many
    ``processes`` have answered.
    """
    tally = Tally()
    threads = [threading.Thread(target=tally.read, args=(servers,)) for _ in range(readers)]
    for thread in threads:
        thread.start()
    try:
        while tally.committed < UPDATES or (len(tally.pids) < processes and not tally.errors):
            write(tally.committed + 1)
            tally.committed += 1
    finally:
        tally.done = True
        for thread in threads:
            thread.join()
    if tally.errors:
        raise tally.errors[0]
    assert not tally.stale, (
        f"{len(tally.stale)} of {tally.answers} stale, such as {tally.stale[:3]}"
    )
    assert not tally.torn, f"{len(tally.torn)} of {tally.answers} torn, such as {tally.torn[:3]}"
    assert tally.answers >= UPDATES
    return tally


@pytest.mark.parametrize("mode", MODES)
def test_nothing_stale_and_nothing_torn(servers: Servers, mode: str) -> None:
    """While readers hammer all workers through 300 two-key updates."""
    fifo = servers.folder / "fifo"
    late = ["--master-fifo", str(fifo)] if mode == "cheaper" else []
    server = servers.start([*MODES[mode], *late])

    def write(number: int) -> None:
        if late and number % 50 == 10:  # one more worker is born amid all this
            fifo.write_text("+")
        answer = server.update(number)
        assert set(answer["seen"]["all"]) == {number}, (
            "the request that updates goes on with what it wrote"
        )

    hammer([server], write, processes=1 if mode in ("no master", "flask run") else 2)


def test_two_instances_on_one_host(servers: Servers) -> None:
    """Updates from alternating instances that share the watch file."""
    pair = [servers.uwsgi(workers=2), servers.uwsgi(workers=2)]
    hammer(pair, lambda number: pair[number % 2].update(number), processes=4)


@pytest.mark.timeout(1200)
def test_a_shell_as_the_writer(servers: Servers) -> None:
    """``flask waffle set`` changes two variables in one update, 300 times, each in a process of its
    own.
    """
    server = servers.uwsgi(workers=4)
    environ = {"SITE_FOLDER": str(server.folder), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}

    def write(number: int) -> None:
        command = [
            script("flask"),
            "--app",
            f"{SITE}:application",
            "waffle",
            "set",
            f"A={number}",
            f"B={number}",
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"A: {number - 1} -> {number}" in done.stdout

    hammer([server], write, processes=2, readers=1)  # more would leave the shells no processor
