"""The Redis channel: whose messages count, and how often they are answered."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle import SchemaError
from uwsgi_waffle.redis_client import connect
from uwsgi_waffle.wake import ChannelDown, channel, redis
from uwsgi_waffle.wake.channel import GAP, PING_AFTER, RESPONSE_TIMEOUT, listen
from uwsgi_waffle.wake.redis import RedisChannel

from ..host import listeners

OWN = b"1790000000.123456%020d" % 7
FOREIGN = b"1790000000.123456%020d" % 8


def test_the_times_that_the_page_names() -> None:
    """docs/hosts.md: how long a pause goes unnoticed, and how long an update waits for Redis."""
    text = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text()
    assert f"pause of less than {PING_AFTER + RESPONSE_TIMEOUT:g} s" in " ".join(text.split())
    assert RESPONSE_TIMEOUT == 1, "an update waits for it one second at most"


class FakeSubscription:
    """Delivers prepared messages; each comes ``between`` seconds after the one before."""

    def __init__(self, messages: list[bytes], between: float = 0.0) -> None:
        self.left, self.between, self.next_at = [*messages], between, 0.0
        self.confirmations: list[dict[str, Any]] = []

    def __enter__(self) -> FakeSubscription:
        return self

    def __exit__(self, *_: object) -> None:
        """End."""

    def reset(self) -> None:
        """Begin."""

    def subscribe(self, *names: str) -> None:
        self.confirmations = [
            {"type": "subscribe", "channel": name.encode(), "data": at}
            for at, name in enumerate(names, 1)
        ]

    def ping(self) -> None:
        """Say nothing."""

    @property
    def connection(self) -> FakeSubscription:
        return self

    def can_read(self, timeout: float) -> bool:
        assert timeout == 0
        return bool(self.left) and time.monotonic() >= self.next_at

    def get_message(self, timeout: float) -> dict[str, Any] | None:
        assert timeout > 0, "redis-py would fail where a message has only begun to come"
        if self.confirmations:
            return self.confirmations.pop(0)
        if not self.left:
            time.sleep(min(timeout, 0.05))
            return None
        self.next_at = self.next_at or time.monotonic()
        early = self.next_at - time.monotonic()
        time.sleep(min(max(early, 0.0), timeout))
        if early > timeout:
            return None
        self.next_at += self.between
        return {"type": "message", "channel": b"x", "data": self.left.pop(0)}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what tells when messages were answered, until a while after the last."""

    def answered(messages: list[bytes], between: float = 0.0) -> list[float]:
        subscription = FakeSubscription(messages, between)

        class Client:
            def __enter__(self) -> Client:
                return self

            def __exit__(self, *_: object) -> None:
                """End."""

            def pubsub(self) -> FakeSubscription:
                return subscription

        monkeypatch.setattr(channel, "CHECK_INTERVAL", 0.03)
        over_redis = RedisChannel("redis://", "x")
        monkeypatch.setattr(redis, "connect", lambda *_, **__: Client())
        looks = listen(
            over_redis,
            own_id=lambda: 7,
            should_continue=lambda: bool(subscription.left),
            answer=str,
        )
        next(looks)  # it is subscribed
        return [time.monotonic() for _ in looks]

    return answered


@pytest.mark.parametrize(
    ("message", "counts"),
    [
        (OWN, False),
        (FOREIGN, True),
        (b"1790000000.1234567", True),
        (b"1790000000", True),
        (b"", True),
        (b"\xff" * 40, True),
        (OWN + b" " * 100, True),
    ],
)
def test_all_but_a_hosts_own_messages_count(answers: Any, message: bytes, counts: bool) -> None:
    assert len(answers([message])) == counts


def test_a_flood_is_answered_with_a_fixed_gap(answers: Any) -> None:
    found = answers([b"look"] * 3000, 0.0001)
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert len(found) > 3
    assert min(gaps) > 0.9 * GAP  # the clock is read here a little later than there


def test_the_last_of_a_flood_is_answered(answers: Any) -> None:
    """Whatever comes within a gap is answered at its end."""
    between = 0.7 * GAP
    began = time.monotonic()
    assert answers([b"look"] * 4, between)[-1] - began > 3 * between


def test_one_that_comes_alone_is_answered_at_once(answers: Any) -> None:
    began = time.monotonic()
    (found,) = answers([FOREIGN])
    assert found - began < 1.0


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
def test_a_bad_url_is_refused_by_the_settings_name_and_without_its_password(url: str) -> None:
    with pytest.raises(SchemaError, match="WAFFLE_REDIS_URL can't be used") as caught:
        RedisChannel(url, "waffleconf")
    assert "geheim" not in str(caught.value).replace("unexpected keyword argument 'geheim'", "")


def test_what_the_url_says_of_waiting_and_decoding_does_not_count() -> None:
    url = "redis://cache.example?socket_timeout=60&decode_responses=1&protocol=3"
    options = connect(url, setting="X", timeout=2.0).connection_pool.connection_kwargs
    assert (options["socket_timeout"], options["decode_responses"]) == (2.0, False)
    assert options["protocol"] == 2


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # redis-py 5.0 forgets it
def test_a_redis_that_is_not_there_is_an_error_soon(tmp_path: Any) -> None:
    channel = RedisChannel(f"unix://{tmp_path}/none", "x")
    errors: list[Exception] = []

    def publish() -> None:
        try:
            channel.publish(1)
        except ChannelDown as error:
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join(20)
    assert "can't publish to Redis: " in str(errors[0])
    with pytest.raises(ChannelDown, match="can't ask Redis: "):
        listeners(channel)
