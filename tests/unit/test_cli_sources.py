"""Where `flask waffle set` has values from: arguments, files, the standard input."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from uwsgi_waffle.cli import waffle as command

from .conftest import Process

Run = Callable[..., Result]


@pytest.fixture
def run(site: Process) -> Run:
    """Run ``flask waffle set`` with the given words."""

    def run(*words: str, stdin: str | bytes | None = None) -> Result:
        return site.app.test_cli_runner().invoke(command, ["set", *words], input=stdin)

    return run


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Gent\n", "Gent"),
        ("Gent\r\n", "Gent"),
        ("Gent", "Gent"),
        ("a\n\n", "a\n"),
        ("-\n", "-"),
        ("@x", "@x"),
        ("Brügge 🧇\n", "Brügge 🧇"),
    ],
)
def test_one_line_end_is_not_part_of_the_text(
    site: Process, run: Run, tmp_path: Path, text: str, value: str
) -> None:
    assert run("SITENAME=-", stdin=text.encode()).exit_code == 0
    assert value == site.waffle.values.SITENAME
    (tmp_path / "name").write_bytes(text.encode())
    site.waffle.update({"SITENAME": "other"})
    assert run(f"SITENAME=@{tmp_path / 'name'}", "LIMIT=20").exit_code == 0
    assert (value, 20) == (site.waffle.values.SITENAME, site.waffle.values.LIMIT)


def test_a_text_that_begins_with_an_at_sign_has_two(site: Process, run: Run) -> None:
    run("SITENAME=@@waffle")
    assert site.waffle.values.SITENAME == "@waffle"
    run("SITENAME=a@b")
    assert site.waffle.values.SITENAME == "a@b"


def test_a_value_larger_than_an_argument_can_be(site: Process, run: Run, tmp_path: Path) -> None:
    (tmp_path / "name").write_text("x" * 150_000)
    assert run(f"SITENAME=@{tmp_path / 'name'}").exit_code == 0
    assert site.waffle.values.SITENAME == "x" * 150_000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all arguments together are limited")
def test_the_size_of_an_argument() -> None:
    """Linux takes 32 pages, which most often are 128 KiB."""
    size = 32 * os.sysconf("SC_PAGE_SIZE")
    subprocess.run(["true", "x" * (size - 1)], check=True)
    with pytest.raises(OSError, match="too long"):
        subprocess.run(["true", "x" * size], check=True)


def test_a_pipe(site: Process, run: Run, tmp_path: Path) -> None:
    """As ``set NAME=@<(command)`` of a shell gives it."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("Gent\n",))
    writer.start()
    assert run(f"SITENAME=@{tmp_path / 'pipe'}").exit_code == 0
    writer.join()
    assert site.waffle.values.SITENAME == "Gent"


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_nothing_is_no_text(site: Process, run: Run, stdin: str) -> None:
    """The command before the pipe has failed. Who wants an empty text says so."""
    result = run("TOKEN=-", "LIMIT=20", stdin=stdin)
    assert (result.exit_code, site.waffle.refresh()) == (1, 0)
    assert "TOKEN: the standard input is empty; write TOKEN= for an empty text" in result.output
    assert run("SITENAME=").exit_code == 0
    assert site.waffle.values.SITENAME == ""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["SITENAME=@none"], 2, "none can't be read: No such file or directory. If SITENAME is to"),
        (["SITENAME=@none"], 2, "begin with @, write SITENAME=@@none"),
        (["SITENAME=@/"], 2, "/ can't be read: Is a directory"),
        (["SITENAME=@"], 2, "'' can't be read: No such file"),
        (["SITENAME=@/dev/null"], 1, "/dev/null is empty; write SITENAME= for an empty text"),
        (["SITENAME=@a\0b"], 2, "can't be read: embedded null"),
        (["SITENAME=@/dev/zero"], 1, "SITENAME: /dev/zero has more than 4,194,304 bytes"),
        (["SITENAME=a\udcff"], 1, "SITENAME: it isn't UTF-8 text"),
        (["SITENAME=a", "--note", "a\udcff"], 2, "'--note': it isn't UTF-8 text"),
        (["SITENAME=a", "--actor", "a\udcff"], 2, "'--actor': it isn't UTF-8 text"),
        (["SITENAME=-"], 1, "SITENAME: the standard input isn't UTF-8 text: see its byte 2"),
        (["SITENAME=-", "TOKEN=-"], 2, "Only one variable can have the standard input"),
        (["TOKEN"], 2, "no terminal to ask for TOKEN on; write TOKEN=- and give it"),
        (["SITENAME"], 2, "'SITENAME' is no assignment; write NAME=VALUE"),
        (["SITE"], 1, "'SITE' is not declared"),
    ],
)
def test_what_can_not_be_read_changes_nothing(
    site: Process, run: Run, words: list[str], code: int, told: str
) -> None:
    stdin = b"ok" if "TOKEN=-" in words else b"a\xff"
    result = run(*words, stdin=stdin)
    assert (result.exit_code, site.waffle.refresh()) == (code, 0)
    assert told in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_file_of_windows(site: Process, run: Run) -> None:
    """The mark at its beginning isn't part of the value."""
    assert run("SITENAME=-", stdin=b"\xef\xbb\xbfWaffle 2\r\n").exit_code == 0
    assert site.waffle.values.SITENAME == "Waffle 2"


def test_an_argument_under_the_locale_c(site: Process, run: Run) -> None:
    """Python has read UTF-8 as ASCII there."""
    words = ["SITENAME=Br\udcc3\udcbcgge", "--actor", "Zo\udcc3\udcab", "--note", "\udcc3\udcbc"]
    assert run(*words).exit_code == 0
    assert site.waffle.values.SITENAME == "Brügge"
    (entry,) = site.waffle.history()
    assert (entry.actor, entry.note) == ("Zoë", "ü")


def test_a_secret_in_a_file_that_is_refused_is_not_shown(run: Run) -> None:
    result = run("TOKEN=-", stdin=b"geheim\xff")
    assert result.exit_code == 1
    assert "geheim" not in result.output
