"""Real SQL servers for the tests: PostgreSQL, from pgserver or the system, and the system's
MariaDB.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from .host import eventually

# What a store must not take as it comes; and a log that refuses writers who let others' changes in
# while they write.
POOR = [
    "--character-set-server=latin1",
    "--default-storage-engine=MyISAM",
    "--log-bin",
    "--binlog-format=STATEMENT",
    "--server-id=1",
]
PATIENCE = 60  # seconds for a start, on a machine that does other things, too
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])


class SQLServer(ABC):
    """A server that listens on a Unix socket in a folder, and on nothing else; its data is on the
    disk there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {}  # for `subprocess`
        self.process: subprocess.Popen[bytes] | None = None
        self._names = (f"w{number}" for number in count())
        self.install()
        try:
            self.start()
        except BaseException:
            if self.process is not None and self.process.poll() is None:
                self.kill()  # else it would outlive the tests, for nobody knows of it
            raise

    @property
    @abstractmethod
    def socket(self) -> Path:
        """Where it listens."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The server's own database, for the test's own questions."""

    @abstractmethod
    def install(self) -> None:
        """Create an empty data folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return how it is started."""

    @abstractmethod
    def fresh(self) -> str:
        """Return the URL of a place without tables."""

    def start(self) -> None:
        """Start it, again if it was killed, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, **self.options)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.socket(
                    socket.AF_UNIX
                ) as probe:  # PyMySQL would forget to close its own
                    probe.connect(str(self.socket))
                self._execute("SELECT 1")
                return
            except (OSError, sa.exc.OperationalError) as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise self.trouble(error) from error
                time.sleep(0.01)

    def trouble(self, error: Exception) -> RuntimeError:
        """Return an error that says all that is known of the server."""
        assert self.process is not None
        code, cores = self.process.poll(), os.cpu_count()
        state = "runs" if code is None else f"has ended with {code}"
        log = (self.folder / "log").read_text(errors="replace")[-4000:]
        load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
        return RuntimeError(
            f"{self.command()[0]} {state} (load {load} on {cores} cores): {error}\n"
            f"Its log ends with:\n{log}"
        )

    def execute(self, statement: str, url: str | None = None) -> None:
        """Do something behind the store's back; if the server isn't well, say why."""
        try:
            self._execute(statement, url)
        except sa.exc.OperationalError as error:
            raise self.trouble(error) from error

    def _execute(self, statement: str, url: str | None = None) -> None:
        engine = sa.create_engine(url or self.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def send_signal(self, number: signal.Signals) -> list[psutil.Process]:
        """Send it to all processes of the server, and return them; SIGSTOP has stopped them then.

        Of MariaDB's threads only one takes the signal, when it runs next. Until then the others go
        on, and could carry out a whole transaction.
        """
        assert self.process is not None
        first = psutil.Process(self.process.pid)
        # Before it is asked for its children: a stopped one makes no more of them.
        first.send_signal(number)
        children = first.children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)
        if number == signal.SIGSTOP:
            eventually(lambda: first.status() == psutil.STATUS_STOPPED)
        return [first, *children]

    def kill(self) -> None:
        """Kill it with -9 and wait until all of it is gone."""
        assert self.process is not None
        processes = self.send_signal(signal.SIGSTOP)
        for process in processes:
            process.kill()
        self.process.wait()
        psutil.wait_procs(processes[1:])

    def stop(self) -> None:
        """Shut it down in order, so that it leaves nothing behind in the system's memory."""
        assert self.process is not None
        self.process.send_signal(self.stop_signal)
        self.process.wait()

    stop_signal = signal.SIGTERM


class PostgreSQL(SQLServer):
    """PostgreSQL refuses to run as root, so it runs as nobody then, with copies of pgserver's
    binaries: nobody can't reach those in root's environment.
    """

    stop_signal = signal.SIGINT  # without waiting for its clients

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}"

    def install(self) -> None:
        binaries = self.found()
        assert binaries is not None
        self.binaries = binaries
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.options = {"user": nobody.pw_name, "group": nobody.pw_gid, "extra_groups": []}
            if "pgserver" in self.binaries.parts:
                self.binaries = self._copied(self.binaries.parents[2])
        options = [
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        run([self.binaries / "initdb", "--pgdata", self.folder / "data", *options], **self.options)

    def _copied(self, packages: Path) -> Path:
        """Copy pgserver's binaries into the folder. Return where they are."""
        for part in (
            "pgserver/pginstall/bin",
            "pgserver/pginstall/lib",
            "pgserver/pginstall/share",
            "pgserver.libs",
        ):
            shutil.copytree(packages / part, self.folder / part)
        return self.folder / "pgserver/pginstall/bin"

    @staticmethod
    def found() -> Path | None:
        """Return the folder of the binaries: pgserver's, else the system's newest."""
        spec = importlib.util.find_spec("pgserver")  # not imported: that starts setting things up
        if spec is not None and spec.submodule_search_locations is not None:
            return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
        versions = Path("/usr/lib/postgresql").glob("*/bin")
        newest = sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)
        server = shutil.which("postgres", path=os.pathsep.join([PATH, *map(str, newest)]))
        return Path(server).resolve().parent if server else None

    @staticmethod
    def missing() -> str | None:
        """Return why there is none here."""
        return (
            None
            if PostgreSQL.found()
            else "there is no PostgreSQL: pgserver has no wheel for this Python; "
            "apt-get install postgresql"
        )

    def command(self) -> list[str]:
        return [
            str(self.binaries / "postgres"),
            "-D",
            str(self.folder / "data"),
            "-k",
            str(self.folder),
            "-h",
            "",
        ]

    def fresh(self) -> str:
        schema = next(self._names)
        self.execute(f"CREATE SCHEMA {schema}")
        return f"{self.url}&options=-csearch_path%3D{schema}"


class MariaDB(SQLServer):
    """MariaDB, with defaults that keep neither all characters nor transactions, unless the tables
    name better ones.
    """

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    @property
    def url(self) -> str:
        return f"mysql+pymysql://root@localhost/mysql?unix_socket={self.socket}"

    def install(self) -> None:
        installer = shutil.which("mariadb-install-db", path=PATH)
        assert installer is not None
        run(
            [
                installer,
                *self.settings(),
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-name-resolve",
            ]
        )

    def settings(self) -> list[str]:
        data, user = self.folder / "data", pwd.getpwuid(os.geteuid()).pw_name
        return ["--no-defaults", f"--datadir={data}", f"--user={user}", "--innodb-log-file-size=8M"]

    def command(self) -> list[str]:
        server = shutil.which("mariadbd", path=PATH)
        assert server is not None
        return [
            server,
            *self.settings(),
            f"--socket={self.socket}",
            "--skip-networking",
            f"--pid-file={self.folder / 'pid'}",
            *POOR,
        ]

    def fresh(self) -> str:
        database = next(self._names)
        self.execute(f"CREATE DATABASE {database}")
        return self.url.replace("/mysql?", f"/{database}?")

    @staticmethod
    def missing() -> str | None:
        """Return why there is none here."""
        return (
            None
            if shutil.which("mariadbd", path=PATH)
            else "there is no mariadbd: apt-get install mariadb-server"
        )


def run(command: list[str | Path], **options: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
