"""Measure on this machine and print a table: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ..live.servers import Servers
from ..redis_server import RedisServer
from . import hosts, propagation, reading, variables
from .table import HEADING


def main() -> None:
    """Run all benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="updates and bare signals (default: 300)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        print(HEADING)
        for row in reading.measure(Path(folder), max(5, rounds // 10)):
            print(row, flush=True)
        servers = Servers(Path(folder))
        try:
            for row in propagation.measure(servers, rounds):
                print(row, flush=True)
            for row in variables.measure(servers, max(5, rounds // 10)):
                print(row, flush=True)
            redis = RedisServer(Path(folder))
            try:
                for row in hosts.measure(servers, redis, rounds):
                    print(row, flush=True)
                servers.stop_all()
            finally:
                redis.kill()
        finally:
            servers.stop_all()


if __name__ == "__main__":
    main()
