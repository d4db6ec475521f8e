"""P2 and P7: a request that reads no variable pays nothing."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .servers import SITE, UWSGI, Server, Servers, eventually

REQUESTS = 20
MEMORY = ("brk", "futex", "madvise", "mmap", "munmap")  # Python's own, now and then
CALL = re.compile(r"^(?:\d+ +)?(\w+)\(", re.MULTILINE)


@pytest.fixture(scope="module")
def strace() -> str:
    """The path of strace, which has the kernel name each system call."""
    found = shutil.which("strace")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "strace is missing: apt-get install strace"
        )
    return str(found)


def ask(server: Server, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[0], timeout=30)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        connection.getresponse().read()
    finally:
        connection.close()


def calls(strace: str, server: Server, path: str, trace: Path) -> set[tuple[str, ...]]:
    """Return the sequences of system calls with which a server's only worker answers requests."""
    (worker,) = server.children()
    for _ in range(3):
        ask(server, path)  # what is done only once is done
    command = [strace, "-f", "-p", str(worker), "-o", str(trace)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        try:
            assert "attached" in tracer.stderr.readline()
            for _ in range(REQUESTS):
                ask(server, path)
            eventually(lambda: trace.read_text().count("accept"), until=REQUESTS.__le__)
        finally:
            tracer.terminate()
    # From one connection's acceptance to the next one's.
    _, *requests = re.split(r"(?m)^(?=.*accept4?\()", trace.read_text())
    return {
        tuple(call for call in CALL.findall(request) if call not in MEMORY)
        for request in requests[1:-1]
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """An application with the package that was updated, and one without."""
    servers, one = Servers(tmp_path_factory.mktemp("cheap")), ["--master", "--processes", "1"]
    try:
        with_it = servers.start([*UWSGI, *one])
        plain = ["tests.live.plain" if word == SITE else word for word in UWSGI]
        without = servers.start([*plain, *one])
        with_it.update(1)
        yield with_it, without
    finally:
        servers.stop_all()


@pytest.mark.parametrize("path", ["/nothing", "/missing", "/static/missing"])
def test_a_request_that_reads_nothing(
    pair: tuple[Server, Server], tmp_path: Path, strace: str, path: str
) -> None:
    """It makes the same system calls as in an application without the package."""
    with_it, without = pair
    ours = calls(strace, with_it, path, tmp_path / "with")
    assert ours == calls(strace, without, path, tmp_path / "without")
    # The same look does see what a request costs that reads.
    read = calls(strace, with_it, "/read", tmp_path / "read")
    assert all("pread64" in sequence for sequence in read)
    assert not any("pread64" in sequence for sequence in ours)
