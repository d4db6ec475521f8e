"""Several hosts, each with its own folder, that share one store and one channel."""

from __future__ import annotations

from pathlib import Path

from uwsgi_waffle.wake import open_channel

from ..host import listeners
from ..redis_server import RedisServer
from ..sql_servers import PostgreSQL
from .servers import Server, Servers

__all__ = [
    "GEVENT",
    "LAZY",
    "MULE",
    "WORKERS",
    "Hosts",
    "InPostgreSQL",
    "InRedis",
    "listener",
    "loads",
    "mule",
    "told",
    "update_and_count",
    "wait_until_told",
]

MULE = "--mule=uwsgi_waffle.mule"
LAZY = ("--lazy-apps", "--shared-import", "uwsgi_waffle")
GEVENT = ("--gevent", "10", "--gevent-monkey-patch")
WORKERS = 2


class InRedis:
    """Hosts that share a SQLite database and meet in a Redis."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis, self.environ = redis, {"SITE_DATABASE": str(folder)}
        self.environ |= {"WAFFLE_WATCHTYPE": "redis", "WAFFLE_REDIS_URL": redis.url}

    def subscribers(self) -> int:
        with self.redis.client() as client:
            return int(client.pubsub_numsub("waffleconf")[0][1])


class InPostgreSQL:
    """Hosts that meet in the PostgreSQL that they share."""

    def __init__(self, server: PostgreSQL) -> None:
        self.server, self.url = server, server.fresh()
        self.environ = {
            "SITE_SQL": self.url,
            "WAFFLE_WATCHTYPE": "postgres",
            "WAFFLE_LISTEN_URL": self.url,
        }

    def subscribers(self) -> int:
        return listeners(open_channel("postgres", self.url, "waffleconf"))


class Hosts:
    """Starts servers that share a database and a channel, but no folder."""

    def __init__(self, servers: Servers, meeting: InRedis | InPostgreSQL) -> None:
        self._servers, self.meeting = servers, meeting
        self.database = servers.folder / "waffle.db"

    @property
    def redis(self) -> RedisServer:
        assert isinstance(self.meeting, InRedis)
        return self.meeting.redis

    def environ(self, folder: Path) -> dict[str, str]:
        return {
            **self.meeting.environ,
            "WAFFLE_WATCHER_FILE": str(folder / "instance" / "waffle.watch"),
        }

    def start(self, name: str, *options: str, workers: int = WORKERS, **environ: str) -> Server:
        """Start a uWSGI instance on a host of its own."""
        folder = self._servers.folder / name
        folder.mkdir()
        return self._servers.uwsgi(
            *options,
            workers=workers,
            addressed=True,
            folder=folder,
            **{**self.environ(folder), **environ},
        )

    def start_other(self, name: str, *command: str) -> Server:
        """Start another server on a host of its own."""
        folder = self._servers.folder / name
        folder.mkdir()
        return self._servers.start(command, folder=folder, **self.environ(folder))

    def pair(self, *options: str, **environ: str) -> list[Server]:
        """Start two hosts and wait until both listen."""
        pair = [self.start(name, *options, **environ) for name in ("left", "right")]
        self.wait_for_listeners(pair)
        return pair

    def wait_for_listeners(self, hosts: list[Server]) -> None:
        hosts[0].eventually(self.subscribers, until=lambda found: found == len(hosts))

    def subscribers(self) -> int:
        return self.meeting.subscribers()


def told(server: Server, number: int) -> set[str]:
    """Return the pids of the processes whose hooks were told of an update."""
    return {record[0] for record in server.records("changes") if record[4] == str(number)}


def wait_until_told(server: Server, number: int) -> None:
    """Wait until all workers of a host, that get no request, were told."""
    workers = {str(pid) for pid, kind in server.table().items() if kind.startswith("worker")}
    server.eventually(lambda: told(server, number) >= workers)


def loads(server: Server) -> int:
    return sum(record[2] == "load" for record in server.records("store"))


def update_and_count(hosts: list[Server], number: int) -> None:
    """Update on one host: each of the others is told, and asks the store once."""
    writer, before = hosts[number % 2], [loads(server) for server in hosts]
    writer.update(number)
    for server in hosts:
        wait_until_told(server, number)
    if number > 2:  # a listener rings once when it begins to listen, before the first that it hears
        found = [loads(server) - count for server, count in zip(hosts, before, strict=True)]
        assert found == [int(server is not writer) for server in hosts]


def listener(server: Server) -> int:
    """Return the pid of the process of a host that listens."""

    def found() -> int | None:
        status = server.get("/status")
        pid: int | None = status[status["watchtype"]]["listener"]
        return pid

    return int(server.eventually(found) or 0)


def mule(server: Server) -> int:
    """Return the pid of the last mule that was started."""
    lines = [line for line in server.log.splitlines() if "uWSGI mule" in line]
    return int(lines[-1].rpartition("pid: ")[2].rstrip(")"))
