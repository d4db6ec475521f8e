"""The run over several hosts, shortened; ``python -m tests.campaign`` has it for longer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from .hosts_run import HostsRun
from .networks import why_not
from .tally import Tally
from .test_long_run import SECONDS, SEED

CHANNELS = ("redis", "postgres")

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.mark.timeout(SECONDS + 400)
@pytest.mark.parametrize("channel", CHANNELS)
def test_counting(channel: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However hosts are cut off, paused and lost: the counter is what was acknowledged."""
    seconds = SECONDS / len(CHANNELS)
    tally = Tally.of(f"three hosts, {channel}, {seconds:g} s, seed {SEED}")

    def say(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    with tempfile.TemporaryDirectory(prefix="waffle-") as folder:  # pytest's is root's alone
        run = HostsRun(tmp_path, Path(folder), channel, seed=SEED, tally=tally, say=say)
        run.run(seconds)
    tally.verdict()
