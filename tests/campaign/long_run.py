"""uWSGI with a mule, read and written all the time, while one thing after another breaks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from ..live.servers import ALWAYS, BOUND, UWSGI, kill, script
from ..redis_server import RedisServer
from ..sql_servers import PostgreSQL
from .tally import Tally

WORKERS = 4
RECOVERY = 30.0  # seconds after which a fault counts as not recovered from
FILES = ("header", "snapshots/*", "processes/*", "listener")
FOLDERS = ("", "bell", "snapshots", "processes")
DIED = re.compile(r"(?:DAMN ! worker \d+|OOOPS mule \d+) \(pid: (\d+)\)")
# Root passes over permissions; a server without that right is held to them, as everybody's is.
HELD = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

Say = Callable[[str], object]


def ask(port: int, method: str, path: str, timeout: float = 40.0) -> tuple[int, Any]:
    """Return status and answer of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    return answer_over(connection, method, path)


def answer_over(connection: http.client.HTTPConnection, method: str, path: str) -> tuple[int, Any]:
    """Return status and answer of the only request over a connection."""
    try:
        connection.request(method, path, headers={"Connection": "close"})
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    return response.status, json.loads(raw) if response.status in (200, 503) and raw else raw


@dataclass
class Record:
    """What clients were told, shared by their threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    number: int = 0
    least: int = 0  # the newest revision that an update has returned
    acknowledged: dict[int, int] = field(default_factory=dict)
    answers: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    slowest_read: float = 0.0

    def next(self) -> int:
        with self.lock:
            self.number += 1
            return self.number

    def failed(self, why: str) -> None:
        with self.lock:
            self.failures[why] = self.failures.get(why, 0) + 1


class LongRun:
    """One run.

    Args:
        folder: an empty one; the host's files are in its folder ``instance``.
        redis: where hosts talk.
        database: where the values are.
        seed: decides which faults come, in which order.
        say: prints a line.
    """

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        database: PostgreSQL,
        *,
        seed: int,
        tally: Tally,
        say: Say,
    ) -> None:
        self.folder, self.redis, self.database, self.tally, self.say = (
            folder,
            redis,
            database,
            tally,
            say,
        )
        self.url = database.fresh()
        database.folder.chmod(0o755)  # for a server that is held to permissions, see `HELD`
        self.random = random.Random(seed)
        self.record = Record()
        self.done = threading.Event()
        self.killed: set[int] = set()
        self.ours = folder / "instance" / "waffle.watch.d"
        self.log_path = folder / "uwsgi.log"
        self.port = self.shown = 0
        self.told = self.last = ""
        self.faults: dict[str, Callable[[], Iterator[None]]] = {
            "kill a worker": self.kill_a_worker,
            "kill all workers": self.kill_all_workers,
            "kill the mule": self.kill_the_mule,
            "kill Redis": self.kill_redis,
            "stop the database": self.stop_the_database,
            "reload": self.reload,
            "delete a file": self.delete,
            "truncate a file": self.truncate,
            "overwrite a file": self.overwrite,
            "chmod": self.chmod,
            "read-only folder": self.read_only,
            "delete a folder": self.delete_folder,
            "fill the disk": self.fill_the_disk,
        }

    def run(self, seconds: float) -> None:
        """Break things for so long, then look what is left."""
        (self.folder / "instance").mkdir()
        with self.small_disk() as why_not:
            if why_not:
                self.say(f"fill the disk: left out, for {why_not}")
                del self.faults["fill the disk"]
            with self.server() as self.process:
                threads = [
                    threading.Thread(target=self.guard, args=(work,))
                    for work in (*[self.read] * 3, *[self.write] * 2)
                ]
                for thread in threads:
                    thread.start()
                try:
                    self.recover("the start")
                    end = time.monotonic() + seconds
                    turn: list[str] = []
                    while time.monotonic() < end:
                        if not turn:  # each once, in another order each time
                            turn = self.random.sample(sorted(self.faults), len(self.faults))
                        self.fault(turn.pop())
                finally:
                    self.done.set()
                    for thread in threads:
                        thread.join()
                self.judge()

    # The server and its disk

    @contextlib.contextmanager
    def small_disk(self) -> Iterator[str]:
        """Put the host's files on a disk that is soon full; yield why that can't be done, else
        nothing.
        """
        place = str(self.folder / "instance")
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size=1m,uid={os.geteuid()},mode=755",
            "waffle",
            place,
        ]
        done = (
            subprocess.run(command, capture_output=True, text=True, check=False)
            if os.geteuid() == 0
            else None
        )
        if done is None or done.returncode:
            yield "only root may mount a disk" if done is None else done.stderr.strip()
            return
        try:
            yield ""
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)

    @contextlib.contextmanager
    def server(self) -> Iterator[psutil.Process]:
        environ = {
            **os.environ,
            **ALWAYS,
            "SITE_FOLDER": str(self.folder),
            "WAFFLE_STORE_URL": self.url,
            "WAFFLE_WATCHTYPE": "redis",
            "WAFFLE_REDIS_URL": self.redis.url,
            "WAFFLE_POLL_INTERVAL": "0.05",
            "WAFFLE_RECONCILE_INTERVAL": "5",
        }
        options = [
            "--module",
            "tests.campaign.site",
            "--master",
            "--processes",
            str(WORKERS),
            "--mule=uwsgi_waffle.mule",
        ]
        command = [*HELD, script("uwsgi"), *UWSGI[1:], *options, "--disable-logging"]
        with self.log_path.open("ab") as log:
            process = psutil.Popen(
                command, env=environ, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except psutil.TimeoutExpired:
                self.tally.wrong("other", "uWSGI doesn't end")
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def find_port(self) -> int:
        found = BOUND.findall(self.log)
        self.port = int(found[-1]) if found else 0
        return self.port

    def workers(self) -> list[int]:
        log = self.log
        pids = [
            int(pid)
            for pid in re.findall(
                r"(?:spawned uWSGI worker \d+|Respawned uWSGI worker \d+) \((?:new )?pid: (\d+)",
                log,
            )
        ]
        return [pid for pid in pids if pid in self.children()]

    def mules(self) -> list[int]:
        pids = [int(pid) for pid in re.findall(r"uWSGI mule \d+ \(pid: (\d+)\)", self.log)]
        return [pid for pid in pids if pid in self.children()]

    def children(self) -> set[int]:
        return {child.pid for child in self.process.children()}

    # Clients

    def guard(self, work: Callable[[], object]) -> None:
        while not self.done.is_set():
            try:
                work()
            except (
                OSError,
                http.client.HTTPException,
            ) as error:  # its worker was killed, or nobody listens at this moment
                self.record.failed(type(error).__name__)
                time.sleep(0.01)
            except Exception as error:
                self.tally.wrong("other", f"a client: {error!r}")

    def read(self) -> None:
        least, began = self.record.least, time.monotonic()
        status, answer = ask(self.port, "GET", "/read")
        self.record.slowest_read = max(self.record.slowest_read, time.monotonic() - began)
        with self.record.lock:
            self.record.answers += 1
            known = self.record.acknowledged.get(answer["revision"] if status == 200 else -1)
        if status != 200:
            self.tally.wrong("other", f"a read was answered with {status} {answer!r}")
            return
        if len(set(answer["all"])) != 1:
            self.tally.wrong("torn", str(answer))
        if answer["revision"] < least:
            self.tally.wrong(
                "stale", f"revision {least} had been acknowledged before this was asked: {answer}"
            )
        if known is not None and answer["all"][0] != known:
            self.tally.wrong("lost", f"{answer}, and {known} was acknowledged")

    def write(self, wait: str = "") -> Any:
        number = self.record.next()
        status, answer = ask(self.port, "POST", f"/update?n={number}{wait}")
        if status == 200:
            with self.record.lock:
                self.record.acknowledged[answer["revision"]] = number
                self.record.least = max(self.record.least, answer["revision"])
            return answer
        if status == 503:
            self.record.failed(answer["error"].partition(":")[0])
            time.sleep(0.02)
        else:
            self.tally.wrong("other", f"an update was answered with {status} {answer!r}")
        return None

    # Faults: each breaks something until it is resumed, then undoes it

    def fault(self, name: str) -> None:
        before, answers = self.record.least, self.record.answers
        self.told = self.last = ""
        began = time.monotonic()
        broken = self.faults[name]()
        next(broken)
        time.sleep(self.random.uniform(0.05, 0.5))  # the clients go on meanwhile
        for _ in broken:
            pass
        self.tally.faults += 1
        took = time.monotonic() - began
        recovery = self.recover(name)
        for text in self.tally.said[self.shown :]:
            self.say(f"VIOLATION {text}")
        self.shown = len(self.tally.said)
        last = self.last and f", {self.last} last"
        self.say(
            f"{name}{self.told}: for {took:.2f} s, all agree {recovery:.2f} s later{last}; "
            f"revisions {before} to {self.record.least}, "
            f"{self.record.answers - answers} answers, {len(self.tally.said)} violations so far"
        )

    def recover(self, what: str) -> float:
        """Wait until an update has reached all workers and the mule; return the seconds."""
        began, answer = time.monotonic(), None
        wanted = {*(f"worker {number}" for number in range(1, WORKERS + 1)), "mule 1"}
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.find_port():
                    answer = self.write("&wait=1")
                if answer and (missing := {*answer["pending"], *wanted} - {*answer["applied"]}):
                    self.last = ", ".join(sorted(missing))
                elif answer:
                    took = time.monotonic() - began
                    self.tally.recovered(took if what != "the start" else 0.0)
                    return took
            if time.monotonic() - began > RECOVERY:
                text = f"not recovered after {RECOVERY} s; the last update gave {answer}"
                self.tally.wrong("other", f"{what}: {text}\n{self.log[-3000:]}")
                return RECOVERY
            time.sleep(0.01)

    def kill(self, pids: list[int]) -> None:
        self.killed.update(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                kill(pid)

    def kill_a_worker(self) -> Iterator[None]:
        self.kill([self.random.choice(self.workers())])
        yield

    def kill_all_workers(self) -> Iterator[None]:
        self.kill(self.workers())
        yield

    def kill_the_mule(self) -> Iterator[None]:
        self.kill(self.mules())
        yield

    def kill_redis(self) -> Iterator[None]:
        self.redis.kill()
        yield
        self.redis.start()

    def stop_the_database(self) -> Iterator[None]:
        self.database.kill()
        yield
        self.database.start()

    def reload(self) -> Iterator[None]:
        listening = len(BOUND.findall(self.log))
        self.process.send_signal(signal.SIGHUP)
        yield
        end = time.monotonic() + RECOVERY
        while len(BOUND.findall(self.log)) == listening and time.monotonic() < end:
            time.sleep(0.01)

    def one_file(self) -> Path | None:
        pattern = self.random.choice([*FILES, "../waffle.watch"])
        found = sorted(self.ours.glob(pattern)) if "*" in pattern else [self.ours / pattern]
        self.told = f" {pattern}"
        return self.random.choice(found) if found else None

    def delete(self) -> Iterator[None]:
        path = self.one_file()
        if path is not None:
            path.unlink(missing_ok=True)
        yield

    def truncate(self) -> Iterator[None]:
        path = self.one_file()
        with contextlib.suppress(FileNotFoundError):
            if path is not None:
                os.truncate(path, self.random.choice([0, 1, path.stat().st_size // 2]))
        yield

    def overwrite(self) -> Iterator[None]:
        path = self.one_file()
        with contextlib.suppress(FileNotFoundError):
            if path is not None:
                with path.open("r+b") as file:
                    file.write(self.random.randbytes(max(64, path.stat().st_size)))
        yield

    def chmod(self) -> Iterator[None]:
        path, mode = self.one_file(), self.random.choice([0o000, 0o400, 0o666])
        self.told += f" {mode:03o}"
        was = None
        with contextlib.suppress(FileNotFoundError):
            if path is not None:
                was = path.stat()
                path.chmod(mode)
        yield
        with contextlib.suppress(FileNotFoundError):
            if path is not None and was is not None:
                path.chmod(was.st_mode & 0o777)

    def read_only(self) -> Iterator[None]:
        path = self.ours / self.random.choice([*FOLDERS, ".."])
        self.told = f" {path.name}"
        mode = path.stat().st_mode & 0o777
        path.chmod(0o500)
        yield
        path.chmod(mode)

    def delete_folder(self) -> Iterator[None]:
        folder = self.random.choice(FOLDERS)
        self.told = f" {folder or 'all of it'}"
        shutil.rmtree(self.ours / folder, ignore_errors=True)
        yield

    def fill_the_disk(self) -> Iterator[None]:
        filler = self.folder / "instance" / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0")
        yield
        filler.unlink()

    # The end

    def judge(self) -> None:
        """Compare what was acknowledged with the database's history; look who has died."""
        engine = sa.create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            rows = connection.execute(
                sa.text("SELECT revision, new FROM waffle_history WHERE key = 'A'")
            ).all()
        stored = {revision: int(new) for revision, new in rows}
        for revision, number in self.record.acknowledged.items():
            if stored.get(revision) != number:
                text = f"{number} was acknowledged as revision {revision}"
                self.tally.wrong("lost", f"{text}, the history has {stored.get(revision)}")
        for pid in map(int, DIED.findall(self.log)):
            if pid not in self.killed:
                self.tally.wrong("died", f"process {pid} has died\n{self.log[-3000:]}")
        for told in re.findall(r"Traceback.*?\n(?=\S)", self.log, re.DOTALL):
            if "/uwsgi_waffle/" in told:  # psycopg logs its own when the server is gone
                self.tally.wrong("other", f"a traceback in the log: {told}")
        self.tally.looks += self.record.answers
        self.say(
            f"{len(self.record.acknowledged)} updates acknowledged, {self.record.answers} reads, "
            f"the slowest {self.record.slowest_read:.2f} s; refused or cut off while something was "
            f"broken: {self.record.failures}"
        )
