"""A command of root's can't be led: in another user's folder it has that user's rights."""

from __future__ import annotations

import ctypes
import os
import pwd
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from uwsgi_waffle import (
    HostFilesError,
    SchemaError,
    SQLStore,
    StoreUnavailable,
    unix,
)
from uwsgi_waffle.host import HostFiles, ProcessInfo
from uwsgi_waffle.privileges import acting_as, acting_user
from uwsgi_waffle.snapshot import encode
from uwsgi_waffle.stores import Commit
from uwsgi_waffle.stores.rows import RowStore

from ..contract.models import alchemy_store, peewee_store
from ..host import Host, drop_capabilities, run_forked
from .users import OTHER, USER, run_as

needs_setfsuid = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "setfsuid"), reason="elsewhere it is the process's user"
)
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("host"),  # a thread that acts as a user would do so in later tests
]


def owner_of_file_in(folder: Path) -> int:
    """Return whom a file belongs to that is created now."""
    path = folder / os.urandom(8).hex()
    path.touch()
    return path.stat().st_uid


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
