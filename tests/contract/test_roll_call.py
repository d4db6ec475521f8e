"""Several hosts, each with a folder of its own: who is there, and when do all have an update?"""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from uwsgi_waffle import UpdateResult, WaffleError, wake
from uwsgi_waffle.admin import admin_blueprint
from uwsgi_waffle.cli import waffle as command
from uwsgi_waffle.metrics import WaffleCollector
from uwsgi_waffle.stores import open_store
from uwsgi_waffle.wake import open_channel
from uwsgi_waffle.wake.roll_call import LARGEST_ANSWER, ask_hosts, describe_host

from ..host import Host, Process, eventually, forked, listeners, recorded, report_process
from ..live.proxy import Proxy
from ..redis_server import RedisServer
from .channels import Meeting, OverRedis
from .conftest import put
from .test_channels import listening


def description(revision: int = 0) -> str:
    """Return what a far host answers."""
    fields = {"name": "far", "host_id": 4711, "processes": 1, "behind": [], "errors": []}
    return json.dumps({**fields, "revision": revision, "oldest": revision})


class Sites:
    """Processes on hosts of their own, that all listen."""

    def __init__(self, meeting: Meeting, folder: Path) -> None:
        self._meeting, self._folder = meeting, folder

    def start(self, name: str, **settings: Any) -> Process:
        process = Host(self._folder / name).start(
            STORE_URL=self._meeting.url,
            WATCHTYPE=self._meeting.watchtype,
            **({"REDIS_URL": self._meeting.url} if self._meeting.watchtype == "redis" else {}),
            RECONCILE_INTERVAL=300,
            **settings,
        )
        count = listeners(self._meeting.channel)
        process.tick()
        eventually(lambda: listeners(self._meeting.channel) == count + 1)
        return process

    def name(self, name: str) -> str:
        return f"{socket.gethostname()} {self._folder / name}/instance/waffle.watch"


@pytest.fixture
def sites(meeting: Meeting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sites]:
    yield Sites(meeting, tmp_path)
    monkeypatch.setattr(wake, "can_subscribe", lambda **_: False)
    eventually(lambda: listeners(meeting.channel) == 0)


@pytest.fixture
def left(sites: Sites) -> Process:
    return sites.start("left")


@pytest.fixture
def right(sites: Sites, left: Process) -> Process:
    return sites.start("right")


class TestRollCall:
    def test_every_host_that_listens_describes_itself(
        self, sites: Sites, left: Process, right: Process
    ) -> None:
        left.waffle.update({"LIMIT": 20}, wait=60, hosts=True)
        found = left.waffle.status(hosts=True)
        assert json.loads(json.dumps(found["hosts"])) == [
            {
                "name": sites.name(name),
                "revision": 1,
                "processes": 1,
                "oldest": 1,
                "behind": [],
                "errors": [],
            }
            for name in ("left", "right")
        ]
        assert (found["hosts_subscribed"], found["hosts_error"]) == (2, "")

    def test_it_says_what_lags_and_what_is_wrong(self, right: Process, left: Process) -> None:
        stuck = report_process(right.files, 4711, "worker 9", error="no disk")
        host = left.waffle.status(hosts=True)["hosts"][1]
        assert host["behind"] == ["worker 9 (pid 4711)"]
        assert host["errors"] == ["worker 9 (pid 4711): no disk"]
        stuck.processes.leave()

    @pytest.mark.slow
    @pytest.mark.parametrize("text", ["nothing that describes a host", "{}", '{"name": 1}'])
    def test_who_listens_and_does_not_answer_is_counted(
        self, meeting: Meeting, left: Process, text: str
    ) -> None:
        with listening(meeting.channel, lambda: text):
            found = left.waffle.status(hosts=True)
        assert (len(found["hosts"]), found["hosts_subscribed"]) == (1, 2)

    def test_nobody_is_asked_before_the_answers_can_be_heard(
        self, redis_server: RedisServer
    ) -> None:
        """Redis takes the subscription later than a question on another connection."""
        proxy = Proxy(redis_server.path, late=b"SUBSCRIBE")
        slow = open_channel("redis", f"redis://127.0.0.1:{proxy.port}", "waffleconf")
        try:
            with (
                listening(OverRedis(redis_server).channel, description),
                slow.open(listen=False) as opened,
            ):
                assert [host.name for host in ask_hosts(opened, 3).hosts] == ["far"]
        finally:
            proxy.close()

    def test_a_name_that_one_host_has_stands_alone(self, left: Process) -> None:
        (host,) = left.waffle.status(hosts=True)["hosts"]
        assert host["name"] == socket.gethostname()

    def test_without_a_channel_it_is_refused(self, tmp_path: Path) -> None:
        alone = Host(tmp_path).start()
        with pytest.raises(WaffleError, match="WAFFLE_WATCHTYPE"):
            alone.waffle.status(hosts=True)

    @pytest.mark.parametrize("line", ["status --hosts", "set LIMIT=20 --wait 2 --hosts"])
    def test_a_command_is_refused_without_words_of_python(self, tmp_path: Path, line: str) -> None:
        result = Host(tmp_path).start().app.test_cli_runner().invoke(command, line)
        assert (result.exit_code, "no channel to other hosts" in result.stderr) == (1, True)
        assert "WAFFLE_MULTIPROC not to be False" in result.stderr, "else the rest is no help"
        assert "=True" not in result.stderr


class TestMetrics:
    def test_each_host_is_a_label(self, sites: Sites, left: Process, right: Process) -> None:
        left.waffle.update({"LIMIT": 20}, wait=60, hosts=True)
        stuck = report_process(right.files, 4711, "worker 9", error="no disk")
        registry = CollectorRegistry()
        registry.register(WaffleCollector(left.waffle, hosts=True))
        values = {
            (sample.name.removeprefix("uwsgi_waffle_"), sample.labels.get("host")): sample.value
            for family in registry.collect()
            for sample in family.samples
        }
        stuck.processes.leave()
        assert (values["hosts", None], values["hosts_answered", None]) == (2, 2)
        for name, lagging in (("left", 0), ("right", 1)):
            host = sites.name(name)
            assert values["host_revision", host] == 1
            assert values["host_processes", host] == 1 + lagging
            assert values["host_processes_behind", host] == lagging
            assert values["host_errors", host] == lagging


class TestPage:
    """The admin page asks all hosts if one wants it to."""

    @pytest.fixture
    def page(self, left: Process) -> FlaskClient:
        left.app.secret_key = "of the test"
        left.app.register_blueprint(admin_blueprint(left.waffle, authorize=lambda: True))
        return left.app.test_client()

    def test_it_shows_each_and_what_lags_there(
        self, sites: Sites, page: FlaskClient, right: Process
    ) -> None:
        stuck = report_process(right.files, 4711, "worker 9", error="no disk")
        html = page.get("/waffle/?hosts=1").text
        assert "2 of 2 answered." in html
        for text in (sites.name("left"), sites.name("right"), "worker 9 (pid 4711): no disk"):
            assert text in html
        stuck.processes.leave()

    def test_else_nobody_is_asked(self, page: FlaskClient) -> None:
        html = page.get("/waffle/").text
        assert 'href="/waffle/?hosts=1#hosts"' in html
        assert "answered" not in html

    def test_without_a_channel_there_is_no_link(self, tmp_path: Path) -> None:
        alone = Host(tmp_path).start()
        alone.app.secret_key = "of the test"
        alone.app.register_blueprint(admin_blueprint(alone.waffle, authorize=lambda: True))
        for query in ("", "?hosts=1"):
            assert "hosts=1" not in alone.app.test_client().get(f"/waffle/{query}").text


def test_hosts_that_cannot_be_asked_are_not_counted(tmp_path: Path) -> None:
    """Neither as none nor as silent: page, command and metrics say why, or nothing."""
    site = Host(tmp_path).start(WATCHTYPE="redis", REDIS_URL=f"unix://{tmp_path}/none")
    site.app.secret_key = "of the test"
    site.app.register_blueprint(admin_blueprint(site.waffle, authorize=lambda: True))
    html = site.app.test_client().get("/waffle/?hosts=1").text
    result = site.app.test_cli_runner().invoke(command, ["status", "--hosts"])
    assert result.exit_code == 1
    assert "hosts: unknown" in result.output
    metrics = [metric.name for metric in WaffleCollector(site.waffle, hosts=True).collect()]
    assert "uwsgi_waffle_redis_error" in metrics
    assert [name for name in metrics if "host" in name] == []
    for text in (html, result.output):
        assert "can&#39;t ask Redis: " in text or "can't ask Redis: " in text
        assert "answered" not in text


class TestBarrier:
    def test_it_returns_when_every_process_of_every_host_has_the_update(
        self, left: Process, right: Process
    ) -> None:
        """Its hooks have been called, though nothing was read there."""
        changes = recorded(right, "LIMIT")
        for number in range(1, 11):
            result = left.waffle.update({"LIMIT": 20 + number}, wait=60, hosts=True)
            assert [change.revision for change in changes] == list(range(1, number + 1))
            assert (result.pending, result.pending_hosts) == ((), ())
            assert [host.revision for host in result.hosts] == [number, number]

    def test_who_is_not_yet_done_is_asked_again(self, meeting: Meeting, left: Process) -> None:
        """A question lasts until all have answered it; a host may answer before it has looked."""
        revisions = iter([0, 0, 0, *[1] * 1000])
        with listening(meeting.channel, lambda: description(next(revisions))):
            result = left.waffle.update({"LIMIT": 20}, wait=60, hosts=True)
        assert result.pending_hosts == ()
        assert [host.revision for host in result.hosts if host.name == "far"] == [1]
        assert next(revisions) == 1

    def test_it_names_who_does_not_follow(
        self, sites: Sites, left: Process, right: Process
    ) -> None:
        stuck = report_process(right.files, 4711, "worker 9")
        late = f"{sites.name('right')}: worker 9 (pid 4711)"
        pending = update_until(left, (late,)).pending
        assert pending == ()
        stuck.processes.leave()
        assert left.waffle.update({"LIMIT": 7}, wait=60, hosts=True).pending_hosts == ()

    def test_it_says_how_many_do_not_answer(self, meeting: Meeting, left: Process) -> None:
        with listening(meeting.channel, str):
            update_until(left, ("1 of 2 hosts: no answer",))

    def test_a_hook_may_wait_for_all_hosts(self, meeting: Meeting, sites: Sites) -> None:
        """Its thread may be the one that answers for its own host, so that isn't waited for."""
        keep: list[Process] = []
        with forked(lambda: keep.append(sites.start("right"))):
            left, pending = sites.start("left"), list[tuple[str, ...]]()

            @left.waffle.on_change("SITENAME")
            def follow(change: Any) -> None:
                result = left.waffle.update({"LIMIT": 30}, wait=60, hosts=True)
                pending.append(result.pending_hosts)

            put(open_store(meeting.url), SITENAME='"New"')
            meeting.send("look")
            assert eventually(lambda: pending) == [()]

    def test_what_cannot_be_waited_for_is_refused_before_anything_is_stored(
        self, left: Process, tmp_path: Path
    ) -> None:
        alone = Host(tmp_path).start()
        with pytest.raises(WaffleError, match="WAFFLE_WATCHTYPE"):
            alone.waffle.update({"LIMIT": 20}, wait=1, hosts=True)
        with pytest.raises(WaffleError, match="wait="):
            left.waffle.update({"LIMIT": 20}, hosts=True)
        assert (left.waffle.refresh(), alone.waffle.refresh()) == (0, 0)


def update_until(process: Process, pending_hosts: tuple[str, ...]) -> UpdateResult:
    """Update, without much patience, until nobody else is late; return the last result."""
    numbers = itertools.count(20)

    def update() -> UpdateResult | None:
        result = process.waffle.update({"LIMIT": next(numbers)}, wait=0.3, hosts=True)
        return result if result.pending_hosts == pending_hosts else None

    result = eventually(update)
    assert result is not None
    return result


class TestCommands:
    def test_status_lists_the_hosts(self, sites: Sites, left: Process, right: Process) -> None:
        result = left.app.test_cli_runner().invoke(command, ["status", "--hosts"])
        lines = result.output.splitlines()
        assert lines[-3:] == [
            "hosts: 2 of 2 answered",
            *(f"{sites.name(name)} revision 0, 1 processes" for name in ("left", "right")),
        ]
        assert result.exit_code == 0

    def test_status_fails_where_a_host_has_an_error_or_is_silent(
        self, meeting: Meeting, left: Process, right: Process
    ) -> None:
        runner = left.app.test_cli_runner()
        stuck = report_process(right.files, 4711, "worker 9", error="no disk")
        result = runner.invoke(command, ["status", "--hosts"])
        assert result.exit_code == 1
        assert "worker 9 (pid 4711): no disk" in result.output
        stuck.processes.leave()
        with listening(meeting.channel, str):
            result = runner.invoke(command, ["status", "--hosts"])
        assert result.exit_code == 1
        assert "silent hosts:  1 of 3 gave no answer" in result.output

    def test_set_waits_for_the_hosts(self, sites: Sites, left: Process, right: Process) -> None:
        runner = left.app.test_cli_runner()
        done = runner.invoke(command, ["set", "LIMIT=20", "--wait", "60", "--hosts", "--json"])
        assert done.exit_code == 0
        assert [host["revision"] for host in json.loads(done.stdout)["hosts"]] == [1, 1]
        stuck = report_process(right.files, 4711, "worker 9")
        late = runner.invoke(command, ["set", "LIMIT=21", "--wait", "1", "--hosts"])
        stuck.processes.leave()
        assert late.exit_code == 3
        assert f"not yet applied by {sites.name('right')}: " in late.stderr
        assert "worker 9 (pid 4711)" in late.stderr
        usage = runner.invoke(command, ["set", "LIMIT=22", "--hosts"])
        assert (usage.exit_code, left.waffle.refresh()) == (2, 2)


def test_a_description_fits_into_a_message_of_postgresql(tmp_path: Path) -> None:
    """Whatever is wrong with however many processes; then numbers take the place of names."""
    host = Host(tmp_path)
    process = host.start()
    files = process.files
    stuck = [report_process(files, os.getpid(), f"worker {n}", error="ü" * 400) for n in range(150)]
    text = describe_host(files)
    assert len(text.encode()) <= LARGEST_ANSWER
    assert json.loads(text)["processes"] == 151
    assert json.loads(text)["behind"][-1].endswith(" more")
    for other in stuck:
        other.processes.leave()
