"""docs/stores.md, "Alembic and Flask-Migrate": a migration leaves the package's tables alone."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from uwsgi_waffle import SQLStore, WaffleConf

PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text()


def include_name() -> Callable[..., bool]:
    """Return the function as the page shows it."""
    found = re.search(r"^def include_name.*?(?=^```)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    namespace: dict[str, Callable[..., bool]] = {}
    exec(found[0], namespace)
    return namespace["include_name"]


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(
    importlib.util.find_spec("flask_migrate") is None,
    reason="Flask-Migrate is not installed: pip install Flask-Migrate",
)
@pytest.mark.parametrize("told", [False, True])
def test_flask_db_migrate(tmp_path: Path, told: bool) -> None:
    """Without the function it wants to drop them, with it it doesn't."""
    from flask_migrate import Migrate, init, migrate, upgrade
    from flask_sqlalchemy import SQLAlchemy

    url = f"sqlite:///{tmp_path / 'site.db'}"
    app = Flask("site", instance_path=str(tmp_path))
    app.config.update(SQLALCHEMY_DATABASE_URI=url, WAFFLE_CONFS={"SITENAME": {"default": "Waffle"}})
    db = SQLAlchemy(app)
    type("Page", (db.Model,), {"id": db.Column(db.Integer, primary_key=True)})
    waffle = WaffleConf(app, SQLStore(url))
    waffle.update({"SITENAME": "Gent"})
    Migrate(app, db, **({"include_name": include_name()} if told else {}))
    with app.app_context():
        init(str(tmp_path / "migrations"))
        migrate(str(tmp_path / "migrations"))
        (script,) = (tmp_path / "migrations" / "versions").glob("*.py")
        assert ("waffle_values" in script.read_text()) is not told
        if told:
            upgrade(str(tmp_path / "migrations"))
            db.engine.dispose()
            waffle.refresh()
            assert waffle.values.SITENAME == "Gent"
