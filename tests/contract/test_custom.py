"""A store that the application writes itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from uwsgi_waffle import (
    RevisionConflict,
    SchemaError,
    StoreReadOnly,
    StoreUnavailable,
    WaffleConf,
    WaffleMixin,
    WaffleStore,
)
from uwsgi_waffle.stores import Commit, Stored

from .conftest import put
from .models import (
    OwnStore,
    Record,
    alchemy_app,
)


class TestOwn:
    """A store that the application writes itself."""

    def test_it_works_by_get_put_delete_and_commit(self) -> None:
        store = OwnStore()
        store.kept["B"] = "7"
        bound = store.bind(frozenset({"A", "B"}), store._context)
        assert bound.load() == Stored(0, {"B": "7"})
        assert put(bound, A="1", LATER="2") == 1
        assert put(bound, B=None) == 2
        assert store.bind(frozenset({"A"}), store._context).load() == Stored(
            2, {"A": "1", "LATER": "2"}
        ), "a name that another declares"
        assert bound.values_at(0) == {"B": "7"}
        assert [row.key for row in bound.history(10)] == ["B", "LATER", "A"]

    def test_what_only_reads_commits_nothing(self) -> None:
        store = OwnStore()
        store.load()
        store.history(1)
        assert store.commits == 0
        put(store, A="1")
        assert store.commits == 1

    def test_what_raises_before_it_writes_commits_nothing(self) -> None:
        store = OwnStore()
        with pytest.raises(ZeroDivisionError):
            store.transact(lambda stored: Commit({"A": str(1 // 0)}))
        assert "A" not in store.kept

    def test_a_put_that_returns_none_has_failed_unless_it_has_not(self) -> None:
        class Forgetful(OwnStore):
            def put(self, key: str, value: str) -> None:  # type: ignore[override]  # that is its mistake
                super().put(key, value)

        class Failing(OwnStore):
            # as the manual allows
            def put(self, key: str, value: str) -> None:  # type: ignore[override]  # that is its mistake
                pass

        assert put(Forgetful(), A="1") == 1
        with pytest.raises(StoreUnavailable, match="returned None, so it failed"):
            put(Failing(), A="1")

    def test_what_its_methods_raise_is_told_without_the_values(self) -> None:
        class Failing(OwnStore):
            error: Exception = RuntimeError("can't put geheim")

            def put(self, key: str, value: str) -> Record:
                raise self.error

        store = Failing()
        with pytest.raises(
            StoreUnavailable, match=r"Failing: put\(\) failed with RuntimeError\. Servers try again"
        ) as caught:
            put(store, A="1")
        assert "geheim" not in str(caught.value)
        store.error = StoreReadOnly("not today")
        with pytest.raises(StoreReadOnly, match="not today"):
            put(store, A="1")

    def test_a_record_without_a_value_is_told_as_well(self) -> None:
        class Failing(OwnStore):
            def get(self, key: str) -> Any:
                return super().get(key) and object()  # it has no get_value

        store = Failing()
        store.kept["WAFFLE_REVISION"] = "1"
        with pytest.raises(StoreUnavailable, match=r"get_value\(\) failed with AttributeError"):
            store.load()

    def test_a_commit_that_failed_may_have_been_made(self) -> None:
        class Failing(OwnStore):
            def commit(self) -> None:
                raise TimeoutError("no answer; geheim")

        with pytest.raises(StoreUnavailable, match="look at the history before you repeat") as told:
            put(Failing(), A="1")
        assert "geheim" not in str(told.value)

    def test_an_error_of_the_package_stays_what_it_is(self, tmp_path: Path) -> None:
        app = Flask("site", instance_path=str(tmp_path))
        app.config.update(WAFFLE_CONFS={"A": {"default": 1}}, WAFFLE_MULTIPROC=False)
        waffle = WaffleConf(app, OwnStore())

        @app.teardown_appcontext
        def refuse(error: object) -> None:
            raise SchemaError("mine")

        with pytest.raises(SchemaError, match="mine"):
            waffle.refresh()

    def test_a_teardown_function_that_fails_after_the_commit_undoes_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An update that is made is no failure; one that isn't has its own error, not the later."""
        app = Flask("site", instance_path=str(tmp_path))
        app.config.update(WAFFLE_CONFS={"A": {"default": 1}}, WAFFLE_MULTIPROC=False)
        store, failing = OwnStore(), False

        @app.teardown_appcontext
        def give_back(error: object) -> None:
            if failing:
                raise RuntimeError("the session is gone")

        waffle = WaffleConf(app, store)
        failing = True
        with caplog.at_level("WARNING"):
            assert waffle.update({"A": 2}).revision == 1
        assert (waffle.values.A, store.kept["A"]) == (2, "2")
        (line,) = [r.getMessage() for r in caplog.records if r.name == "uwsgi_waffle"]
        assert line == "uwsgi_waffle: a teardown function failed after an update was stored"
        with pytest.raises(RevisionConflict):
            waffle.update({"A": 3}, expect_revision=7)
        with pytest.raises(StoreUnavailable, match="the application's context failed with Runtime"):
            waffle.refresh()
        assert waffle.values.A == 2

    @pytest.mark.parametrize("call", ["commit", "delete", "get", "put"])
    def test_what_it_doesnt_have_it_says(self, call: str) -> None:
        arguments = {"delete": ["A"], "get": ["A"], "put": ["A", "1"]}.get(call, [])
        with pytest.raises(NotImplementedError):
            getattr(WaffleStore(), call)(*arguments)

    def test_over_a_session_of_the_applications_it_has_a_session_of_its_own(
        self, tmp_path: Path
    ) -> None:
        """As Flask-WaffleConf's own store did it: that a request's session is spared is the
        context's doing.
        """
        site = alchemy_app(tmp_path, WAFFLE_CONFS={"A": {"default": 1}}, WAFFLE_MULTIPROC=False)

        class Classic(WaffleStore):
            def commit(self) -> None:
                self.db.session.commit()

            def get(self, key: str) -> Any:
                return self.db.session.execute(
                    self.db.select(self.model).filter_by(key=key)
                ).scalar_one_or_none()

            def put(self, key: str, value: str) -> Any:
                record = self.get(key) or self.model(key=key)
                record.value = value
                self.db.session.add(record)
                return record

        waffle = WaffleConf(site.app, Classic(db=site.db, model=site.model))
        with site.app.app_context():
            site.db.session.add(site.model(key="MINE", value="1"))
            assert waffle.update({"A": 2}).revision == 1
            assert len(site.db.session.new) == 1
            site.db.session.rollback()
            assert {row.key for row in site.db.session.scalars(site.db.select(site.model))} >= {
                "A",
                "WAFFLE_REVISION",
            }
            assert (
                site.db.session.scalars(site.db.select(site.model).filter_by(key="MINE")).all()
                == []
            )
            site.db.session.remove()
            site.db.engine.dispose()


def test_the_mixin_gives_key_and_value() -> None:
    class Record(WaffleMixin):
        key, value = "A", "1"

    assert (Record().get_key(), Record().get_value()) == ("A", "1")
    with pytest.raises(AttributeError):
        WaffleMixin().get_key()
