"""Several hosts, each with its own folder, that share one store and one Redis."""

from __future__ import annotations

from pathlib import Path

from ..redis_server import RedisServer
from .servers import Server, Servers

__all__ = [
    "GEVENT",
    "LAZY",
    "MULE",
    "WORKERS",
    "Hosts",
    "listener",
    "loads",
    "mule",
    "told",
    "wait_until_told",
]

MULE = "--mule=uwsgi_waffle.mule"
LAZY = ("--lazy-apps", "--shared-import", "uwsgi_waffle")
GEVENT = ("--gevent", "10", "--gevent-monkey-patch")
WORKERS = 2


class Hosts:
    """Starts servers that share a database and a Redis, but no folder."""

    def __init__(self, servers: Servers, redis: RedisServer) -> None:
        self._servers, self.redis = servers, redis
        self.database = servers.folder / "waffle.db"

    def environ(self, folder: Path) -> dict[str, str]:
        return {
            "SITE_DATABASE": str(self.database.parent),
            "WAFFLE_WATCHTYPE": "redis",
            "WAFFLE_WATCHER_FILE": str(folder / "instance" / "waffle.watch"),
            "WAFFLE_REDIS_URL": self.redis.url,
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

    def pair(self, *options: str) -> list[Server]:
        """Start two hosts and wait until both are heard of in Redis."""
        pair = [self.start(name, *options) for name in ("left", "right")]
        self.wait_for_listeners(pair)
        return pair

    def wait_for_listeners(self, hosts: list[Server]) -> None:
        hosts[0].eventually(self.subscribers, until=lambda found: found == len(hosts))

    def subscribers(self) -> int:
        with self.redis.client() as client:
            return int(client.pubsub_numsub("waffleconf")[0][1])


def told(server: Server, number: int) -> set[str]:
    """Return the pids of the processes whose hooks were told of an update."""
    return {record[0] for record in server.records("changes") if record[4] == str(number)}


def wait_until_told(server: Server, number: int) -> None:
    """Wait until all workers of a host, that get no request, were told."""
    workers = {str(pid) for pid, kind in server.table().items() if kind.startswith("worker")}
    server.eventually(lambda: told(server, number) >= workers, deadline=30)


def loads(server: Server) -> int:
    return sum(record[2] == "load" for record in server.records("store"))


def listener(server: Server) -> int:
    """Return the pid of the process of a host that listens."""
    return int(server.eventually(lambda: server.get("/status")["redis"]["listener"]))


def mule(server: Server) -> int:
    """Return the pid of the last mule that was started."""
    lines = [line for line in server.log.splitlines() if "uWSGI mule" in line]
    return int(lines[-1].rpartition("pid: ")[2].rstrip(")"))
