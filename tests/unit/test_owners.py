"""What an error says has to be run where a file belongs to somebody else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ..host import Host
from .users import OTHER, USER, follow, run_as, sqlite_store

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.usefixtures("host"),  # a thread that acts as a user would do so in later tests
]


def use_database(home: Path) -> None:
    sqlite_store(home).prepare()


def use_host_files(home: Path) -> None:
    Host(home).open_files()


class TestAdvice:
    """It helps, and nobody is told to run it as what he is."""

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

    def test_a_folder_that_every_user_may_write_is_not_given_away(self, root: Path) -> None:
        root.chmod(0o1777)
        use_database(root)
        refused = run_as(USER, lambda: use_database(root))
        assert refused.endswith(f"chown {USER} {root}/site.db")

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
