"""Between a host's files and Redis: who listens, what is told when Redis is not there, and how
seldom.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from uwsgi_waffle import HostFilesError, SchemaError, bridge, server
from uwsgi_waffle.bridge import Bridge
from uwsgi_waffle.hostfiles import HostFiles
from uwsgi_waffle.redis_client import connect
from uwsgi_waffle.server import Channel, ChannelDown
from uwsgi_waffle.server.channel import BURST, FIRST_GAP, LAST_GAP, Pace, _is_from

from .conftest import Host, Process


class Line:
    """A channel of the test's own; it fails while ``down`` says why."""

    name = "waffleconf"

    def __init__(self) -> None:
        self.down = ""
        self.sent: list[int] = []
        self.listening = self.most = 0  # how many do at this moment, or ever did at once
        self.heard = threading.Event()
        self.end = threading.Event()

    def publish(self, sender: int) -> None:
        if self.down:
            raise ChannelDown(self.down)
        self.sent.append(sender)

    def listen(
        self, ring: Callable[[], None], *, sender: Callable[[], int], go_on: Callable[[], bool]
    ) -> None:
        if self.down:
            raise ChannelDown(self.down)
        ring()
        self.heard.set()
        self.listening += 1
        self.most = max(self.most, self.listening)
        while go_on() and not self.end.wait(0.01):
            pass
        self.listening -= 1


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    line = Line()
    monkeypatch.setattr(server, "Channel", lambda url, name: line)
    yield line
    monkeypatch.setattr(Bridge, "_goes_on", lambda bridge: False)
    line.end.set()
    for thread in listeners():
        thread.join(20)


def listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "uwsgi_waffle listener"]


@pytest.fixture
def redis_site(host: Host, line: Line) -> Process:
    """A process of the host that uses Redis."""
    return host.start(WATCHTYPE="redis")


def logged(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == level and record.name == "uwsgi_waffle"
    ]


class TestPublishing:
    def test_an_update_is_told_with_the_number_of_its_hosts_listener(
        self, host: Host, redis_site: Process, line: Line
    ) -> None:
        redis_site.tick()
        assert line.heard.wait(20)
        redis_site.waffle.update({"LIMIT": 20})
        assert line.sent[-1] == redis_site.files.listener().number > 0

    def test_what_changes_nothing_is_not_told(self, redis_site: Process, line: Line) -> None:
        redis_site.waffle.update({"LIMIT": 10})
        redis_site.waffle.update({"LIMIT": 10})
        redis_site.waffle.refresh()
        assert len(line.sent) == 1

    def test_without_redis_an_update_succeeds_and_it_is_said_once_for_the_host(
        self, host: Host, redis_site: Process, line: Line, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = host.start(WATCHTYPE="redis")
        line.down = "nobody there"
        for process in (redis_site, other):
            process.waffle.update({"LIMIT": 20 + process.waffle.revision})
        assert other.waffle.revision == 2
        (told,) = logged(caplog, logging.ERROR)
        assert "nobody there" in told
        assert "after WAFFLE_RECONCILE_INTERVAL only" in told
        assert ".." not in told
        assert redis_site.waffle.status()["redis"] == {
            "channel": "waffleconf",
            "listener": None,
            "error": "nobody there",
        }

    def test_an_attempt_that_took_long_is_not_repeated_at_once(
        self, redis_site: Process, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter([100.0, 101.0, 101.0, 101.5, 104.0, 104.0])
        monkeypatch.setattr(bridge, "monotonic", lambda: next(clock))
        line.down = "nobody there"
        subject = redis_site.binding._bridge
        assert subject is not None
        subject.publish()
        line.down = ""
        subject.publish()
        assert line.sent == []
        subject.publish()
        assert len(line.sent) == 1

    def test_what_was_wrong_is_forgotten_when_one_goes_through(
        self, redis_site: Process, line: Line
    ) -> None:
        line.down = "nobody there"
        redis_site.waffle.update({"LIMIT": 20})
        line.down = ""
        redis_site.waffle.update({"LIMIT": 30})
        assert redis_site.waffle.status()["redis"]["error"] == ""

    def test_whatever_goes_wrong_the_update_has_succeeded(
        self,
        redis_site: Process,
        line: Line,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(sender: int) -> None:
            raise LookupError("oops")

        monkeypatch.setattr(line, "publish", broken)
        assert redis_site.waffle.update({"LIMIT": 20}).revision == 1
        (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
        assert "LookupError: oops" in record.getMessage()
        assert record.exc_info


class TestListening:
    def test_a_header_that_is_lost_while_redis_is_away_ends_no_listener(
        self,
        redis_site: Process,
        line: Line,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Its trouble can't be noted there; it is logged, and the listener tries again."""
        noted = redis_site.files.note_trouble

        def note(**troubles: str) -> None:
            monkeypatch.setattr(redis_site.files, "note_trouble", noted)
            line.down = ""
            raise OSError(9, "Bad file descriptor")

        monkeypatch.setattr(redis_site.files, "note_trouble", note)
        line.down = "nobody there"
        redis_site.tick()
        assert line.heard.wait(20)
        assert "Bad file descriptor" in logged(caplog, logging.ERROR)[0]

    def test_a_folder_that_can_not_be_used_is_said_once(
        self, redis_site: Process, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused() -> bool:
            raise HostFilesError("the folder is gone")

        monkeypatch.setattr(redis_site.files, "elect", refused)
        monkeypatch.setattr(bridge, "STAND_AGAIN", 0.0)
        for _ in range(3):
            redis_site.tick()
        (told,) = logged(caplog, logging.ERROR)
        assert "the folder is gone" in told

    def test_one_process_of_a_host_does(self, host: Host, redis_site: Process, line: Line) -> None:
        redis_site.tick()
        assert line.heard.wait(20)
        second = HostFiles(host.watch_file)
        assert not second.elect()
        assert redis_site.waffle.status()["redis"]["listener"] == os.getpid()
        redis_site.files.resign()
        assert second.elect()

    def test_it_begins_with_a_look_at_the_store(
        self, host: Host, redis_site: Process, line: Line
    ) -> None:
        """What was told before it listened is lost."""
        seen = threading.Event()
        redis_site.waffle.on_change()(lambda change: seen.set())
        host.sql("INSERT INTO waffle_values VALUES ('LIMIT', '20')")
        redis_site.tick()
        assert line.heard.wait(20)
        assert seen.is_set()
        assert redis_site.waffle.values.LIMIT == 20

    def test_it_ends_with_its_application(
        self, host: Host, line: Line, caplog: pytest.LogCaptureFixture
    ) -> None:
        needed = threading.Event()
        files = HostFiles(host.watch_file)
        # a channel for the test
        subject = Bridge(files, line, needed=lambda: not needed.is_set())  # type: ignore[arg-type]
        subject.stand()
        assert line.heard.wait(20)
        needed.set()
        for thread in listeners():
            thread.join(20)
        assert files.listener().pid == 0
        assert HostFiles(host.watch_file).elect()

    def test_an_error_that_nobody_foresaw_is_logged_and_it_tries_again(
        self, redis_site: Process, line: Line, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(ring: object, **options: object) -> None:
            # the next call finds the method of the class
            del line.listen  # type: ignore[attr-defined]
            raise LookupError("oops")

        line.listen = broken  # type: ignore[method-assign, assignment]  # of this one object
        redis_site.tick()
        assert line.heard.wait(20)
        (told,) = logged(caplog, logging.ERROR)
        assert "LookupError: oops" in told

    def test_redis_that_comes_back_is_said_and_told_to_the_others(
        self, redis_site: Process, line: Line, caplog: pytest.LogCaptureFixture
    ) -> None:
        line.down = "nobody there"
        redis_site.tick()
        while not redis_site.files.listener().listening:
            assert not line.heard.wait(0.001)
        line.down = ""
        assert line.heard.wait(20)
        assert logged(caplog, logging.WARNING)[-1].startswith("uwsgi_waffle: Redis is back")
        assert len(line.sent) == 1, "what this host told meanwhile may be lost"
        assert redis_site.waffle.status()["redis"]["error"] == ""

    def test_what_could_not_be_told_is_told_by_the_listener_when_it_can_be(
        self, redis_site: Process, line: Line
    ) -> None:
        redis_site.tick()
        assert line.heard.wait(20)
        line.down = "nobody there"
        redis_site.waffle.update({"LIMIT": 20})
        assert redis_site.waffle.status()["redis"]["error"] == "nobody there"
        assert line.sent == []
        line.down = ""
        while not line.sent:
            assert not line.end.wait(0.001)
        while any(redis_site.files.untold()):
            assert not line.end.wait(0.001)
        assert redis_site.waffle.status()["redis"]["error"] == ""

    def test_a_writer_that_died_before_it_told_anybody_is_made_good(
        self, redis_site: Process, line: Line, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed() -> None:
            raise SystemExit

        redis_site.tick()
        assert line.heard.wait(20)
        with monkeypatch.context() as death:
            death.setattr(redis_site.state, "_publish", killed)
            with pytest.raises(SystemExit):
                redis_site.waffle.update({"LIMIT": 20})
        while not line.sent:
            assert not line.end.wait(0.001)

    @pytest.mark.parametrize("lost", ["header", "bell", "all"])
    def test_it_goes_on_when_the_files_are_removed(
        self, host: Host, redis_site: Process, line: Line, lost: str
    ) -> None:
        redis_site.tick()
        assert line.heard.wait(20)
        path = host.header.parent
        if lost == "header":
            host.header.unlink()
        else:  # all at once: the listener would put files into a folder that is being emptied
            (path / "bell" if lost == "bell" else path).rename(host.instance / "away")
        assert redis_site.waffle.update({"LIMIT": 20}).revision == 1
        while not (
            redis_site.files._is_elected() and redis_site.files.listener().pid == os.getpid()
        ):
            assert not line.end.wait(0.001)
        assert not HostFiles(host.watch_file).elect()
        while line.listening != 1:
            assert not line.end.wait(0.001)
        assert line.most == 1


def test_without_redis_py_the_file_is_watched_and_it_is_said_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    process = host.start(WATCHTYPE="redis")
    process.tick()
    process.waffle.update({"LIMIT": 20})
    (told,) = logged(caplog, logging.WARNING)
    assert "pip install 'uwsgi_waffle[redis]'" in told
    assert process.waffle.status()["redis"] is None


@pytest.mark.parametrize(
    "url",
    [
        "http://cache.example",
        "cache.example",
        "redis://cache.example:port",
        "redis://:geheim#1@cache.example",
        "redis://:12/geheim@cache.example",
        "redis://:1?geheim=x@cache.example",
        "redis://:geheim\u2100@cache.example",
        "redis://cache.example?geheim=1",
    ],
)
def test_a_url_that_is_none_is_refused_by_the_settings_name_and_without_its_password(
    url: str,
) -> None:
    with pytest.raises(SchemaError, match="WAFFLE_REDIS_URL can't be used") as caught:
        Channel(url, "waffleconf")
    assert "geheim" not in str(caught.value).replace("unexpected keyword argument 'geheim'", "")


def test_what_the_url_says_of_waiting_and_decoding_does_not_count() -> None:
    made = connect(
        "redis://cache.example?socket_timeout=60&decode_responses=1&protocol=3",
        setting="X",
        timeout=2.0,
    )
    options = made.connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["decode_responses"], options["protocol"]) == (
        2.0,
        False,
        2,
    )


@pytest.mark.parametrize(
    ("message", "own"),
    [
        (b"1790000000.123456" + b"%020d" % 7, True),
        (b"1790000000.123456" + b"%020d" % 8, False),
        (b"1790000000.1234567", False),
        (b"1790000000", False),
        (b"", False),
        (b"\xff" * 40, False),
        (b"1790000000.123456" + b"%020d" % 7 + b" " * 100, False),
    ],
)
def test_only_a_hosts_own_messages_are_left_alone(message: bytes, own: bool) -> None:
    assert _is_from(message, lambda: 7) is own


class TestPace:
    @pytest.mark.parametrize("between", [0.0001, 0.001, 0.0021, 0.003, 0.01, 0.05, 0.09, 0.11])
    @pytest.mark.parametrize("pause", [0.0, 0.3, 30.0])
    def test_bells_are_few_however_messages_are_spread(self, between: float, pause: float) -> None:
        pace, now, bells, messages = Pace(), 1000.0, [], 0
        while now < 1100.0:
            messages += 1
            now += between + pause * (messages % 100 == 0)
            if pace.rings(now):
                bells.append(now)
        for first, begun in enumerate(bells):
            for last in {len(bells) - 1, min(first + 2 * BURST, len(bells) - 1)}:
                assert last - first + 1 <= BURST + (bells[last] - begun) / LAST_GAP + 1.001

    def test_messages_that_come_one_by_one_are_answered_at_once(self) -> None:
        pace = Pace()
        assert all(pace.rings(1000 + number * 0.005) for number in range(BURST))

    def test_what_is_left_of_a_gap_is_waited_for_and_no_more(self) -> None:
        pace = Pace()
        assert pace.rings(1000.0)
        pace.gap = LAST_GAP
        assert pace.left(1000.09) == pytest.approx(LAST_GAP - 0.09)
        assert pace.left(1001.0) == 0.0

    def test_a_listener_keeps_it(self) -> None:
        """A thousand messages at once, which a real Redis delivers in pieces."""
        waits: list[float] = []
        bells: list[int] = []

        class Flood:
            def get_message(self, timeout: float) -> dict[str, object]:
                waits.append(timeout)
                if len(waits) > 1000:
                    raise EOFError
                return {"type": "message", "data": b"look"}

        began = time.monotonic()
        with pytest.raises(EOFError):
            Channel("redis://", "x")._hear(
                Flood(), lambda: bells.append(1), lambda: 7, lambda: True
            )
        assert 1 <= len(bells) <= BURST + (time.monotonic() - began) / LAST_GAP + 1
        assert min(waits) < FIRST_GAP, "what is left of a gap is waited for, and no more"

    def test_after_a_flood_too(self) -> None:
        pace, now = Pace(), 1000.0
        for _ in range(100_000):
            now += 0.001
            pace.rings(now)
        assert pace.gap == LAST_GAP
        assert [pace.rings(now + 10 + number * 0.005) for number in range(50)] == [True] * 50

    def test_those_that_come_together_get_growing_gaps(self) -> None:
        pace, bells = Pace(), []
        for millisecond in range(400):
            if pace.rings(1000 + millisecond / 1000):
                bells.append(millisecond)
        gaps = [after - before for before, after in pairwise(bells)]
        assert gaps == sorted(gaps)
        assert gaps[-1] == pytest.approx(1000 * LAST_GAP, abs=1)
