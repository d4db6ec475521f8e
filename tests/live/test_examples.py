"""What a newcomer starts first: `uwsgi.ini.example` as it is, over HTTP and in a real browser."""

from __future__ import annotations

import importlib.util
import json
import re
import sqlite3
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ..conftest import needed
from ..redis_server import RedisServer
from .servers import ROOT, Server, Servers

AS_IT_IS = (r"http-socket = 127\.0\.0\.1:8000", "http-socket = 127.0.0.1:0")
THREADS = (r"; enable-threads = true", "enable-threads = true")
LAZY = (r"; lazy-apps = true", "lazy-apps = true")
SUSPICIOUS = re.compile(r"warning|error|!!!|uwsgi_waffle:", re.IGNORECASE)
# What the ini can do nothing about: where it is, who starts it, and how uWSGI was compiled.
UNAVOIDABLE = ("getting INI configuration", "running uWSGI as root", "no internal routing support")

MOUNTED = (
    r"module = app:application",
    "pythonpath = {folder}\nmount = /=app:application\nmount = /second=second:application\n"
    "manage-script-name = true",
)
SECOND = """
from pathlib import Path
from flask import Flask, jsonify
import uwsgi_waffle

application = Flask(__name__, instance_path=str(Path(__file__).parent / "second"))
application.config["WAFFLE_STORE_URL"] = f"sqlite:///{application.instance_path}.db"
application.config["WAFFLE_WATCHER_FILE"] = f"{application.instance_path}.watch"
application.config["WAFFLE_CONFS"] = {"NUMBER": {"default": 0}}
waffle = uwsgi_waffle.WaffleConf(application)

@application.post("/<int:number>")
def update(number):
    result = waffle.update({"NUMBER": number}, wait=20.0)
    applied, pending = ([p.kind for p in some] for some in (result.applied, result.pending))
    return jsonify(applied=applied, pending=pending)
"""

Start = Callable[..., Server]


@pytest.fixture
def start(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Start the example from a copy of the ini with the given changes; all that it writes is in
    ``tmp_path``.
    """
    monkeypatch.setattr(
        Server, "read", lambda server, **_: get(server)
    )  # this application answers with a page

    def start(*changes: tuple[str, str], program: Sequence[str] = ("uwsgi",)) -> Server:
        ini = tmp_path / "uwsgi.ini"
        text = (ROOT / "uwsgi.ini.example").read_text()
        for pattern, replacement in (AS_IT_IS, *changes):
            text, count = re.subn(f"^{pattern}$", replacement, text, flags=re.MULTILINE)
            assert count == 1, f"{pattern!r} is one line of uwsgi.ini.example"
        ini.write_text(text)
        server = servers.start(
            [*program, "--ini", str(ini)],
            PYTHONPATH=f"{ROOT}:{sysconfig.get_path('purelib')}",
            WAFFLE_STORE_URL=store(servers),
            WAFFLE_WATCHER_FILE=watch_file(servers),
        )
        server.eventually(
            lambda: processes(server),
            until=lambda told: told.keys() >= {f"worker {n}" for n in (1, 2, 3, 4)},
        )
        return server

    return start


@pytest.fixture
def quickstart(start: Start) -> Server:
    """The example under uWSGI with `uwsgi.ini.example`."""
    return start()


@pytest.fixture
def visit(browser: Browser, quickstart: Server) -> Iterator[Callable[[], Page]]:
    """Open the page for one more visitor, on a phone 390 pixels wide; it must fit without scrolling
    sideways.
    """
    context = browser.new_context(
        base_url=url(quickstart), viewport={"width": 390, "height": 844}, color_scheme="dark"
    )

    def visit() -> Page:
        page = context.new_page()
        page.goto("/")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        return page

    yield visit
    context.close()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.ports[0]}/"


def store(at: Server | Servers) -> str:
    return f"sqlite:///{at.folder}/waffle.db"


def watch_file(at: Server | Servers) -> str:
    return f"{at.folder}/waffle.watch"


def get(server: Server) -> str:
    with urllib.request.urlopen(url(server), timeout=30) as response:
        return str(response.read().decode())


def post(server: Server, path: str = "", **fields: str) -> str:
    """Send the form and return the page that it leads to."""
    with urllib.request.urlopen(
        url(server) + path, urllib.parse.urlencode(fields).encode(), timeout=30
    ) as response:
        return str(response.read().decode())


def processes(server: Server) -> dict[str, int]:
    """Return the revision of each process, as the page's table tells it."""
    rows = re.findall(r"<th scope=\"row\">(.+?)</th><td>\d+</td><td>(\d+)</td>", get(server))
    return {kind: int(revision) for kind, revision in rows}


def answered(page: str) -> str:
    found = re.search(r'id="answered">(.+?)<', page)
    assert found
    return found[1]


@pytest.mark.parametrize("changes", [(), (LAZY,)], ids=["as it is", "lazy-apps"])
def test_the_ini_gives_no_warning_and_wakes_every_worker(
    start: Start, changes: tuple[tuple[str, str], ...]
) -> None:
    """Its log has nothing that the ini could avoid; an update reaches all workers, and whichever
    answers serves it.
    """
    server = start(*changes)
    suspicious = [line for line in server.log.splitlines() if SUSPICIOUS.search(line)]
    assert [line for line in suspicious if not any(known in line for known in UNAVOIDABLE)] == []

    page = post(server, revision="0", SITENAME="Brüssel", MAX_FILESIZE="2000", OPEN="on")
    assert "<h1>Brüssel</h1>" in page
    server.eventually(
        lambda: processes(server),
        until=lambda told: told == {f"worker {n}": 1 for n in (1, 2, 3, 4)},
    )

    seen: set[str] = set()

    def another() -> bool:
        page = get(server)
        assert "<h1>Brüssel</h1>" in page
        seen.add(answered(page))
        return len(seen) > 1

    server.eventually(another)


@pytest.mark.parametrize("changes", [(), (THREADS,)], ids=["as it is", "with threads"])
def test_the_systems_uwsgi_serves_it(start: Start, changes: tuple[tuple[str, str], ...]) -> None:
    """Debian's, which is older, with this environment's packages; threads need a line there."""
    program = ["/usr/bin/uwsgi", "--plugin", "python3"]
    try:
        version = subprocess.check_output([*program, "--python-version"], text=True)
    except (OSError, subprocess.CalledProcessError):
        needed("there is no /usr/bin/uwsgi: apt-get install uwsgi-core uwsgi-plugin-python3")
    if version.split(".")[:2] != list(map(str, sys.version_info[:2])):
        pytest.skip(f"it has Python {version.strip()}, and these packages are for another")
    server = start(*changes, program=program)
    page = post(server, revision="0", SITENAME="Gent", MAX_FILESIZE="2000", OPEN="on")
    assert "<h1>Gent</h1>" in page
    server.eventually(
        lambda: processes(server),
        until=lambda told: told == {f"worker {n}": 1 for n in (1, 2, 3, 4)},
    )
    assert [line for line in server.log.splitlines() if "uwsgi_waffle:" in line] == []


@pytest.mark.parametrize("changes", [(), (LAZY,)], ids=["prefork", "lazy-apps"])
def test_the_inis_lines_for_more_than_one_host(
    start: Start, redis_server: RedisServer, tmp_path: Path, changes: tuple[tuple[str, str], ...]
) -> None:
    """With the comment signs taken away the mule listens, whether it has the application or not."""
    values = {"mule": "uwsgi_waffle.mule", "env": "WAFFLE_WATCHTYPE=redis"}
    lines = [(f"; {key} = {re.escape(value)}", f"{key} = {value}") for key, value in values.items()]
    lines += [("; env = WAFFLE_REDIS_URL=.*", f"env = WAFFLE_REDIS_URL={redis_server.url}")]
    lines += [
        ("; env = WAFFLE_WATCHER_FILE=.*", f"env = WAFFLE_WATCHER_FILE={tmp_path}/waffle.watch")
    ]
    server = start(*changes, *lines)
    with redis_server.client() as client:
        server.eventually(lambda: client.pubsub_numsub("waffleconf")[0][1] == 1)
        with sqlite3.connect(tmp_path / "waffle.db") as database:
            database.execute("INSERT INTO waffle_values VALUES ('SITENAME', '\"Mons\"')")
        database.close()
        client.publish("waffleconf", "look")
    server.eventually(
        lambda: (
            {revision for kind, revision in processes(server).items() if kind.startswith("worker")}
            == {1}
        )
    )
    assert "<h1>Mons</h1>" in get(server)


@pytest.mark.parametrize("channel", ["redis", "postgres"])
def test_the_two_hosts(channel: str) -> None:
    """As its source says to start it, but for Ctrl-C: five updates cross, and every worker of both
    hosts is told of each.
    """
    source = (ROOT / "examples/two_hosts/run.py").read_text()
    (command,) = re.findall(r"^    python (examples/two_hosts/run\.py)$", source, re.MULTILINE)
    if importlib.util.find_spec("pgserver") is None and channel == "postgres":
        pytest.skip("pgserver, which brings PostgreSQL, has no wheel for this Python")
    done = subprocess.run(
        [sys.executable, command, "--once", "--channel", channel],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        len(
            re.findall(
                r"^(left|right) set .* ms, (?!\1)(left|right) showed it .* ms later$",
                done.stdout,
                re.MULTILINE,
            )
        )
        == 5
    ), done.stdout
    for name in ("left", "right"):
        assert (
            len(re.findall(rf"^{name}, worker [12]: .* -> Waffle$", done.stdout, re.MULTILINE)) == 2
        )


def test_two_applications_in_one_server(start: Start, tmp_path: Path) -> None:
    """Both are mounted by the ini, each with a store of its own: the idle workers are told of
    either's changes.
    """
    (tmp_path / "second.py").write_text(SECOND)
    server = start((MOUNTED[0], MOUNTED[1].format(folder=tmp_path)))
    workers = [f"worker {n}" for n in (1, 2, 3, 4)]
    for number in range(1, 6):
        told = json.loads(post(server, f"second/{number}"))
        assert (sorted(told["applied"]), told["pending"]) == (workers, [])
        post(server, revision=str(number - 1), SITENAME=str(number), MAX_FILESIZE="1")
        server.eventually(lambda: processes(server), until=dict.fromkeys(workers, number).__eq__)
    assert [line for line in server.log.splitlines() if "uwsgi_waffle:" in line] == []


def test_a_form_without_its_revision_changes_nothing(quickstart: Server) -> None:
    """A request that doesn't say what it has seen is answered as a conflict."""
    for forged in ({}, {"revision": "x"}):
        with pytest.raises(urllib.error.HTTPError, match="409") as refused:
            post(quickstart, SITENAME="Forged", MAX_FILESIZE="1", **forged)
        with refused.value as answer:
            assert "somebody else was faster" in answer.read().decode()
    assert "<h1>Waffle</h1>" in get(quickstart)


def test_the_form_changes_what_another_worker_serves(
    quickstart: Server, visit: Callable[[], Page]
) -> None:
    """All three values of one update are seen in the answer of another worker than the one that was
    shown first.
    """
    page = visit()
    first = page.locator("#answered").inner_text()
    page.get_by_label("Name of the site").fill("Liège")
    page.get_by_label("Upload limit").fill("12345")
    page.get_by_label("Accept uploads").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("revision 1")

    def another() -> bool:
        page.goto("/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Liège")
        expect(page.get_by_label("Upload limit")).to_have_value("12345")
        expect(page.get_by_label("Accept uploads")).not_to_be_checked()
        return page.locator("#answered").inner_text() != first

    quickstart.eventually(another)


def test_a_refused_value_is_named_at_its_field(visit: Callable[[], Page]) -> None:
    """Its message belongs to the field, which has the focus; what was typed anywhere is kept, and
    nothing is changed.
    """
    page = visit()
    page.get_by_label("Name of the site").fill("Gent")
    limit = page.get_by_label("Upload limit")
    limit.fill("-5")
    page.get_by_label("Accept uploads").uncheck()
    page.get_by_role("button", name="Save").click()

    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    expect(limit).to_have_accessible_description(re.compile("greater than 0, not '-5'"))
    expect(limit).to_have_attribute("aria-invalid", "true")
    expect(limit).to_be_focused()
    expect(limit).to_have_value("-5")
    expect(page.get_by_label("Name of the site")).to_have_value("Gent")
    expect(page.get_by_label("Name of the site")).not_to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Accept uploads")).not_to_be_checked()
    expect(page.get_by_role("heading", level=1)).to_have_text("Waffle")

    limit.fill("5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("revision 1")
    expect(page.get_by_role("heading", level=1)).to_have_text("Gent")


def test_the_slower_of_two_visitors_is_told(visit: Callable[[], Page]) -> None:
    """Nothing is overwritten; what was typed is kept beside what is in force, and a second look may
    save it.
    """
    slow, fast = visit(), visit()
    fast.get_by_label("Name of the site").fill("Fast")
    fast.get_by_role("button", name="Save").click()
    expect(fast.get_by_role("status")).to_contain_text("revision 1")

    name = slow.get_by_label("Name of the site")
    name.fill("Slow")
    slow.get_by_role("button", name="Save").click()
    expect(slow.get_by_role("alert")).to_contain_text("somebody else was faster")
    expect(slow.get_by_role("heading", level=1)).to_have_text("Fast")
    expect(name).to_have_value("Slow")
    expect(name).to_have_accessible_description("In force: Fast")

    slow.get_by_role("button", name="Save").click()
    expect(slow.get_by_role("status")).to_contain_text("revision 2")
    expect(slow.get_by_role("heading", level=1)).to_have_text("Slow")
