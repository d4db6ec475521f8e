"""A rule-based machine over one host: whatever happens, in whatever order, nothing uncommitted and
nothing torn is served, and all agree afterwards.

Processes are objects here that share nothing but files. Crashes are real: a forked process is
killed at a drawn step.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Container
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

from uwsgi_waffle import RevisionConflict, SQLStore, StoreUnavailable, WaffleError
from uwsgi_waffle.stores import Commit, CommitBuilder, Stored

from . import steps
from .conftest import make_quiet
from .sites import Process, Site, StoreKind, served, served_by, sqlite, values_of
from .tally import Tally

ALWAYS: Container[int] = range(1, 10**9)
NEVER: Container[int] = ()
ONE = "the host protocol (Hypothesis)"

some = st.integers(0, 2**16)
early = st.integers(0, 70)


class FaultyStore(SQLStore):
    """Fails at those of its calls, counted from 1, that ``failing`` names.

    With ``lost`` it loses its connection in each commit: ``before`` it was carried out, or
    ``after`` that.
    """

    failing: Container[int] = NEVER
    calls = 0
    lost: str = ""

    def load(self) -> Stored:
        self._count()
        return super().load()

    def transact(self, build_commit: CommitBuilder) -> Stored:
        self._count()
        if not self.lost:
            return super().transact(build_commit)
        if self.lost == "after":
            super().transact(build_commit)
        else:
            build_commit(super().load())
        raise StoreUnavailable("the connection was lost during the commit")

    def _count(self) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise StoreUnavailable("the store is down")


class OneHost(RuleBasedStateMachine):
    """One host, one store, up to four processes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        make_quiet(self.patches)
        self.folder = Path(tempfile.mkdtemp(prefix="waffle-"))
        self.tally = Tally.of(ONE)
        self.url = f"sqlite:///{self.folder}/waffle.db"
        kind = StoreKind(lambda: FaultyStore(self.url), sqlite(self.folder).edit)
        self.site = Site(self.folder, kind, self.tally)
        self.store = SQLStore(self.url)  # the test's own
        self.processes: list[Process] = []
        self.number = 0
        self.committed: set[tuple[int, object, object]] = set()
        # What every look shows, if that is known.
        self.must: tuple[int, object, object] | None = None
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
            if number == at and looker is not process:
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
            if number == at:
                with suppress(StoreUnavailable):  # it is being written at this moment
                    other.transact(lambda stored: Commit(values_of(self.next())))
                    written = True
                self.note()
                self.notify(which)

        self.tally.faults += 1
        self.notify(which)
        self.must = None
        steps.walk(process.tick, before=before)
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
                    process.follow()
                else:
                    process.state.sync.tick(1e-9)

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

    @rule(messages=st.integers(0, 2), which=some)
    def another_host_writes(self, messages: int, which: int) -> None:
        """Its message is lost, or comes once, or twice."""
        number = self.next()
        self.site_write(number)
        self.tally.faults += messages != 1
        self.must = None
        for _ in range(messages):
            self.notify(which)

    @rule(which=some)
    def forged_message(self, which: int) -> None:
        self.tally.faults += 1
        self.notify(which)

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
            self.notify(which)

    @rule(
        calls=st.sampled_from([NEVER, NEVER, ALWAYS, range(1, 3), {2}]),
        lost=st.sampled_from(["", "", "before", "after"]),
        which=some,
    )
    def the_store_fails(self, calls: Container[int], lost: str, which: int) -> None:
        self.tally.faults += calls != NEVER or lost != ""
        for process in self.processes if which % 2 else [self.pick(which)]:
            store = process.state.store
            assert isinstance(store, FaultyStore)
            store.calls, store.failing, store.lost = 0, calls, lost

    @rule(
        what=st.sampled_from(["header", "snapshots", "bell", "", "processes", "listener"]),
        how=st.sampled_from(["gone", "cut", "noise", "mode"]),
    )
    def files_are_damaged(self, what: str, how: str) -> None:
        self.tally.faults += 1
        self.must = None
        target = self.site.folder / what
        if not target.exists():
            return
        files = [path for path in (target, *target.rglob("*")) if path.is_file()]
        if how == "gone":
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        elif how == "mode":
            target.chmod(0o755 if target.is_dir() else 0o644)
        else:
            for path in files:
                content = path.read_bytes()
                half, noise = content[: len(content) // 2], bytes(255 - byte for byte in content)
                path.write_bytes(half if how == "cut" else noise)

    @rule(which=some)
    def the_watch_file_is_removed(self, which: int) -> None:
        self.tally.faults += 1
        self.site.watch_file.unlink(missing_ok=True)

    @rule()
    def quiet(self) -> None:
        """The store is well, one message comes, each process ticks once: all equal the store."""
        for process in self.processes:
            store = process.state.store
            assert isinstance(store, FaultyStore)
            store.failing, store.lost = NEVER, ""
        self.notify(0)
        for process in self.processes:
            process.tick()
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
        """Let a process look closely, as a request does, and hold it to what is known."""
        self.note()
        process.follow()
        seen = served(process)
        self.note()
        self.hold(process, seen)
        if self.must is not None:
            assert seen == self.must, f"stale: {seen} is served, acknowledged was {self.must}"

    def hold(self, process: Process, seen: tuple[int, object, object]) -> None:
        self.tally.looks += 1
        assert seen in self.committed, f"{seen} was never committed; were: {self.committed}"

    def note(self) -> None:
        """Note what the store holds as committed."""
        self.committed.add(self.newest())

    def newest(self) -> tuple[int, object, object]:
        return served_by(self.store.load())

    def site_write(self, number: int) -> None:
        self.site.write_elsewhere(number)
        self.note()

    def notify(self, which: int) -> None:
        """Do what the host's listener does at a message."""
        host = self.pick(which).state.host
        host.invalidate()
        host.wake()

    def is_well(self, process: Process) -> bool:
        store = process.state.store
        assert isinstance(store, FaultyStore)
        return store.failing is NEVER and not store.lost

    def pick(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    def next(self) -> int:
        self.number += 1
        return self.number


@pytest.mark.timeout(3000)
def test_the_host_protocol(deep: bool) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # Hypothesis's
        OneHost,
        settings=settings(
            max_examples=150 if deep else 30,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
