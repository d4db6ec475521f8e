"""docs/stores.md, "Alembic and Flask-Migrate": a migration leaves the package's tables alone."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from uwsgi_waffle import WaffleConf

from ..sql_servers import PostgreSQL

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()


def include_name() -> Callable[..., bool]:
    """Return the function as the page shows it."""
    found = re.search(r"^def include_name.*?(?=^```)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    namespace: dict[str, Callable[..., bool]] = {}
    exec(found[0], namespace)
    return namespace["include_name"]


needs_migrate = pytest.mark.skipif(
    importlib.util.find_spec("flask_migrate") is None,
    reason="Flask-Migrate is not installed: pip install Flask-Migrate",
)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what Flask-Migrate's env.py does with `logging.config.fileConfig`."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


def leaves_them_alone(folder: Path, url: str, store_url: str, **options: Any) -> bool:
    """Let Flask-Migrate compare an application's database. Return whether it leaves our tables.

    If it does, the migration is made, and the values are still there.
    """
    from flask_migrate import Migrate, init, migrate, upgrade
    from flask_sqlalchemy import SQLAlchemy

    app = Flask("site", instance_path=str(folder))
    app.config.update(
        SQLALCHEMY_DATABASE_URI=url,
        WAFFLE_CONFS={"SITENAME": {"default": "Waffle"}},
        WAFFLE_STORE_URL=store_url,
        WAFFLE_NAMESPACE="shop",
    )
    db = SQLAlchemy(app)
    type("Page", (db.Model,), {"id": db.Column(db.Integer, primary_key=True)})
    waffle = WaffleConf(app)
    waffle.update({"SITENAME": "Gent"})
    Migrate(app, db, **options)
    migrations = folder / "migrations"
    with app.app_context():
        init(str(migrations))
        migrate(str(migrations))
        (script,) = (migrations / "versions").glob("*.py")
        assert "create_table('page'" in script.read_text(), "a test of the test"
        if seen := "waffle_values" in script.read_text():
            db.engine.dispose()
            return not seen
        upgrade(str(migrations))
        db.engine.dispose()
    waffle.refresh()
    assert waffle.values.SITENAME == "Gent"
    return True


@needs_migrate
@pytest.mark.parametrize("told", [False, True])
def test_flask_db_migrate(tmp_path: Path, told: bool) -> None:
    """Without the function it wants to drop them, with it it doesn't."""
    url = f"sqlite:///{tmp_path / 'site.db'}"
    options = {"include_name": include_name()} if told else {}
    assert leaves_them_alone(tmp_path, url, url, **options) is told


@needs_migrate
@pytest.mark.parametrize("apart", ["", "by URL", "by role"])
def test_a_schema_of_their_own(tmp_path: Path, postgresql_server: PostgreSQL, apart: str) -> None:
    """Named as the page shows it, in the store's URL or for its user, Alembic doesn't see them."""
    url = postgresql_server.fresh()
    (shown,) = re.findall(r"[?](options=-csearch_path%3D)waffle", PAGE)
    schema = f"waffle_{url.rpartition('%3D')[2]}"
    (create,) = re.findall(r"`(CREATE SCHEMA [^`]*)`", PAGE)
    (alter,) = re.findall(r"`(ALTER ROLE [^`]*)`", PAGE)
    user = "postgres" if apart != "by role" else schema
    if apart == "by role":
        postgresql_server.execute(f"CREATE USER {user}")
        postgresql_server.execute(alter.replace("waffle", user))
    statement = " ".join(create.split()).replace("site", user)
    postgresql_server.execute(statement.replace("SCHEMA waffle", f"SCHEMA {schema}"))
    store_url = {
        "": url,
        "by URL": f"{postgresql_server.url}&{shown}{schema}",
        "by role": postgresql_server.url.replace("//postgres@", f"//{user}@"),
    }[apart]
    assert leaves_them_alone(tmp_path, url, store_url) is bool(apart)
