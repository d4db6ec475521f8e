"""kill -9 at each step of the very first start, by the server's user and by a shell of root's."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy.dialects.sqlite  # noqa: F401  # imported late otherwise, as ``nobody``

from . import steps
from .sites import Site, new_values, sqlite
from .tally import Tally

pytestmark = [pytest.mark.usefixtures("quiet_host"), pytest.mark.timeout(600)]


Serve = Callable[[Callable[[], object]], steps.End]


def starts(
    folder: Path, tally: Tally, prepare: Callable[[Path], None], serve: Serve, who: str
) -> None:
    """Kill one first start after the other, each a step later; then the server has to work."""

    def attempt(kill: Callable[[Callable[[], object]], steps.End], number: int, what: str) -> bool:
        place = folder / str(number)
        place.mkdir()
        prepare(place)
        site = Site(place, sqlite(place), Tally(what))
        end = kill(site.start)
        assert not end.error, end.error
        tally.faults += not end.finished

        def server() -> None:
            observers = {"the server": site.start(), "its worker": site.start()}
            observers["the server"].waffle.update(new_values(1))
            site.judge(observers, what)
            site.tally.verdict()

        served = serve(server)
        tally.looks += 2
        if not served.finished:
            error = served.error.strip().splitlines()[-1]
            tally.wrong("other", f"{who} killed {what}: the server doesn't start: {error}")
        shutil.rmtree(place)
        return end.finished

    numbers = count()
    for kill, where in ((steps.killed_at, "before step"), (steps.killed_within, "within write")):
        for at in count():
            killed = partial(kill, number=at)
            if attempt(killed, next(numbers), f"{where} {at} of the first start"):
                break
    tally.verdict()


def test_the_first_start_is_killed(tmp_path: Path, deep: bool) -> None:
    """Whatever it leaves behind, the next start and update work."""
    if os.geteuid() == 0 and not deep:
        pytest.skip("root's first start, below, has all of these steps")
    starts(
        tmp_path,
        Tally.of("killed at every step: the first start"),
        lambda place: None,
        steps.in_child,
        "the first process",
    )


def test_a_shell_of_roots_is_the_first_and_is_killed(common_folder: Path) -> None:
    """What it leaves behind isn't in the way of the server's user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    nobody = pwd.getpwnam("nobody")

    def dropped(work: Callable[[], object]) -> steps.End:
        def drop() -> None:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            work()

        return steps.in_child(drop)

    def prepare(place: Path) -> None:
        (place / "instance").mkdir()
        for path in (place, place / "instance"):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)

    starts(
        common_folder,
        Tally.of("killed at every step: root's first start"),
        prepare,
        dropped,
        "root's shell",
    )
