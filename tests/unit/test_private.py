"""Private files: 0600 in 0700, one user's own, and nothing else in their place is ever followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from uwsgi_waffle import HostFilesError
from uwsgi_waffle.host import HostFiles, ProcessInfo
from uwsgi_waffle.host.private import PrivateFolder, ensure_plain_file
from uwsgi_waffle.snapshot import encode

from ..host import Host, fill_disk

STRANGER = 12345
ONE = encode(1, {"A": "1"})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def make_link(path: Path) -> None:
    (path.parent / "elsewhere").touch()
    path.symlink_to(path.parent / "elsewhere")


def make_folder(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_strangers_file(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    path.touch()
    os.chown(path, STRANGER, STRANGER)


INTRUDERS = [make_link, make_folder, make_pipe, make_strangers_file]


@pytest.fixture
def folder(tmp_path: Path) -> PrivateFolder:
    folder = PrivateFolder(tmp_path / "private", os.geteuid())
    folder.ensure()
    return folder


class TestModes:
    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
    def test_files_are_0600_in_0700_under_any_umask(self, host: Host, umask: int) -> None:
        before = os.umask(umask)
        try:
            shared = host.open_files()
            shared.snapshots.write(ONE)
            shared.wake()
            shared.processes.report(ProcessInfo(1, "worker 1", 1))
            assert shared.listener_lock.acquire()
        finally:
            os.umask(before)
        made = [host.folder, *host.folder.rglob("*")]
        assert {mode(path) for path in made if path.is_dir()} == {0o700}
        assert [mode(path) for path in made if path.is_file()] == [0o600] * 4
        assert mode(host.watch_file) & 0o022 == 0

    @pytest.mark.parametrize("umask", [0o000, 0o777])
    def test_a_folder_is_closed_to_others_from_the_beginning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
    ) -> None:
        genuine, modes = os.mkdir, []

        def watched(path: Path, mode: int = 0o777) -> None:
            genuine(path, mode)
            modes.append(stat.S_IMODE(os.stat(path).st_mode))

        monkeypatch.setattr(os, "mkdir", watched)
        before = os.umask(umask)
        try:
            PrivateFolder(tmp_path / "new", os.geteuid()).ensure()
        finally:
            os.umask(before)
        assert modes
        assert not any(seen & 0o077 for seen in modes)
        assert mode(tmp_path / "new") == 0o700

    def test_a_folder_that_others_may_enter_is_closed(self, host: Host, shared: HostFiles) -> None:
        host.folder.chmod(0o755)
        host.header.unlink()
        shared.open()
        assert mode(host.folder) == 0o700


class TestFiles:
    def test_what_was_written_is_read(self, folder: PrivateFolder) -> None:
        folder.write("file", b"longer")
        folder.write("file", b"short")
        assert (folder.read("file"), folder.names()) == (b"short", ["file"])
        folder.remove("file")
        folder.remove("file")
        assert folder.names() == []

    def test_a_missing_file_is_told_from_a_bad_one(self, folder: PrivateFolder) -> None:
        with pytest.raises(FileNotFoundError):
            folder.read("none")

    def test_a_folder_that_is_missing_has_no_names(self, tmp_path: Path) -> None:
        assert PrivateFolder(tmp_path / "none", os.geteuid()).names() == []

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk_leaves_no_half_file(
        self, folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        fill_disk(monkeypatch, code)
        text = rf"private/file: {os.strerror(code)}\. Make room"
        with pytest.raises(HostFilesError, match=text):
            folder.write("file", b"much")
        assert folder.names() == []


class TestIntruders:
    """What is in the place of our files is refused by its path, never opened, never waited for."""

    @pytest.mark.parametrize("make", INTRUDERS)
    def test_in_place_of_the_watch_file(self, host: Host, make: Callable[[Path], None]) -> None:
        host.instance.mkdir()
        make(host.watch_file)
        with pytest.raises(HostFilesError, match=f"^{host.watch_file} (must be a|belongs to user)"):
            host.open_files()

    @pytest.mark.parametrize("make", INTRUDERS)
    def test_in_place_of_the_header(
        self, host: Host, shared: HostFiles, make: Callable[[Path], None]
    ) -> None:
        host.header.unlink()
        make(host.header)
        with pytest.raises(HostFilesError, match=f"^{host.header}[: ]"):
            shared.open()
        host.header.rmdir() if host.header.is_dir() else host.header.unlink()
        shared.open()

    @pytest.mark.parametrize("make", INTRUDERS)
    def test_in_place_of_any_file(
        self, folder: PrivateFolder, make: Callable[[Path], None]
    ) -> None:
        make(folder.path / "file")
        for use in (folder.read, lambda name: folder.write(name, b"ours")):
            with pytest.raises(HostFilesError, match=f"^{folder.path}/file[: ]"):
                use("file")
        if make is make_link:
            assert (folder.path / "elsewhere").read_bytes() == b""

    @pytest.mark.parametrize("make", [make_link, make_pipe, make_strangers_file])
    @pytest.mark.parametrize("name", ["waffle.watch.d", "waffle.watch.d/bell"])
    def test_in_place_of_a_folder(
        self, host: Host, name: str, make: Callable[[Path], None]
    ) -> None:
        path = host.instance / name
        path.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
        make(path)
        text = f"^{path}: Not a directory. It must be a folder"
        with pytest.raises(HostFilesError, match=text):
            host.open_files()

    def test_a_link_to_a_folder_is_refused(self, host: Host, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        host.instance.mkdir()
        host.folder.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(HostFilesError, match=r"waffle\.watch\.d: .*must be a folder"):
            host.open_files()
        assert list((tmp_path / "elsewhere").iterdir()) == []

    @pytest.mark.parametrize("name", ["snapshots", "processes"])
    def test_a_folder_that_is_exchanged_for_a_link_loses_nothing(
        self, host: Host, shared: HostFiles, tmp_path: Path, name: str
    ) -> None:
        """What lies there isn't ours to remove."""
        (tmp_path / "victim").mkdir()
        (tmp_path / "victim" / "precious").touch(0o600)
        (host.folder / name).symlink_to(tmp_path / "victim")
        shared.snapshots.prune()
        assert list(shared.processes) == []
        assert (tmp_path / "victim" / "precious").exists()


class TestErrors:
    def test_what_cannot_be_created_is_named_with_the_setting(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for ensure in (
            PrivateFolder(tmp_path / "file" / "x", os.geteuid()).ensure,
            lambda: ensure_plain_file(tmp_path / "file" / "x", os.geteuid()),
        ):
            with pytest.raises(HostFilesError, match=f"^{tmp_path}/file/x: Not a directory"):
                ensure()

    @pytest.mark.parametrize(
        ("code", "advice"),
        [
            (errno.EROFS, "Set WAFFLE_WATCHER_FILE to a path on a file system that can be written"),
            (errno.EMFILE, "ulimit -n"),
            (errno.ENFILE, "fs.file-max"),
            (errno.ENOSPC, "Make room on this disk"),
            (errno.EDQUOT, "Make room, or raise this user's quota"),
            (errno.ENAMETOOLONG, "Set WAFFLE_WATCHER_FILE to a shorter path"),
            (errno.EACCES, "WAFFLE_WATCHER_FILE must name a plain file in a local folder"),
        ],
    )
    def test_each_error_says_what_to_do(
        self, folder: PrivateFolder, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
    ) -> None:
        def fail(*_: object, **__: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "open", fail)
        with pytest.raises(HostFilesError, match=os.strerror(code)) as caught:
            folder.open("file", os.O_RDWR | os.O_CREAT)
        assert advice in str(caught.value)

    @pytest.mark.parametrize(
        ("make", "advice"),
        [
            (make_link, "It must not be a link. Remove it."),
            (make_folder, "It must be a plain file. Remove the folder."),
        ],
    )
    def test_what_has_to_be_removed_is_named(
        self, folder: PrivateFolder, make: Callable[[Path], None], advice: str
    ) -> None:
        make(folder.path / "file")
        with pytest.raises(HostFilesError) as caught:
            folder.write("file", b"ours")
        assert str(caught.value).endswith(advice)

    def test_a_missing_parent_of_the_watch_file_is_made(self, tmp_path: Path) -> None:
        shared = HostFiles(tmp_path / "a" / "b" / "waffle.watch")
        shared.open()
        assert (tmp_path / "a" / "b" / "waffle.watch").is_file()
