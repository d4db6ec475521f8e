"""The tables of `SQLStore`, and the statements on them.

The statements are built once: building one takes SQLAlchemy longer than SQLite needs to run it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

TABLES_VERSION = 1

# A server's own defaults on MySQL and MariaDB may mix up cases, lose characters or know no
# transactions.
KEY = sa.String(255).with_variant(
    mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), "mysql", "mariadb")
UTC_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
TRANSACTIONAL: dict[str, Any] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}

metadata = sa.MetaData()
meta = sa.Table(
    "waffle_meta",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    **TRANSACTIONAL,
)
values = sa.Table(
    "waffle_values",
    metadata,
    sa.Column("key", KEY, primary_key=True),
    sa.Column("value", LONG_TEXT, nullable=False),
    **TRANSACTIONAL,
)
history = sa.Table(
    "waffle_history",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False, index=True),
    sa.Column("key", KEY, nullable=False, index=True),
    sa.Column("old", LONG_TEXT),
    sa.Column("new", LONG_TEXT),
    sa.Column("actor", LONG_TEXT),
    sa.Column("note", LONG_TEXT),
    sa.Column("at", UTC_TIME, nullable=False),
    **TRANSACTIONAL,
)

VERSION = sa.select(meta.c.version)
# The first of a writing transaction: it takes the lock that orders the writers of all hosts.
NEXT_REVISION = meta.update().values(revision=meta.c.revision + 1)
LOCK = sa.select(meta.c.revision).with_for_update()
KEY_IS = values.c.key == sa.bindparam("key_is")
INSERT = values.insert()
UPDATE = values.update().where(KEY_IS)
DELETE = values.delete().where(KEY_IS)
INSERT_HISTORY = history.insert()
HISTORY_COLUMNS = tuple(column.name for column in history.c if column.name != "id")
# One statement, so that no isolation level can show a revision beside the values of another.
SNAPSHOT = sa.select(meta.c.version, meta.c.revision, values.c.key, values.c.value).select_from(
    meta.outerjoin(values, sa.true())
)
