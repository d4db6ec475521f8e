"""The long run, shortened; ``python -m tests.campaign`` has it for as long as one likes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..redis_server import RedisServer
from ..sql_servers import PostgreSQL
from .long_run import LongRun
from .tally import Tally

SECONDS = float(os.environ.get("CAMPAIGN_SECONDS") or (60 if "CI" in os.environ else 15))
SEED = int(os.environ.get("CAMPAIGN_SEED") or 1)


@pytest.mark.timeout(SECONDS + 300)
def test_the_long_run(
    tmp_path: Path,
    redis_server: RedisServer,
    postgresql_server: PostgreSQL,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tally = Tally.of(f"uWSGI, {SECONDS:g} s, seed {SEED}")

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    LongRun(tmp_path, redis_server, postgresql_server, seed=SEED, tally=tally, say=say).run(SECONDS)
    tally.verdict()
