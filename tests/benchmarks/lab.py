"""What the benchmarks share: a folder, the servers in it, and how often each thing is measured."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import psutil

from ..live.servers import Server, Servers
from ..redis_server import RedisServer

SITES = "tests.benchmarks.sites"


class Lab:
    """Where one part of the benchmarks is measured.

    Args:
        rounds: how often each contestant is measured.
        small: measure at the smallest sizes only, and only what is quick, to see that it runs.
    """

    def __init__(self, folder: Path, rounds: int, small: bool) -> None:
        self.folder, self.rounds, self.small = folder, rounds, small
        self.servers = Servers(folder)
        self._numbers = itertools.count(1)

    def place(self) -> Path:
        """Return an empty folder."""
        folder = self.folder / str(next(self._numbers))
        folder.mkdir()
        return folder

    @cached_property
    def redis(self) -> RedisServer:
        return RedisServer(self.folder)

    def end(self, *servers: Server) -> None:
        """End servers with -9: there is nothing to save, and many processes that end in order take
        long.
        """
        for server in servers:
            with suppress(psutil.NoSuchProcess):
                processes = [server.process, *server.process.children()]
                for process in processes:
                    process.kill()  # the master first, or it would make new ones
        self.servers.stop_all()

    def sizes(self, *sizes: int) -> tuple[int, ...]:
        return sizes[:1] if self.small else sizes

    def some(self, share: float) -> int:
        """Return a share of the rounds, for what takes long."""
        return max(1, round(self.rounds * share))


@contextmanager
def lab(rounds: int, small: bool) -> Iterator[Lab]:
    """Open a lab, afterwards stop its servers and remove its files."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    opened = Lab(folder, rounds, small)
    try:
        yield opened
    finally:
        try:
            opened.servers.stop_all()
        finally:
            if "redis" in opened.__dict__:
                opened.redis.kill()
            shutil.rmtree(folder)


def missing(*modules: str) -> bool:
    """Tell whether one of the modules can't be imported here."""
    return any(importlib.util.find_spec(module) is None for module in modules)
