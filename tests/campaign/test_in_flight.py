"""A writer is killed while the database is committing for it: the commit may come after everybody
has looked.
"""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from uwsgi_waffle import SQLStore

from ..live.servers import eventually
from ..sql_servers import PostgreSQL
from .sites import SLOW, Site, new_values
from .tally import Tally

pytestmark = pytest.mark.usefixtures("quiet_host")

HELD_COMMITS = (
    "CREATE FUNCTION hold() RETURNS trigger AS 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN "
    "NULL; END' LANGUAGE plpgsql",
    "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON waffle_history DEFERRABLE INITIALLY "
    "DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()",
)


def test_a_commit_that_outlives_its_writer(tmp_path: Path, postgresql_server: PostgreSQL) -> None:
    """Whoever answers the dead writer's bell waits for it, and doesn't say that the old values are
    the newest.
    """
    tally = Tally.of("killed while the database commits")
    url = postgresql_server.fresh()
    site = Site(tmp_path, partial(SQLStore, url, timeout=SLOW), tally)
    dying, reader = site.start(), site.start()
    reader.waffle.update(new_values(1))
    engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as holder, engine.connect() as question:
        for statement in HELD_COMMITS:
            holder.exec_driver_sql(statement)
        holder.exec_driver_sql("SELECT pg_advisory_lock(7)")

        def waiting() -> int:
            """Return how many wait in the server: the commit for us, and readers for the commit."""
            return int(
                question.exec_driver_sql(
                    "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
                ).scalar()
                or 0
            )

        pid = os.fork()
        if pid == 0:
            try:
                dying.waffle.update(new_values(2))
            finally:
                os._exit(1)
        eventually(waiting)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        tally.faults += 1
        look = threading.Thread(target=reader.state.look)
        look.start()
        eventually(lambda: waiting() > 1 or not look.is_alive())
        holder.exec_driver_sql("SELECT pg_advisory_unlock(7)")
        look.join()
        eventually(lambda: waiting() == 0)
        assert site.judge({"a reader": reader}, "killed during the commit").revision == 2
        site.judge(
            {"a reader": reader, "a new process": site.start()},
            "killed during the commit, then started",
        )
    assert not reader.files.is_in_flight()
    tally.verdict()
