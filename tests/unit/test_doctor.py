"""`flask waffle doctor`: what it finds in an installation that is broken in just this way."""

from __future__ import annotations

import json
import logging.config
import os
import pwd
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from uwsgi_waffle import PeeweeWaffleStore, ProcessInfo, RedisStore
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.doctor import checks, folder
from uwsgi_waffle.doctor.folder import Account
from uwsgi_waffle.host import HostFiles
from uwsgi_waffle.identity import Mount

from ..contract.models import peewee_model
from ..redis_server import RedisServer
from .conftest import ALWAYS, Host, Process

Findings = list[tuple[str, str, str, str]]
Place = Callable[..., HostFiles]

#: What a worker reports of a server that is as it should be.
WELL: dict[str, Any] = {
    "uwsgi": "2.0.31",
    "missing_ini_line": "",
    "lazy_apps": False,
    "enable_threads": False,
    "our_mule": "",
    "not_loaded": "",
    "uid": os.geteuid(),
    "gids": [os.getegid()],
    "woken_by": "signal",
    "watchtype": "file",
}
MULE = "uwsgi_waffle.mule"


@pytest.fixture
def place(host: Host) -> Iterator[Place]:
    """Put a living process into the host's files; by default it is as it should be."""
    placed: list[HostFiles] = []

    def place(
        site: Process, kind: str = "worker 1", *, pid: int = 4711, **report: Any
    ) -> HostFiles:
        files, newest = HostFiles(host.watch_file), site.state.newest_published()
        known = {name: report.pop(name) for name in ("error", "snapshot") if name in report}
        known = {"error": "", "snapshot": newest.id.hex(), **known}
        revision = newest.revision if known["snapshot"] == newest.id.hex() else 0
        server = {**WELL, **report} if kind != "gunicorn" else {"watchtype": "file", **report}
        server |= {"uid": WELL["uid"], "gids": WELL["gids"]} if "uid" not in report else {}
        files.processes.report(
            ProcessInfo(
                pid=pid,
                kind=kind,
                revision=revision,
                applied_at=time.monotonic(),
                server=server,
                **known,
            )
        )
        placed.append(files)
        return files

    yield place
    for files in placed:
        files.processes.leave()
        files.listener_lock.release()


def listen(process: HostFiles, pid: int, *, error: str = "") -> None:
    """Let a process be the one that listens to other hosts."""
    assert process.listener_lock.acquire()
    process.listener_lock.write({"pid": pid, "error": error})


def run(app: Flask, *words: object) -> Result:
    return app.test_cli_runner().invoke(command, ["doctor", "--patience", "0", *map(str, words)])


def judged(app: Flask) -> Findings:
    """Return all findings, and check that the exit code says the same."""
    result = run(app, "--json")
    findings = [tuple(finding.values()) for finding in json.loads(result.stdout)["findings"]]
    assert result.exit_code == any(level == "error" for level, *_ in findings)
    assert all(bool(change) == (level != "ok") for level, _, _, change in findings), (
        "whatever isn't ok says what to change"
    )
    return findings


def found(app: Flask) -> Findings:
    """Return what is not ok; that no server runs is another test's."""
    return [
        finding
        for finding in judged(app)
        if finding[0] != "ok" and not finding[2].startswith("No server process")
    ]


class TestServer:
    def test_none_runs(self, site: Process) -> None:
        ((level, check, text, change),) = [f for f in judged(site.app) if f[0] != "ok"]
        assert (level, check) == ("warning", "server")
        assert text == "No server process here uses this store"
        assert "WAFFLE_STORE_URL, WAFFLE_WATCHER_FILE or instance folder" in change

    def test_uwsgi_as_it_should_be(self, site: Process, place: Place) -> None:
        place(site)
        assert {level for level, *_ in judged(site.app)} == {"ok"}
        assert "ok       server:       uWSGI 2.0.31\n" in run(site.app).output

    def test_another_server(self, site: Process, place: Place) -> None:
        place(site, "gunicorn")
        assert {level for level, *_ in judged(site.app)} == {"ok"}
        assert "ok       server:       gunicorn\n" in run(site.app).output

    @pytest.mark.parametrize(
        ("report", "level", "check", "change"),
        [
            ({"missing_ini_line": "master = true"}, "warning", "master", "master = true"),
            (
                {"missing_ini_line": "shared-import = uwsgi_waffle", "lazy_apps": True},
                "warning",
                "master",
                "shared-import = uwsgi_waffle",
            ),
            ({"woken_by": "thread"}, "warning", "master", "the server's log"),
            (
                {"woken_by": "thread", "monitor_error": "/x (it is full. Make room)"},
                "warning",
                "master",
                "Do what it says.",
            ),
            ({"enable_threads": True}, "warning", "threads", "Remove from the ini: enable-threads"),
            ({"uwsgi": "2.0.21"}, "error", "threads", "Add to the ini: enable-threads = true"),
            ({"not_loaded": "/b"}, "error", "interpreter", "single-interpreter = true"),
            ({"our_mule": MULE}, "warning", "mule", f"remove from the ini: mule = {MULE}"),
            (
                {"our_mule": f"{MULE}:run", "lazy_apps": True},
                "error",
                "mule",
                f"Write in the ini: mule = {MULE}",
            ),
            ({"watchtype": "redis"}, "warning", "settings", "Export WAFFLE_WATCHTYPE"),
            ({"knows_mounts": False}, "warning", "chroot", "mount -t proc proc CHROOT/proc"),
            (
                {"knows_mounts": False, "chroot": "/srv/jail"},
                "warning",
                "chroot",
                "mount -t proc proc /srv/jail/proc",
            ),
        ],
        ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
    )
    def test_each_fact_is_one_finding(
        self,
        site: Process,
        place: Place,
        report: dict[str, Any],
        level: str,
        check: str,
        change: str,
    ) -> None:
        """However many workers report it."""
        for number in (1, 2):
            place(site, f"worker {number}", pid=number, **report)
        (finding,) = [finding for finding in found(site.app) if finding[1] != "redis"]
        assert finding[:2] == (level, check)
        assert change in finding[3]

    @pytest.mark.parametrize(
        ("kind", "report"),
        [
            ("mule 1", {"woken_by": "thread"}),
            ("spooler", {"woken_by": "thread"}),
            ("worker 1", {"uwsgi": "2.0.21", "enable_threads": True}),
            ("worker 1", {"lazy_apps": True}),
        ],
    )
    def test_what_is_well(
        self, site: Process, place: Place, kind: str, report: dict[str, Any]
    ) -> None:
        place(site, "worker 2")
        place(site, kind, pid=2, **{"uwsgi": "2.0.31", **report})
        assert [f for f in found(site.app) if f[1] != "threads" or "2.0.31" in f[2]] == []

    def test_names_of_processes_are_escaped(self, site: Process, place: Place) -> None:
        place(site, "worker\x1b[2J")
        assert "\x1b" not in run(site.app).output


class TestRedis:
    @pytest.fixture
    def process(self, host: Host, redis_server: RedisServer) -> Process:
        return host.start(WATCHTYPE="redis", REDIS_URL=redis_server.url)

    @pytest.fixture
    def app(self, process: Process) -> Flask:
        return process.app

    def test_one_that_responds_is_well(self, app: Flask) -> None:
        assert found(app) == []

    def test_without_a_mule_a_worker_has_to_listen(self, process: Process, place: Place) -> None:
        worker = place(process, watchtype="redis", pid=4711)
        listen(worker, 4711)
        assert ("warning", "mule", f"Add to the ini: mule = {MULE}") in [
            (level, check, change) for level, check, _, change in found(process.app)
        ]

    def test_a_mule_under_lazy_apps_needs_its_settings_in_the_environment(
        self, process: Process, host: Host, place: Place
    ) -> None:
        worker = place(process, watchtype="redis", our_mule=MULE, lazy_apps=True)
        listen(worker, 4711)
        (change,) = [change for _, check, _, change in found(process.app) if check == "mule"]
        assert f"env = WAFFLE_WATCHER_FILE={host.watch_file}" in change

    def test_one_that_is_down(self, app: Flask, redis_server: RedisServer) -> None:
        redis_server.kill()
        ((level, check, text, change),) = found(app)
        assert (level, check) == ("error", "redis")
        assert change == "Start Redis, or correct WAFFLE_REDIS_URL."
        assert "can't ask Redis" in text

    def test_nobody_listens(
        self, process: Process, place: Place, redis_server: RedisServer
    ) -> None:
        """A process of another host that listens is no help here."""
        place(process, "gunicorn", watchtype="redis")
        assert [finding[:2] for finding in found(process.app)] == [("error", "redis")]
        with redis_server.client() as client, client.pubsub() as elsewhere:
            elsewhere.subscribe("waffleconf")
            elsewhere.get_message(timeout=20)
            ((level, check, text, _),) = found(process.app)
        assert (level, check) == ("error", "redis")
        assert "no process of this host listens to the channel 'waffleconf'" in text

    def test_the_listener_has_an_error(self, site: Process, place: Place) -> None:
        """Only the server uses Redis: what its listener says is shown."""
        mule = place(site, watchtype="redis", our_mule=MULE)
        listen(mule, 4711, error="can't listen to Redis: refused")
        findings = {check: text for _, check, text, _ in found(site.app)}
        assert findings["redis"] == "can't listen to Redis: refused"

    def test_what_only_the_server_uses_is_not_said_to_respond(
        self, site: Process, place: Place
    ) -> None:
        """Nobody has asked it: the shell doesn't know where it is."""
        mule = place(site, watchtype="redis", our_mule=MULE)
        listen(mule, 4711)
        checks = [finding[1] for finding in judged(site.app)]
        assert "settings" in checks
        assert "redis" not in checks

    def test_without_its_library(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)
        ((level, check, _, change),) = found(host.start(WATCHTYPE="redis").app)
        assert (level, check) == ("error", "redis")
        assert change == "Run: pip install 'uwsgi_waffle[redis]'"


class TestStore:
    def test_one_that_is_down(self, host: Host, site: Process) -> None:
        ((level, check, text, change),) = found(host.start(host.store(ALWAYS)).app)
        assert (level, check, text) == ("error", "store", "the store is down")
        assert "WAFFLE_STORE_URL" in change

    def test_one_that_is_read_only(self, site: Process, host: Host) -> None:
        host.sql(
            "CREATE TRIGGER no BEFORE UPDATE ON waffle_meta BEGIN SELECT RAISE(ABORT, "
            "'readonly'); END"
        )
        ((level, check, text, change),) = found(site.app)
        assert (level, check) == ("error", "store")
        assert "WAFFLE_STORE_URL" in change
        assert "refuses to be written" in text
        assert "Let this process write there" in text

    def test_a_redis_that_is_a_replica(self, host: Host, redis_server: RedisServer) -> None:
        app = host.start(RedisStore(redis_server.url)).app
        assert found(app) == []
        with redis_server.client() as client:
            before = client.hgetall("waffle")
            client.replicaof("127.0.0.1", 1)
            ((level, check, text, change),) = found(app)
            assert client.hgetall("waffle") == before
        assert (level, check) == ("error", "store")
        assert "WAFFLE_STORE_URL" in change
        assert "Name the primary in the URL" in text, "no right is missing"

    def test_one_that_is_not_shared(self, host: Host) -> None:
        ((level, check, text, _),) = found(host.start(MULTIPROC=False).app)
        assert (level, check) == ("warning", "server")
        assert "WAFFLE_MULTIPROC is False" in text


class TestApplication:
    def test_one_that_can_not_start(
        self, host: Host, site: Process, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WAFFLE_WATCHTYPE", "x")
        obj = ScriptInfo(create_app=lambda: host.start().app)
        result = site.app.test_cli_runner().invoke(command, ["doctor", "--json"], obj=obj)
        assert result.exit_code == 1
        (finding,) = json.loads(result.stdout)["findings"]
        assert (finding["level"], finding["check"]) == ("error", "application")
        assert "WAFFLE_WATCHTYPE can't be 'x': Input should be 'file', 'redis'" in finding["text"]

    def test_one_without_the_extension(self) -> None:
        ((level, check, text, _),) = found(Flask("bare"))
        assert (level, check) == ("error", "application")
        assert "has no WaffleConf" in text


class TestLog:
    @pytest.fixture(autouse=True)
    def as_before(self) -> Iterator[None]:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        was = {
            logger: logger.disabled
            for logger in root.manager.loggerDict.values()
            if isinstance(logger, logging.Logger)
        }
        yield
        root.handlers[:], root.level = handlers, level
        for logger, disabled in was.items():
            logger.disabled = disabled

    def test_loggers_that_the_application_has_disabled(self, site: Process) -> None:
        logging.config.dictConfig({"version": 1})
        ((level, check, text, change),) = found(site.app)
        assert (level, check) == ("warning", "log")
        assert "uwsgi_waffle and uwsgi_waffle.audit" in text
        assert '"disable_existing_loggers": False' in change
        assert "fileConfig(..., disable_existing_loggers=False)" in change

    def test_only_the_audit_log(self, site: Process) -> None:
        logging.getLogger("uwsgi_waffle.audit").disabled = True
        ((_, _, text, _),) = found(site.app)
        assert text.startswith("logging.config has disabled uwsgi_waffle.audit:")

    def test_loggers_that_it_keeps(self, site: Process) -> None:
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        assert found(site.app) == []


class TestFolder:
    def test_one_on_the_network(self, site: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folder, "mount_of", lambda path: Mount("", "/", "/", "nfs4"))
        ((level, check, text, change),) = found(site.app)
        assert (level, check) == ("error", "folder")
        assert "nfs4" in text
        assert "WAFFLE_WATCHER_FILE" in change

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's server")
    @pytest.mark.parametrize("kind", ["url", "namespace", "uri", "peewee"])
    def test_a_server_that_may_not_write_the_database(
        self, host: Host, place: Place, kind: str
    ) -> None:
        """The store says where its file is; its name is a text for people."""
        host.instance.mkdir()
        settings, store = {}, None
        database = host.instance / "waffle.db"
        if kind == "namespace":
            database = host.instance / "of ann:x@example" / "waffle.db"
            settings = {"STORE_URL": f"sqlite:///{database}", "NAMESPACE": "shop_"}
        elif kind == "uri":
            settings = {"STORE_URL": f"sqlite:///file:{host.instance}/w%61ffle.db?mode=rwc&uri=1"}
        elif kind == "peewee":
            database = host.instance / "site.db"
            store = PeeweeWaffleStore(model=peewee_model(host.instance))
        site = host.start(store, **settings)
        nobody = pwd.getpwnam("nobody")
        place(site, uid=nobody.pw_uid, gids=[nobody.pw_gid])
        findings = found(site.app)
        assert {finding[:2] for finding in findings} == {("error", "folder")}
        assert any(f"can't write {database}" in text for _, _, text, _ in findings)
        assert any(f"can't write {database.parent}" in text for _, _, text, _ in findings)

    def test_rights_as_the_kernel_grants_them(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()
        if os.geteuid() == 0:
            os.chown(path, 1, -1)
        found = path.stat()
        owner = Account(found.st_uid, frozenset())
        group = Account(99999, frozenset({found.st_gid}))
        other = Account(99999, frozenset({99999}))
        for mode, allowed in (
            (0o600, [owner]),
            (0o060, [group]),
            (0o006, [other]),
            (0o666, [owner, group, other]),
            (0o444, []),
        ):
            path.chmod(mode)
            may = [a for a in (owner, group, other) if a.may(path, stat.S_IROTH | stat.S_IWOTH)]
            assert may == allowed
        assert Account(0, frozenset()).may(path, 7)


class TestProcesses:
    def test_those_that_lag_are_one_finding(self, site: Process, place: Place) -> None:
        site.waffle.update({"LIMIT": 20})
        place(site, "worker 8", pid=8, snapshot="")
        place(site, "worker 9", pid=9, snapshot="")
        ((level, check, text, change),) = found(site.app)
        assert (level, check) == ("error", "processes")
        assert "worker 8 (pid 8)" in text
        assert "worker 9 (pid 9)" in text
        assert text.endswith("are on revision 0, and the host on 1")
        assert "long request" in change

    def test_a_shell_that_lags_is_a_warning(self, site: Process, place: Place) -> None:
        site.waffle.update({"LIMIT": 20})
        place(site, "flask shell", snapshot="")
        ((level, check, text, _),) = found(site.app)
        assert (level, check) == ("warning", "processes")
        assert text == "flask shell (pid 4711) is on revision 0, and the host on 1"

    def test_one_that_is_on_its_way(
        self, site: Process, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is checked again, and has got there meanwhile."""
        site.waffle.update({"LIMIT": 20})
        late = place(site, snapshot="")

        def pause(seconds: float) -> None:
            late.processes.leave()
            place(site)

        monkeypatch.setattr(checks, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
        result = site.app.test_cli_runner().invoke(command, ["doctor", "--patience", "100"])
        assert result.exit_code == 0

    def test_an_error_of_several_is_one_finding(self, site: Process, place: Place) -> None:
        place(site, "worker 1", pid=1, error="no disk")
        place(site, "worker 2", pid=2, error="no disk")
        ((level, check, text, _),) = found(site.app)
        assert (level, check) == ("error", "processes")
        assert "worker 1 (pid 1)" in text
        assert text.endswith(": no disk")
