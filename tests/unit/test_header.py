"""The header: its words, its notes and its lock; damage to it is noticed and repaired."""

from __future__ import annotations

import gc
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from uwsgi_waffle import HostBusy, HostFilesError, SchemaError
from uwsgi_waffle.host import HostFiles, Notes, header, is_current, snapshot_id_in
from uwsgi_waffle.identity import REALLY
from uwsgi_waffle.snapshot import encode

from ..host import (
    OTHER_FILE,
    SAME_FILE,
    Host,
    count_open_files,
    damage_header,
    descriptors,
    eventually,
    forked,
    run_forked,
)

ONE = encode(1, {"A": "1"})
WORDS_SIZE = header.WORDS_SIZE


def publish(shared: HostFiles) -> bytes:
    """Publish ONE as the newest; return the words."""
    with shared.lock(1) as fields:
        fields.publish(ONE.id, fields.words()[:8])
    return shared.words()


class TestWords:
    def test_a_new_header_is_not_current(self, shared: HostFiles) -> None:
        with shared.lock(1) as fields:
            assert len(fields.words()) == WORDS_SIZE
            assert not is_current(fields.words())

    def test_what_is_published_is_current_for_all(
        self, shared: HostFiles, others: HostFiles
    ) -> None:
        words = publish(shared)
        assert is_current(words)
        assert others.words() == words
        assert snapshot_id_in(words) == ONE.id

    def test_invalidating_keeps_the_snapshot(self, shared: HostFiles, others: HostFiles) -> None:
        publish(shared)
        others.invalidate()
        assert not is_current(shared.words())
        assert snapshot_id_in(shared.words()) == ONE.id

    def test_whoever_invalidates_during_a_fetch_is_answered_by_the_next(
        self, shared: HostFiles, others: HostFiles
    ) -> None:
        with shared.lock(1) as fields:
            generation = fields.words()[:8]
            others.invalidate()
            fields.publish(ONE.id, generation)
        assert not is_current(shared.words())

    def test_each_generation_is_another(self, shared: HostFiles) -> None:
        generations = set()
        for _ in range(20):
            shared.invalidate()
            generations.add(shared.words()[:8])
        assert len(generations) == 20

    @pytest.mark.parametrize(
        "words",
        [b"", bytes(24), bytes(23), bytes(range(24)), b"\xff" * 23, b"\xff" * 25],
    )
    def test_noise_is_not_current(self, words: bytes) -> None:
        assert not is_current(words)

    def test_words_that_are_cut_off_are_not_current(self, shared: HostFiles) -> None:
        words = publish(shared)
        assert not any(is_current(words[:size]) for size in range(WORDS_SIZE))


class TestDamage:
    @pytest.mark.parametrize("damage", SAME_FILE)
    def test_a_damaged_header_is_repaired_by_whoever_locks_it(
        self, host: Host, shared: HostFiles, others: HostFiles, damage: str
    ) -> None:
        publish(shared)
        damage_header(host, damage)
        assert shared.notes() == Notes()
        with others.lock(1) as fields:
            assert not is_current(fields.words())
            assert fields.notes().host_id, "it is whole again"
        assert others.words() == shared.words()
        assert shared.notes().host_id

    def test_a_healthy_header_is_left_as_it_is(self, shared: HostFiles) -> None:
        words = publish(shared)
        with shared.lock(1):
            assert shared.words() == words

    @pytest.mark.parametrize("damage", OTHER_FILE)
    def test_another_file_at_the_path_is_noticed(
        self, host: Host, shared: HostFiles, damage: str
    ) -> None:
        publish(shared)
        assert shared.header.is_open()
        damage_header(host, damage)
        assert not shared.header.is_open()

    @pytest.mark.parametrize("damage", OTHER_FILE)
    def test_the_header_at_the_path_is_opened(
        self, host: Host, shared: HostFiles, others: HostFiles, damage: str
    ) -> None:
        publish(shared)
        damage_header(host, damage)
        for files in (shared, others):
            files.open()
            with files.lock(1):
                pass
        others.invalidate()
        assert len(shared.words()) == WORDS_SIZE
        assert shared.words() == others.words()

    def test_words_of_a_deleted_header_are_refused(self, host: Host, shared: HostFiles) -> None:
        """A process that has it open would never see an update again."""
        publish(shared)
        host.header.unlink()
        with pytest.raises(FileNotFoundError, match="header was deleted or replaced"):
            shared.words()

    def test_a_header_that_is_removed_again_and_again_is_an_error(
        self, shared: HostFiles, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        genuine = os.open

        def removed(path: str, *args: int, **options: int) -> int:
            fd = genuine(path, *args, **options)
            if path == "header":
                os.unlink(path, dir_fd=options["dir_fd"])
            return fd

        host.header.unlink()
        monkeypatch.setattr(os, "open", removed)
        with pytest.raises(HostFilesError, match="removed again and again"):
            shared.lock(1).__enter__()

    def test_a_closed_descriptor_is_opened_again_and_its_new_owner_left_alone(
        self, host: Host, shared: HostFiles, tmp_path: Path
    ) -> None:
        (fd,) = descriptors(host.header)
        opened = os.open(tmp_path / "victim", os.O_RDWR | os.O_CREAT)
        os.dup2(opened, fd)  # the number is another file's now
        os.close(opened)
        try:
            shared.invalidate()
            shared.open()
            assert is_current(publish(shared))
            assert (tmp_path / "victim").read_bytes() == b""
        finally:
            os.close(fd)

    def test_a_closed_descriptor_gives_its_number_to_the_next_one(
        self, host: Host, shared: HostFiles
    ) -> None:
        """A program that becomes a daemon closes all descriptors."""
        (fd,) = descriptors(host.header)
        os.close(fd)
        shared.open()
        assert is_current(publish(shared))
        assert len(descriptors(host.header)) == 1

    def test_nothing_else_lies_in_the_folder(self, host: Host, shared: HostFiles) -> None:
        assert sorted(path.name for path in host.folder.iterdir()) == ["bell", "header"]


class TestNotes:
    def test_each_header_has_a_host_id_of_its_own(self, tmp_path: Path) -> None:
        ids = []
        for name in ("one", "other"):
            files = Host(tmp_path / name).open_files()
            with files.lock(1):
                ids.append(files.notes().host_id)
        assert ids[0] != ids[1]
        assert all(0 < number < 2**53 for number in ids)

    def test_what_is_noted_is_read_by_all(self, shared: HostFiles, others: HostFiles) -> None:
        with shared.lock(1) as fields:
            fields.set_notes(error="no route", updates=7)
            fields.set_notes(store="sqlite:///x")
        notes = others.notes()
        assert (notes.error, notes.updates, notes.store) == ("no route", 7, "sqlite:///x")

    @pytest.mark.parametrize("error", ["x" * 400, "ü🧇" * 200, "🧇" * 400, "\0" * 400, "\udcfc"])
    def test_an_error_in_any_script_is_read_as_it_was_noted(
        self, shared: HostFiles, error: str
    ) -> None:
        with shared.lock(1) as fields:
            fields.set_notes(error=error)
            assert shared.notes().error == error
            fields.set_notes(error="")
        assert shared.notes().error == ""

    def test_notes_leave_the_words_alone(self, shared: HostFiles) -> None:
        words = publish(shared)
        with shared.lock(1) as fields:
            fields.set_notes(error="down")
        assert shared.words() == words

    def test_times_of_the_machines_last_life_count_for_nothing(
        self, shared: HostFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its monotonic clock was ahead; taken as they are they would stop all reading."""
        now = time.monotonic_ns()
        with shared.lock(1) as fields:
            fields.set_notes(checked_at=now, retry_at=now + 60 * 10**9)
        monkeypatch.setattr(time, "monotonic_ns", lambda: 1)
        assert (shared.notes().checked_at, shared.notes().retry_at) == (0, 0)


class TestLock:
    def test_it_excludes_another_process(self, shared: HostFiles) -> None:
        def program() -> None:
            with shared.try_lock() as fields:
                assert fields is None

        with shared.lock(1):
            assert run_forked(program) == 0
        with shared.try_lock() as fields:
            assert fields is not None

    @pytest.mark.parametrize("own", [False, True])
    def test_it_excludes_within_a_process_too(
        self, shared: HostFiles, others: HostFiles, own: bool
    ) -> None:
        second = shared if own else others
        with shared.try_lock() as first, second.try_lock() as also:
            assert (first is None, also is None) == (False, True)

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

    def test_an_error_releases_it(self, shared: HostFiles, others: HostFiles) -> None:
        with pytest.raises(SystemExit), shared.lock(1):
            raise SystemExit
        with others.try_lock() as fields:
            assert fields is not None

    def test_whoever_waits_too_long_learns_how_to_find_who_holds_it(
        self, host: Host, shared: HostFiles, others: HostFiles
    ) -> None:
        text = rf"^Another process has held .*{host.header} .* or many .*`lslocks` .*Nothing was"
        with shared.lock(1), pytest.raises(HostBusy, match=text) as caught:
            others.lock(0.0).__enter__()
        assert isinstance(caught.value, TimeoutError)

    def test_where_nothing_is_shared_it_is_a_thread_that_holds_it(self, host: Host) -> None:
        """No tool of the system lists that lock."""
        alone = host.start(MULTIPROC=False).state.host
        with alone.lock(1), pytest.raises(HostBusy, match=r"^Other threads") as caught:
            alone.lock(0.0).__enter__()
        assert "lslocks" not in str(caught.value)

    def test_waiting_leaves_the_applications_random_numbers_alone(
        self, shared: HostFiles, others: HostFiles
    ) -> None:
        """It may have seeded them."""
        random.seed(7)
        with shared.lock(1), pytest.raises(HostBusy):
            others.lock(0.01).__enter__()
        assert random.getstate() == random.Random(7).getstate()

    def test_whoever_waits_gets_it_when_it_is_free(
        self, shared: HostFiles, others: HostFiles
    ) -> None:
        order = []

        def wait() -> None:
            with others.lock(30):
                order.append("second")

        with shared.lock(1):
            waiting = threading.Thread(target=wait)
            waiting.start()
            order.append("first")
        waiting.join()
        assert order == ["first", "second"]

    def test_kill_9_releases_it(self, shared: HostFiles) -> None:
        lock = shared.try_lock()
        with forked(lock.__enter__), shared.try_lock() as fields:
            assert fields is None
        with shared.try_lock() as fields:
            assert fields is not None

    def test_a_child_that_outlives_its_parent_does_not_keep_it(
        self, host: Host, shared: HostFiles, tmp_path: Path
    ) -> None:
        """A fork shares the open file, and with it a lock of flock(2)."""
        os.mkfifo(tmp_path / "alive")

        lock = shared.try_lock()

        def lock_and_fork() -> None:
            assert lock.__enter__() is not None
            if os.fork() == 0:
                os.open(tmp_path / "alive", os.O_RDONLY)  # waits for the end of the test
                os._exit(0)
            os._exit(0)

        def is_free() -> bool:
            with shared.try_lock() as fields:
                return fields is not None

        assert run_forked(lock_and_fork) == 0
        try:
            eventually(is_free)  # the grandchild lets go as soon as it runs
        finally:
            # Fails as long as the grandchild hasn't opened the pipe's other end.
            eventually(lambda: opened_for_writing(tmp_path / "alive"))

    def test_it_is_the_lock_of_the_header_at_the_path(
        self, host: Host, shared: HostFiles, others: HostFiles
    ) -> None:
        """Locking a deleted header would exclude nobody."""
        host.header.unlink()
        with shared.try_lock() as first, others.try_lock() as second:
            assert (first is None, second is None) == (False, True)

    def test_a_header_that_is_removed_while_it_is_locked_is_noticed(
        self, host: Host, shared: HostFiles
    ) -> None:
        with shared.lock(1) as header:
            assert not header.was_replaced()
            host.header.unlink()
            assert header.was_replaced()

    def test_no_descriptor_stays_open(self, host: Host, shared: HostFiles) -> None:
        gc.collect()  # what other tests have left
        before = count_open_files()
        with shared.try_lock(), shared.try_lock():
            pass
        shared.invalidate()
        shared.wake()
        host.header.unlink()
        shared.open()
        with shared.lock(1):
            shared.snapshots.write(ONE)
            shared.snapshots.prune()
        assert shared.snapshots.read(ONE.id) is None
        assert len(descriptors(host.folder)) == len(descriptors(host.header)) == 1
        assert count_open_files() == before

    @pytest.mark.parametrize(
        ("other", "same"),
        [
            (f"sqlite:////b/x.db{REALLY}8:1:/a/x.db", True),  # one volume at two places
            (f"sqlite:////a/x.db{REALLY}8:2:/a/x.db", False),  # another volume at this place
            ("sqlite:////a/x.db", True),  # where the kernel doesn't say
            ("sqlite:////b/x.db", False),
        ],
    )
    def test_two_stores_behind_one_watch_file(self, host: Host, other: str, same: bool) -> None:
        """They are told apart by where they really are, if that is known."""
        ours = HostFiles(host.watch_file, lambda: f"sqlite:////a/x.db{REALLY}8:1:/a/x.db")
        theirs = HostFiles(host.watch_file, lambda: other)
        refused = pytest.raises(SchemaError, match="Give each application a watch file")
        with ours.lock(1):
            pass
        with nullcontext() if same else refused, theirs.lock(1):
            pass
        with ours.lock(1):  # a refusal has left it free
            pass

    def test_descriptors_are_not_inherited_by_programs(self, host: Host, shared: HostFiles) -> None:
        (fd,) = descriptors(host.header)
        assert not os.get_inheritable(fd)


def opened_for_writing(pipe: Path) -> bool:
    with suppress(OSError):
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return True
    return False


def test_the_folder_is_made_again_when_it_is_gone(host: Host, shared: HostFiles) -> None:
    shutil.rmtree(host.folder)
    host.watch_file.unlink()
    use: list[Callable[[], object]] = [shared.open, shared.invalidate, shared.wake]
    for step in use:
        step()
    assert host.watch_file.is_file()
    assert sorted(path.name for path in host.folder.iterdir()) == ["bell", "header"]
