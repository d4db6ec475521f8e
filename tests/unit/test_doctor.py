"""`flask waffle doctor`: each thing that it finds, in an installation that is broken in just this
way.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo

from uwsgi_waffle import RedisStore
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.doctor import Options, checks, processes, read_ini
from uwsgi_waffle.hostfiles import HostFiles, header
from uwsgi_waffle.hostfiles.files import MARK, aside_of

from ..redis_server import RedisServer
from .conftest import ALWAYS, Host, Process, note_process

ROOT = Path(__file__).parents[2]

Findings = list[tuple[str, str, str, str]]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an ini with the given lines."""

    def write(*lines: str, name: str = "uwsgi.ini", section: str = "uwsgi") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([f"[{section}]", *lines]))
        return path

    return write


def run(app: Flask, *words: object) -> Result:
    return app.test_cli_runner().invoke(command, ["doctor", "--patience", "0", *map(str, words)])


def found(app: Flask, *words: object) -> Findings:
    """Return what is not ok, and check that the exit code says the same."""
    result = run(app, "--json", *words)
    findings = [tuple(finding.values()) for finding in json.loads(result.stdout)["findings"]]
    assert result.exit_code == any(level == "error" for level, *_ in findings)
    assert all(bool(change) == (level != "ok") for level, _, _, change in findings), (
        "who isn't well is told what to change"
    )
    return [finding for finding in findings if finding[0] != "ok"]


class TestIni:
    def test_the_example_is_well(self, site: Process) -> None:
        result = run(site.app, "--ini", ROOT / "uwsgi.ini.example")
        assert (result.exit_code, {line.split()[0] for line in result.output.splitlines()}) == (
            0,
            {"ok"},
        )
        assert f"ok       ini:          {ROOT}/uwsgi.ini.example" in result.output

    @pytest.mark.parametrize(
        ("lines", "level", "check", "change"),
        [
            (["processes = 4"], "error", "master", "Add to the ini: master = true"),
            (["master = false", "mule"], "error", "master", "Add to the ini: master = true"),
            (
                ["master", "lazy-apps = true"],
                "error",
                "master",
                "Add to the ini: shared-import = uwsgi_waffle",
            ),
            (
                ["master", "lazy = 1", "import = uwsgi_waffle"],
                "error",
                "master",
                "Add to the ini: shared-import = uwsgi_waffle",
            ),
            (
                ["master = 1", "enable-threads"],
                "warning",
                "threads",
                "Remove from the ini: enable-threads",
            ),
            (
                ["master", "mount = /a=a", "mount = /b=b"],
                "error",
                "interpreter",
                "Add to the ini: single-interpreter = true",
            ),
            (
                ["master", "mount = /a=a", "module = b"],
                "error",
                "interpreter",
                "Add to the ini: single-interpreter = true",
            ),
            (
                ["mule = uwsgi_waffle.mule"],
                "warning",
                "mule",
                "remove from the ini: mule = uwsgi_waffle.mule",
            ),
            (["master", "env = WAFFLE_WATCHTYPE=x"], "error", "settings", "Correct this setting."),
            (
                ["master", "env = WAFFLE_WATCHER_FILE=/x/waffle.watch"],
                "error",
                "settings",
                "Export WAFFLE_WATCHER_FILE in the shell",
            ),
            (
                ["master", "env = WAFFLE_STORE_URL=sqlite:////x.db"],
                "error",
                "settings",
                "Export WAFFLE_STORE_URL in the shell",
            ),
            (
                ["master", "env = WAFFLE_STORE_URL=ftp://x"],
                "error",
                "settings",
                "Correct this setting.",
            ),
            (["master", "if-env = X", "endif ="], "warning", "ini", "Look whether it does"),
            (["yaml = x.yaml"], "warning", "ini", "Name an ini with --ini"),
        ],
        ids=lambda value: ", ".join(value) if isinstance(value, list) else "",
    )
    def test_each_line_that_is_missing_or_too_many(
        self, site: Process, write: Write, lines: list[str], level: str, check: str, change: str
    ) -> None:
        (finding,) = found(site.app, "--ini", write(*lines))
        assert finding[:2] == (level, check)
        assert change in finding[3]

    @pytest.mark.parametrize(
        "lines",
        [
            ["master = true", "lazy-apps = true", "shared-import = uwsgi_waffle"],
            ["master = true", "lazy-apps = false"],
            ["master = true", "enable-threads = no", "mount = /a=a"],
            ["touch-reload = x"],
            ["cheaper = 1", "master = off", "master = on"],
            ["master", "mount = /a=a", "mount = /b=b", "single-interpreter"],
        ],
        ids=", ".join,
    )
    def test_what_is_well(self, site: Process, write: Write, lines: list[str]) -> None:
        assert found(site.app, "--ini", write(*lines)) == []

    def test_a_setting_of_the_application_holds_before_the_environment(
        self, host: Host, write: Write
    ) -> None:
        app = host.start(WATCHER_FILE=host.watch_file, STORE_URL=f"sqlite:///{host.database}").app
        lines = [
            "env = WAFFLE_WATCHER_FILE=/x/waffle.watch",
            "env = WAFFLE_STORE_URL=sqlite:////x.db",
        ]
        assert found(app, "--ini", write("master", *lines)) == []

    def test_several_files_are_judged_each(self, site: Process, write: Write) -> None:
        first, second = write("master", "enable-threads"), write("processes = 1", name="b.ini")
        assert [finding[1] for finding in found(site.app, "--ini", first, "--ini", second)] == [
            "threads",
            "master",
        ]

    def test_a_file_that_is_not_there_is_exit_code_2(self, site: Process) -> None:
        assert run(site.app, "--ini", "/nowhere/uwsgi.ini").exit_code == 2


class TestReading:
    """As uWSGI reads it; tests/live shows that uWSGI does."""

    def test_comments_sections_and_keys_without_a_value(self, write: Write) -> None:
        path = write(
            "; a = 1",
            "# b = 2",
            "c",
            " d =  x ; y # z ",
            "e = 1",
            "e = 2",
            "[other]",
            "f = 1",
            "[uwsgi]",
            "g = 1",
        )
        assert read_ini(path).pairs == (
            ("c", ""),
            ("d", "x ; y # z"),
            ("e", "1"),
            ("e", "2"),
            ("g", "1"),
        )

    def test_placeholders_and_magic(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCTOR", "who")
        path = write(
            "a = %(b)/x",
            "b = %(c)",
            "set-ph = c=/srv",
            "d = %d%n.%e %s %p %c",
            "e = 100%%",
            "f = $(DOCTOR)",
            "g = %(g)",
        )
        assert dict(read_ini(path).pairs) == {
            "a": "/srv/x",
            "b": "/srv",
            "c": "/srv",
            "d": f"{tmp_path}/uwsgi.ini uwsgi.ini {path} {tmp_path.name}",
            "e": "100%",
            "f": "who",
            "g": "%(g)",
        }

    def test_files_that_are_included(self, write: Write, tmp_path: Path) -> None:
        write("b = 2", name="other.ini")
        write("c = 3", name="third.ini", section="here")
        path = write("a = 1", "ini = other.ini", f"include = {tmp_path}/third.ini:here", "d = 4")
        assert read_ini(path) == Options(
            str(path), (("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")), {}
        )

    @pytest.mark.parametrize(
        ("lines", "told"),
        [
            (["ini = uwsgi.ini"], "uwsgi.ini includes itself"),
            (["ini = none.ini"], "none.ini can't be read: No such file or directory"),
            (["ini = uwsgi.ini:other"], "has no section [other]"),
            (["yaml = x.yaml"], "x.yaml isn't an ini file"),
            (["include = x.xml"], "x.xml isn't an ini file"),
            (["emperor = /etc/vassals"], "the Emperor's vassals have files of their own"),
            (["for = a b", "env = X=%(_)", "endfor ="], "the block of `for = a b`"),
        ],
    )
    def test_what_can_not_be_read_is_told(self, write: Write, lines: list[str], told: str) -> None:
        options = read_ini(write(*lines))
        (unread,) = options.unread or options.assumed
        assert told in unread


class TestRedis:
    @pytest.fixture
    def process(self, host: Host, redis_server: RedisServer) -> Process:
        return host.start(WATCHTYPE="redis", REDIS_URL=redis_server.url)

    @pytest.fixture
    def app(self, process: Process) -> Flask:
        return process.app

    def test_one_that_answers_is_well(self, app: Flask, write: Write) -> None:
        assert found(app, "--ini", write("mule = uwsgi_waffle.mule")) == []

    def test_without_a_mule_a_worker_has_to_listen(self, app: Flask, write: Write) -> None:
        ((level, check, _, change),) = found(app, "--ini", write("master"))
        assert (level, check, change) == (
            "warning",
            "mule",
            "Add to the ini: mule = uwsgi_waffle.mule",
        )

    def test_a_mule_under_lazy_apps_needs_its_settings_in_the_environment(
        self, app: Flask, host: Host, redis_server: RedisServer, write: Write
    ) -> None:
        lines = ["lazy-apps", "shared-import = uwsgi_waffle", "mule = uwsgi_waffle.mule"]
        ((level, check, _, change),) = found(app, "--ini", write(*lines))
        assert (level, check) == ("warning", "mule")
        assert f"env = WAFFLE_WATCHER_FILE={host.watch_file}" in change
        settings = {
            "WATCHTYPE": "redis",
            "REDIS_URL": redis_server.url,
            "WATCHER_FILE": host.watch_file,
        }
        lines += [f"env = WAFFLE_{name}={value}" for name, value in settings.items()]
        assert found(app, "--ini", write(*lines)) == []
        ((level, check, _, change),) = found(
            app, "--ini", write(*lines, "mule = uwsgi_waffle.mule:run")
        )
        assert (level, check, change) == (
            "error",
            "mule",
            "Write in the ini: mule = uwsgi_waffle.mule",
        )

    def test_one_that_is_down(self, app: Flask, redis_server: RedisServer) -> None:
        redis_server.kill()
        ((level, check, text, change),) = found(app)
        assert (level, check, change) == (
            "error",
            "redis",
            "Start Redis, or correct WAFFLE_REDIS_URL.",
        )
        assert "can't ask Redis" in text

    def test_one_that_only_the_ini_names(self, site: Process, write: Write, tmp_path: Path) -> None:
        """The server's settings are judged, not the shell's."""
        lines = [
            "mule = uwsgi_waffle.mule",
            "env = WAFFLE_WATCHTYPE=redis",
            f"env = WAFFLE_REDIS_URL=unix://{tmp_path}/none",
        ]
        assert [finding[:2] for finding in found(site.app, "--ini", write(*lines))] == [
            ("error", "redis")
        ]

    def test_nobody_listens(
        self, process: Process, idle_process: int, redis_server: RedisServer
    ) -> None:
        """Nobody of this host, for that another one's process does is no help here."""
        note_process(process, idle_process, "gunicorn", digest=process.state.look().digest)
        assert [finding[:2] for finding in found(process.app)] == [("error", "redis")]
        with redis_server.client() as client, client.pubsub() as elsewhere:
            elsewhere.subscribe("waffleconf")
            elsewhere.get_message(timeout=20)
            ((level, check, text, _),) = found(process.app)
        assert (level, check) == ("error", "redis")
        assert "no process of this host listens to the channel 'waffleconf'" in text

    def test_without_its_library(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)
        ((level, check, _, change),) = found(host.start(WATCHTYPE="redis").app)
        assert (level, check, change) == (
            "error",
            "redis",
            "Run: pip install 'uwsgi_waffle[redis]'",
        )


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
        assert (level, check, change) == (
            "error",
            "store",
            "Give the server's user the right to write there.",
        )
        assert "refuses to be written" in text

    def test_a_redis_that_is_a_replica(self, host: Host, redis_server: RedisServer) -> None:
        app = host.start(RedisStore(redis_server.url)).app
        assert found(app) == []
        with redis_server.client() as client:
            before = client.hgetall("waffle")
            client.replicaof("127.0.0.1", 1)
            ((level, check, text, change),) = found(app)
            assert client.hgetall("waffle") == before
        assert (level, check, change) == (
            "error",
            "store",
            "Give the server's user the right to write there.",
        )
        assert "read only replica" in text

    def test_values_that_do_not_fit(self, site: Process, host: Host) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '-1')")
        ((level, check, text, change),) = found(site.app)
        assert (level, check) == ("error", "store")
        assert "LIMIT" in text
        assert "flask waffle unset" in change

    def test_one_that_is_not_shared(self, host: Host) -> None:
        ((level, check, text, _),) = found(host.start(MULTIPROC=False).app)
        assert (level, check) == ("warning", "processes")
        assert "WAFFLE_MULTIPROC is False" in text

    def test_an_application_that_can_not_start(
        self, host: Host, site: Process, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What can be looked at without it is looked at."""
        monkeypatch.setenv("WAFFLE_WATCHTYPE", "x")

        def create_app() -> Flask:
            return host.start().app

        words = ["doctor", "--json", "--ini", str(write("processes = 1"))]
        result = site.app.test_cli_runner().invoke(
            command, words, obj=ScriptInfo(create_app=create_app)
        )
        assert result.exit_code == 1
        findings = [
            finding for finding in json.loads(result.stdout)["findings"] if finding["level"] != "ok"
        ]
        assert [finding["check"] for finding in findings] == ["application", "master", "settings"]
        assert "WAFFLE_WATCHTYPE must be 'file' or 'redis'" in findings[0]["text"]


class TestFolder:
    def test_one_on_the_network(self, site: Process, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(header, "filesystem_of", lambda path: "nfs4")
        ((level, check, text, change),) = found(site.app)
        assert (level, check) == ("error", "folder")
        assert "nfs4" in text
        assert "WAFFLE_WATCHER_FILE" in change

    @pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can have a server run as somebody else"
    )
    def test_another_users_files(self, site: Process, host: Host, write: Write) -> None:
        """The server is to run as nobody, and root's shell was first."""
        findings = found(site.app, "--ini", write("master", "uid = nobody"))
        assert {finding[:2] for finding in findings} == {("error", "folder")}
        assert findings[0][3] == f"As root: chown -R nobody {host.header.parent} {host.watch_file}"
        assert any(f"can't write {host.database}" in text for _, _, text, _ in findings)
        assert any(f"can't write {host.instance}" in text for _, _, text, _ in findings)

    @pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can have a server run as somebody else"
    )
    def test_what_a_killed_shell_of_roots_left_is_in_nobodys_way(
        self, site: Process, host: Host, write: Write
    ) -> None:
        nobody, folder = pwd.getpwnam("nobody"), host.header.parent
        for path in (folder, *folder.rglob("*"), host.watch_file):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        aside = aside_of(folder / "bell")
        aside.mkdir()
        (aside / MARK).touch()
        ini = write("master", "uid = nobody")
        assert not [
            text for _, _, text, _ in found(site.app, "--ini", ini) if "doesn't belong" in text
        ]
        (folder / "strange").touch()
        assert [
            text
            for _, _, text, _ in found(site.app, "--ini", ini)
            if f"{folder}/strange doesn't belong" in text
        ]

    @pytest.mark.skipif(
        os.geteuid() != 0, reason="only root can have a server run as somebody else"
    )
    def test_a_folder_above_may_be_named_like_one(self, tmp_path: Path) -> None:
        (tmp_path / "site.3.20261126").mkdir()
        host = HostFiles(tmp_path / "site.3.20261126" / "waffle.watch")
        host.verify()
        store = SimpleNamespace(name="memory")
        installation = SimpleNamespace(binding=SimpleNamespace(state=SimpleNamespace(store=store)))
        found = checks._refused(
            cast("Any", installation), host, processes.Account(12345, frozenset())
        )
        assert f"{host.folder} doesn't belong to" in next(found).text

    def test_rights_as_the_kernel_grants_them(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()
        me = path.stat()
        owner, group, other = (
            processes.Account(me.st_uid or 1, frozenset()),
            processes.Account(99999, frozenset({me.st_gid})),
            processes.Account(99999, frozenset({99999})),
        )
        if me.st_uid == 0:
            os.chown(path, 1, -1)
        for mode, allowed in (
            (0o600, (owner,)),
            (0o060, (group,)),
            (0o006, (other,)),
            (0o666, (owner, group, other)),
            (0o444, ()),
        ):
            path.chmod(mode)
            assert (
                tuple(
                    account
                    for account in (owner, group, other)
                    if processes.may(account, path, stat.S_IROTH | stat.S_IWOTH)
                )
                == allowed
            )
        assert processes.may(processes.Account(0, frozenset()), path, 7)


class TestProcesses:
    def test_one_that_lags(self, site: Process, neighbour: int, write: Write) -> None:
        site.waffle.update({"LIMIT": 20})
        ((level, check, text, change),) = found(site.app, "--ini", write("master"))
        assert (level, check) == ("error", "processes")
        assert text == f"worker 9 (pid {neighbour}) is on revision 0, and the host on 1"
        assert "long request" in change

    def test_one_that_is_on_its_way(
        self, site: Process, neighbour: int, monkeypatch: pytest.MonkeyPatch, write: Write
    ) -> None:
        """It is looked at again, and has got there meanwhile."""
        site.waffle.update({"LIMIT": 20})

        def pause(seconds: float) -> None:
            note_process(site, neighbour, "worker 9", digest=site.state.look().digest)

        monkeypatch.setattr(checks, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pause))
        result = site.app.test_cli_runner().invoke(
            command, ["doctor", "--patience", "100", "--ini", str(write("master"))]
        )
        assert result.exit_code == 0

    def test_how_it_was_started_can_not_be_seen(self, site: Process, neighbour: int) -> None:
        """Nothing is said of lines that may well be there."""
        ((level, check, text, _),) = found(site.app)
        assert (level, check) == ("warning", "ini")
        assert "`procname` and `auto-procname` hide it" in text

    def test_one_with_an_error(self, site: Process, idle_process: int, write: Write) -> None:
        note_process(
            site, idle_process, "worker 1", digest=site.state.look().digest, error="no disk"
        )
        ((level, check, text, _),) = found(site.app, "--ini", write("master"))
        assert (level, check, text) == (
            "error",
            "processes",
            f"worker 1 (pid {idle_process}): no disk",
        )


def test_an_application_without_the_extension() -> None:
    ((level, check, text, _),) = found(Flask("bare"))
    assert (level, check) == ("error", "application")
    assert "has no WaffleConf" in text
