"""P2, P3, P4 and P7 on one host: several writers, long readers, and what it all costs."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from .servers import SITE, UWSGI, Server, Servers, eventually


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work`` in threads and raise the first of their errors."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_counting_with_expect_revision(servers: Servers) -> None:
    """200 read-modify-write updates by 8 clients, each repeated on a conflict, give exactly 200."""
    server = servers.uwsgi()
    revisions: list[int] = []
    in_threads(8, lambda _: [revisions.append(server.post("/count")) for _ in range(25)] and None)
    assert sorted(revisions) == list(range(1, 201))
    assert server.get("/status")["revision"] == 200
    server.post("/set", {"A": -1, "B": -1})
    assert server.post("/count") == 202


def test_writers_of_different_variables_keep_each_others_values(servers: Servers) -> None:
    """Four clients write one variable each at the same time: nobody writes an old value of another
    back.
    """
    server = servers.uwsgi()
    names = ["A", "B", "N", "S"]

    def work(which: int) -> None:
        for number in range(1, 31):
            server.post("/set", {names[which]: number if names[which] != "S" else str(number)})

    in_threads(4, work)
    assert server.get("/status")["revision"] == 120
    values = server.get("/values")
    assert values == {"A": 30, "B": 30, "N": 30, "S": "30"}


@pytest.mark.parametrize(
    "options",
    [["--threads", "4"], ["--gevent", "10", "--gevent-monkey-patch"]],
    ids=["threads", "gevent"],
)
def test_a_long_request_sees_one_revision(servers: Servers, options: list[str]) -> None:
    """It lasts across 20 updates in the same process and sees the first everywhere, until it
    refreshes.
    """
    server = servers.uwsgi(*options, workers=1)
    server.update(1)
    answers = []
    reader = threading.Thread(target=lambda: answers.append(server.get("/long")))
    reader.start()
    server.eventually(lambda: server.records("long"))
    for number in range(2, 22):
        assert set(server.update(number)["seen"]["all"]) == {number}
    (servers.folder / "finish").touch()
    reader.join()
    answer = answers[0]
    seen = [answer["first"], *answer["samples"], answer["last"]]
    assert {value for sample in seen for value in sample["all"]} == {1}
    assert {sample["revision"] for sample in seen} == {1}
    revision, moved = answer["moved"]
    assert revision == 21
    assert set(moved["all"]) == {21}


def test_a_writer_killed_after_its_commit(servers: Servers) -> None:
    """kill -9 between commit and everything that follows: the next request of any worker shows what
    was committed.
    """
    server = servers.uwsgi(addressed=True)
    server.update(1)
    for number in range(2, 6):
        (servers.folder / "die-after-commit").touch()
        with pytest.raises((OSError, AssertionError, Exception)):
            server.update(number, socket=0)
        assert not (servers.folder / "die-after-commit").exists()
        for socket in (1, 2, 3, 0):
            assert set(server.eventually(lambda at=socket: server.read(socket=at))["all"]) == {
                number
            }


def test_one_store_read_per_update(servers: Servers) -> None:
    """Eight workers, all told of every update: the store is asked once for each, by the writer's
    own transaction.
    """
    server = servers.uwsgi(workers=8, addressed=True)
    server.update(1, wait=20.0)
    before = len(server.records("store"))
    for number in range(2, 22):
        assert server.update(number, wait=20.0)["pending"] == []
        assert {tuple(server.read(socket=socket)["all"]) for socket in range(8)} == {(number,) * 6}
    calls = server.records("store")[before:]
    assert Counter(call for _, _, call in calls) == {"transact": 20}


def test_one_store_read_per_ring(servers: Servers) -> None:
    """Eight workers and a touch of the watch file: one of them reads the store, for all."""
    server = servers.uwsgi(workers=8, addressed=True)
    server.update(1, wait=20.0)
    for turn in range(1, 11):
        before = len(server.records("store"))
        os.utime(servers.folder / "instance" / "waffle.watch", ns=(turn, turn))
        server.eventually(lambda start=before: server.records("store")[start:])
        server.update(1 + turn, wait=20.0)
        assert [call for _, _, call in server.records("store")[before:]] == ["load", "transact"]


def held(pid: int) -> Counter[str]:
    """Return what a process holds, from /proc: its threads, and its open descriptors by kind."""
    kinds: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kinds[os.readlink(link).partition(":")[0]] += 1
        except FileNotFoundError:  # closed since it was listed
            continue
    kinds["threads"] = len(os.listdir(f"/proc/{pid}/task"))
    return kinds


def idle(server: Server, workers: list[int]) -> list[Counter[str]]:
    """Return what idle workers hold, once it stays the same."""
    for pid in workers:
        eventually(
            lambda p=pid: psutil.Process(p).status(),
            until=lambda status: status == psutil.STATUS_SLEEPING,
        )
    return [held(pid) for pid in workers]


@pytest.mark.parametrize("mode", ["prefork", "lazy-apps, shared-import"])
def test_an_idle_worker_holds_two_files(servers: Servers, mode: str) -> None:
    """The header and its own process file; no thread, no socket, no connection."""
    options = ["--lazy-apps", "--shared-import", "uwsgi_waffle"] if mode != "prefork" else []
    server = servers.uwsgi(*options, addressed=True)
    for number, socket in enumerate((0, 1, 2, 3, 0), start=1):
        assert server.update(number, socket=socket, wait=20.0)["pending"] == []
    plain_command = ["tests.live.plain" if word == SITE else word for word in UWSGI]
    plain = servers.start(
        [*plain_command, "--master", "--processes", "4", *(["--lazy-apps"] if options else [])]
    )
    expected = idle(plain, [plain.read()["pid"]])[0]
    instance = str(servers.folder)
    for found in idle(server, list(server.workers().values())):
        ours = {kind for kind in found if kind.startswith(instance)} - {str(server.log_path)}
        folder = f"{instance}/instance/waffle.watch.d"
        assert f"{folder}/header" in ours
        assert [path.rpartition("/")[0] for path in ours - {f"{folder}/header"}] == [
            f"{folder}/processes"
        ]
        assert found["threads"] == expected["threads"] == 1
        # Three more sockets listen, for the tests address each worker.
        assert found["socket"] <= expected["socket"] + 3
