"""docs/uwsgi-notes.md: what the page says of uWSGI itself; the package isn't imported here.

Where a test fails with a newer uWSGI, the page is out of date, and maybe code of the package with
it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

UWSGI = shutil.which("uwsgi", path=sysconfig.get_path("scripts"))
SITE = """
import json, os, signal, sys, threading, time
from pathlib import Path

if "DECORATORS" in os.environ:
    import uwsgi
    uwsgi.post_fork_hook = lambda: forks.append("hook")
    import uwsgidecorators
import uwsgi

FOLDER = Path(os.environ["FACTS"])
forks, seen, facts = [], [], {}


def outcome(function, *arguments):
    try:
        return repr(function(*arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def count():
    while True:
        time.sleep(PAUSE)
        ticks.append(1)


ticks = []
PAUSE = 0.5  # the master hardly ever forks while this thread holds the interpreter's lock
if uwsgi.masterpid():
    handler = lambda number: seen.append(number)
    for number in (5, 10, 11, 12, 13):
        uwsgi.register_signal(number, "workers", handler)
    uwsgi.register_signal(20, "workers", lambda number: sys.exit())
    uwsgi.register_signal(21, "workers", lambda number: time.sleep(60))
    facts["twice"] = outcome(uwsgi.register_signal, 5, "workers", handler)
    for name in ("file", "twice"):
        (FOLDER / name).touch()
    (FOLDER / "folder").mkdir()
    (FOLDER / "folder" / "in").touch()
    for number, name in ((10, "file"), (11, "folder"), (12, "twice"), (13, "twice")):
        uwsgi.add_file_monitor(number, str(FOLDER / name))
    if "DECORATORS" not in os.environ:
        uwsgi.post_fork_hook = lambda: forks.append("hook")
os.register_at_fork(after_in_child=lambda: forks.append("at fork"))
facts |= {"master": [uwsgi.masterpid() == os.getpid(), uwsgi.worker_id(), uwsgi.mule_id()]}
thread = threading.Thread(target=count, daemon=True)
if "THREAD" in os.environ:  # a lock that it holds while the master forks would block a worker
    thread.start()


def application(environ, start):
    start("200 OK", [])
    what = environ["PATH_INFO"].strip("/")
    if what == "send":
        facts["sent"] = {"values": list({uwsgi.signal(261) for _ in range(3)})}
    elif what == "flood":
        facts["flood"] = list({uwsgi.signal(5) for _ in range(20000)})
    elif what == "long":
        facts["long"] = [outcome(uwsgi.add_file_monitor, 5, "/" + "x" * n) for n in (253, 254)]
    elif what == "many":
        facts["many"] = [outcome(uwsgi.add_file_monitor, 5, f"/{n}")[:4] for n in range(70)]
    elif what in ("20", "21"):
        uwsgi.signal(int(what))
    elif what == "die":
        uwsgi.signal(5)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "new thread":
        threading.Thread(target=count, daemon=True).start()
        while not ticks:
            time.sleep(0.01)
    elif what == "thread":
        del ticks[:]
        time.sleep(3 * PAUSE)
    told = {**facts, "forks": forks, "seen": seen, "ticks": len(ticks), "alive": thread.is_alive()}
    told |= {"opt": repr(uwsgi.opt.get("master")), "pid": os.getpid()}
    told["master pid"] = uwsgi.masterpid()
    return [json.dumps(told).encode()]
"""
MOUNTED = """
import json, shared

shared.names.append("{name}")


def application(environ, start):
    start("200 OK", [])
    return [json.dumps({{"names": shared.names}}).encode()]
"""
MULE = """
print("the mule's module is imported", flush=True)


def run():
    pass
"""

pytestmark = pytest.mark.skipif(UWSGI is None, reason="uWSGI is not installed")


class Running:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self._url = folder, url

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def ask(self, what: str = "") -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}/{what}", timeout=60) as answer:
            return dict(json.loads(answer.read()))

    def try_to_ask(self, what: str = "") -> dict[str, Any]:
        """Ask a worker that may end before it answers."""
        try:
            return self.ask(what)
        except (OSError, http.client.HTTPException):
            return {}

    def seen(self) -> list[int]:
        return list(self.ask()["seen"])


def eventually(look: Callable[[], Any], deadline: float = 60.0) -> Any:
    end = time.monotonic() + deadline
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@contextmanager
def running(folder: Path, *options: str, **env: str) -> Iterator[Running]:
    (folder / "facts.py").write_text(SITE)
    (folder / "mule_module.py").write_text(MULE)
    assert UWSGI is not None
    command = [UWSGI, "--die-on-term", "--http-socket", "127.0.0.1:0", "--pythonpath", str(folder)]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--module", "facts", *options],
            env={**os.environ, "FACTS": str(folder), **env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            server = Running(folder, "")
            bound = "bound to TCP address "
            eventually(lambda: bound in server.log and "spawned uWSGI" in server.log)
            server._url = "http://" + server.log.partition(bound)[2].split()[0]
            yield server
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # nothing of it is worth waiting for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """A server whose master monitors: it adds its monitors when its loop begins."""
    with running(tmp_path, "--master", "--processes", "1") as found:

        def is_monitored() -> bool:
            os.utime(tmp_path / "twice")
            return 13 in found.seen()

        eventually(is_monitored)
        yield found


class TestSignals:
    def test_numbers_are_masked_and_nothing_is_returned(self, server: Running) -> None:
        assert server.ask("send")["sent"] == {"values": [None]}
        eventually(lambda: server.seen().count(5) == 3)

    def test_a_full_queue_drops_and_only_the_log_says_so(self, server: Running) -> None:
        assert server.ask("flood")["flood"] == [None]
        eventually(lambda: "SIGNAL QUEUE IS FULL" in server.log)

        def is_past() -> bool:
            os.utime(server.folder / "file")  # its signal may be dropped, too
            return 10 in server.seen()

        eventually(is_past)
        assert server.seen().count(5) < 20000

    def test_one_for_a_killed_worker_is_handled_by_its_successor(self, server: Running) -> None:
        """So a handler that was registered in the master survives respawns."""
        first = server.ask()["pid"]
        with pytest.raises((OSError, http.client.HTTPException)):
            server.ask("die")
        eventually(lambda: 5 in server.seen())
        assert server.ask()["pid"] != first

    def test_system_exit_ends_the_worker(self, server: Running) -> None:
        first = server.ask()["pid"]
        server.try_to_ask("20")
        eventually(lambda: "Respawned uWSGI worker 1" in server.log)
        eventually(lambda: server.try_to_ask().get("pid", first) != first)

    def test_a_slow_handler_is_killed_by_harakiri(self, tmp_path: Path) -> None:
        with running(tmp_path, "--master", "--harakiri", "1") as server:
            server.try_to_ask("21")
            eventually(lambda: "HARAKIRI" in server.log)
            eventually(lambda: "Respawned uWSGI worker 1" in server.log)


class TestRegistration:
    def test_at_import_the_process_is_the_master_and_no_worker(self, server: Running) -> None:
        assert server.ask()["master"] == [True, 0, 0]

    def test_a_number_can_be_registered_once_in_the_master(self, server: Running) -> None:
        assert server.ask()["twice"] == "ValueError: unable to register signal"

    def test_the_option_is_true_where_there_is_no_master(self, tmp_path: Path) -> None:
        (tmp_path / "site.ini").write_text("[uwsgi]\nmaster = false\n")
        with running(tmp_path, "--ini", str(tmp_path / "site.ini")) as server:
            told = server.ask()
            assert (told["opt"], told["master"][0]) == ("b'false'", False)

    def test_uwsgidecorators_overwrites_the_hook(self, tmp_path: Path) -> None:
        with running(tmp_path, "--master", DECORATORS="1") as server:
            assert server.ask()["forks"] == []

    def test_a_monitor_without_a_master_crashes_the_process(self, tmp_path: Path) -> None:
        (tmp_path / "crash.py").write_text("import uwsgi\nuwsgi.add_file_monitor(5, '/')\n")
        assert UWSGI is not None
        command = [UWSGI, "--http-socket", "127.0.0.1:0", "--chdir", str(tmp_path)]
        done = subprocess.run([*command, "--module", "crash"], stderr=subprocess.PIPE, check=False)
        assert done.returncode != 0
        assert b"Segmentation Fault" in done.stderr

    def test_without_an_application_it_runs_on(self, tmp_path: Path) -> None:
        (tmp_path / "refused.py").write_text("raise SystemError('refused')\n")
        with running(tmp_path, "--master", "--module", "refused") as server:
            assert server.try_to_ask() == {}
            assert "going in full dynamic mode" in server.log

    def test_with_need_app_it_ends(self, tmp_path: Path) -> None:
        (tmp_path / "refused.py").write_text("raise SystemError('refused')\n")
        assert UWSGI is not None
        command = [UWSGI, "--master", "--need-app", "--http-socket", "127.0.0.1:0"]
        run = [*command, "--chdir", str(tmp_path), "--module", "refused"]
        assert subprocess.run(run, capture_output=True, check=False).returncode != 0

    def test_each_interpreter_has_its_own_copy_of_a_module(self, tmp_path: Path) -> None:
        (tmp_path / "shared.py").write_text("names = []\n")
        for name in ("one", "two"):
            (tmp_path / f"{name}.py").write_text(MOUNTED.format(name=name))
        mounts = [word for name in ("one", "two") for word in ("--mount", f"/{name}={name}.py")]
        for options, told in ((), ["two"]), (("--single-interpreter",), ["one", "two"]):
            with running(
                tmp_path, "--manage-script-name", "--chdir", str(tmp_path), *mounts, *options
            ) as server:
                assert server.ask("two")["names"] == told


def touch_another(server: Running, path: str = "folder/in", number: int = 11) -> None:
    """Touch a path and wait for its signal: those of what was touched before have come."""
    before = server.seen().count(number)
    os.utime(server.folder / path)
    eventually(lambda: server.seen().count(number) > before)


class TestMonitors:
    def test_a_file_that_was_replaced_is_never_seen_again(self, server: Running) -> None:
        """Another path is touched afterwards: the file's signal would have come before its."""
        path = server.folder / "file"
        os.utime(path)
        eventually(lambda: 10 in server.seen())
        (server.folder / "new").touch()
        os.rename(server.folder / "new", path)
        eventually(lambda: server.seen().count(10) >= 2)
        touch_another(server)
        before = server.seen().count(10)
        os.utime(path)
        time.sleep(0.2)  # else one read might find both, and the last alone would count
        touch_another(server)
        assert server.seen().count(10) == before

    def test_a_folder_whose_file_was_replaced_is_seen(self, server: Running) -> None:
        (server.folder / "new").touch()
        os.rename(server.folder / "new", server.folder / "folder" / "in")
        eventually(lambda: 11 in server.seen())
        touch_another(server, "file", 10)
        touch_another(server)

    def test_events_of_one_read_are_one_signal(self, server: Running) -> None:
        """The master is stopped meanwhile, so it finds all of them with one read."""
        master = server.ask()["master pid"]
        os.kill(master, signal.SIGSTOP)
        eventually(
            lambda: Path(f"/proc/{master}/stat").read_text().rsplit(")")[1].split()[0] == "T"
        )
        for number in range(100):
            (server.folder / "folder" / str(number)).touch()
        os.kill(master, signal.SIGCONT)
        eventually(lambda: 11 in server.seen())
        os.utime(server.folder / "file")
        eventually(lambda: 10 in server.seen())
        assert server.seen().count(11) == 1

    def test_of_two_on_one_path_the_last_fires(self, server: Running) -> None:
        before = server.seen().count(13)
        os.utime(server.folder / "twice")
        eventually(lambda: server.seen().count(13) > before)
        assert 12 not in server.seen()

    def test_a_long_path_is_refused(self, server: Running) -> None:
        assert server.ask("long")["long"] == ["None", "ValueError: unable to add file monitor"]

    def test_there_are_64(self, server: Running) -> None:
        """Four were added at the start."""
        assert server.ask("many")["many"] == ["None"] * 60 + ["Valu"] * 10


class TestForks:
    def test_register_at_fork_is_not_called_and_the_hook_is(self, server: Running) -> None:
        assert server.ask()["forks"] == ["hook"]

    def test_a_thread_started_before_is_dead_and_says_otherwise(self, tmp_path: Path) -> None:
        with running(tmp_path, "--master", THREAD="1") as server:
            told = server.ask("thread")
            assert (told["ticks"], told["alive"]) == (0, True)

    def test_threads_run_without_enable_threads(self, server: Running) -> None:
        assert server.ask("new%20thread")["ticks"] > 0

    def test_a_mules_module_is_not_imported(self, tmp_path: Path) -> None:
        with running(tmp_path, "--master", "--mule=mule_module") as server:
            eventually(lambda: "spawned uWSGI mule 1" in server.log)
            server.ask()
            time.sleep(0.3)
            assert "module is imported" not in server.log

    def test_a_mule_with_a_function_crashes_under_lazy_apps(self, tmp_path: Path) -> None:
        with running(tmp_path, "--master", "--lazy-apps", "--mule=mule_module:run") as server:
            eventually(lambda: "Segmentation Fault" in server.log)
