"""The tables of `SQLStore`, and the statements on them.

The statements are built once: building one takes SQLAlchemy longer than SQLite needs to run it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa

__all__ = ["DECLARED", "TABLES_VERSION", "Tables", "as_text", "is_sound", "tables_of"]

TABLES_VERSION = 1
NEWEST = 2**63 - 2  # of all revisions
DECLARED = "WAFFLE_DECLARED"  # the key of `Stored.declared`, which no variable can have


class Tables:
    """The three tables of one namespace.

    Args:
        mysql: whether they are for MySQL or MariaDB.

    Attributes:
        next_revision: the first statement of a writing transaction: it takes the lock that orders
            the writers of all hosts.
        snapshot: one statement, so that no isolation level can show a revision beside the values of
            another.
    """

    def __init__(self, namespace: str, *, mysql: bool) -> None:
        types = _for_mysql() if mysql else _for_others()
        key, text, _, options = types
        prefix = f"{namespace}_" if namespace else ""
        self.metadata = sa.MetaData()
        self.meta = meta = sa.Table(
            f"{prefix}waffle_meta",
            self.metadata,
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("revision", sa.BigInteger, nullable=False),
            **options,
        )
        self.values = values = sa.Table(
            f"{prefix}waffle_values",
            self.metadata,
            sa.Column("key", key, primary_key=True),
            sa.Column("value", text, nullable=False),
            **options,
        )
        self.history = _history(f"{prefix}waffle_history", self.metadata, types)
        self.version = sa.select(meta.c.version)
        self.next_revision = (
            meta.update()
            .where(meta.c.revision.between(0, NEWEST))  # not what `is_sound` refuses
            .values(revision=meta.c.revision + 1)
        )
        self.lock = sa.select(meta.c.revision).with_for_update()
        key_is = values.c.key == sa.bindparam("key_is")
        self.insert = values.insert()
        self.update = values.update().where(key_is)
        self.delete = values.delete().where(key_is)
        self.insert_history = self.history.insert()
        self.history_columns = tuple(c.name for c in self.history.c if c.name != "id")
        self.snapshot = sa.select(
            meta.c.version, meta.c.revision, values.c.key, values.c.value
        ).select_from(meta.outerjoin(values, sa.true()))

    def until(self, revision: int) -> sa.Select[Any]:
        """Return what selects the history up to a revision, with the rows that are damaged."""
        history = self.history.c
        later = history.revision.between(revision + 1, NEWEST)
        query = sa.select(history.revision, history.key, history.new)
        return query.where(~later).order_by(history.id)


def _history(name: str, metadata: sa.MetaData, types: _Types) -> sa.Table:
    key, text, time, options = types
    return sa.Table(
        name,
        metadata,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False, index=True),
        sa.Column("key", key, nullable=False, index=True),
        sa.Column("old", text),
        sa.Column("new", text),
        sa.Column("actor", text),
        sa.Column("note", text),
        sa.Column("at", time, nullable=False),
        **options,
    )


#: The types of keys, texts and times, and the options of each table.
_Types = tuple[Any, Any, Any, dict[str, Any]]


def _for_others() -> _Types:
    return sa.String(255), sa.Text(), sa.DateTime(), {}


def _for_mysql() -> _Types:
    """Return what MySQL and MariaDB need.

    A server's own defaults may mix up cases, lose characters or know no transactions.
    """
    from sqlalchemy.dialects import mysql  # only here: its many modules take memory

    key = mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin")
    text, time = mysql.LONGTEXT(charset="utf8mb4"), mysql.DATETIME(fsp=6)
    return key, text, time, {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}


def is_sound(column: sa.Column[Any], value: object) -> bool:
    """Return whether a key or a revision is one: SQLite takes any value.

    An update of a key in bytes would find no row.
    """
    if column.name == "key":
        return isinstance(value, str)
    return isinstance(value, int) and 0 <= value <= NEWEST


def as_text(value: Any) -> Any:
    """Return the text that somebody may have written as bytes, which SQLite keeps so."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@cache
def tables_of(namespace: str, *, mysql: bool) -> Tables:
    """Return the tables of a namespace."""
    return Tables(namespace, mysql=mysql)
