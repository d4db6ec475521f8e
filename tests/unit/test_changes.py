"""Change sets: worked out on what the store holds, which may be damaged."""

from __future__ import annotations

import logging
import re
import threading
import traceback
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from annotated_types import Predicate

from uwsgi_waffle import InvalidValue, MemoryStore, SQLStore, StoreReadOnly, StoreUnavailable
from uwsgi_waffle.changes import encode_stored
from uwsgi_waffle.stores import CommitBuilder, Store, Stored

from ..host import Host, Process, logged, obey_permissions, run_forked


class TestBadRow:
    @pytest.mark.parametrize("text", ["{noise", "-5", '"many"', "", '1,"TOKEN":"x"'])
    def test_it_is_not_served_and_is_named_once(
        self, host: Host, site: Process, caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = ?", text)
        site.files.invalidate()
        for _ in range(3):
            site.tick()
            assert site.waffle.values.LIMIT == 20
        (line,) = logged(caplog)
        assert "LIMIT" in line
        assert "LIMIT" in site.waffle.status()["store_error"]
        with pytest.raises(InvalidValue, match="LIMIT"):
            site.waffle.refresh()
        host.sql("UPDATE waffle_values SET value = '30'")
        site.tick()
        assert site.waffle.values.LIMIT == 30
        assert logged(caplog, logging.WARNING)[-1].startswith("uwsgi_waffle: the store is back")

    def test_another_update_is_refused_and_says_how_to_repair_it(
        self, host: Host, site: Process
    ) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = '-5'")
        with pytest.raises(InvalidValue, match=r"LIMIT.*what the store holds; set or reset it"):
            site.waffle.update({"SITENAME": "New"})
        site.waffle.reset("LIMIT")
        site.waffle.update({"SITENAME": "New"})
        assert (site.waffle.values.LIMIT, site.waffle.values.SITENAME) == (10, "New")

    def test_an_update_repairs_what_is_not_even_json(self, host: Host, site: Process) -> None:
        site.waffle.update({"LIMIT": 20})
        host.sql("UPDATE waffle_values SET value = '{noise'")
        site.waffle.update({"LIMIT": 30})
        assert site.waffle.values.LIMIT == 30

    def test_a_key_that_nobody_declared_stops_nothing(self, host: Host, site: Process) -> None:
        host.sql("INSERT INTO waffle_values VALUES (?, ?)", 'odd "key"\\', "1")
        site.waffle.update({"LIMIT": 20})
        site.files.invalidate()
        site.tick()
        assert site.waffle.values.LIMIT == 20
        assert site.waffle.status()["store_error"] == ""


class TestEncoding:
    @pytest.mark.parametrize(
        "values",
        [
            *(
                {"A": text}
                for text in ("{", "", '1,"B":2', "1}", "NaN", "[-Infinity]", r'"\ud800"')
            ),
            *({"A": "1", "B": text} for text in ("[" * 100_000, "[" * 300 + "]" * 300)),
        ],
        ids=lambda values: str(values)[:30],
    )
    def test_a_row_that_is_not_one_value_is_named(self, values: dict[str, str]) -> None:
        bad = max(values, key=lambda name: len(values[name])) if len(values) > 1 else "A"
        with pytest.raises(InvalidValue, match="The store is damaged") as caught:
            encode_stored(Stored(1, values))
        assert list(caught.value.problems) == [bad]


class TestFailingValidators:
    """A validator of the application's own that raises what it likes."""

    CONFS: ClassVar = {"PATTERN": {"default": ".", "type": Annotated[str, Predicate(re.compile)]}}

    def test_an_update_is_refused(self, host: Host) -> None:
        site = host.start(confs=self.CONFS)
        failed = rf"PATTERN: its validator failed with {re.error.__name__}: missing"
        with pytest.raises(InvalidValue, match=failed):
            site.waffle.update({"PATTERN": "("})
        assert site.waffle.revision == 0

    def test_a_bad_row_disturbs_no_request(self, host: Host) -> None:
        site = host.start(confs=self.CONFS)
        site.waffle.update({"PATTERN": "a"})
        host.sql("UPDATE waffle_values SET value = ?", '"("')
        host.touch()
        site.tick()
        assert site.waffle.values.PATTERN == "a"
        assert "validator failed" in site.waffle.status()["store_error"]

    @pytest.mark.parametrize("text", ["NaN", "1e400", "1" * 400])
    def test_a_number_without_an_end_disturbs_no_request(self, host: Host, text: str) -> None:
        """It couldn't be written as JSON where it is listed or exported."""
        site = host.start(confs={"RATE": {"default": 0.5}})
        site.waffle.update({"RATE": 1.5})
        host.sql("UPDATE waffle_values SET value = ?", text)
        host.touch()
        site.tick()
        assert site.waffle.values.RATE == 1.5
        assert "RATE" in site.waffle.status()["store_error"]

    def test_a_row_that_is_nested_too_deeply_disturbs_no_request(self, host: Host) -> None:
        site = host.start(confs={"ANY": {"default": None}})
        site.waffle.update({"ANY": 1})
        host.sql("UPDATE waffle_values SET value = ?", "[" * 100_000 + "]" * 100_000)
        host.touch()
        site.tick()
        assert site.waffle.values.ANY == 1
        assert site.waffle.status()["store_error"]


@pytest.mark.parametrize("kind", ["memory", "sql"])
def test_writers_without_shared_files_end_on_the_newest(
    host: Host, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of one process: the one that commits first can't serve its values last."""
    store: Store = (
        MemoryStore() if kind == "memory" else SQLStore(f"sqlite:///{tmp_path}/waffle.db")
    )
    site = host.start(store, MULTIPROC=False)
    first_committed, second_began = threading.Event(), threading.Event()
    genuine = store.transact

    def slow(build_commit: CommitBuilder) -> Stored:
        stored = genuine(build_commit)
        if stored.revision == 1:
            first_committed.set()
            assert second_began.wait(20)
        return stored

    monkeypatch.setattr(store, "transact", slow)
    first = threading.Thread(target=lambda: site.waffle.update({"LIMIT": 1}))
    first.start()
    assert first_committed.wait(20)

    def second() -> None:
        second_began.set()
        site.waffle.update({"LIMIT": 2})

    later = threading.Thread(target=second)
    later.start()
    first.join()
    later.join()
    assert (site.waffle.values.LIMIT, site.waffle.revision) == (2, 2)


def test_no_secret_in_a_traceback(host: Host, site: Process) -> None:
    """Whatever the database refuses, the chain of errors doesn't show what was to be written."""
    host.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON waffle_history BEGIN "
        "SELECT RAISE(ABORT, 'refused'); END"
    )
    with pytest.raises(StoreUnavailable, match="refused") as caught:
        site.waffle.update({"TOKEN": "-".join(("s3cr3t", "value"))})
    assert "s3cr3t-value" not in "".join(traceback.format_exception(caught.value))
    assert site.waffle.revision == 0


def test_a_database_that_may_not_be_written_is_served_from(host: Host, site: Process) -> None:
    site.waffle.update({"SITENAME": "New"})

    def program() -> None:
        obey_permissions()
        host.database.chmod(0o444)
        with pytest.raises(StoreReadOnly, match=f"{host.database} refuses to be written"):
            site.waffle.update({"SITENAME": "Newer"})
        assert site.waffle.refresh() == 1
        assert (site.waffle.values.SITENAME, host.start().waffle.values.SITENAME) == ("New", "New")

    assert run_forked(program) == 0
