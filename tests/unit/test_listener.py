"""Between a host's files and Redis: who listens, and what is said when Redis isn't there."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from uwsgi_waffle import wake
from uwsgi_waffle.wake import CHANNELS, ChannelDown, Listener, listener, open_channel

from ..contract.conftest import put
from ..host import Host, Process, eventually, forked, logged

URLS = {"redis": "redis://", "postgres": "postgresql://"}


class FakeChannel:
    """A channel of the test's own; it fails while ``down`` says why."""

    server, name = "Redis", "waffleconf"

    def __init__(self) -> None:
        self.down = ""
        self.unforeseen: Exception | None = None
        self.sent: list[int] = []
        self.listening = self.most = 0  # how many do at this moment, or ever did at once
        self.subscribed, self.end = threading.Event(), threading.Event()
        self.message = threading.Event()

    def publish(self, host_id: int) -> None:
        self._fail()
        self.sent.append(host_id)

    @contextmanager
    def open(self, *, listen: bool) -> Iterator[FakeChannel]:
        self._fail()
        self.listening += 1
        self.most = max(self.most, self.listening)
        try:
            yield self
        finally:
            self.listening -= 1

    def receive(self, seconds: float) -> list[tuple[str, str]]:
        self.subscribed.set()
        self.end.wait(0.005)
        self._fail()
        if not self.message.is_set():
            return []
        self.message.clear()
        return [(self.name, "")]

    def is_open(self) -> bool:
        return not self.end.is_set()

    def _fail(self) -> None:
        if self.unforeseen is not None:
            error, self.unforeseen = self.unforeseen, None
            raise error
        if self.down:
            raise ChannelDown(self.down)


@pytest.fixture(scope="module", autouse=True)
def cheap_collections() -> Iterator[None]:
    """Let `gc.collect` look at what these tests have made, and at nothing older."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeChannel]:
    gc.collect()  # a listener ticks all applications of its process, also forgotten ones
    channel = FakeChannel()
    monkeypatch.setattr(listener, "open_channel", lambda *_: channel)
    monkeypatch.setattr(listener, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(listener, "ELECTION_INTERVAL", 0.0)
    yield channel
    monkeypatch.setattr(wake, "can_subscribe", lambda **_: False)
    channel.end.set()
    for thread in listening_threads():
        thread.join(20)


def test_a_process_without_room_for_a_thread_leaves_the_listening_to_others(
    host: Host, site: Process, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        site.tick()
    assert site.waffle.status()["redis"]["listener"] is None
    other = host.start(WATCHTYPE="redis")
    other.tick()
    eventually(lambda: channel.listening == 1)


def listening_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "uwsgi_waffle listener"]


@pytest.fixture
def site(host: Host, channel: FakeChannel) -> Process:
    """A process of the host that uses Redis."""
    return host.start(WATCHTYPE="redis")


@pytest.fixture
def listening(site: Process, channel: FakeChannel) -> Process:
    """The same when it listens."""
    site.tick()
    assert channel.subscribed.wait(20)
    return site


class TestPublishing:
    def test_an_update_carries_the_id_of_its_host(
        self, site: Process, channel: FakeChannel
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        assert channel.sent == [site.files.notes().host_id]
        assert channel.sent[0] > 0

    def test_what_changes_nothing_is_not_sent(self, site: Process, channel: FakeChannel) -> None:
        site.waffle.update({"LIMIT": 10})
        site.waffle.update({"LIMIT": 10})
        site.waffle.refresh()
        assert len(channel.sent) == 1

    def test_an_edit_by_hand_is_sent(self, host: Host, site: Process, channel: FakeChannel) -> None:
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        site.waffle.refresh()
        assert len(channel.sent) == 1

    def test_without_redis_an_update_succeeds_and_the_host_says_so_once(
        self, host: Host, site: Process, channel: FakeChannel, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = host.start(WATCHTYPE="redis")
        channel.down = "nobody there."
        site.tick()
        eventually(lambda: site.files.listener().get("error"))
        for process in (site, other):
            process.waffle.update({"LIMIT": 20 + process.waffle.revision})
        assert other.waffle.revision == 2
        (text,) = logged(caplog)
        assert "nobody there. Until Redis responds" in text
        assert "after WAFFLE_RECONCILE_INTERVAL" in text
        assert site.waffle.status()["redis"] == {
            "channel": "waffleconf",
            "listener": os.getpid(),
            "error": "nobody there.",
        }
        channel.down = ""
        assert channel.subscribed.wait(20)
        assert site.waffle.status()["redis"]["error"] == ""

    def test_where_nobody_listens_each_process_says_it_once(
        self, site: Process, channel: FakeChannel, caplog: pytest.LogCaptureFixture
    ) -> None:
        channel.down = "nobody there"
        for number in (20, 21):
            site.waffle.update({"LIMIT": number})
        assert len(logged(caplog)) == 1
        assert site.waffle.status()["redis"]["listener"] is None

    def test_whatever_goes_wrong_the_update_has_succeeded(
        self, site: Process, channel: FakeChannel, caplog: pytest.LogCaptureFixture
    ) -> None:
        channel.unforeseen = LookupError("oops")
        assert site.waffle.update({"LIMIT": 20}).revision == 1
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert "LookupError: oops" in record.getMessage()
        assert record.exc_info


class TestListening:
    def test_one_process_of_a_host_does(
        self, host: Host, listening: Process, channel: FakeChannel
    ) -> None:
        host.start(WATCHTYPE="redis").tick()
        assert not host.open_files().listener_lock.acquire()
        assert listening.waffle.status()["redis"]["listener"] == os.getpid()
        assert channel.most == 1

    def test_another_takes_over_when_it_is_killed(
        self, host: Host, site: Process, channel: FakeChannel
    ) -> None:
        elsewhere = host.start(WATCHTYPE="redis")

        def listen() -> None:
            elsewhere.tick()
            assert channel.subscribed.wait(20)

        with forked(listen) as pid:
            site.tick()
            assert site.waffle.status()["redis"]["listener"] == pid
        site.tick()
        assert channel.subscribed.wait(20)
        assert site.waffle.status()["redis"]["listener"] == os.getpid()

    def test_it_begins_with_a_look_at_the_store(
        self, host: Host, site: Process, channel: FakeChannel
    ) -> None:
        """What was sent before it listened is lost."""
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        site.tick()
        assert channel.subscribed.wait(20)
        assert site.waffle.values.LIMIT == 20

    def test_a_copy_of_a_hosts_files_is_another_host(
        self, host: Host, site: Process, channel: FakeChannel, tmp_path: Path
    ) -> None:
        """Of two hosts with one id, each would take the other's messages for its own."""
        site.waffle.update({"LIMIT": 20})
        shutil.copytree(host.instance, tmp_path / "copy" / "instance")
        copy = Host(tmp_path / "copy").start(host.store(), WATCHTYPE="redis")
        assert copy.files.notes().host_id == site.files.notes().host_id
        copy.tick()
        assert channel.subscribed.wait(20)
        copy.waffle.update({"LIMIT": 21})
        theirs, ours = channel.sent[0], channel.sent[-1]
        assert ours == copy.files.notes().host_id != theirs

    def test_a_message_wakes_the_idle_and_calls_hooks(
        self, host: Host, listening: Process, channel: FakeChannel
    ) -> None:
        seen, bell, threads = threading.Event(), host.folder / "bell", []

        @listening.waffle.on_change()
        def hook(change: object) -> None:
            threads.append(threading.current_thread().name)
            seen.set()

        os.utime(bell, ns=(1, 1))
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        channel.message.set()
        assert seen.wait(20), "a store that has the same revision was looked at"
        assert threads == ["uwsgi_waffle listener"]
        assert bell.stat().st_mtime_ns > 1

    def test_where_no_application_is_the_others_are_woken(
        self, host: Host, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A mule under lazy-apps can't read the store."""
        monkeypatch.setattr(listener, "tick_in_thread", lambda: False)
        files = host.open_files()
        subject = Listener(files, channel, is_needed=channel.is_open)  # type: ignore[arg-type]  # a channel for the test
        words = files.words()
        subject.try_to_lead()
        assert channel.subscribed.wait(20)
        assert files.words() != words
        assert (host.folder / "bell").is_dir()

    def test_it_ends_with_its_application(self, host: Host, channel: FakeChannel) -> None:
        needed = threading.Event()
        files = host.open_files()
        subject = Listener(files, channel, is_needed=lambda: not needed.is_set())  # type: ignore[arg-type]  # a channel for the test
        subject.try_to_lead()
        assert channel.subscribed.wait(20)
        needed.set()
        for thread in listening_threads():
            thread.join(20)
        assert files.listener() == {}
        assert host.open_files().listener_lock.acquire()

    def test_it_does_not_keep_its_application(self, host: Host, channel: FakeChannel) -> None:
        process = host.start(WATCHTYPE="redis")
        process.tick()
        assert channel.subscribed.wait(20)
        state = weakref.ref(process.state)
        del process
        gc.collect()
        assert state() is None

    def test_an_unforeseen_error_is_logged_and_it_tries_again(
        self, site: Process, channel: FakeChannel, caplog: pytest.LogCaptureFixture
    ) -> None:
        channel.unforeseen = LookupError("oops")
        site.tick()
        assert channel.subscribed.wait(20)
        (text,) = logged(caplog)
        assert "LookupError: oops" in text

    def test_redis_that_comes_back_is_said_and_the_others_are_told(
        self,
        host: Host,
        site: Process,
        channel: FakeChannel,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The line comes first, so that whoever sees the status well finds it in the log. Other
        hosts are told when this one has looked: they may have asked it for its revision.
        """
        order: list[str] = []
        site.waffle.on_change("LIMIT")(lambda change: order.append("looked"))
        channel.down = "nobody there"
        site.tick()
        eventually(lambda: site.files.listener().get("error"))
        assert site.waffle.status()["redis"]["error"] == "nobody there"
        put(host.store(), LIMIT="20")

        def record(line: logging.LogRecord) -> bool:
            if "is back" in line.getMessage():
                order.append(f"said while {site.files.listener()['error']}")
            return True

        publish = channel.publish
        monkeypatch.setattr(channel, "publish", lambda own: (order.append("told"), publish(own)))
        with monkeypatch.context() as patch:
            patch.setattr(caplog.handler, "filters", [record])
            channel.down = ""
            assert channel.subscribed.wait(20)
        assert order == ["said while nobody there", "looked", "told"]
        assert logged(caplog, logging.WARNING)[-1].startswith("uwsgi_waffle: Redis is back")
        assert len(logged(caplog)) == 1
        assert len(channel.sent) == 1, "what this host sent meanwhile may be lost"
        assert site.waffle.status()["redis"]["error"] == ""

    @pytest.mark.parametrize("lost", ["header", "bell", "listener", "all"])
    def test_it_goes_on_when_the_files_are_removed(
        self, host: Host, listening: Process, channel: FakeChannel, lost: str
    ) -> None:
        path = host.folder if lost == "all" else host.folder / lost
        path.rename(host.instance / "away")
        shutil.rmtree(host.instance / "away", ignore_errors=True)

        def leads() -> bool:
            listening.tick()
            found = listening.files.listener().get("pid") == os.getpid()
            return found and channel.listening == 1

        eventually(leads)
        assert listening.waffle.update({"LIMIT": 20}).revision == 1
        assert not host.open_files().listener_lock.acquire()
        assert channel.most == 1

    def test_a_folder_that_cannot_be_used_is_said_once(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture
    ) -> None:
        (host.folder / "listener").mkdir()
        for _ in range(3):
            site.tick()
        (text,) = logged(caplog)
        assert f"{host.folder}/listener: Is a directory" in text


def test_without_redis_py_the_file_is_watched_and_it_is_said_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    process = host.start(WATCHTYPE="redis")
    process.tick()
    process.waffle.update({"LIMIT": 20})
    (text,) = logged(caplog, logging.WARNING)
    assert "pip install 'uwsgi_waffle[redis]'" in text
    assert process.waffle.status()["redis"] is None


def test_the_channel_has_what_the_listener_needs() -> None:
    """The test's own has it, too."""
    channels = [FakeChannel(), *(open_channel(name, URLS[name], "x") for name in CHANNELS)]
    for channel in channels:
        names = ("publish", "open", "name", "server")
        assert all(hasattr(channel, name) for name in names)
