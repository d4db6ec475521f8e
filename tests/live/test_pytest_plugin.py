"""The fixture `waffle_server`, in a project of a user's own whose tests run in a process of their
own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

APP = """
    import os
    from flask import Flask, jsonify
    import uwsgi, uwsgi_waffle

    application = Flask(__name__)
    application.config["WAFFLE_CONFS"] = {"NUMBER": {"default": 0}}
    application.config.from_prefixed_env("SITE")
    waffle = uwsgi_waffle.WaffleConf(application)

    @application.get("/")
    def read():
        store = waffle.status()["store"]
        greeting = os.environ.get("GREETING")
        number, worker, pid = waffle.values.NUMBER, uwsgi.worker_id(), os.getpid()
        return jsonify(worker=worker, pid=pid, number=number, store=store, greeting=greeting)

    @application.post("/<int:number>")
    def write(number):
        return jsonify(len(waffle.update({"NUMBER": number}, wait=20.0).applied))
"""
CONFTEST = """
    import json, urllib.request
    import pytest
    from uwsgi_waffle.testing.pytest_plugin import WaffleServer  # for annotations

    pytest_plugins = ["uwsgi_waffle.testing.pytest_plugin"]

    @pytest.fixture
    def ask():
        def ask(url, data=None):
            with urllib.request.urlopen(url, data, timeout=30) as answer:
                return json.load(answer)
        return ask
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A little project with an application in ``src``, as a newcomer has it."""
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("WAFFLE_STORE_URL", "sqlite:////nowhere/of/the/developer.db")
    pytester.makeini("[pytest]\npythonpath = src\nfilterwarnings = error")
    pytester.makeconftest(CONFTEST)
    source = pytester.mkdir("src") / "site_of_mine.py"
    source.write_text("\n".join(line[4:] for line in APP.splitlines()))
    return pytester


def run(project: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    project.makepyfile(test)
    return project.runpytest_subprocess("-p", "no:cacheprovider", *options)


@pytest.mark.timeout(300)  # four tests in one
def test_a_server_for_a_test(project: pytest.Pytester) -> None:
    """All workers are addressed by number and by one URL; they share the test's own store; the next
    test has another.
    """
    result = run(
        project,
        """
        def test_workers(waffle_server, ask, tmp_path):
            server = waffle_server(app="site_of_mine:application", workers=3, GREETING="hello")
            assert [ask(server.worker_url(n))["worker"] for n in (1, 2, 3)] == [1, 2, 3]
            assert ask(server.url)["store"] == f"sqlite:///{tmp_path}/waffle.db"
            assert ask(server.url)["greeting"] == "hello"
            assert ask(server.worker_url(2) + "/7", b"") == 3
            assert [ask(server.worker_url(n))["number"] for n in (1, 2, 3)] == [7, 7, 7]
            assert "spawned uWSGI worker 3" in server.log
            server.stop()
            server.stop()
            assert "goodbye to uWSGI" in server.log

        def test_another(waffle_server, ask):
            server = waffle_server("site_of_mine:application", 1)
            assert ask(server.url)["number"] == 0
            try:
                server.worker_url(2)
            except ValueError as error:
                assert "workers 1 to 1" in str(error)

        def test_two_instances_of_one_host(waffle_server, ask):
            first, second = (waffle_server("site_of_mine:application", 2) for _ in range(2))
            assert ask(first.url + "/1", b"") == 4
            assert ask(second.url)["number"] == 1

        def test_other_modes(waffle_server, ask, tmp_path):
            server = waffle_server("site_of_mine:application", 2, options=["--lazy-apps"], WAFFLE_STORE_URL=f"sqlite:///{tmp_path}/other.db")
            assert "can't wake" not in server.log
            assert ask(server.worker_url(2))["store"].endswith("/other.db")
        """,
    )
    result.assert_outcomes(passed=4)


def test_a_failing_test_stops_its_server_and_shows_its_log(project: pytest.Pytester) -> None:
    result = run(
        project,
        """
        import pathlib

        def test_fails(waffle_server, ask):
            server = waffle_server("site_of_mine:application", 2)
            pids = [str(ask(server.worker_url(n))["pid"]) for n in (1, 2)]
            pathlib.Path("pids").write_text(" ".join(pids))
            assert False

        def test_goes_on(waffle_server, ask):
            assert ask(waffle_server("site_of_mine:application", 1).url)["number"] == 0
        """,
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- Captured uwsgi-* teardown -*", "*spawned uWSGI worker 2*"])
    workers = (project.path / "pids").read_text().split()
    assert len(workers) == 2
    assert not any(psutil.pid_exists(int(pid)) for pid in workers)


@pytest.mark.parametrize("options", ["", "--lazy-apps"])
def test_a_module_that_can_not_be_loaded(project: pytest.Pytester, options: str) -> None:
    """The test fails at once and shows the log of uWSGI; no process is left."""
    result = run(
        project,
        f"""
        def test_it(waffle_server):
            waffle_server('nothing_of_mine:app', options={options.split()!r})
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "uWSGI didn't start, it ended with code *",
            "ModuleNotFoundError: No module named 'nothing_of_mine'",
        ]
    )
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if "nothing_of_mine:app" in (process.info["cmdline"] or [])
    ]


def test_an_application_that_names_another_watch_file(project: pytest.Pytester) -> None:
    """It would change the developer's own values."""
    result = run(
        project,
        """
        def test_it(waffle_server, tmp_path):
            other = f'"{tmp_path}/another"'
            waffle_server("site_of_mine:application", 1, SITE_WAFFLE_WATCHER_FILE=other)

        def test_told(waffle_server, tmp_path):
            watch_file = tmp_path / "another"
            env = {"SITE_WAFFLE_WATCHER_FILE": f'"{watch_file}"', "WAFFLE_WATCHER_FILE": watch_file}
            waffle_server("site_of_mine:application", 1, **env)
        """,
    )
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["The application doesn't use WAFFLE_WATCHER_FILE = *"])


def test_without_uwsgi_it_says_what_to_install(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    project.makeconftest(
        CONFTEST + "\n    import sysconfig\n    sysconfig.get_path = lambda name: '/nowhere'\n"
    )
    result = run(project, "def test_it(waffle_server): waffle_server('site_of_mine:application')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["There is no uWSGI. Run: pip install 'uwsgi_waffle?testing?'"])


def test_without_xprocess_it_says_what_to_install(project: pytest.Pytester) -> None:
    (project.path / "xprocess.py").write_text("raise ImportError('none here')")
    result = project.run(sys.executable, "-c", "import uwsgi_waffle.testing.pytest_plugin")
    result.stderr.fnmatch_lines(["ImportError: *pip install 'uwsgi_waffle?testing?'"])
