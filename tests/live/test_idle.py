"""Processes that nobody asks learn of a change all the same, at their birth too."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from uwsgi_waffle.host import HostFiles

from .servers import CHEAPER, GUNICORN, SITE, UWSGI, Server, Servers, kill

SIGNAL_MODES = {
    "prefork": [],
    "lazy-apps, shared-import": ["--lazy-apps", "--shared-import", "uwsgi_waffle"],
    "threads": ["--threads", "4"],
    "gevent": ["--gevent", "10", "--gevent-monkey-patch"],
    "single-interpreter": ["--single-interpreter"],
}
THREAD_MODES = {
    "lazy-apps": ["uwsgi", "--lazy-apps"],
    "gunicorn": ["gunicorn"],
    "gunicorn --preload": ["gunicorn", "--preload"],
}


def changed(server: Server, number: int) -> set[int]:
    """Return the processes whose ``on_change`` was told that A is ``number`` now."""
    return {int(pid) for pid, _, _, _, new in server.records("changes") if new == str(number)}


def start(servers: Servers, mode: str) -> Server:
    if mode in SIGNAL_MODES:
        return servers.uwsgi(*SIGNAL_MODES[mode], addressed=True)
    program, *options = THREAD_MODES[mode]
    if program == "uwsgi":
        return servers.uwsgi(*options, addressed=True, WAFFLE_POLL_INTERVAL="0.02")
    server = servers.start([*GUNICORN, *options, "--workers", "4"], WAFFLE_POLL_INTERVAL="0.02")
    # With --preload the arbiter has the application, too.
    server.eventually(server.table, until=lambda found: len(found) == (5 if options else 4))
    return server


@pytest.mark.parametrize("mode", [*SIGNAL_MODES, *THREAD_MODES])
def test_idle_workers_are_told(servers: Servers, mode: str) -> None:
    """One worker updates; the hook runs in all four, and none of the others gets a request."""
    server = start(servers, mode)
    first = server.update(1, wait=20.0)
    assert first["pending"] == []
    server.eventually(lambda: changed(server, 1), until=lambda pids: len(pids) >= 4)
    for number in range(2, 12):
        server.update(number)
        server.eventually(lambda n=number: changed(server, n), until=lambda pids: len(pids) >= 4)


def test_an_update_right_after_the_start_wakes_workers_that_are_idle(servers: Servers) -> None:
    """The master begins to watch as soon as a worker asks it to, not at its next turn, which comes
    each second.
    """
    server = servers.uwsgi(*SIGNAL_MODES["lazy-apps, shared-import"], addressed=True)
    assert server.update(1, wait=20.0)["pending"] == []


def test_two_instances_tell_each_other(servers: Servers) -> None:
    """The idle workers of one instance are told what the other has changed."""
    first, second = (
        servers.uwsgi(workers=2, addressed=True),
        servers.uwsgi(workers=2, addressed=True),
    )
    for number, server in enumerate((first, second, first), start=1):
        assert server.update(number, wait=20.0)["pending"] == []
        server.eventually(lambda n=number: changed(first, n), until=lambda pids: len(pids) == 4)


@pytest.mark.parametrize(
    ("mode", "line"),
    [("lazy-apps", "shared-import = uwsgi_waffle"), ("no master", "master = true")],
)
def test_one_warning_names_the_missing_line(servers: Servers, mode: str, line: str) -> None:
    """Where the master can't wake the workers, the log says once what would let it."""
    server = (
        servers.uwsgi("--lazy-apps", addressed=True)
        if mode == "lazy-apps"
        else servers.start(UWSGI)
    )
    server.update(1, wait=20.0)
    assert server.log.count("can't wake the workers") == 1
    assert line in server.log


@pytest.mark.parametrize("mode", ["prefork", "lazy-apps, shared-import", "lazy-apps"])
def test_a_killed_worker_is_born_with_what_was_changed_meanwhile(
    servers: Servers, mode: str
) -> None:
    """kill -9 of each worker, an update before its successor is there: its first answer shows the
    update.
    """
    server = start(servers, mode)
    for socket in range(4):
        number = 10 * socket + 1
        server.update(number, socket=socket)
        victim = server.read(socket=socket)["pid"]
        kill(victim)
        server.update(number + 1, socket=(socket + 1) % 4)
        answer = server.eventually(lambda at=socket: server.read(socket=at))
        assert answer["pid"] != victim
        assert set(answer["all"]) == {number + 1}


@pytest.mark.parametrize("mode", ["prefork", "lazy-apps, shared-import"])
@pytest.mark.parametrize("how", ["SIGHUP", "touch-reload", "chain"])
def test_reloads(servers: Servers, mode: str, how: str) -> None:
    """After each kind of reload all workers serve the store's values, and idle ones go on being
    told.
    """
    trigger = servers.folder / "trigger"
    trigger.touch()
    options = {
        "touch-reload": ["--touch-reload", str(trigger)],
        "chain": ["--touch-chain-reload", str(trigger)],
    }.get(how, [])
    server = servers.uwsgi(*SIGNAL_MODES[mode], *options, addressed=True)
    for turn in range(1, 4):
        server.update(10 * turn)
        before = {server.read(socket=socket)["pid"] for socket in range(4)}
        if how == "SIGHUP":
            server.process.send_signal(signal.SIGHUP)
        else:
            # uWSGI compares whole seconds, and acts only when they increase.
            os.utime(trigger, (trigger.stat().st_mtime + 2, trigger.stat().st_mtime + 2))
        for socket in range(4):
            answer = server.eventually(
                lambda at=socket: server.find_ports(4) and server.read(socket=at),
                until=lambda a, old=before: a["pid"] not in old,
            )
            assert set(answer["all"]) == {10 * turn}
        assert server.update(10 * turn + 1, wait=20.0)["pending"] == []
        server.eventually(
            lambda n=10 * turn + 1: changed(server, n), until=lambda pids: len(pids) >= 4
        )


def test_cheapers_late_births(servers: Servers) -> None:
    """A worker that `cheaper` starts later serves the newest values, and is told of changes."""
    fifo = servers.folder / "fifo"
    server = servers.uwsgi(*CHEAPER, "--master-fifo", str(fifo), workers=3)
    server.update(1)
    assert len(server.workers()) == 1
    server.eventually(fifo.is_fifo)  # the master makes it after the first workers
    fifo.write_text("+")
    server.eventually(server.workers, until=lambda found: len(found) == 2)
    assert server.update(2, wait=20.0)["pending"] == []
    server.eventually(lambda: changed(server, 2), until=lambda pids: len(pids) == 2)


@pytest.mark.parametrize("imported", ["before", "after", "by hand"])
def test_other_hooks_at_birth(servers: Servers, imported: str) -> None:
    """uwsgidecorators before and after ours, or a hook set by hand: all run, and an idle newborn is
    in the table at once.
    """
    server = servers.uwsgi(addressed=True, SITE_DECORATORS=imported)
    server.eventually(lambda: server.records("births"), until=lambda births: len(births) >= 4)
    (victim,) = (pid for pid, kind in server.table().items() if kind == "worker 3")
    kill(victim)
    born = server.eventually(
        lambda: {pid for pid, kind in server.table().items() if kind == "worker 3"} - {victim}
    ).pop()
    server.eventually(
        lambda: server.records("births"), until=lambda births: str(born) in [b[0] for b in births]
    )
    assert server.read(socket=2)["pid"] == born  # only a worker that is complete heeds a SIGTERM


def test_mules_and_spoolers_read_fresh_values(servers: Servers) -> None:
    """A mule's loop and a spooler's job have no request: each read shows what the last update has
    written.
    """
    spool = servers.folder / "spool"
    spool.mkdir()
    server = servers.uwsgi(
        "--mule=tests/live/mule.py", "--spooler", str(spool), "--spooler-frequency", "1"
    )
    for number in range(1, 6):
        server.update(number)
        server.post("/spool")
        server.eventually(lambda n=number: str(n) in [r[2] for r in server.records("mule")])
        server.eventually(
            lambda n=number: server.records("spooled"), until=lambda jobs, n=number: len(jobs) == n
        )
        assert server.records("spooled")[-1][2] == str(number)


@pytest.mark.parametrize("gevent", [[], ["--gevent", "10", "--gevent-early-monkey-patch"]])
def test_an_idle_mule_is_told(servers: Servers, gevent: list[str]) -> None:
    """No signal reaches it, so a thread in it looks, also where gevent has replaced threads. An
    update that waits doesn't wait for it in vain.
    """
    server = servers.uwsgi("--mules", "1", *gevent, addressed=True, WAFFLE_POLL_INTERVAL="0.02")
    server.eventually(server.table, until=lambda found: len(found) == 5)
    for number in range(1, 6):
        answer = server.update(number, wait=20.0)
        assert (answer["pending"], answer["applied"]) == ([], 5)
        assert len(changed(server, number)) == 5


def test_a_process_that_a_worker_forks_is_told(servers: Servers) -> None:
    """The master doesn't know it and sends it no signal, though uWSGI calls it a worker."""
    server = servers.uwsgi(workers=2, addressed=True, WAFFLE_POLL_INTERVAL="0.02")
    server.eventually(server.table, until=lambda found: len(found) == 2)
    pid, value = server.post("/pool")
    assert (value, server.table()[pid]) == (0, "uwsgi")
    for number in range(1, 4):
        answer = server.update(number, wait=20.0)
        assert (answer["pending"], answer["applied"]) == ([], 3)
        assert pid in changed(server, number)
    kill(pid)  # uWSGI, which doesn't know it either, may leave it behind


def test_the_reloaders_parent_is_quiet(servers: Servers) -> None:
    """Under ``flask run --debug`` only the child, which serves, follows the changes."""
    server = servers.start(
        ["flask", "--app", f"{SITE}:application", "run", "--debug", "--port", "0"],
        WAFFLE_POLL_INTERVAL="0.02",
    )
    child = server.read()["pid"]
    assert child != server.process.pid
    for number in range(1, 4):
        assert server.update(number, wait=20.0)["applied"] == 1
    assert changed(server, 3) == {child}
    assert "uwsgi_waffle" not in [
        Path(f"/proc/{server.process.pid}/task/{t.id}/comm").read_text()
        for t in server.process.threads()
    ]
    assert [p["pid"] for p in server.get("/status")["processes"]] == [child]


@pytest.mark.parametrize(("replaced", "interval"), [(False, "3600"), (True, "3")])
def test_a_touch_makes_everyone_look(servers: Servers, replaced: bool, interval: str) -> None:
    """A row edited by hand and a touch of the watch file: idle workers are told, as of a revision.
    Where the file was replaced they are told by the timer at the latest.
    """
    server = servers.uwsgi(addressed=True, WAFFLE_RECONCILE_INTERVAL=interval)
    server.update(1, wait=20.0)
    watch = servers.folder / "instance" / "waffle.watch"
    for number in range(2, 5):
        edited = sqlite3.connect(servers.folder / "waffle.db", isolation_level=None)
        edited.execute("UPDATE waffle_values SET value = ? WHERE key IN ('A', 'B')", (str(number),))
        edited.close()
        if replaced:
            fresh = watch.with_name("fresh")
            fresh.touch()
            fresh.rename(watch)
        else:
            watch.touch()
        server.eventually(lambda n=number: changed(server, n), until=lambda all: len(all) == 4)
    assert server.read()["revision"] == 4


@pytest.mark.parametrize("how", ["made anew", "replaced twice", "a link"])
def test_who_replaces_the_watch_file_makes_nobody_deaf(servers: Servers, how: str) -> None:
    """Also if the new file has the inode number of the old one; no timer helps here."""
    server = servers.uwsgi(addressed=True, WAFFLE_RECONCILE_INTERVAL="86400")
    server.update(1, wait=20.0)
    watch = servers.folder / "instance" / "waffle.watch"
    for _ in range(2 if how == "replaced twice" else 1):
        fresh = watch.with_name("fresh")
        if how == "made anew":
            watch.unlink()
            watch.touch()
            continue
        if how == "a link":
            fresh.symlink_to("target")
        else:
            fresh.touch()
        fresh.rename(watch)
    for number in range(2, 6):
        assert server.update(number, wait=20.0)["pending"] == []
        server.eventually(lambda n=number: changed(server, n), until=lambda pids: len(pids) == 4)


@pytest.mark.parametrize("mode", ["prefork", "lazy-apps, shared-import", "gunicorn"])
def test_what_nobody_tells_is_found_within_the_interval(servers: Servers, mode: str) -> None:
    """A row edited by hand and nothing else: one process of the host compares with the store, and
    all are told.
    """
    if mode == "gunicorn":
        server = servers.start(
            [*GUNICORN, "--workers", "4"],
            WAFFLE_POLL_INTERVAL="0.02",
            WAFFLE_RECONCILE_INTERVAL="1",
        )
        server.eventually(server.table, until=lambda found: len(found) == 4)
    else:
        server = servers.uwsgi(*SIGNAL_MODES[mode], addressed=True, WAFFLE_RECONCILE_INTERVAL="1")
    server.update(1, wait=20.0)
    edited = sqlite3.connect(servers.folder / "waffle.db", isolation_level=None)
    edited.execute("UPDATE waffle_values SET value = '2' WHERE key IN ('A', 'B')")
    edited.close()
    server.eventually(lambda: changed(server, 2), until=lambda pids: len(pids) >= 4)
    assert server.read()["revision"] == 2


@pytest.mark.parametrize("mode", ["prefork", "no master", "gunicorn"])
def test_a_temporary_value_ends_though_nobody_asks(servers: Servers, mode: str) -> None:
    """Within the reconcile interval, once, and all are told."""
    settings = {"WAFFLE_POLL_INTERVAL": "0.02", "WAFFLE_RECONCILE_INTERVAL": "1"}
    if mode == "prefork":
        server = servers.uwsgi(addressed=True, **settings)
    else:
        command = UWSGI if mode == "no master" else [*GUNICORN, "--workers", "4"]
        server = servers.start(command, **settings)
    count = 1 if mode == "no master" else 4
    server.eventually(lambda: len(server.table()), until=lambda found: found >= count)
    server.update(1, wait=20.0)
    server.post("/update?n=2&expires=0.2&wait=20")
    processes = HostFiles(server.folder / "instance" / "waffle.watch").processes
    server.eventually(lambda: {process.revision for process in processes}, until={3}.__eq__)
    assert (server.read()["all"][0], server.read()["revision"]) == (1, 3)
