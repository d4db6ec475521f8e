"""A command of root's can't be led: in another user's folder it has that user's rights."""

from __future__ import annotations

import ctypes
import logging
import os
import pwd
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from flask import Flask

from uwsgi_waffle import (
    HostFilesError,
    SchemaError,
    SQLStore,
    StoreUnavailable,
    WaffleConf,
    WaffleError,
    unix,
)
from uwsgi_waffle.host import HostFiles, ProcessInfo
from uwsgi_waffle.privileges import acting_as, acting_user
from uwsgi_waffle.snapshot import encode
from uwsgi_waffle.stores import Commit, Store
from uwsgi_waffle.stores.rows import RowStore

from ..contract.models import alchemy_store, peewee_store
from ..host import Host, drop_capabilities, logged, run_forked

USER, OTHER = 54_321, 54_322

needs_setfsuid = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "setfsuid"), reason="elsewhere it is the process's user"
)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("host"),  # a thread that acts as a user would do so in later tests
]


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder of root's that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def home(root: Path) -> Path:
    """A folder of an ordinary user's."""
    folder = root / "ann's home"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def sqlite_store(folder: Path) -> SQLStore:
    return SQLStore(f"sqlite:///{folder}/site.db")


def owner_of_file_in(folder: Path) -> int:
    """Return whom a file belongs to that is created now."""
    path = folder / os.urandom(8).hex()
    path.touch()
    return path.stat().st_uid


def run_as(uid: int, program: Callable[[], None]) -> str:
    """Run a program in a real process of a user's. Return the text of its error, if any."""
    reader, writer = os.pipe()

    def run() -> None:
        if uid:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        try:
            program()
        except WaffleError as error:
            os.write(writer, str(error).encode())

    assert run_forked(run) == 0
    os.close(writer)
    with open(reader) as file:
        return file.read()


def follow(text: str) -> None:
    """Run the command that a message names, as root."""
    found = re.search(r"(?:run|as root): ([^;]*)", text)
    assert found is not None, text
    subprocess.run(found[1], shell=True, check=True)


@pytest.fixture
def shared(root: Path) -> Path:
    """A folder in which everybody may create files."""
    root.chmod(0o1777)
    return root


class TestActing:
    def test_it_ends_with_the_block_also_by_an_error(self, shared: Path) -> None:
        with acting_as(USER):
            assert owner_of_file_in(shared) == USER
        assert owner_of_file_in(shared) == 0
        with pytest.raises(ZeroDivisionError), acting_as(USER):
            print(1 // 0)
        assert owner_of_file_in(shared) == 0

    def test_root_s_own_files_are_out_of_reach(self, shared: Path) -> None:
        (shared / "secret").write_text("x")
        (shared / "secret").chmod(0o600)
        with acting_as(USER), pytest.raises(PermissionError):
            (shared / "secret").read_text()

    def test_what_root_s_groups_may_use_is_out_of_reach_too(self, shared: Path) -> None:
        (shared / "secret").write_text("x")
        (shared / "secret").chmod(0o640)
        before = os.getgroups()
        os.setgroups([0, OTHER])
        try:
            for group in (0, OTHER):
                os.chown(shared / "secret", 0, group)
                with acting_as(USER), pytest.raises(PermissionError):
                    (shared / "secret").read_text()
            assert os.getgroups() == [0, OTHER]
        finally:
            os.setgroups(before)

    def test_what_the_owners_groups_may_use_is_not(
        self, shared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "getgrouplist", lambda name, group: [group, OTHER])
        (shared / "letters").write_text("x")
        (shared / "letters").chmod(0o640)
        os.chown(shared / "letters", 0, OTHER)
        with acting_as(pwd.getpwnam("nobody").pw_uid):
            (shared / "letters").read_text()

    @needs_setfsuid
    @pytest.mark.parametrize("capability", [6, 7])  # CAP_SETGID, CAP_SETUID
    def test_a_root_that_may_not_do_that_is_told_so(self, shared: Path, capability: int) -> None:
        """As in a container; nothing of it is half done."""

        def program() -> None:
            before = os.getgroups()
            drop_capabilities(capability)
            with pytest.raises(PermissionError, match="this process may not"), acting_as(USER):
                pytest.fail("it acts as this user")
            assert (owner_of_file_in(shared), os.getgroups()) == (0, before)

        assert run_forked(program) == 0

    @pytest.mark.parametrize("is_linux", [pytest.param(True, marks=needs_setfsuid), False])
    def test_it_can_be_nested(
        self, shared: Path, is_linux: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not is_linux:
            monkeypatch.setattr(unix, "libc", object)
        groups = os.getgroups()
        with acting_as(USER):
            for uid in (OTHER, 0, USER):
                with acting_as(uid), acting_as(uid):
                    assert owner_of_file_in(shared) == uid
                assert (owner_of_file_in(shared), os.getgroups()) == (USER, [USER])
            with pytest.raises(ZeroDivisionError), acting_as(0):
                print(1 // 0)
            assert owner_of_file_in(shared) == USER
        assert (owner_of_file_in(shared), os.getgroups()) == (0, groups)

    @needs_setfsuid
    def test_it_concerns_this_thread_only(self, shared: Path) -> None:
        found: list[object] = []
        acting = threading.Event()

        def create() -> None:
            acting.wait()
            found.extend((owner_of_file_in(shared), os.getgroups()))

        thread = threading.Thread(target=create)
        thread.start()
        with acting_as(USER):
            acting.set()
            thread.join()
        assert found == [0, os.getgroups()]

    def test_who_is_not_root_stays_what_he_is(self) -> None:
        script = (
            "import os; from uwsgi_waffle.privileges import acting_as\n"
            f"os.setgid({USER}); os.setuid({USER})\n"
            f"with acting_as({OTHER}): print(os.geteuid())"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == f"{USER}\n"


class TestOwner:
    def test_it_is_the_nearest_owner(self, home: Path) -> None:
        assert acting_user(home / "a" / "b") == USER
        (home / "service").mkdir()
        os.chown(home / "service", OTHER, OTHER)
        assert acting_user(home / "service" / "waffle.db") == OTHER

    def test_a_folder_that_only_root_may_write_is_roots(self, home: Path) -> None:
        (home / "mine").mkdir(mode=0o755)
        assert acting_user(home / "mine" / "waffle.db") == 0
        (home / "mine").chmod(0o777)
        assert acting_user(home / "mine" / "waffle.db") == USER, "who can exchange it"

    def test_nor_is_what_a_link_of_that_user_leads_to(self, root: Path, home: Path) -> None:
        (root / "cron").mkdir()
        (home / "link").symlink_to(root / "cron")
        os.lchown(home / "link", USER, USER)
        assert acting_user(home / "link" / "waffle.db") == USER
        (root / "current").symlink_to(home)
        assert acting_user(root / "current" / "waffle.db") == USER

    def test_what_was_given_away_in_a_folder_of_roots_belongs_to_its_new_owner(
        self, root: Path
    ) -> None:
        """As by the command that the server's error has, after root's first command."""
        host = Host(root)
        host.instance.mkdir()
        host.open_files()
        for path in (host.watch_file, host.folder, *host.folder.rglob("*")):
            os.chown(path, USER, USER)
        waffle = host.start().waffle
        assert waffle.update({"LIMIT": 20}).revision == 1
        assert {path.stat().st_uid for path in host.folder.rglob("*")} == {USER}
        assert run_as(USER, lambda: HostFiles(host.watch_file).open()) == ""
        host.instance.chmod(0o700)
        assert HostFiles(host.watch_file).folder.owner == 0, "who can't get there"

    def test_where_all_is_roots_it_is_root(self, root: Path) -> None:
        assert acting_user(root / "new" / "waffle.db") == 0
        assert acting_user("/") == 0


class TestLink:
    def test_host_files_of_root_s_are_not_left_through_a_link(self, root: Path, home: Path) -> None:
        """Whoever owns a folder above can exchange what root has in it."""
        mine, victim = home / "mine", root / "victim"
        mine.mkdir(mode=0o755)
        files = [Host(mine).open_files() for _ in range(2)]
        assert Host(mine).folder.stat().st_uid == 0
        for folder in ("snapshots", "processes", "bell"):
            (victim / folder).mkdir(parents=True)
            (victim / folder / "precious").touch(0o600)
        before = {path: path.stat().st_mtime_ns for path in (victim, *victim.rglob("*"))}
        mine.rename(home / "away")
        (mine / "instance").mkdir(parents=True)
        (mine / "instance" / "waffle.watch.d").symlink_to(victim)
        for use in (
            lambda: files[0].snapshots.prune(),
            lambda: list(files[0].processes),
            lambda: files[0].processes.report(ProcessInfo(1, "worker 1")),
            lambda: files[0].snapshots.write(encode(1, {"A": "1"})),
            lambda: files[0].listener_lock.acquire(),
            files[0].wake,
            files[0].invalidate,
            files[1].open,
        ):
            with suppress(HostFilesError, FileNotFoundError):
                use()
        assert {path: path.stat().st_mtime_ns for path in (victim, *victim.rglob("*"))} == before

    @pytest.mark.parametrize("link", ["instance", "instance/waffle.db", "watched"])
    def test_a_setting_leads_root_through_no_link_of_another_user(
        self, root: Path, home: Path, link: str
    ) -> None:
        """It is refused before the link is resolved, and what the link leads to may be root's."""
        (root / "cron").mkdir()
        if link == "instance/waffle.db":
            (home / "instance").mkdir()
            os.chown(home / "instance", USER, USER)
        (home / link).symlink_to(root / "cron" / ("job" if link.endswith("db") else ""))
        os.lchown(home / link, USER, USER)
        with pytest.raises(SchemaError, match=f"a link of user {USER}, which root doesn't"):
            Host(home).start(WATCHER_FILE=str(home / "watched" / "waffle.watch"))
        assert list((root / "cron").iterdir()) == []

    def test_a_link_behind_a_link_counts_too(self, root: Path, home: Path) -> None:
        (root / "cron").mkdir()
        (home / "site").symlink_to(root / "cron")
        os.lchown(home / "site", USER, USER)
        (root / "site").symlink_to(home / "site")
        with pytest.raises(SchemaError, match=f"{home}/site, a link of user {USER}"):
            Host(root / "site").start()
        assert list((root / "cron").iterdir()) == []

    def test_releases_of_a_user_with_an_instance_folder_of_root_s(self, home: Path) -> None:
        """The link gives this user nothing: the release belongs to it, too."""
        (home / "releases" / "5" / "instance").mkdir(parents=True)
        (home / "current").symlink_to("releases/5")
        for path in (home / "releases", home / "releases" / "5", home / "current"):
            os.lchown(path, USER, USER)
        Host(home / "current").start().waffle.update({"LIMIT": 20})
        assert (home / "releases" / "5" / "instance" / "waffle.db").stat().st_uid == 0

    def test_a_link_of_root_s_or_to_the_same_users_folder_is_followed(
        self, root: Path, home: Path
    ) -> None:
        (home / "shared").mkdir()
        (home / "instance").symlink_to(home / "shared")
        for path in (home / "shared", home / "instance"):
            os.lchown(path, USER, USER)
        (root / "current").symlink_to(home)
        Host(root / "current").start().waffle.update({"LIMIT": 20})
        assert {path.stat().st_uid for path in home.rglob("*")} == {USER}
        (home / "instance").unlink()
        (home / "instance").mkdir()  # root's own
        Host(root / "current").start().waffle.update({"LIMIT": 20})
        assert (home / "instance" / "waffle.db").stat().st_uid == 0


class TestDatabase:
    def test_one_in_another_users_folder_than_the_hosts_files(self, root: Path, home: Path) -> None:
        """Its transaction acts as that user, and what is written meanwhile to root's is root's."""
        instance = root / "instance"
        instance.mkdir()
        waffle = Host(root).start(STORE_URL=f"sqlite:///{home}/waffle.db").waffle
        assert waffle.update({"LIMIT": 20}).revision == 1
        assert waffle.values.LIMIT == 20
        assert {path.stat().st_uid for path in instance.rglob("*")} == {0}
        assert {path.stat().st_uid for path in home.rglob("*")} == {USER}

    @pytest.mark.parametrize("is_uri", [False, True])
    def test_everything_belongs_to_the_owner_of_the_folder(self, home: Path, is_uri: bool) -> None:
        url = f"sqlite:///{home}/instance/waffle.db"
        if is_uri:
            (home / "instance").mkdir()
            os.chown(home / "instance", USER, USER)
            url = f"sqlite:///file:{home}/inst%61nce/waffle.db?mode=rwc&uri=true"
        store = SQLStore(url)
        store.prepare()
        with closing(sqlite3.connect(home / "instance" / "waffle.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        found: dict[str, int] = {}

        def build_commit(stored: object) -> Commit:
            found.update({path.name: path.stat().st_uid for path in home.rglob("*")})
            return Commit({"A": "1"})

        store.transact(build_commit)
        assert found.keys() >= {"instance", "waffle.db", "waffle.db-wal"}
        assert set(found.values()) == {USER}
        assert os.geteuid() == 0

    @pytest.mark.parametrize("through", ["the folder", "the file"])
    def test_a_link_leads_nowhere(self, root: Path, home: Path, through: str) -> None:
        cron = root / "cron"
        cron.mkdir()
        target = {"the folder": home / "instance", "the file": home / "waffle.db"}[through]
        target.symlink_to(cron if through == "the folder" else cron / "waffle.db")
        os.lchown(target, USER, USER)
        path = target / "waffle.db" if through == "the folder" else target
        with pytest.raises(StoreUnavailable):
            SQLStore(f"sqlite:///{path}").prepare()
        assert list(cron.iterdir()) == []


@pytest.mark.parametrize("make", [alchemy_store, peewee_store])
class TestTableOfTheApplication:
    """`AlchemyWaffleStore` and `PeeweeWaffleStore` in a SQLite file of the server's user."""

    def test_what_sqlite_adds_belongs_to_its_owner(
        self, home: Path, make: Callable[[Path], RowStore]
    ) -> None:
        store = make(home)
        os.chown(home / "site.db", USER, USER)
        with closing(sqlite3.connect(home / "site.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        found: dict[str, int] = {}

        def build_commit(stored: object) -> Commit:
            found.update({path.name: path.stat().st_uid for path in home.glob("site.db*")})
            return Commit({"A": "1"})

        store.transact(build_commit)
        assert found == dict.fromkeys(("site.db", "site.db-shm", "site.db-wal"), USER)

    def test_a_link_leads_nowhere(
        self, root: Path, home: Path, make: Callable[[Path], RowStore]
    ) -> None:
        store = make(home)
        (root / "cron").mkdir()
        (home / "site.db").unlink()
        (home / "site.db").symlink_to(root / "cron" / "job")
        os.lchown(home / "site.db", USER, USER)
        with pytest.raises(StoreUnavailable):
            store.load()
        assert list((root / "cron").iterdir()) == []


def use_database(home: Path) -> None:
    sqlite_store(home).prepare()


def use_host_files(home: Path) -> None:
    Host(home).open_files()


class TestAdvice:
    """What an error says has to be run helps, and nobody is told to run it as what he is."""

    @pytest.mark.parametrize("uid", [0, USER])
    @pytest.mark.parametrize(
        ("use", "at_fault"),
        [
            (use_database, "site.db"),
            (use_host_files, "instance/waffle.watch"),
            (use_host_files, "instance/waffle.watch.d"),
            (use_host_files, "instance/waffle.watch.d/header"),
        ],
    )
    def test_a_file_of_root_s_in_a_users_folder(
        self, home: Path, uid: int, use: Callable[[Path], None], at_fault: str
    ) -> None:
        assert run_as(USER, lambda: use(home)) == ""
        os.chown(home / at_fault, 0, 0)
        if (home / at_fault).is_file():
            (home / at_fault).chmod(0o600)
        refused = run_as(uid, lambda: use(home))
        if uid == 0 and at_fault.endswith("waffle.watch"):
            assert refused == "", "it is only looked at"
            return
        assert f"{home / at_fault}" in refused
        assert (
            f"belongs to root, and this process uses it as user {USER}. Run this as root; "
            in refused
        )
        follow(refused)
        assert run_as(uid, lambda: use(home)) == ""

    @pytest.mark.parametrize("mode", [0o755, 0o700])
    def test_a_folder_of_root_s(self, root: Path, mode: int) -> None:
        use_database(root / "data")
        (root / "data").chmod(mode)
        refused = run_as(USER, lambda: use_database(root / "data"))
        assert f"belongs to root, and this process uses it as user {USER}. " in refused
        follow(refused)
        assert run_as(USER, lambda: use_database(root / "data")) == ""

    def test_one_command_gives_away_all_that_root_s_first_command_made(self, home: Path) -> None:
        host = Host(home.parent / "root's site")
        assert run_as(0, lambda: host.start().waffle.update({"LIMIT": 20})) == ""
        (host.instance / "settings.py").touch()
        refused = run_as(USER, lambda: host.start())
        assert refused.startswith(f"{host.watch_file} belongs to root, and this process uses it")
        follow(refused)
        assert (host.instance / "settings.py").stat().st_uid == 0
        for uid in (0, USER, 0):
            assert run_as(uid, lambda: host.start().waffle.update({"LIMIT": os.getpid()})) == ""

    def test_a_database_that_is_usable_is_left_out(self, root: Path, home: Path) -> None:
        host, url = Host(root), f"sqlite:///{home}/waffle.db"
        assert run_as(0, lambda: host.start(STORE_URL=url)) == ""
        refused = run_as(USER, lambda: host.start(STORE_URL=url))
        assert refused.endswith(f"chown -R {USER} {host.watch_file} {host.folder}")

    def test_a_folder_that_every_user_may_write_is_not_given_away(self, shared: Path) -> None:
        use_database(shared)
        refused = run_as(USER, lambda: use_database(shared))
        assert refused.endswith(f"chown {USER} {shared}/site.db")

    def test_a_folder_of_root_s_without_a_database(self, root: Path) -> None:
        refused = run_as(USER, lambda: use_database(root))
        assert f"{root} belongs to root, and this process uses it as user {USER}. " in refused
        follow(refused)
        assert run_as(USER, lambda: use_database(root)) == ""

    @pytest.mark.parametrize("use", [use_database, use_host_files])
    def test_who_runs_it_as_another_user(self, home: Path, use: Callable[[Path], None]) -> None:
        assert run_as(USER, lambda: use(home)) == ""
        refused = run_as(OTHER, lambda: use(home))
        assert f"belongs to user {USER}, and this process uses it as user {OTHER}. " in refused
        assert f"Run this as user {USER}; or give it away, as root: chown" in refused

    @pytest.mark.parametrize("uid", [0, USER])
    def test_who_owns_everything_is_not_told_that_somebody_else_does(
        self, home: Path, uid: int
    ) -> None:
        """And root isn't who has to have the right."""
        for use, folder in ((use_database, home), (use_host_files, home / "instance")):
            assert run_as(USER, lambda use=use: use(home)) == ""
            folder.chmod(0)
            refused = run_as(uid, lambda use=use: use(home))
            folder.chmod(0o700)
            assert "user may write" in refused
            assert "belongs to" not in refused
            assert "root" not in refused
            assert "user 0" not in refused


class TestModes:
    @pytest.mark.parametrize("umask", [0, 0o027, 0o777])
    def test_no_umask_counts(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            SQLStore(f"sqlite:///{tmp_path}/site/instance/waffle.db").prepare()
        finally:
            os.umask(before)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
        assert modes == {"site": 0o755, "instance": 0o700, "waffle.db": 0o600}

    @pytest.mark.parametrize("umask", [0, 0o777])
    def test_no_umask_counts_for_the_whole_application(self, tmp_path: Path, umask: int) -> None:
        """Not for the folder beside the watch file either."""
        before = os.umask(umask)
        try:
            app = Flask("site", instance_path=str(tmp_path / "site" / "instance"))
            app.config["WAFFLE_CONFS"] = {"LIMIT": {"default": 1}}
            app.config["WAFFLE_STORE_URL"] = f"sqlite:///{tmp_path}/data/waffle.db"
            WaffleConf(app).update({"LIMIT": 2})
        finally:
            os.umask(before)
        modes = {
            str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777
            for path in tmp_path.rglob("*")
        }
        private = ("site/instance/waffle.watch.d", "data")
        for name, mode in modes.items():
            assert mode & 0o077 == 0 or not name.startswith(private), name
            assert mode & 0o022 == 0, name
        assert modes["site"] == modes["site/instance"] == 0o755

    def test_no_database_is_made_where_every_user_may_write(self, tmp_path: Path) -> None:
        """Anybody could replace it. In a sticky folder, such as /tmp, nobody can."""
        folder = tmp_path / "instance"
        folder.mkdir()
        folder.chmod(0o777)
        store = SQLStore(f"sqlite:///{folder}/waffle.db")
        with pytest.raises(SchemaError, match=f"Run: chmod o-w {folder}"):
            store.prepare()
        assert list(folder.iterdir()) == []
        folder.chmod(0o1777)
        store.prepare()

    @pytest.mark.parametrize("make", [sqlite_store, alchemy_store, peewee_store])
    @pytest.mark.parametrize("exposed", ["site/data/site.db", "site/data", "site", "."])
    def test_what_every_user_may_write_is_warned_about(
        self,
        tmp_path: Path,
        exposed: str,
        caplog: pytest.LogCaptureFixture,
        make: Callable[[Path], Store],
    ) -> None:
        """Wherever it is above the database: another user could exchange what is below it."""
        folder, place = tmp_path / "site" / "data", tmp_path / exposed
        folder.mkdir(parents=True)
        store = make(folder)
        store.prepare()
        if place.is_dir():
            place.chmod(0o1777)  # sticky, as /tmp is
        store.load()
        assert caplog.text == ""
        place.chmod(0o777)
        for _ in range(2):
            assert store.load().revision == 0
        (line,) = logged(caplog, logging.WARNING)
        assert f"every user may write {place}, and so exchange {folder}/site.db." in line
        assert line.endswith(f"Run: chmod o-w {place}")

    def test_so_is_a_folder_of_roots_that_a_group_may_write(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its members could lead root. Group 0 has none that root need fear."""
        folder = root / "site"
        folder.mkdir()
        folder.chmod(0o2775)
        store = sqlite_store(folder)
        store.prepare()
        assert caplog.text == ""
        os.chown(folder, 0, USER)
        folder.chmod(0o2775)
        store.load()
        (line,) = logged(caplog, logging.WARNING)
        assert f"group {USER} may write {folder}, and so exchange {folder}/site.db." in line
        assert f"Run: chmod g-w {folder}" in line

    def test_a_group_is_no_danger_where_root_acts_as_the_owner(
        self, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = root / "site"
        folder.mkdir()
        store = sqlite_store(folder)
        store.prepare()
        for path in folder.iterdir():
            os.chown(path, USER, USER)
        os.chown(folder, 0, USER)
        folder.chmod(0o2775)
        store.load()
        assert caplog.text == ""

    @pytest.mark.parametrize("exposed", ["instance", "."])
    def test_so_is_a_folder_above_the_hosts_files(
        self, tmp_path: Path, exposed: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever the store is."""
        host = Host(tmp_path)
        host.instance.mkdir()
        (tmp_path / exposed).chmod(0o777)
        for _ in range(2):
            host.open_files()
        (line,) = logged(caplog, logging.WARNING)
        assert line.endswith(f"chmod o-w {(tmp_path / exposed).resolve()}")


class TestUnreachable:
    def test_a_folder_that_its_owner_cannot_enter_is_roots(self, root: Path, home: Path) -> None:
        """Who can't get there can't exchange anything either."""
        assert acting_user(home / "waffle.db") == USER
        root.chmod(0o700)
        assert acting_user(home / "waffle.db") == 0

    @pytest.mark.parametrize("owner", [USER, OTHER])
    def test_one_that_no_folder_of_roots_protects_is_not(self, home: Path, owner: int) -> None:
        """Whoever owns the folder above can let its owner in again."""
        site = home / "site"
        site.mkdir()
        os.chown(site, USER, USER)
        os.chown(home, owner, owner)
        home.chmod(0o600)
        assert acting_user(site / "waffle.db") == USER
        host = Host(site)
        with pytest.raises(HostFilesError):
            host.open_files()
        assert list(site.iterdir()) == []
