"""P8: whose the files are, what is refused in their place, and where no secret is."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from uwsgi_waffle import WaffleError

from ..live.servers import ALWAYS, ROOT, UWSGI, Servers, script
from .sites import Site, served, served_by, sqlite
from .tally import Tally

SECRET = "-".join(("s3cr3t", "t0k3n"))
STRANGER = 12345
FLASK = ["flask", "--app", "tests.campaign.site:application", "waffle"]

Replace = Callable[[Path, Path], object]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("quiet_host")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_and_owner_under_any_umask(tmp_path: Path, umask: int) -> None:
    """0600 in 0700, the database too; only its owner may write the watch file."""
    before = os.umask(umask)
    try:
        (tmp_path / "instance").mkdir(mode=0o700)
        (tmp_path / "instance").chmod(0o700)
        site = Site(tmp_path, sqlite(tmp_path / "instance"), Tally("modes"))
        one, other = site.start(), site.start()
        for number, name in enumerate(("bell", "snapshots", "processes", ""), start=1):
            one.waffle.update({"A": number})
            other.tick()
            shutil.rmtree(site.folder / name)
            other.tick()
            other.waffle.update({"A": 10 + number})
    finally:
        os.umask(before)
    paths = list(site.instance.rglob("*"))
    assert {mode(path) for path in paths if path.is_dir()} == {0o700}
    files = {path for path in paths if path.is_file()} - {site.watch_file}
    assert {path.name: oct(mode(path)) for path in files if mode(path) != 0o600} == {}
    assert mode(site.watch_file) & 0o022 == 0
    assert {path.stat().st_uid for path in paths} == {os.geteuid()}


def become_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def become_device(path: Path, victim: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a device")
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 7))  # /dev/full


def become_strangers(path: Path, victim: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    path.write_bytes(victim.read_bytes())
    os.chown(path, STRANGER, STRANGER)


REPLACED: dict[str, Replace] = {
    "a link": become_link,
    "a device": become_device,
    "a named pipe": lambda path, victim: os.mkfifo(path),
    "a folder": lambda path, victim: path.mkdir(),
    "another user's file": become_strangers,
}


@pytest.mark.usefixtures("quiet_host")
@pytest.mark.parametrize("what", REPLACED)
@pytest.mark.parametrize("name", ["header", "snapshot", "../waffle.watch"])
def test_something_else_in_place_of_a_file(tmp_path: Path, name: str, what: str) -> None:
    """It isn't followed, read or written, nothing else is served, and removing it mends all."""
    tally = Tally.of("something else in place of our files")
    site = Site(tmp_path, sqlite(tmp_path), tally)
    one, other = site.start(), site.start()
    one.waffle.update({"A": 1, "B": 1})
    victim = tmp_path / "victim"
    victim.write_bytes(b"another's")
    os.utime(victim, ns=(1, 1))
    path = next(site.snapshots.iterdir()) if name == "snapshot" else site.folder / name
    path.unlink()
    REPLACED[what](path, victim)
    tally.faults += 1

    def attempt(work: Callable[[], object]) -> bool:
        try:
            work()
        except (WaffleError, OSError):
            return False
        return True

    known = {served(other), (1, 1, 1)}
    for process in (one, other):
        process.follow()
        assert served(process) in known
    updated = attempt(lambda: one.waffle.update({"A": 2, "B": 2}))
    known.add(served_by(site.truth()))
    for process in (one, other):
        process.follow()
        assert served(process) in known
        tally.looks += 1
    attempt(site.start)
    assert victim.read_bytes() == b"another's"
    assert victim.stat().st_mtime_ns == 1
    if updated:
        assert served_by(site.truth())[1] == 2
    if os.path.lexists(path) and (
        not path.is_file() or path.is_symlink() or path.stat().st_uid != os.geteuid()
    ):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    one.waffle.update({"A": 3, "B": 3})
    site.judge({"one": one, "other": other, "new": site.start()}, f"{name} was {what}")
    tally.verdict()


def shell(folder: Path, *words: str, code: int = 0) -> str:
    """Run ``flask waffle`` as the user of the tests; return all that it prints."""
    environ = {**os.environ, **ALWAYS, "SITE_FOLDER": str(folder)}
    program = script(FLASK[0])
    done = subprocess.run(
        [program, *FLASK[1:], *words],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("first", ["the server", "the shell"])
def test_a_server_that_gives_up_root_and_a_shell_of_roots(common_folder: Path, first: str) -> None:
    """uWSGI with ``uid =``, and ``flask waffle`` as root: both work, whoever was first."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    nobody = pwd.getpwnam("nobody")
    folder = common_folder / "site"
    (folder / "instance").mkdir(parents=True)
    for path in (folder, folder / "instance"):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    if first == "the shell":
        assert "A: 0 -> 1" in shell(folder, "set", "A=1", "B=1")
    servers = Servers(common_folder)
    # The tests' own files may be where nobody else can read: the server keeps the right to read
    # all, and no right to write.
    rights = [
        "--bounding-set",
        "-all,+dac_read_search,+setuid,+setgid",
        "--securebits",
        "+no_setuid_fixup",
    ]
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    genuine = Servers.start.__globals__["script"]
    command = [
        "setpriv",
        *rights,
        script("uwsgi"),
        *UWSGI[1:],
        "--module",
        "tests.campaign.site",
        "--master",
        "--processes",
        "2",
    ]
    try:
        Servers.start.__globals__["script"] = lambda name: (
            setpriv if name == "setpriv" else genuine(name)
        )
        server = servers.start(
            [*command, "--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid)], folder=folder
        )
        for number in (2, 4):
            assert "->" in shell(folder, "set", f"A={number}", f"B={number}")
            for _ in range(4):
                assert set(server.read()["all"]) == {number}
            server.update(number + 1)
            assert json.loads(shell(folder, "get", "A")) == number + 1
        statuses = server.get("/status")
        assert (statuses["error"], statuses["store_error"]) == ("", "")
    finally:
        Servers.start.__globals__["script"] = genuine
        servers.stop_all()
    assert {path.stat().st_uid for path in (folder / "instance").rglob("*")} == {nobody.pw_uid}


def test_a_secret_is_nowhere_to_be_seen(servers: Servers) -> None:
    """Not in log, shell, history, status or an error, whatever goes wrong with it."""
    server = servers.start(
        [*UWSGI, "--module", "tests.campaign.site", "--master", "--processes", "2"]
    )
    told = [shell(server.folder, "set", f"TOKEN={SECRET}")]
    told.append(shell(server.folder, "set", f"TOKEN={SECRET}x", "A=no-number", code=1))
    for words in (["list"], ["history", "--json"], ["export"]):
        told.append(shell(server.folder, *words))
    assert server.post("/set", {"TOKEN": SECRET + "y", "A": 5}) == 2
    for body in (
        {"TOKEN": [SECRET]},
        {"TOKEN": {SECRET: 1}},
        {"TOKEN": SECRET + "z", "A": "no number"},
    ):
        with pytest.raises(AssertionError, match="500"):
            server.post("/set", body)
    told += [json.dumps(server.get("/history")), json.dumps(server.get("/status"))]
    database = server.folder / "instance" / "waffle.db"
    saved = database.read_bytes()
    database.write_bytes(b"no database at all")
    with pytest.raises(AssertionError, match="500"):
        server.post("/set", {"TOKEN": SECRET + "w"})
    (server.folder / "instance" / "waffle.watch").touch()
    told.append(json.dumps(server.get("/read")))
    database.write_bytes(saved)
    told.append(server.log)
    assert [text for text in told if SECRET in text] == []


@pytest.mark.usefixtures("quiet_host")
def test_a_secret_is_in_no_repr(tmp_path: Path) -> None:
    """Neither of what an application is given, nor of what an error could show."""
    site = Site(tmp_path, sqlite(tmp_path), Tally("secrets")).start()
    changes: list[Any] = []
    site.waffle.on_change(changes.append)
    result = site.waffle.update({"TOKEN": SECRET})
    store = site.state.store
    shown = [
        site.waffle,
        site.waffle.values,
        site.waffle.state,
        site.app.config,
        result,
        site.waffle.history(),
        site.waffle.status(),
    ]
    shown += [
        changes,
        site.state,
        site.state.current(),
        site.state.newest_published(),
        site.state.schema,
        site.state.settings,
        store.load(),
        store.history(5),
    ]
    assert changes
    assert [type(it).__name__ for it in shown if SECRET in f"{it!r} {it}"] == []
