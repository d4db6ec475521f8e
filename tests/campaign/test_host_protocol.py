"""A rule-based machine over one host: whatever happens, in whatever order, nothing uncommitted,
nothing torn, and all agree after it.

Processes are objects here that share nothing but files. Crashes are real: a forked process is
killed at a drawn step.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from uwsgi_waffle import RevisionConflict, SQLStore, StoreUnavailable, WaffleError, server
from uwsgi_waffle.hostfiles import header as header_module
from uwsgi_waffle.stores import Commit

from ..unit.conftest import ALWAYS, NEVER, FaultyStore, Process
from . import steps
from .sites import Site, served, served_by, values_of
from .tally import Tally

THOROUGH = "CAMPAIGN_THOROUGH" in os.environ
ONE = "the host protocol (Hypothesis)"

some = st.integers(0, 2**16)
early = st.integers(0, 70)


class FailingCommit(FaultyStore):
    """Loses its connection in a commit: before it was carried out, or after that."""

    lost: str = ""

    # only passed on
    def transact(self, decide: Callable[..., object]) -> object:  # type: ignore[override]
        if not self.lost:
            return super().transact(decide)  # type: ignore[arg-type]  # as above
        if self.lost == "after":
            super().transact(decide)  # type: ignore[arg-type]  # as above
        else:
            decide(self.load())
        raise StoreUnavailable("the connection was lost during the commit")


class OneHost(RuleBasedStateMachine):
    """One host, one store, up to four processes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(server.thread, "ensure_running", lambda member: None)
        self.patches.setattr(header_module, "FIRST_RETRY", 0.0)
        self.folder = Path(tempfile.mkdtemp(prefix="waffle-"))
        self.tally = Tally.of(ONE)
        self.url = f"sqlite:///{self.folder}/waffle.db"
        self.site = Site(self.folder, lambda: FailingCommit(self.url), self.tally)
        self.store = SQLStore(self.url)  # the test's own
        self.processes: list[Process] = []
        self.number = 0
        self.committed: set[tuple[int, object, object]] = set()
        self.must: tuple[int, object, object] | None = (
            None  # what every look shows, if that is known
        )
        self.backup: sqlite3.Connection | None = None

    def teardown(self) -> None:
        try:
            if self.processes:
                self.quiet()
        finally:
            for process in self.processes:
                process.state.leave()
            self.patches.undo()
            shutil.rmtree(self.folder)

    # What can happen

    @initialize()
    def begin(self) -> None:
        self.processes.append(self.site.start())
        self.processes.append(self.site.start())
        self.note()
        self.must = self.newest()

    @rule(which=some)
    def look(self, which: int) -> None:
        self.see(self.pick(which))

    @rule(which=some, at=early)
    def update(self, which: int, at: int) -> None:
        """Somebody else looks at one step of it."""
        process, looker = self.pick(which), self.pick(which + 1)

        def before(number: int, name: str) -> None:
            if (
                number == at and looker is not process and not header_module._opening.locked()
            ):  # one lock for all, in this process
                self.note()
                seen = served(looker)
                self.note()
                self.hold(looker, seen)

        number = self.next()
        self.must = None
        try:
            steps.walk(lambda: process.waffle.update({"A": number, "B": number}), before=before)
        except WaffleError:
            self.note()
            return
        self.note()
        self.must = self.newest()
        assert self.must[1] == number, f"lost: {number} was acknowledged, the store has {self.must}"
        self.see(process)
        self.see(looker)

    @rule(which=some, at=early)
    def another_host_writes_while_one_fetches(self, which: int, at: int) -> None:
        """Its message comes at one step of the fetch: that doesn't answer it."""
        process, other = self.pick(which), SQLStore(self.url, timeout=0.01)
        written = False

        def before(number: int, name: str) -> None:
            nonlocal written
            if number == at and not header_module._opening.locked():
                with suppress(StoreUnavailable):  # it is being written at this moment
                    other.transact(lambda stored: Commit(values_of(self.next())))
                    written = True
                self.note()
                self.ring(which)

        self.tally.faults += 1
        self.ring(which)
        self.must = None
        process.state._lease = 0.0
        steps.walk(process.state.look, before=before)
        if written and self.is_well(process):
            self.must = self.newest()
            self.see(process)

    @rule(which=some)
    def update_upon_an_old_revision(self, which: int) -> None:
        before = self.newest()
        with pytest.raises((RevisionConflict, StoreUnavailable)):
            self.pick(which).waffle.update({"A": -1, "B": -1}, expect_revision=before[0] + 1)
        assert self.newest() == before

    @rule(
        which=some,
        at=st.integers(0, 70),
        work=st.sampled_from(["update", "look", "tick"]),
        torn=st.booleans(),
    )
    def killed(self, which: int, at: int, work: str, torn: bool) -> None:
        process, number = self.pick(which), self.next()

        def go() -> None:
            with suppress(WaffleError):
                if work == "update":
                    process.waffle.update({"A": number, "B": number})
                elif work == "look":
                    process.state._lease = 0.0
                    process.state.look()
                else:
                    process.state.wake(1e-9)

        end = steps.killed_within(go, at % 20) if torn else steps.killed_at(go, at)
        assert not end.error, end.error
        self.tally.faults += not end.finished
        self.must = None
        self.note()

    @rule(which=some)
    def respawn(self, which: int) -> None:
        """A process is gone, and another is there."""
        self.tally.faults += 1
        at = which % len(self.processes)
        with suppress(StoreUnavailable):  # refused to start: no snapshot, and the store is down
            born = self.site.start()
            self.processes[at] = born
            self.note()
            self.see(born)

    @precondition(lambda self: len(self.processes) < 4)
    @rule()
    def one_more(self) -> None:
        with suppress(StoreUnavailable):
            self.processes.append(self.site.start())

    @rule(bells=st.integers(0, 2), which=some)
    def another_host_writes(self, bells: int, which: int) -> None:
        """Its message is lost, or comes once, or twice."""
        number = self.next()
        self.site_write(number)
        self.tally.faults += bells != 1
        self.must = None
        for _ in range(bells):
            self.ring(which)

    @rule(which=some)
    def forged_bell(self, which: int) -> None:
        self.tally.faults += 1
        self.ring(which)

    @rule(told=st.booleans())
    def edited_by_hand(self, told: bool) -> None:
        number = self.next()
        with sqlite3.connect(self.folder / "waffle.db") as connection:
            connection.execute("UPDATE waffle_values SET value = ?", (str(number),))
        connection.close()
        self.tally.faults += 1
        self.must = None
        self.note()
        if told:
            self.site.touch()

    @rule()
    def back_up(self) -> None:
        source, self.backup = (
            sqlite3.connect(self.folder / "waffle.db"),
            sqlite3.connect(":memory:"),
        )
        source.backup(self.backup)
        source.close()

    @precondition(lambda self: self.backup is not None)
    @rule(which=some, told=st.booleans())
    def restore_the_backup(self, which: int, told: bool) -> None:
        """The revision goes back."""
        assert self.backup is not None
        target = sqlite3.connect(self.folder / "waffle.db")
        with target:
            for table in ("waffle_meta", "waffle_values", "waffle_history"):
                target.execute(f"DELETE FROM {table}")
                for row in self.backup.execute(f"SELECT * FROM {table}").fetchall():
                    target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        target.close()
        self.tally.faults += 1
        self.must = None
        self.note()
        if told:
            self.ring(which)

    @rule(
        calls=st.sampled_from([NEVER, NEVER, ALWAYS, range(1, 3), {2}]),
        lost=st.sampled_from(["", "", "before", "after"]),
        which=some,
    )
    def the_store_fails(self, calls: object, lost: str, which: int) -> None:
        self.tally.faults += calls != NEVER or lost != ""
        for process in self.processes if which % 2 else [self.pick(which)]:
            store = process.state.store
            assert isinstance(store, FailingCommit)
            # a container
            store.calls, store.failing, store.lost = 0, calls, lost  # type: ignore[assignment]

    @rule(
        what=st.sampled_from(["header", "snapshots", "bell", "", "bell/bell"]),
        how=st.sampled_from(["gone", "cut", "noise", "mode"]),
    )
    def files_are_damaged(self, what: str, how: str) -> None:
        self.tally.faults += 1
        self.must = None
        target = self.site.host.instance / "waffle.watch.d" / what
        if not target.exists():
            return
        files = (
            [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
        )
        if how == "gone":
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        elif how == "mode":
            target.chmod(0o755 if target.is_dir() else 0o644)
        else:
            for path in files:
                content = path.read_bytes()
                path.write_bytes(
                    content[: len(content) // 2]
                    if how == "cut"
                    else bytes(255 - byte for byte in content)
                )

    @rule(which=some)
    def the_watch_file_is_removed(self, which: int) -> None:
        self.tally.faults += 1
        self.site.host.watch_file.unlink(missing_ok=True)

    @rule()
    def quiet(self) -> None:
        """The store is well, one bell is rung, each process looks once: all equal the store."""
        for process in self.processes:
            store = process.state.store
            assert isinstance(store, FailingCommit)
            store.failing, store.lost = NEVER, ""
        self.ring(0)
        for process in self.processes:
            process.state._lease = 0.0
            served(process)
        self.note()
        self.must = self.newest()
        for process in self.processes:
            self.see(process)

    # What must hold

    @invariant()
    def what_a_rule_has_committed_is_known(self) -> None:
        """A start or a look may find an edit by hand, and commit it as a revision of its own."""
        if self.processes:
            self.note()

    def see(self, process: Process) -> None:
        """Let a process look, as its next request after the lease would, and hold it to what is
        known.
        """
        process.state._lease = 0.0
        self.note()
        seen = served(process)
        self.note()
        self.hold(process, seen)
        if self.must is not None:
            assert seen == self.must, (
                f"stale: {seen} is served, {self.must} was acknowledged to this host"
            )

    def hold(self, process: Process, seen: tuple[int, object, object]) -> None:
        self.tally.looks += 1
        assert seen in self.committed, (
            f"{seen} is served and was never committed; these were: {sorted(self.committed)}"
        )

    def note(self) -> None:
        """Note what the store holds as committed."""
        self.committed.add(self.newest())

    def newest(self) -> tuple[int, object, object]:
        return served_by(self.store.load())

    def site_write(self, number: int) -> None:
        self.site.write_elsewhere(number)
        self.note()

    def ring(self, which: int) -> None:
        """Do what the host's listener does at a message."""
        files = self.pick(which).files
        files.verify()
        files.ring()
        files.knock()

    def is_well(self, process: Process) -> bool:
        store = process.state.store
        assert isinstance(store, FailingCommit)
        return store.failing is NEVER and not store.lost

    def pick(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    def next(self) -> int:
        self.number += 1
        return self.number


@pytest.mark.timeout(3000)
def test_the_host_protocol() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # Hypothesis's
        OneHost,
        settings=settings(
            max_examples=150 if THOROUGH else 30,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
