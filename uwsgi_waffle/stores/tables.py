"""The tables of `SQLStore`, and the statements on them.

The statements are built once: building one takes SQLAlchemy longer than SQLite needs to run it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa

__all__ = ["DECLARED", "NEWEST", "TABLES_VERSION", "Tables", "as_text", "tables_of"]

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
        types = _types(mysql=mysql)
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
            .where(meta.c.revision.between(0, NEWEST))  # not what is damaged
            .values(revision=meta.c.revision + 1)
        )
        self.lock = sa.select(meta.c.revision).with_for_update()
        key_is = values.c.key == sa.bindparam("key_is")
        self.insert = values.insert()
        self.update = values.update().where(key_is)
        self.delete = values.delete().where(key_is)
        self.insert_history = self.history.insert()
        self.snapshot = sa.select(
            meta.c.version, meta.c.revision, values.c.key, values.c.value
        ).select_from(meta.outerjoin(values, sa.true()))

    def until(self, revision: int) -> sa.Select[Any]:
        """Return what selects the history up to a revision, with the rows that are damaged."""
        history = self.history.c
        later = history.revision.between(revision + 1, NEWEST)
        query = sa.select(history.revision, history.key, history.new)
        return query.where(~later).order_by(history.id)


def _history(name: str, metadata: sa.MetaData, types: tuple[Any, ...]) -> sa.Table:
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


def _types(*, mysql: bool) -> tuple[Any, ...]:
    """Return the types of keys, texts and times, and the options of each table.

    A MySQL server's own defaults may mix up cases, lose characters or know no transactions.
    """
    if not mysql:
        return sa.String(255), sa.Text(), sa.DateTime(), {}
    from sqlalchemy.dialects import mysql as types  # only here: its many modules take memory

    key = types.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin")
    text, time = types.LONGTEXT(charset="utf8mb4"), types.DATETIME(fsp=6)
    return key, text, time, {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}


def as_text(value: Any) -> Any:
    """Return the text that somebody may have written as bytes, which SQLite keeps so."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@cache
def tables_of(namespace: str, *, mysql: bool) -> Tables:
    """Return the tables of a namespace."""
    return Tables(namespace, mysql=mysql)
