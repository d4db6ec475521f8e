"""Three hosts on networks of their own, whose processes count, while one thing after another
breaks between them.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from ..live.servers import ALWAYS, ROOT, script
from ..redis_server import RedisServer
from ..sql_servers import PostgreSQL
from .judge import Judge
from .long_run import answer_over
from .networks import DATABASE, REDIS, Networks
from .tally import Tally

HOSTS = ("one", "two", "three")
WORKERS = 2
INTERVAL = 2  # seconds of WAFFLE_RECONCILE_INTERVAL
# Within so many seconds a host must hear of an update, and all must agree after a fault: a store
# that failed is tried again after 60 s at the latest, and an attempt takes some.
BOUND = 75.0
Say = Callable[[str], object]


class RedisThere(RedisServer):
    """Redis on the servers' network."""

    def __init__(self, folder: Path, networks: Networks) -> None:
        self._prefix = networks.servers.prefix
        super().__init__(folder)

    def command(self) -> list[str]:
        """Listen where the hosts reach it, too."""
        own = [*self._prefix, *super().command()]
        own[own.index("--port") + 1] = "6379"
        return [*own, "--bind", REDIS, "--protected-mode", "no"]


class PostgreSQLThere(PostgreSQL):
    """PostgreSQL on the servers' network."""

    def __init__(self, folder: Path, networks: Networks) -> None:
        self._prefix = networks.servers.prefix
        super().__init__(folder)

    def install(self) -> None:
        """Let the hosts in; root enters the network before it becomes another user."""
        super().install()
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all trust\n")
        self._user, self.options = self.options, {}

    def command(self) -> list[str]:
        """Listen where the hosts reach it, too."""
        user, group = self._user["user"], self._user["group"]
        become = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        return [*self._prefix, *become, *super().command()[:-1], DATABASE]

    def remote(self, url: str) -> str:
        """Return the URL of the same place for the hosts."""
        return url.replace(f"host={self.folder}", f"host={DATABASE}")


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which every network reaches."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Host:
    """uWSGI with a mule on a network of its own.

    Attributes:
        folder: its files.
        process: its master.
    """

    def __init__(self, folder: Path, prefix: tuple[str, ...], environ: dict[str, str]) -> None:
        self.folder = folder
        (folder / "instance").mkdir(parents=True)
        self._socket, self._log = folder / "s", folder / "log"
        options = [
            *("--master", "--die-on-term", "--need-app", "--disable-logging"),
            *("--http-socket", str(self._socket), "--module", "tests.campaign.counting_site"),
            *("--processes", str(WORKERS), "--mule=uwsgi_waffle.mule"),
        ]
        with self._log.open("ab") as log:
            self.process = psutil.Popen(
                [*prefix, script("uwsgi"), *options],
                env={**os.environ, **ALWAYS, "SITE_FOLDER": str(folder), **environ},
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    def ask(self, method: str, path: str, timeout: float = 60.0) -> tuple[int, Any]:
        """Return status and answer of one request."""
        return answer_over(_Connection(self._socket, timeout), method, path)

    def pids(self, what: str) -> list[int]:
        """Return the living processes that the log calls so."""
        living = {child.pid for child in self.process.children()}
        found = re.findall(rf"uWSGI {what} \d+ \((?:new )?pid: (\d+)", self.log)
        pids = [pid for pid in map(int, found) if pid in living]
        assert pids, f"no {what} runs"
        return pids

    def stop(self) -> bool:
        """End it in order; return whether it did."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(90)
        except psutil.TimeoutExpired:
            for one in (*self.process.children(recursive=True), self.process):
                one.kill()
            return False
        return True


class HostsRun:
    """One run.

    Args:
        folder: an empty one; its path is short.
        watchtype: how the hosts tell each other.
        seed: decides which faults come, in which order.
        say: prints a line.
    """

    def __init__(
        self,
        folder: Path,
        database_folder: Path,
        watchtype: str,
        *,
        seed: int,
        tally: Tally,
        say: Say,
    ) -> None:
        self._folder, self._database_folder = folder, database_folder
        self._watchtype, self._tally, self._say = watchtype, tally, say
        self._random = random.Random(seed)
        self._judge = Judge(tally, HOSTS, bound=BOUND)
        self._done, self._calm = threading.Event(), threading.Event()
        self._hosts: dict[str, Host] = {}

    def run(self, seconds: float) -> None:
        """Break things for so long, then compare what is left with what was told."""
        with ExitStack() as stack:
            self._networks = Networks(stack, HOSTS)
            self._redis = RedisThere(self._folder, self._networks)
            stack.callback(self._redis.kill)
            self._database = PostgreSQLThere(self._database_folder, self._networks)
            stack.callback(self._database.kill)
            self._url = self._database.fresh()
            for name in HOSTS:
                self._start(name)
                stack.callback(self._stop, name)
            self._recover("the start")
            with self._clients():
                self._break_for(seconds)
            self._recover("the end")
            self._compare()

    def _start(self, name: str) -> None:
        environ = {
            "WAFFLE_STORE_URL": self._database.remote(self._url),
            "WAFFLE_WATCHTYPE": self._watchtype,
            "WAFFLE_REDIS_URL": f"redis://{REDIS}",
            "WAFFLE_RECONCILE_INTERVAL": str(INTERVAL),
        }
        prefix = self._networks.hosts[name].prefix
        self._hosts[name] = Host(self._folder / name, prefix, environ)

    def _stop(self, name: str) -> None:
        host = self._hosts[name]
        if not host.stop():
            self._tally.wrong("other", f"{name} doesn't end")
        for told in re.findall(r"Traceback.*?\n(?=\S)", host.log, re.DOTALL):
            if "/uwsgi_waffle/" in told:
                self._tally.wrong("other", f"{name} has logged a traceback: {told}")
        if "DAMN" in host.log:
            self._tally.wrong("died", f"a worker of {name} has died\n{host.log[-2000:]}")

    # Clients

    @contextmanager
    def _clients(self) -> Iterator[None]:
        work = [(act, name) for name in HOSTS for act in (self._read, self._read, self._count)]
        threads = [threading.Thread(target=self._repeat, args=one) for one in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def _repeat(self, act: Callable[[str], object], name: str) -> None:
        while not self._done.wait(0.002):
            if act == self._count and self._calm.is_set():
                continue
            try:
                act(name)
            except (OSError, http.client.HTTPException) as error:
                self._tally.wrong("other", f"{name} doesn't answer: {error!r}")
            except Exception as error:
                self._tally.wrong("other", f"a client: {error!r}")

    def _read(self, name: str) -> None:
        asked = self._judge.ask(name)
        status, answer = self._hosts[name].ask("GET", "/read")
        if status == 200:
            self._judge.answered(name, asked, answer)
        else:
            self._tally.wrong("other", f"a read of {name} was answered with {status} {answer!r}")

    def _count(self, name: str, query: str = "") -> bool:
        try:
            status, answer = self._hosts[name].ask("POST", f"/count{query}")
        except (FileNotFoundError, ConnectionRefusedError):
            raise  # it was never sent
        except (OSError, http.client.HTTPException):
            self._judge.unanswered()
            raise
        if status == 200:
            self._judge.acknowledge(name, answer["revision"], answer["count"])
        elif status != 503:
            self._tally.wrong("other", f"an update of {name} was answered with {status} {answer!r}")
        elif not answer["error"].startswith("HostBusy"):
            self._judge.unanswered()  # where the connection broke, it may have been committed
        return status == 200

    # Faults

    def _break_for(self, seconds: float) -> None:
        end, turn = time.monotonic() + seconds, list[Callable[[], Any]]()
        faults = [
            *(self._cut(servers, **ways) for servers in CUTS for ways in WAYS),
            self._vanish,
            self._vanish_in_an_update,
            self._pause_mule,
            self._pause_worker,
            self._pause_redis,
            self._pause_database,
            self._jump,
        ]
        while time.monotonic() < end:
            if not turn:  # each once, in another order each time
                turn = self._random.sample(faults, len(faults))
            began, looks, count = time.monotonic(), self._tally.looks, len(self._judge.acknowledged)
            name = self._random.choice(HOSTS)
            with turn.pop()(name) as what:
                self._done.wait(self._random.uniform(0.2, 3.0))  # clients go on meanwhile
            self._tally.faults += 1
            self._calm.set()
            took = self._recover(what)
            self._calm.clear()
            self._say(
                f"{self._watchtype}, {what}: {time.monotonic() - began - took:.2f} s, all agree "
                f"{took:.2f} s later; {len(self._judge.acknowledged) - count} updates, "
                f"{self._tally.looks - looks} answers, {len(self._tally.said)} violations so far"
            )

    def _cut(self, servers: tuple[str, ...], **ways: bool) -> Callable[[str], Any]:
        @contextmanager
        def cut(name: str) -> Iterator[str]:
            told = " and ".join(NAMES[server] for server in servers)
            way = {(): "", ("there",): ", answers only", ("back",): ", requests only"}[tuple(ways)]
            with self._broken(name), self._networks.partition(name, servers, **ways):
                yield f"{name} without {told}{way}"

        return cut

    @contextmanager
    def _vanish(self, name: str) -> Iterator[str]:
        with self._broken(name), self._networks.vanish(name):
            yield f"{name} vanished"

    @contextmanager
    def _vanish_in_an_update(self, name: str) -> Iterator[str]:
        folder = self._hosts[name].folder
        (folder / "hold").touch()
        update = threading.Thread(target=self._hold_an_update, args=(name,))
        update.start()
        try:
            while not (folder / "held").exists() and update.is_alive():
                self._done.wait(0.005)
            with self._broken(*HOSTS), self._networks.vanish(name):
                yield f"{name} vanished in an update"
                (folder / "hold").unlink()
                update.join()
        finally:
            (folder / "hold").unlink(missing_ok=True)
            (folder / "held").unlink(missing_ok=True)
            update.join()

    def _hold_an_update(self, name: str) -> None:
        with suppress(OSError, http.client.HTTPException):
            while (
                not self._count(name, "?hold=1")
                and not (self._hosts[name].folder / "held").exists()
            ):
                pass

    @contextmanager
    def _pause_mule(self, name: str) -> Iterator[str]:
        with self._broken(name), _stopped(self._hosts[name].pids("mule")):
            yield f"the mule of {name} paused"

    @contextmanager
    def _pause_worker(self, name: str) -> Iterator[str]:
        with self._broken(name), _stopped(self._hosts[name].pids("worker")[:1]):
            yield f"a worker of {name} paused"

    @contextmanager
    def _pause_redis(self, _: str) -> Iterator[str]:
        assert self._redis.process is not None
        with self._broken(*HOSTS), _stopped([self._redis.process.pid]):
            yield "Redis paused"

    @contextmanager
    def _pause_database(self, _: str) -> Iterator[str]:
        with self._broken(*HOSTS):
            self._database.send_signal(signal.SIGSTOP)
            try:
                yield "the database paused"
            finally:
                self._database.send_signal(signal.SIGCONT)

    @contextmanager
    def _jump(self, name: str) -> Iterator[str]:
        seconds = self._random.choice([-86_400, -1, 3_600])
        (self._hosts[name].folder / "clock").write_text(str(seconds))
        yield f"the clock of {name} jumped by {seconds} s"

    @contextmanager
    def _broken(self, *names: str) -> Iterator[None]:
        for name in names:
            self._judge.broke(name)
        try:
            yield
        finally:
            for name in names:
                self._judge.mended(name)

    # What holds afterwards

    def _recover(self, what: str) -> float:
        """Wait until each host has updated and all show the same; return the seconds."""
        began, wanted, last = time.monotonic(), 0, ""
        missing = list(HOSTS)
        while time.monotonic() < began + BOUND:
            try:
                while missing and self._count(missing[0]):
                    missing.pop(0)
                if not missing:
                    wanted = wanted or max(self._judge.acknowledged)
                    shown = [self._hosts[name].ask("GET", "/status?hosts=1")[1] for name in HOSTS]
                    last = str(shown)
                    if all(_all_have(one, wanted) for one in shown):
                        took = time.monotonic() - began
                        self._tally.recovered(took if what != "the start" else 0.0)
                        return took
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            self._done.wait(0.01)
        logs = "\n".join(host.log[-1500:] for host in self._hosts.values())
        self._tally.wrong("other", f"{what}: not recovered: {missing} {last}\n{logs}")
        return BOUND

    def _compare(self) -> None:
        engine = sa.create_engine(self._url, poolclass=NullPool)
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT revision, new FROM waffle_history WHERE key = 'COUNT' ORDER BY revision"
            ).all()
            count = connection.exec_driver_sql(
                "SELECT value FROM waffle_values WHERE key = 'COUNT'"
            ).scalar_one()
        history = {revision: int(new) for revision, new in rows}
        self._judge.compare(history, int(count))
        self._say(
            f"{self._watchtype}: {count} increments, {len(self._judge.acknowledged)} acknowledged, "
            f"{self._judge.unknown} without an answer; {self._tally.looks} reads"
        )


NAMES = {REDIS: "Redis", DATABASE: "the database"}
CUTS = ((REDIS,), (DATABASE,), (REDIS, DATABASE))
WAYS: tuple[dict[str, bool], ...] = ({}, {"there": False}, {"back": False})


def _all_have(status: Any, revision: int) -> bool:
    """Return whether a host's processes run on the revision, or a later one, and it hears all."""
    processes, channel = status["processes"], status[status["watchtype"]]
    return (
        len(processes) > WORKERS
        and all(one["revision"] >= revision for one in processes)
        and (channel["listener"] is not None and not channel["error"])
        and len(status["hosts"]) == len(HOSTS)
    )


@contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
