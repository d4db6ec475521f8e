"""What every channel between hosts keeps, on the real server; a further one is one more class."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from uwsgi_waffle import SQLStore, StoreUnavailable
from uwsgi_waffle.stores import Commit, Store, Stored
from uwsgi_waffle.wake import Channel, ChannelDown, open_channel
from uwsgi_waffle.wake.channel import ASK, hosts_channel_name, listen

from ..host import eventually, listeners
from ..sql_servers import PostgreSQL
from .channels import FOREIGN, OWN, Meeting
from .conftest import put
from .test_models_on_servers import alchemy

DESCRIPTION = json.dumps({"name": "web1", "host_id": 5, "behind": [], "errors": []})


class Heard:
    """A listener in a thread: how often it was told to look, and what ended it."""

    def __init__(self, channel: Channel, answer: Callable[[], str] = str) -> None:
        self.times: list[float] = []
        self.error: Exception | None = None
        self._end = threading.Event()
        self._listen = lambda: listen(
            channel,
            own_id=lambda: OWN,
            should_continue=lambda: not self._end.is_set(),
            answer=answer,
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for _ in self._listen():
                self.times.append(time.monotonic())
        except ChannelDown as down:
            self.error = down

    def wait_for(self, times: int) -> None:
        """Wait until it was told so often, with the subscription."""
        eventually(lambda: len(self.times) >= times or self.error)
        assert self.error is None
        assert len(self.times) == times

    def end(self) -> None:
        self._end.set()
        self._thread.join()


@contextmanager
def listening(channel: Channel, answer: Callable[[], str] = str) -> Iterator[Heard]:
    heard = Heard(channel, answer)
    try:
        heard.wait_for(1)
        yield heard
    finally:
        heard.end()


def test_all_but_a_hosts_own_messages_count(meeting: Meeting) -> None:
    """What is asked behind a message is answered when the listener has dealt with the message."""
    answers: list[None] = []

    def answer() -> str:
        answers.append(None)
        return DESCRIPTION

    with listening(meeting.channel, answer) as heard:
        meeting.tell(OWN)
        for number in (1, 2):
            meeting.send(ASK, hosts_channel_name("waffleconf"))
            eventually(lambda n=number: len(answers) >= n)
        assert len(heard.times) == 1
        meeting.tell(FOREIGN)
        heard.wait_for(2)
        meeting.send("anything else, from whomever")
        heard.wait_for(3)


def test_a_flood_is_answered_with_a_gap_and_its_last_message_too(meeting: Meeting) -> None:
    with listening(meeting.channel) as heard:
        began = time.monotonic()
        for number in range(200):
            last = time.monotonic()
            meeting.send(str(number))
        eventually(lambda: heard.times[-1] >= last)
        assert len(heard.times) <= 3 + (heard.times[-1] - began) / 0.019


def test_a_listener_whose_connection_is_cut_says_so(meeting: Meeting) -> None:
    with listening(meeting.channel) as heard:
        meeting.cut()
        eventually(lambda: heard.error)
        assert f"can't listen to {meeting.channel.server}: " in str(heard.error)


def test_listeners_are_counted(meeting: Meeting) -> None:
    """One connection each; whoever asks isn't one of them."""
    with (
        listening(meeting.channel),
        listening(meeting.channel),
        meeting.channel.open(listen=False) as opened,
    ):
        assert opened.count_listeners() == 2
    eventually(lambda: listeners(meeting.channel) == 0)


def test_who_asks_hears_every_listener(meeting: Meeting) -> None:
    answers = [json.dumps({**json.loads(DESCRIPTION), "host_id": number}) for number in (1, 2)]
    with (
        listening(meeting.channel, lambda: answers[0]),
        listening(meeting.channel, lambda: answers[1]),
        meeting.channel.open(listen=False) as opened,
    ):
        opened.send(ASK)
        found: set[str] = set()

        def all_have_answered() -> bool:
            found.update(text for _, text in opened.receive(0.1))
            return found >= set(answers)

        eventually(all_have_answered)


def test_a_roll_call_makes_nobody_look_at_the_store(meeting: Meeting) -> None:
    with listening(meeting.channel, lambda: DESCRIPTION) as heard:
        for text in (ASK, ASK, "anything"):
            meeting.send(text, hosts_channel_name("waffleconf"))
        meeting.tell(FOREIGN)
        heard.wait_for(2)


def test_a_flood_of_questions_is_answered_with_a_gap(meeting: Meeting) -> None:
    answers: list[float] = []

    def answer() -> str:
        answers.append(time.monotonic())
        return DESCRIPTION

    with listening(meeting.channel, answer):
        began = time.monotonic()
        for _ in range(200):
            meeting.send(ASK, hosts_channel_name("waffleconf"))
        eventually(lambda: answers)
        ended = time.monotonic()
        assert len([at for at in answers if at <= ended]) <= 3 + (ended - began) / 0.019


def test_a_silent_server_is_noticed(meeting: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine still acknowledges packets, so only an answer to a question shows it."""
    module = "redis" if meeting.channel.server == "Redis" else "postgres"
    monkeypatch.setattr(f"uwsgi_waffle.wake.{module}.PING_AFTER", 0.1)
    with listening(meeting.channel) as heard:
        meeting.server.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: heard.error)
        finally:
            meeting.server.send_signal(signal.SIGCONT)


def test_a_server_that_is_not_there_is_an_error_soon(tmp_path: Path) -> None:
    for watchtype, url in (
        ("redis", f"unix://{tmp_path}/none"),
        ("postgres", f"postgresql+psycopg://site:geheim@/site?host={tmp_path}"),
    ):
        channel = open_channel(watchtype, url, "waffleconf")
        with pytest.raises(ChannelDown, match=f"can't ask {channel.server}: ") as caught:
            listeners(channel)
        assert "geheim" not in str(caught.value)


class TestCommits:
    """On PostgreSQL the message is part of the commit."""

    @pytest.fixture(params=["psycopg", "psycopg2"])
    def url(self, postgresql_server: PostgreSQL, request: pytest.FixtureRequest) -> str:
        return postgresql_server.fresh().replace("+psycopg:", f"+{request.param}:")

    @pytest.fixture(params=["sql", "alchemy"])
    def store(self, url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
        store: Store = SQLStore(url) if request.param == "sql" else alchemy(url, tmp_path)
        store.prepare()
        return store.notifying("waffleconf", lambda: str(FOREIGN))

    def test_what_is_not_committed_is_not_told(self, store: Store) -> None:
        def fail(stored: Stored) -> Commit:
            raise StoreUnavailable("no")

        channel = open_channel("postgres", store.libpq_url, "waffleconf")
        with listening(channel) as heard:
            with pytest.raises(StoreUnavailable):
                store.transact(fail)
            store.transact(lambda stored: None)
            store.load_after_pending_writes()
            store.probe()
            put(store, A="1")
            heard.wait_for(2)

    def test_whoever_looks_because_of_it_finds_the_new_values(self, store: Store) -> None:
        channel = open_channel("postgres", store.libpq_url, "waffleconf")
        with listening(channel) as heard:
            for number in range(2, 22):
                put(store, A=str(number))
                heard.wait_for(number)
                assert store.load().values["A"] == str(number)


class TestPooler:
    """PgBouncer in transaction mode hands a connection to another client after each statement."""

    def test_a_listener_behind_it_names_the_setting(self, pooled: str) -> None:
        heard = Heard(open_channel("postgres", pooled, "waffleconf"))
        try:
            eventually(lambda: heard.error)
        finally:
            heard.end()
        assert "WAFFLE_LISTEN_URL" in str(heard.error)
        assert heard.times == []

    def test_a_commit_through_it_reaches_who_listens_to_the_server(
        self, pooled: str, postgresql_server: PostgreSQL
    ) -> None:
        store = SQLStore(pooled).notifying("waffleconf", lambda: str(FOREIGN))
        store.prepare()
        with listening(open_channel("postgres", postgresql_server.url, "waffleconf")) as heard:
            put(store, A=str(time.monotonic_ns()))
            heard.wait_for(2)

    @pytest.mark.parametrize("pooled", ["statement"], indirect=True)
    def test_statement_pooling_is_named(self, pooled: str) -> None:
        """Another connection for each statement: no transaction lives there."""
        with pytest.raises(StoreUnavailable, match="Set pool_mode = transaction"):
            SQLStore(pooled).prepare()
