"""The files that a host's processes share: what they say, who may hold them, and that damage is
noticed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle import HostBusy, HostFilesError
from uwsgi_waffle.hostfiles import HEAD_SIZE, HostFiles, is_settled, settled
from uwsgi_waffle.hostfiles import header as header_module
from uwsgi_waffle.hostfiles import host as host_module
from uwsgi_waffle.hostfiles.files import (
    MARK,
    create_file,
    ensure_folder,
    ensure_watch_file,
    filesystem_of,
    is_network,
    open_file,
    read_file,
)
from uwsgi_waffle.hostfiles.header import Notes
from uwsgi_waffle.hostfiles.host import SPARE, STAGED
from uwsgi_waffle.hostfiles.slots import SLOT, SLOT_COUNT, started
from uwsgi_waffle.snapshot import Encoded, encode

STRANGER = 12345
ONE, TWO, THREE = (encode(number, {"A": str(number)}) for number in (1, 2, 3))
HOLD = """
import sys
from pathlib import Path
from uwsgi_waffle.hostfiles import HostFiles
with HostFiles(Path(sys.argv[1])).lock(5):
    print("locked", flush=True)
    sys.stdin.read()
"""


def open_files(folder: Path) -> HostFiles:
    """Open the files as one more process would."""
    opened = HostFiles(folder / "waffle.watch")
    opened.verify()
    return opened


def settle(shared: HostFiles, bell: bytes = b"") -> bytes:
    with shared.lock(1):
        head = settled(bell or shared.peek()[:8], ONE.digest)
        shared.settle(head)
        return head


def publish(shared: HostFiles, encoded: Encoded) -> None:
    shared.stage(encoded)
    shared.promote(encoded.digest)


def snapshot_file(shared: HostFiles) -> Path:
    """Return the file that holds ONE."""
    return shared.folder / "snapshots" / ONE.digest.hex()


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
def shared(tmp_path: Path) -> HostFiles:
    return open_files(tmp_path)


@pytest.fixture
def header(shared: HostFiles) -> Path:
    return shared.folder / "header"


@pytest.fixture
def other(shared: HostFiles, tmp_path: Path) -> HostFiles:
    return open_files(tmp_path)


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")


class TestWords:
    def test_a_new_header_is_not_settled(self, shared: HostFiles) -> None:
        assert len(shared.peek()) == HEAD_SIZE
        assert not is_settled(shared.peek())

    def test_settling_is_seen_by_all(self, shared: HostFiles, other: HostFiles) -> None:
        head = settle(shared)
        assert is_settled(head)
        assert shared.peek() == other.peek() == head
        assert head[8:16] == ONE.digest

    def test_ringing_unsettles_and_keeps_the_digest(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        settle(shared)
        other.ring()
        assert not is_settled(shared.peek())
        assert shared.peek()[8:16] == ONE.digest

    def test_settling_for_an_earlier_bell_settles_nothing(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        """Whoever rang while the store was being read is answered by the next reading only."""
        bell = shared.peek()[:8]
        other.ring()
        settle(shared, bell)
        assert not is_settled(shared.peek())

    def test_each_bell_is_another(self, shared: HostFiles) -> None:
        bells = set()
        for _ in range(20):
            shared.ring()
            bells.add(shared.peek()[:8])
        assert len(bells) == 20

    @pytest.mark.parametrize(
        "head",
        [b"", bytes(HEAD_SIZE), b"\xff" * HEAD_SIZE, bytes(HEAD_SIZE - 1), bytes(range(HEAD_SIZE))],
    )
    def test_noise_is_not_settled(self, head: bytes) -> None:
        assert not is_settled(head)

    def test_a_settled_header_cut_short_is_not_settled(self, shared: HostFiles) -> None:
        head = settle(shared)
        assert not any(is_settled(head[:size]) for size in range(HEAD_SIZE))


class TestDamage:
    @pytest.mark.parametrize("size", [0, 10, HEAD_SIZE, 500, 5000])
    def test_a_truncated_header_kills_nobody_and_is_mended(
        self, shared: HostFiles, header: Path, size: int
    ) -> None:
        settle(shared)
        os.truncate(header, size)
        assert is_settled(shared.peek()) == (size >= HEAD_SIZE)
        shared.notes()
        list(shared.slots)
        with shared.lock(1):
            assert shared.mend()
            assert not shared.mend()
        assert not is_settled(shared.peek())
        assert header.stat().st_size == header_module.SIZE

    @pytest.mark.parametrize(
        "noise", [b"\0", b"\xff", bytes(range(256))], ids=["zeros", "ones", "pattern"]
    )
    def test_noise_kills_nobody_and_is_mended(
        self, shared: HostFiles, header: Path, noise: bytes
    ) -> None:
        settle(shared)
        header.write_bytes((noise * header_module.SIZE)[: header_module.SIZE])
        assert not is_settled(shared.peek())
        assert shared.notes() == Notes()
        assert list(shared.slots) == []
        with shared.lock(1):
            assert shared.mend()
        assert not is_settled(shared.peek())

    def test_noise_behind_the_magic_is_read_as_nothing(
        self, shared: HostFiles, header: Path
    ) -> None:
        """Times in the future and counts below zero can't be; taken as they are they would stop all
        reading for ever.
        """
        with header.open("r+b") as file:
            file.seek(header_module.NOTES_AT + len(header_module.MAGIC))
            file.write(b"\x7f" * 1000)
        notes = shared.notes()
        assert (notes.checked_at, notes.retry_at, notes.failures, notes.error) == (0, 0, 0, "")

    def test_a_healthy_header_is_not_mended(self, shared: HostFiles) -> None:
        head = settle(shared)
        with shared.lock(1):
            assert not shared.mend()
        assert shared.peek() == head

    @pytest.mark.parametrize("damage", ["deleted", "replaced", "folder deleted"])
    def test_another_header_at_the_path_is_taken(
        self, shared: HostFiles, other: HostFiles, header: Path, damage: str
    ) -> None:
        settle(shared)
        if damage == "folder deleted":
            shared.folder.rename(shared.folder.with_name("away"))
        else:
            header.rename(header.with_name("away"))
        if damage == "replaced":
            header.write_bytes(b"noise")
            header.chmod(0o600)
        shared.verify()
        assert not is_settled(shared.peek())
        other.verify()
        with other.lock(1):
            other.mend()
        other.ring()
        assert shared.peek() == other.peek()

    def test_a_reader_keeps_its_descriptor_when_the_header_is_replaced(
        self, shared: HostFiles, header: Path
    ) -> None:
        """A thread may be reading through it at this moment."""
        peek = shared.peek
        header.unlink()
        shared.verify()
        settle(shared)
        assert is_settled(peek())

    def test_a_closed_descriptor_is_opened_again_and_its_new_owner_left_alone(
        self, shared: HostFiles, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        opened, fd = os.open(victim, os.O_RDWR | os.O_CREAT), shared._fd
        os.dup2(opened, fd)  # the number is another file's now
        os.close(opened)
        try:
            shared.ring()
            shared.verify()
            settle(shared)
            assert victim.read_bytes() == b""
            assert is_settled(shared.peek())
        finally:
            os.close(fd)

    def test_nothing_is_left_beside_the_header(self, shared: HostFiles) -> None:
        assert sorted(path.name for path in shared.folder.iterdir()) == [
            MARK,
            "bell",
            "header",
            "snapshots",
        ]


class TestNotes:
    def test_a_new_header_has_a_number_of_its_own(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        notes = open_files(tmp_path).notes()
        assert notes.generation == open_files(tmp_path).notes().generation > 0
        assert notes.generation != open_files(tmp_path / "other").notes().generation
        assert (notes.checked_at, notes.retry_at, notes.failures, notes.error) == (0, 0, 0, "")

    def test_a_failure_is_news_once_and_puts_the_next_try_off(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        before = time.monotonic_ns()
        assert shared.fail("no route")
        assert not other.fail("no route")
        assert shared.fail("disk full"), "another error is news"
        notes = other.notes()
        assert (notes.failures, notes.error) == (3, "disk full")
        assert notes.retry_at > before

    def test_the_pauses_grow_up_to_a_limit(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "monotonic_ns", lambda: 10**12)
        monkeypatch.setattr("random.uniform", lambda low, high: high)
        pauses = []
        for _ in range(9):
            shared.fail("down")
            pauses.append((shared.notes().retry_at - 10**12) / 1e9)
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]

    def test_success_ends_the_incident(self, shared: HostFiles) -> None:
        shared.fail("down")
        before = time.monotonic_ns()
        shared.succeed()
        notes = shared.notes()
        assert (notes.failures, notes.error, notes.retry_at) == (0, "", 0)
        assert notes.checked_at >= before
        assert shared.fail("down"), "the same error is news again"

    @pytest.mark.parametrize("error", ["x" * 5000, "ü🧇" * 1000, ""])
    def test_an_error_of_any_length_is_news_once(self, shared: HostFiles, error: str) -> None:
        settle(shared)
        assert shared.fail(error)
        assert not shared.fail(error)
        assert error.startswith(shared.notes().error)

    def test_notes_of_the_machines_last_life_count_for_nothing(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settle(shared)
        shared.fail("down")
        monkeypatch.setattr(time, "monotonic_ns", lambda: 1)
        notes = shared.notes()
        assert notes.checked_at == 0
        assert notes.retry_at <= 1 + 5e9


class TestThreads:
    def test_a_thread_that_writes_while_another_opens_a_new_header_waits_for_it(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In between the descriptor is another file's than was noted, and not because somebody
        closed it.
        """

        class Told:
            """The lock of those who open a header; says that somebody waits for it."""

            def __init__(self) -> None:
                self.lock, self.wanted = threading.Lock(), threading.Event()

            def __enter__(self) -> None:
                self.wanted.set()
                self.lock.acquire()

            def __exit__(self, *error: object) -> None:
                self.lock.release()

        def dup2(*descriptors: int, inheritable: bool) -> None:
            duplicate(*descriptors, inheritable=inheritable)
            opening.wanted.clear()
            writer.start()
            assert opening.wanted.wait(20)

        opening, duplicate = Told(), os.dup2
        writer = threading.Thread(target=shared.ring)
        descriptor = shared._fd
        (shared.folder / "header").unlink()
        with monkeypatch.context() as patches:
            patches.setattr(header_module, "_opening", opening)
            patches.setattr(os, "dup2", dup2)
            assert shared.verify()
        writer.join(20)
        assert shared._fd == descriptor
        assert not is_settled(shared.peek())


class TestWatchFile:
    def test_a_foreign_touch_is_noticed_by_all_and_taken_by_one(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        shared.take_touch()
        os.utime(shared.watch_file, ns=(1, 1))
        assert (shared.is_touched(), other.is_touched()) == (True, True)
        assert other.take_touch()
        assert (shared.is_touched(), other.is_touched()) == (False, False)
        assert not shared.take_touch()

    def test_the_own_touch_is_none(self, shared: HostFiles, other: HostFiles) -> None:
        shared.take_touch()
        before, head = shared.watch_file.stat().st_mtime_ns, shared.peek()
        shared.toll()
        assert shared.watch_file.stat().st_mtime_ns > before
        assert not shared.is_touched()
        assert not other.is_touched()
        assert shared.peek() == head

    def test_a_foreign_touch_is_kept_as_a_bell_when_the_own_one_hides_it(
        self, shared: HostFiles
    ) -> None:
        shared.take_touch()
        settle(shared)
        os.utime(shared.watch_file, ns=(1, 1))
        shared.toll()
        assert not is_settled(shared.peek())

    @pytest.mark.parametrize("noted", [False, True])
    def test_tolling_is_one_event_until_the_watch_file_was_replaced(
        self, shared: HostFiles, other: HostFiles, noted: bool
    ) -> None:
        """From then on nobody knows whether uWSGI's masters watch this one; the new file may have
        the old one's inode.
        """
        shared.take_touch()
        shared.knock()
        bell = shared.bell_folder / "bell"
        os.utime(bell, ns=(1, 1))
        shared.toll()
        assert bell.stat().st_mtime_ns == 1
        shared.watch_file.unlink()
        shared.watch_file.touch()
        if noted:
            assert other.take_touch()
        for _ in range(2):
            os.utime(bell, ns=(1, 1))
            shared.toll()
            assert bell.stat().st_mtime_ns > 1
        assert sorted(shared.bell_folder.iterdir()) == [shared.bell_folder / MARK, bell]

    def test_a_touch_that_fails_wakes_the_masters_all_the_same(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def utime(path: object, *args: Any, **options: Any) -> None:
            if path == str(shared.watch_file):
                raise PermissionError(1, "Operation not permitted")
            touch(path, *args, **options)

        shared.take_touch()
        os.utime(shared.watch_file, ns=(1, 1))
        touch = os.utime
        with monkeypatch.context() as patches:
            patches.setattr(os, "utime", utime)
            with pytest.raises(PermissionError):
                shared.toll()
        assert (shared.bell_folder / "bell").exists()

    def test_a_deleted_one_is_made_again_and_noticed(self, shared: HostFiles) -> None:
        shared.take_touch()
        shared.watch_file.unlink()
        assert shared.is_touched()
        assert shared.watch_file.is_file()


class TestSnapshots:
    def test_there_is_none_at_first(self, shared: HostFiles) -> None:
        assert shared.last() is None
        assert shared.snapshot(ONE.digest) is None

    def test_each_is_found_by_its_digest(self, shared: HostFiles, other: HostFiles) -> None:
        publish(shared, ONE)
        publish(shared, TWO)
        assert (other.snapshot(ONE.digest), other.snapshot(TWO.digest)) == (ONE, TWO)

    def test_the_last_is_the_one_that_the_header_names(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        """Revisions are not compared: a restored backup goes back."""
        publish(shared, TWO)
        publish(shared, ONE)
        settle(shared)
        assert other.last() == ONE

    def test_without_a_header_the_last_is_still_found(
        self, shared: HostFiles, header: Path
    ) -> None:
        publish(shared, TWO)
        settle(shared)
        header.unlink()
        shared.verify()
        assert shared.last() == TWO

    def test_all_but_those_that_are_named_are_tidied_away(self, shared: HostFiles) -> None:
        for encoded in (ONE, TWO, THREE):
            publish(shared, encoded)
        shared.tidy(TWO.digest, THREE.digest)
        assert shared.snapshot(ONE.digest) is None
        assert (shared.snapshot(TWO.digest), shared.snapshot(THREE.digest)) == (TWO, THREE)

    @pytest.mark.parametrize(
        "content",
        [b"", b"noise", ONE.blob[:-1], ONE.blob + b"x", ONE.blob.replace(b"1", b"2"), TWO.blob],
    )
    def test_a_damaged_or_exchanged_one_counts_for_none(
        self, shared: HostFiles, content: bytes
    ) -> None:
        publish(shared, ONE)
        snapshot_file(shared).write_bytes(content)
        assert shared.snapshot(ONE.digest) is None

    def test_foreign_files_beside_them_are_no_snapshots(self, shared: HostFiles) -> None:
        publish(shared, ONE)
        folder = snapshot_file(shared).parent
        for name in ("noise", "A" * 16, "0" * 16, ".hidden"):
            (folder / name).write_bytes(b"noise")
        assert shared.last() == ONE

    def test_a_disk_that_is_full_leaves_no_half_file(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write(fd: int, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(HostFilesError, match=r"staged: No space left on device"):
            shared.stage(ONE)
        assert [path.name for path in (shared.folder / "snapshots").iterdir()] == [MARK]

    def test_a_file_that_is_no_longer_needed_is_written_again(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        digests: list[bytes] = []
        for revision, text in enumerate(["1", "2222", "33", "4", "5555555", "6"]):
            encoded = encode(revision, {"A": text})
            publish(shared, encoded)
            digests.append(encoded.digest)
            shared.tidy(*digests[-2:])
            assert shared.last() == encoded
            assert list(map(shared.snapshot, digests[:-2])) == [None] * len(digests[:-2])
            if revision == 2:
                monkeypatch.setattr(
                    host_module, "create_file", lambda *_: pytest.fail("a new file was made")
                )

    @pytest.mark.parametrize("make", INTRUDERS)
    def test_something_else_in_its_place_is_not_written(
        self, shared: HostFiles, make: Callable[[Path], None]
    ) -> None:
        folder = shared.folder / "snapshots"
        make(folder / SPARE)
        publish(shared, ONE)
        if make is make_link:
            assert (folder / SPARE).read_bytes() == b""
        publish(shared, TWO)
        shared.tidy(TWO.digest)
        assert (shared.snapshot(ONE.digest), shared.snapshot(TWO.digest)) == (None, TWO)
        assert (folder / SPARE).is_dir() == (make is make_folder)

    @pytest.mark.parametrize("trap", ["another name", "readable for others", "another user's"])
    def test_a_file_that_others_may_read_or_need_is_not_written(
        self, shared: HostFiles, tmp_path: Path, trap: str
    ) -> None:
        spare = shared.folder / "snapshots" / SPARE
        spare.write_text("theirs")
        spare.chmod(0o644 if trap == "readable for others" else 0o600)
        if trap == "another name":
            os.link(spare, tmp_path / "backup")
        if trap == "another user's":
            if os.geteuid() != 0:
                pytest.skip("only root can give a file to another user")
            os.chown(spare, STRANGER, STRANGER)
        with open(spare) as opened:
            publish(shared, ONE)
            assert opened.read() == "theirs"
        assert shared.snapshot(ONE.digest) == ONE

    @pytest.mark.parametrize("work", ["stage", "promote", "tidy"])
    @pytest.mark.parametrize("swapped", ["waffle.watch.d", "waffle.watch.d/snapshots"])
    def test_nothing_is_done_in_a_folder_that_is_put_in_its_place(
        self, shared: HostFiles, tmp_path: Path, swapped: str, work: str
    ) -> None:
        """The server's user may do that, and have a shell of root's do what itself can't."""
        shared.stage(ONE)
        victim = tmp_path / "victim" / "snapshots"
        victim.mkdir(0o700, parents=True)
        names = sorted([ONE.digest.hex(), ONE.digest.hex() + STAGED, SPARE, "precious"])
        for name in names:
            (victim / name).write_text("precious")
            (victim / name).chmod(0o600)
        (tmp_path / swapped).rename(tmp_path / "away")
        (tmp_path / swapped).symlink_to(victim if swapped.endswith("snapshots") else victim.parent)
        steps: dict[str, Callable[[], None]] = {
            "stage": lambda: shared.stage(TWO),
            "promote": lambda: shared.promote(ONE.digest),
            "tidy": lambda: shared.tidy(TWO.digest),
        }
        with pytest.raises(OSError, match=swapped.rpartition("/")[2]):
            steps[work]()
        assert sorted(path.name for path in victim.iterdir()) == names
        assert {path.read_text() for path in victim.iterdir()} == {"precious"}

    def test_one_that_two_processes_want_is_had_by_one(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each with a header of its own, for somebody has removed one."""
        genuine = os.rename
        for number in range(3):
            publish(shared, encode(number, {}))
        shared.tidy(THREE.digest, encode(2, {}).digest)

        def late(*args: Any, **options: Any) -> None:
            monkeypatch.setattr(os, "rename", genuine)
            publish(shared, ONE)
            genuine(*args, **options)

        monkeypatch.setattr(os, "rename", late)
        publish(shared, TWO)
        assert (shared.snapshot(ONE.digest), shared.snapshot(TWO.digest)) == (ONE, TWO)

    def test_one_that_cannot_be_written_gives_its_room_back(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine, tried = os.write, []

        def full(fd: int, data: bytes) -> int:
            tried.append(fd)
            if len(tried) == 1:
                raise OSError(28, "No space left on device")
            return genuine(fd, data)

        publish(shared, ONE)
        shared.tidy(TWO.digest)
        monkeypatch.setattr(os, "write", full)
        publish(shared, TWO)
        assert shared.snapshot(TWO.digest) == TWO
        assert sorted(path.name for path in (shared.folder / "snapshots").iterdir()) == [
            MARK,
            TWO.digest.hex(),
        ]

    def test_nothing_of_another_stores_is_kept(self, shared: HostFiles) -> None:
        publish(shared, ONE)
        publish(shared, TWO)
        shared.tidy(TWO.digest)
        shared.tidy()
        assert [path.name for path in (shared.folder / "snapshots").iterdir()] == [MARK]

    def test_nor_what_is_no_snapshot(self, shared: HostFiles) -> None:
        (shared.folder / "snapshots" / "noise").touch(0o600)
        publish(shared, ONE)
        shared.tidy(ONE.digest)
        assert sorted(path.name for path in (shared.folder / "snapshots").iterdir()) == [
            MARK,
            ONE.digest.hex(),
        ]

    def test_who_has_it_open_still_finds_it_damaged(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = host_module.read_file

        def late(path: str, owner: int) -> bytes:
            with open(path, "rb", buffering=0) as opened:
                monkeypatch.setattr(host_module, "read_file", genuine)
                shared.tidy(THREE.digest)
                shared.stage(TWO)
                return opened.read()

        publish(shared, ONE)
        monkeypatch.setattr(host_module, "read_file", late)
        assert shared.snapshot(ONE.digest) is None
        assert shared.snapshot(TWO.digest) == TWO

    def test_a_staged_one_is_only_for_a_header_that_names_it(self, shared: HostFiles) -> None:
        """Its transaction may still be undone, or its writer killed; the header says when it is
        committed.
        """
        shared.stage(ONE)
        assert shared.last() is None
        settle(shared)
        assert shared.last() == ONE

    def test_one_that_is_promoted_between_two_looks_is_found(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = host_module.read_file
        looked: list[str] = []

        def promoted_meanwhile(path: str, owner: int) -> bytes:
            looked.append(path)
            if len(looked) == 2:
                shared.promote(ONE.digest)
            return genuine(path, owner)

        shared.stage(ONE)
        monkeypatch.setattr(host_module, "read_file", promoted_meanwhile)
        assert shared.snapshot(ONE.digest) == ONE
        assert len(looked) == 3

    def test_what_was_announced_is_what_the_header_will_say(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        with shared.lock(1):
            shared.stage(ONE)
            shared.toll()
            bell = shared.bell_folder / "bell"
            os.utime(bell, ns=(1, 1))
            head = shared.announce(ONE.digest)
            assert bell.stat().st_mtime_ns > 1, "the master is woken"
            assert (is_settled(head), is_settled(other.peek())) == (True, False)
            assert other.coming() == head
            shared.settle(head)
        assert other.peek() == head

    def test_a_folder_that_was_deleted_is_made_again(self, shared: HostFiles) -> None:
        shutil.rmtree(shared.folder / "snapshots")
        assert shared.last() is None
        publish(shared, ONE)
        assert shared.snapshot(ONE.digest) == ONE

    def test_writes_that_the_kernel_cuts_short_are_continued(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: genuine(fd, bytes(data)[:7]))
        publish(shared, ONE)
        assert shared.snapshot(ONE.digest) == ONE


class TestLock:
    def test_it_excludes_another_process(self, shared: HostFiles, other: HostFiles) -> None:
        """Each object opens the file itself, as each process does."""
        with shared.try_lock() as first, other.try_lock() as second:
            assert (first, second) == (True, False)
        with other.try_lock() as free:
            assert free

    def test_it_excludes_within_a_process_too(self, shared: HostFiles) -> None:
        with shared.try_lock() as first, shared.try_lock() as second:
            assert (first, second) == (True, False)

    def test_it_excludes_threads(self, shared: HostFiles) -> None:
        inside, most = 0, 0

        def work() -> None:
            nonlocal inside, most
            for _ in range(20):
                with shared.lock(30):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0)  # let another thread try
                    inside -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1

    def test_an_error_frees_it(self, shared: HostFiles, other: HostFiles) -> None:
        with pytest.raises(SystemExit), shared.lock(1):
            raise SystemExit
        with other.try_lock() as free:
            assert free

    def test_who_waits_too_long_is_told_who_holds_it(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        told = rf"^Process {os.getpid()} has been writing .* nothing was changed"
        with shared.lock(1), pytest.raises(HostBusy, match=told) as caught:
            other.lock(0.0).__enter__()
        assert isinstance(caught.value, TimeoutError)

    def test_who_waits_gets_it_when_it_is_free(self, shared: HostFiles, other: HostFiles) -> None:
        order = []

        def wait() -> None:
            with other.lock(30):
                order.append("second")

        with shared.lock(1):
            waiting = threading.Thread(target=wait)
            waiting.start()
            order.append("first")
        waiting.join()
        assert order == ["first", "second"]

    def test_kill_9_of_another_process_frees_it(self, shared: HostFiles) -> None:
        command = [sys.executable, "-c", HOLD, str(shared.watch_file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            with shared.try_lock() as locked:
                assert not locked
            with pytest.raises(HostBusy, match=f"Process {holder.pid} "):
                shared.lock(0).__enter__()
            holder.kill()
            holder.wait()
            with shared.try_lock() as locked:
                assert locked

    def test_it_is_the_lock_of_the_header_at_the_path(
        self, shared: HostFiles, other: HostFiles, header: Path
    ) -> None:
        """Who locks a deleted header would exclude nobody."""
        header.unlink()
        with shared.try_lock() as first, other.try_lock() as second:
            assert (first, second) == (True, False)

    def test_a_header_that_is_replaced_in_the_very_moment_is_noticed(
        self, shared: HostFiles, other: HostFiles, header: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def replace_first(fd: int, operation: int) -> None:
            monkeypatch.undo()
            header.unlink()
            genuine(fd, operation)

        genuine = fcntl.flock
        monkeypatch.setattr(fcntl, "flock", replace_first)
        with shared.try_lock() as first, other.try_lock() as second:
            assert (first, second) == (True, False)

    def test_no_descriptor_stays_open(self, shared: HostFiles) -> None:
        def opened() -> list[str]:
            found = []
            for path in Path("/proc/self/fd").iterdir():
                with suppress(FileNotFoundError):  # the one by which this is listed
                    found.append(os.readlink(path))
            return [path for path in found if path.startswith(str(shared.folder.parent))]

        with shared.try_lock(), shared.try_lock():
            pass
        shared.verify()
        for encoded in (ONE, TWO, THREE):
            publish(shared, encoded)
            shared.tidy(encoded.digest)
        assert shared.last() == THREE
        assert opened() == [str(shared.folder / "header")]


class TestSlots:
    @staticmethod
    def put(shared: HostFiles, index: int, pid: int, start: int, kind: bytes = b"other") -> None:
        shared._write_slots(
            index * SLOT.size, SLOT.pack(pid, start, 5, 10**9, ONE.digest, kind, b"\xc3")
        )

    def test_a_process_writes_its_own_line(self, shared: HostFiles, other: HostFiles) -> None:
        assert shared.slots.note("worker 1", 7, ONE.digest, 2 * 10**9, "")
        assert shared.slots.note("worker 1", 8, TWO.digest, 3 * 10**9, "trouble")
        (process,) = other.slots
        assert (process.pid, process.kind, process.revision, process.digest) == (
            os.getpid(),
            "worker 1",
            8,
            TWO.digest,
        )
        assert (process.applied_at, process.error) == (3.0, "trouble")

    def test_two_objects_of_one_process_share_its_line(
        self, shared: HostFiles, other: HostFiles
    ) -> None:
        shared.slots.note("a", 1, ONE.digest, 1, "")
        other.slots.note("b", 2, ONE.digest, 1, "")
        assert [process.kind for process in shared.slots] == ["b"]

    def test_long_texts_are_cut_off(self, shared: HostFiles) -> None:
        shared.slots.note("ü" * 100, 1, ONE.digest, 1, "🧇" * 100)
        (process,) = shared.slots
        assert process.kind == "ü" * 12
        assert process.error == "🧇" * 48

    def test_it_can_be_left(self, shared: HostFiles) -> None:
        shared.slots.note("a", 1, ONE.digest, 1, "")
        shared.slots.leave()
        assert list(shared.slots) == []
        assert shared.slots.note("a", 1, ONE.digest, 1, "")

    def test_the_living_are_listed_and_the_dead_are_not(
        self, shared: HostFiles, idle_process: int
    ) -> None:
        self.put(shared, 0, idle_process, started(idle_process))
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as dying:
            self.put(shared, 1, dying.pid, started(dying.pid))
            assert len(list(shared.slots)) == 2
        assert [process.pid for process in shared.slots] == [idle_process]

    def test_a_pid_that_is_used_again_is_another_process(
        self, shared: HostFiles, idle_process: int
    ) -> None:
        self.put(shared, 0, idle_process, started(idle_process) - 1)
        assert list(shared.slots) == []

    def test_a_dead_processes_line_is_taken(self, shared: HostFiles, idle_process: int) -> None:
        for index in range(SLOT_COUNT):
            self.put(shared, index, idle_process, started(idle_process))
        self.put(shared, 300, idle_process, started(idle_process) - 1)
        assert shared.slots.note("a", 1, ONE.digest, 1, "")
        assert sum(process.pid == os.getpid() for process in shared.slots) == 1
        assert sum(process.pid == idle_process for process in shared.slots) == SLOT_COUNT - 1

    def test_a_full_table_is_no_error(self, shared: HostFiles, idle_process: int) -> None:
        for index in range(SLOT_COUNT):
            self.put(shared, index, idle_process, started(idle_process))
        assert not shared.slots.note("a", 1, ONE.digest, 1, "")
        assert len(list(shared.slots)) == SLOT_COUNT

    def test_a_line_that_another_took_meanwhile_is_left_to_it(
        self, shared: HostFiles, idle_process: int
    ) -> None:
        shared.slots.note("a", 1, ONE.digest, 1, "")
        self.put(shared, os.getpid() % SLOT_COUNT, idle_process, started(idle_process))
        shared.slots.note("a", 1, ONE.digest, 1, "")
        assert {process.pid for process in shared.slots} == {os.getpid(), idle_process}

    def test_a_forked_process_takes_a_line_of_its_own(
        self, shared: HostFiles, idle_process: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shared.slots.note("parent", 1, ONE.digest, 1, "")
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: idle_process)
            shared.slots.note("child", 1, ONE.digest, 1, "")
        assert {(process.pid, process.kind) for process in shared.slots} == {
            (os.getpid(), "parent"),
            (idle_process, "child"),
        }

    def test_started_tells_the_living_from_the_dead(self, idle_process: int) -> None:
        assert started(os.getpid()) > 0
        assert started(idle_process) >= started(os.getpid())
        with subprocess.Popen(["true"]) as dead:
            pass
        assert started(dead.pid) == started(2**40) == -1

    def test_a_zombie_is_dead(self) -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            process.kill()
            os.waitid(
                os.P_PID, process.pid, os.WEXITED | os.WNOWAIT
            )  # it has ended, and nobody has taken note of it yet
            assert started(process.pid) == -1


class TestBirthOfAFolder:
    """rename(2) replaces an empty folder: of processes that start together the slower one must not
    do that to the faster one's.
    """

    def test_the_slower_one_replaces_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine, made = os.rename, []

        def late(source: Path, target: Path) -> None:
            monkeypatch.setattr(os, "rename", genuine)
            ensure_folder(tmp_path / "new")
            made.append((tmp_path / "new").stat().st_ino)
            os.rename(source, target)

        monkeypatch.setattr(os, "rename", late)
        ensure_folder(tmp_path / "new")
        assert [(tmp_path / "new").stat().st_ino] == made
        assert list(tmp_path.iterdir()) == [tmp_path / "new"], (
            "and nothing of the slower one's is left"
        )

    def test_nobody_waits_for_anybody(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever can read a folder can lock it, so a lock on one must hold nobody up."""
        monkeypatch.setattr(fcntl, "flock", lambda fd, operation: pytest.fail("a lock was taken"))
        open_files(tmp_path)

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
    def test_it_is_closed_to_others_from_the_beginning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
    ) -> None:
        genuine, modes = os.mkdir, []

        def watched(path: Path, mode: int = 0o777) -> None:
            genuine(path, mode)
            modes.append(stat.S_IMODE(os.stat(path).st_mode))

        monkeypatch.setattr(os, "mkdir", watched)
        before = os.umask(umask)
        try:
            ensure_folder(tmp_path / "new")
        finally:
            os.umask(before)
        assert modes
        assert not any(seen & 0o077 for seen in modes)
        assert mode(tmp_path / "new") == 0o700

    @pytest.mark.usefixtures("as_root")
    @pytest.mark.parametrize("after", ["mkdir", "open"])
    def test_the_servers_user_can_not_have_root_give_it_another_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
    ) -> None:
        """It owns the folder above, so it may put a link in place of what root has just made there."""
        (tmp_path / "instance").mkdir()
        os.chown(tmp_path / "instance", STRANGER, STRANGER)
        victim = tmp_path / "victim"
        victim.mkdir(0o755)
        genuine = getattr(os, after)

        def swapped(path: Path | str, *args: Any, **options: Any) -> Any:
            result = genuine(path, *args, **options)
            monkeypatch.setattr(os, after, genuine)
            Path(path).rename(f"{path}.away")
            Path(path).symlink_to(victim)
            return result

        monkeypatch.setattr(os, after, swapped)
        with pytest.raises(HostFilesError, match=f"{tmp_path}/instance/new"):
            ensure_folder(tmp_path / "instance" / "new")
        assert (victim.stat().st_uid, mode(victim), list(victim.iterdir())) == (0, 0o755, [])

    @pytest.mark.usefixtures("as_root")
    def test_nor_another_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "roots").mkdir(0o700)
        (tmp_path / "roots" / "key").touch()
        os.chown(tmp_path, STRANGER, STRANGER)
        genuine = os.mkdir

        def swapped(path: Path, mode: int = 0o777) -> None:
            genuine(path, mode)
            path.rename(f"{path}.away")
            (tmp_path / "roots").rename(path)

        monkeypatch.setattr(os, "mkdir", swapped)
        with pytest.raises(HostFilesError, match="isn't the folder"):
            ensure_folder(tmp_path / "new")
        assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {0}

    @pytest.mark.parametrize(
        "interrupted",
        [OSError(28, "No space left on device"), KeyboardInterrupt()],
        ids=["full", "interrupted"],
    )
    def test_nothing_is_left_where_it_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: BaseException
    ) -> None:
        def fail(*_: object) -> None:
            raise interrupted

        monkeypatch.setattr(os, "rename", fail)
        with pytest.raises((HostFilesError, KeyboardInterrupt)):
            ensure_folder(tmp_path / "new")
        assert list(tmp_path.iterdir()) == []


class TestModes:
    @pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
    def test_files_are_0600_in_0700_under_any_umask(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            shared = open_files(tmp_path)
            publish(shared, ONE)
            shared.toll()
        finally:
            os.umask(before)
        made = list(shared.folder.rglob("*"))
        assert {mode(path) for path in [shared.folder, *made] if path.is_dir()} == {0o700}
        assert [mode(path) for path in made if path.is_file()] == [0o600] * 6
        assert mode(shared.watch_file) & 0o022 == 0

    def test_a_folder_that_others_may_enter_is_closed(self, tmp_path: Path) -> None:
        open_files(tmp_path).folder.chmod(0o755)
        assert mode(open_files(tmp_path).folder) == 0o700

    def test_descriptors_are_not_inherited_by_programs(
        self, shared: HostFiles, header: Path
    ) -> None:
        assert not os.get_inheritable(shared._fd)
        header.unlink()
        shared.verify()
        assert not os.get_inheritable(shared._fd)


class TestIntruders:
    """In the place of each of our files: refused by its path, never opened, never waited for."""

    @pytest.mark.parametrize("make", INTRUDERS)
    def test_in_place_of_the_watch_file(self, tmp_path: Path, make: Callable[[Path], None]) -> None:
        make(tmp_path / "waffle.watch")
        with pytest.raises(
            HostFilesError,
            match=f"WAFFLE_WATCHER_FILE {tmp_path}/waffle.watch|{tmp_path}/waffle.watch belongs",
        ):
            open_files(tmp_path)

    @pytest.mark.parametrize("make", INTRUDERS)
    @pytest.mark.parametrize("name", ["header", "snapshot"])
    def test_in_place_of_a_file(
        self, shared: HostFiles, name: str, make: Callable[[Path], None]
    ) -> None:
        publish(shared, ONE)
        path = shared.folder / "header" if name == "header" else snapshot_file(shared)
        path.unlink()
        make(path)
        with pytest.raises(HostFilesError, match=str(path)):
            read_file(path, os.geteuid())
        if name == "header":
            with pytest.raises(HostFilesError, match=str(path)):
                shared.verify()
        else:
            assert shared.snapshot(ONE.digest) is None

    @pytest.mark.parametrize("make", [make_link, make_pipe, make_strangers_file])
    @pytest.mark.parametrize(
        "folder", ["waffle.watch.d", "waffle.watch.d/bell", "waffle.watch.d/snapshots"]
    )
    def test_in_place_of_a_folder(
        self, tmp_path: Path, folder: str, make: Callable[[Path], None]
    ) -> None:
        (tmp_path / folder).parent.mkdir(mode=0o700, exist_ok=True)
        make(tmp_path / folder)
        with pytest.raises(HostFilesError, match=f"{tmp_path}/{folder} (must be a folder|belongs)"):
            open_files(tmp_path)

    def test_a_link_to_a_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "waffle.watch.d").symlink_to("elsewhere")
        with pytest.raises(HostFilesError, match=r"waffle\.watch\.d must be a folder"):
            open_files(tmp_path)
        assert list((tmp_path / "elsewhere").iterdir()) == []

    @pytest.mark.usefixtures("as_root")
    def test_a_strangers_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "waffle.watch.d").mkdir()
        os.chown(tmp_path / "waffle.watch.d", STRANGER, STRANGER)
        with pytest.raises(HostFilesError, match=rf"waffle\.watch\.d belongs to user {STRANGER}"):
            open_files(tmp_path)

    def test_a_link_in_place_of_a_new_snapshot_is_replaced_and_not_written_through(
        self, shared: HostFiles
    ) -> None:
        publish(shared, ONE)
        path = snapshot_file(shared)
        path.unlink()
        make_link(path)
        publish(shared, ONE)
        assert (path.parent / "elsewhere").read_bytes() == b""
        assert not path.is_symlink()

    @pytest.mark.usefixtures("as_root")
    def test_what_root_creates_belongs_to_the_folders_owner(self, tmp_path: Path) -> None:
        """A shell of root's mustn't shut the server's user out."""
        tmp_path.chmod(0o755)
        os.chown(tmp_path, STRANGER, STRANGER)
        shared = open_files(tmp_path)
        publish(shared, ONE)
        shared.toll()
        made = [shared.watch_file, shared.folder, *shared.folder.rglob("*")]
        assert {path.stat().st_uid for path in made} == {STRANGER}
        assert len(made) == 10

    @pytest.mark.usefixtures("as_root")
    def test_the_folder_above_may_be_a_link_of_roots(self, tmp_path: Path) -> None:
        (tmp_path / "shared").mkdir()
        os.chown(tmp_path / "shared", STRANGER, STRANGER)
        (tmp_path / "current").symlink_to("shared")
        shared = open_files(tmp_path / "current")
        assert {
            path.stat().st_uid
            for path in (shared.watch_file, shared.folder, *shared.folder.iterdir())
        } == {STRANGER}

    def test_a_missing_file_is_told_from_a_bad_one(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            open_file(tmp_path / "none", os.O_RDONLY, os.geteuid())

    @pytest.mark.parametrize(
        "ensure",
        [ensure_folder, ensure_watch_file, lambda path: create_file(path, b"", os.geteuid())],
    )
    def test_what_can_not_be_created_is_told_with_its_path_and_the_setting(
        self, tmp_path: Path, ensure: Callable[[Path], object]
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(HostFilesError, match=f"{tmp_path}/file/.*WAFFLE_WATCHER_FILE"):
            ensure(tmp_path / "file" / "x" / "y")


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / {root}/net rw,relatime shared:2 master:1 - nfs4 server:/export rw
31 22 0:41 / {root}/net/local rw - tmpfs tmpfs rw
32 22 0:42 / {root}/with\\040späce rw - cifs //server/share rw
33 22 0:43 / {root}/over rw - ext4 /dev/sdb1 rw
34 33 0:44 / {root}/over rw - fuse.sshfs host: rw
35 22 0:45 / {root}/Latin-\udcfc rw - nfs server:/export rw
"""


class TestNetwork:
    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("elsewhere/x", "ext4"),
            ("net", "nfs4"),
            ("net/a/b", "nfs4"),
            ("network", "ext4"),
            ("net/local/x", "tmpfs"),
            ("with späce/x", "cifs"),
            ("over/x", "fuse.sshfs"),
            ("Latin-\udcfc/x", "nfs"),
        ],
    )
    def test_the_file_system_is_that_of_the_nearest_mount(
        self, tmp_path: Path, path: str, name: str
    ) -> None:
        mountinfo = tmp_path / "mountinfo"
        mountinfo.write_bytes(os.fsencode(MOUNTS.format(root=tmp_path)))
        assert filesystem_of(tmp_path / path, str(mountinfo)) == name

    def test_a_link_is_followed(self, tmp_path: Path) -> None:
        mountinfo = tmp_path / "mountinfo"
        mountinfo.write_bytes(os.fsencode(MOUNTS.format(root=tmp_path)))
        (tmp_path / "link").symlink_to(tmp_path / "net")
        assert filesystem_of(tmp_path / "link" / "x", str(mountinfo)) == "nfs4"

    def test_where_the_kernel_does_not_tell_nothing_is_claimed(self, tmp_path: Path) -> None:
        assert filesystem_of(tmp_path, str(tmp_path / "none")) == ""
        (tmp_path / "empty").touch()  # as in a chroot to a folder that is no mount point
        assert filesystem_of(tmp_path, str(tmp_path / "empty")) == ""

    def test_network_file_systems_are_known(self) -> None:
        assert all(map(is_network, ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs"]))
        assert not any(map(is_network, ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", ""]))

    def test_the_folder_says_which_it_is_on(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert shared.network == ""
        monkeypatch.setattr(header_module, "filesystem_of", lambda path: "nfs4")
        assert shared.network == "nfs4"
