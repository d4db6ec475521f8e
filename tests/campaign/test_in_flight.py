"""A writer is killed while the database commits for it: the commit may come after a look."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from ..live.servers import eventually
from ..sql_servers import PostgreSQL
from .sites import Site, new_values, sql
from .tally import Tally

pytestmark = pytest.mark.usefixtures("quiet_host")

HELD_COMMITS = (
    "CREATE FUNCTION hold() RETURNS trigger AS 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN "
    "NULL; END' LANGUAGE plpgsql",
    "CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON waffle_history DEFERRABLE INITIALLY "
    "DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()",
)


def test_a_commit_that_outlives_its_writer(tmp_path: Path, postgresql_server: PostgreSQL) -> None:
    """The next reader waits for it, and doesn't take the old values for the newest."""
    tally = Tally.of("killed while the database commits")
    url = postgresql_server.fresh()
    site = Site(tmp_path, sql(url), tally)
    dying, reader = site.start(), site.start()
    reader.waffle.update(new_values(1))
    engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as holder, engine.connect() as question:
        for statement in HELD_COMMITS:
            holder.exec_driver_sql(statement)
        holder.exec_driver_sql("SELECT pg_advisory_lock(7)")

        def waiting() -> int:
            """Return how many wait in the server: the commit for us, and readers for the commit."""
            asked = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
            return int(question.exec_driver_sql(asked).scalar() or 0)

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
        look = threading.Thread(target=reader.follow)
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
    tally.verdict()
