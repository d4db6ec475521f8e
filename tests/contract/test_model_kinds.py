"""Which models a store takes: they work, or the error says what is wrong with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peewee
import pytest
import sqlalchemy as sa
from playhouse.sqliteq import SqliteQueueDatabase
from sqlalchemy.orm import synonym

from uwsgi_waffle import (
    AlchemyWaffleStore,
    InvalidValue,
    PeeweeWaffleStore,
    SchemaError,
    StoreUnavailable,
)
from uwsgi_waffle.changes import encode_stored
from uwsgi_waffle.stores import Store
from uwsgi_waffle.stores.drivers import in_memory

from .conftest import put
from .models import (
    alchemy_app,
    peewee_model,
    use,
)


def text(number: int = 255, **options: Any) -> Any:
    return sa.Column(sa.String(number), **options)


class Decoded(sa.types.TypeDecorator[Any]):
    """Keeps anything as JSON."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str:
        return json.dumps(value)

    def process_result_value(self, value: str | None, dialect: object) -> Any:
        return None if value is None else json.loads(value)


class TestKindsOfModels:
    """Models that are more than a key and a value: they work, or they are refused by what is the
    matter.
    """

    @pytest.fixture
    def bare(self, tmp_path: Path) -> Iterator[SimpleNamespace]:
        site = alchemy_app(tmp_path)
        with site.app.app_context():
            yield site
            site.db.session.remove()
            site.db.engine.dispose()

    def declared(self, site: SimpleNamespace, base: Any = None, **attributes: Any) -> Any:
        attributes.setdefault("id", sa.Column(sa.Integer, primary_key=True))
        return type("Kind", (base or site.db.Model,), {"__module__": __name__, **attributes})

    def store_of(self, site: SimpleNamespace, **attributes: Any) -> AlchemyWaffleStore:
        store = AlchemyWaffleStore(db=site.db, model=self.declared(site, **attributes))
        site.db.create_all()
        use(store)
        return store

    @pytest.mark.parametrize(
        "more",
        [
            {"made": sa.Column(sa.DateTime, default=sa.func.now(), nullable=False)},
            {"made": sa.Column(sa.Integer, server_default="7", nullable=False)},
            {"made": sa.Column(sa.Integer, default=lambda: 7, nullable=False)},
            {"made": sa.Column(sa.Integer)},
            {"made": sa.Column(sa.Integer, sa.Computed("1"), nullable=False)},
        ],
        ids=["default", "server's default", "function", "nullable", "computed"],
    )
    def test_columns_that_are_filled_work(
        self, bare: SimpleNamespace, more: dict[str, Any]
    ) -> None:
        self.store_of(bare, key=text(), value=sa.Column(sa.Text), **more)

    def test_nothing_of_the_model_runs(self, bare: SimpleNamespace, tmp_path: Path) -> None:
        """Not what SQLAlchemy or peewee calls when an object is made or saved."""

        def run(*_: object, **__: object) -> None:
            raise AssertionError("it runs")

        model = self.declared(bare, key=text(), value=sa.Column(sa.Text), __init__=run)
        for event in ("init", "before_insert", "before_update", "before_delete"):
            sa.event.listen(model, event, run)
        store = AlchemyWaffleStore(db=bare.db, model=model)
        bare.db.create_all()
        use(store)
        other = self.peewee_kind(tmp_path, peewee.SqliteDatabase(str(tmp_path / "other.db")))
        for name in ("__init__", "save", "delete_instance"):
            setattr(other, name, run)
        with other._meta.database.connection_context():
            other.create_table()
        use(PeeweeWaffleStore(model=other))
        for made in (model, other):
            with pytest.raises(AssertionError, match="it runs"):
                made()

    def test_synonyms_work(self, bare: SimpleNamespace) -> None:
        site = bare
        store = self.store_of(
            site,
            name=text(unique=True),
            content=sa.Column(sa.Text),
            key=synonym("name"),
            value=synonym("content"),
        )
        assert {row.name for row in site.db.session.scalars(sa.select(store.model))} >= {
            "A",
            "WAFFLE_REVISION",
        }

    def test_a_type_of_the_applications_own_works(self, bare: SimpleNamespace) -> None:
        class Reversed(sa.types.TypeDecorator[str]):
            impl = sa.LargeBinary
            cache_ok = True

            def process_bind_param(self, value: str | None, dialect: object) -> bytes | None:
                return None if value is None else value[::-1].encode()

            def process_result_value(self, value: bytes | None, dialect: object) -> str | None:
                return None if value is None else value.decode()[::-1]

        self.store_of(bare, key=text(), value=sa.Column(Reversed))

    def test_a_row_that_is_no_text_is_named_and_can_be_set(self, bare: SimpleNamespace) -> None:
        """A type of the application's own may give anything."""
        model = self.declared(bare, key=text(), value=sa.Column(Decoded))
        bare.db.create_all()
        bare.db.session.add(model(key="A", value={"is": "decoded"}))
        bare.db.session.commit()
        store = AlchemyWaffleStore(db=bare.db, model=model)
        with pytest.raises(InvalidValue, match="A: the stored text isn't JSON"):
            encode_stored(store.load())
        put(store, A="1")
        assert store.load().values == {"A": "1"}

    def test_a_schema_that_the_engine_translates_is_translated(
        self, tmp_path: Path, sql: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        translated = {"execution_options": {"schema_translate_map": {"tenant": "main"}}}
        site = alchemy_app(tmp_path, SQLALCHEMY_ENGINE_OPTIONS=translated)
        model = self.declared(
            site,
            key=text(unique=True),
            value=sa.Column(sa.Text),
            __table_args__={"schema": "tenant"},
        )
        with site.app.app_context():
            site.db.create_all()
            site.db.engine.dispose()
            use(AlchemyWaffleStore(db=site.db, model=model))
        assert ("A", "2") in sql("SELECT key, value FROM kind")
        assert "no such table" not in caplog.text

    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            (
                {"value": sa.Column(sa.LargeBinary)},
                r"the column 'value' has the type LargeBinary\(\), and not one for text",
            ),
            ({"value": sa.Column(sa.JSON)}, "'value' has the type JSON"),
            ({"key": sa.Column(sa.Integer)}, "'key' has the type Integer"),
            ({"key": sa.Column(sa.Enum("A", "B"))}, "'key' has the type Enum"),
            (
                {"kind": text(), "__mapper_args__": {"polymorphic_on": "kind"}},
                "holds the rows of more than one model",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_does_not_work_is_refused(
        self, bare: SimpleNamespace, columns: dict[str, Any], told: str
    ) -> None:
        model = self.declared(bare, **{"key": text(), "value": sa.Column(sa.Text), **columns})
        with pytest.raises(SchemaError, match=f"in Kind: .*{told}.*Give it a model of their own"):
            AlchemyWaffleStore(db=bare.db, model=model)

    def test_a_column_that_nothing_fills_is_named(self, bare: SimpleNamespace) -> None:
        model = self.declared(
            bare, key=text(), value=sa.Column(sa.Text), owner=text(nullable=False)
        )
        bare.db.create_all()
        with pytest.raises(StoreUnavailable, match=r"refuses the row: .*kind.owner"):
            AlchemyWaffleStore(db=bare.db, model=model).prepare()

    def test_inheritance_of_either_kind_is_refused(self, bare: SimpleNamespace) -> None:
        base = self.declared(bare, key=text(), value=sa.Column(sa.Text))
        single = type("Single", (base,), {"__module__": __name__})
        joined = {
            "id": sa.Column(sa.ForeignKey("kind.id"), primary_key=True),
            "__tablename__": "joined",
        }
        for model in (single, type("Joined", (base,), {"__module__": __name__, **joined})):
            with pytest.raises(SchemaError, match="holds the rows of more than one model"):
                AlchemyWaffleStore(db=bare.db, model=model)

    def test_a_model_over_a_query_is_refused(self, bare: SimpleNamespace) -> None:
        rows = sa.select(bare.model.id, bare.model.key, bare.model.value).subquery()
        with pytest.raises(SchemaError, match="aren't columns of one table"):
            AlchemyWaffleStore(
                db=bare.db,
                model=type("Kind", (bare.db.Model,), {"__module__": __name__, "__table__": rows}),
            )

    def peewee_kind(self, folder: Path, database: Any = None, **fields: Any) -> Any:
        fields = {"key": peewee.CharField(unique=True), "value": peewee.TextField(), **fields}
        kind = type("Kind", (peewee.Model,), fields)
        kind._meta.set_database(database or peewee.SqliteDatabase(str(folder / "site.db")))
        return kind

    @pytest.mark.parametrize(
        "field",
        [
            peewee.IntegerField(default=lambda: 7),
            peewee.IntegerField(null=True),
            peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 7")]),
            peewee.BigAutoField(),
        ],
        ids=["default", "nullable", "server's default", "counted"],
    )
    def test_fields_that_are_filled_work(self, tmp_path: Path, field: Any) -> None:
        model = self.peewee_kind(tmp_path, made=field)
        with model._meta.database.connection_context():
            model.create_table()
        use(PeeweeWaffleStore(model=model))

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            (
                {"value": peewee.BlobField()},
                "the field 'value' is a BlobField, and not one for text",
            ),
            ({"key": peewee.IntegerField()}, "the field 'key' is a IntegerField"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_what_does_not_work_with_peewee_is_refused(
        self, tmp_path: Path, fields: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(SchemaError, match=f"in Kind: {told}"):
            PeeweeWaffleStore(model=self.peewee_kind(tmp_path, **fields))

    def test_a_field_of_peewees_that_nothing_fills_is_named(self, tmp_path: Path) -> None:
        model = self.peewee_kind(tmp_path, owner=peewee.CharField())
        with model._meta.database.connection_context():
            model.create_table()
        with pytest.raises(StoreUnavailable, match=r"refuses the row: .*kind.owner"):
            PeeweeWaffleStore(model=model).prepare()

    def test_a_database_with_a_queue_works_past_it(self, tmp_path: Path) -> None:
        database = SqliteQueueDatabase(str(tmp_path / "site.db"))
        model = self.peewee_kind(tmp_path, database)
        model.create_table()
        try:
            model.create(key="MINE", value="1")
            use(PeeweeWaffleStore(model=model))
            assert {row.key for row in model.select()} >= {"A", "MINE", "WAFFLE_REVISION"}
            assert database.queue_size() == 0
        finally:
            database.stop()
            database.close()


class TestDeclaration:
    @pytest.mark.parametrize("kind", [AlchemyWaffleStore, PeeweeWaffleStore])
    @pytest.mark.parametrize("model", [None, object, Path, Store])
    def test_what_is_no_such_model_is_refused(self, kind: Any, model: object) -> None:
        with pytest.raises(SchemaError, match="key and value"):
            kind(db=None, model=model)

    @pytest.mark.parametrize(
        ("database", "mode"),
        [
            (None, None),
            ("", None),
            ("file:shared?mode=memory&cache=shared", None),
            ("file:x", "memory"),
        ],
    )
    def test_a_shared_one_is_in_memory_too(self, database: str | None, mode: str | None) -> None:
        assert in_memory(database, mode)
        assert not in_memory("site.db", "rw")

    def test_without_peewee_the_error_is_the_install_command(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "peewee", None)
        with pytest.raises(SchemaError, match=r"pip install 'uwsgi_waffle\[peewee\]'"):
            PeeweeWaffleStore(model=None)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:geheim@db.example/site", "postgresql://ann:***@db.example/site"),
        ("postgresql://ann:ge@heim@db1:1,db2:2/site", "postgresql://ann:***@db1:1,db2:2/site"),
        (
            "postgresql://db.example/site?user=ann&password=geheim&x=1",
            "postgresql://db.example/site?user=ann&password=***&x=1",
        ),
        ("site", "site"),
    ],
)
def test_a_url_of_peewees_is_shown_without_its_password(
    tmp_path: Path, url: str, shown: str
) -> None:
    model = peewee_model(tmp_path)
    model._meta.set_database(peewee.PostgresqlDatabase(url))
    assert PeeweeWaffleStore(model=model).name == f"PostgresqlDatabase {shown} (confs)"
