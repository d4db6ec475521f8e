"""Every input that the fuzzing has kept, without the fuzzer."""

from __future__ import annotations

import pytest

from .fuzz import inputs
from .tally import Tally
from .targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_stays_found(target: str) -> None:
    tally = Tally.of(f"bytes that the fuzzer has found: {target}")
    kept = inputs(target)
    assert kept
    for data in kept:
        TARGETS[target](data)
        tally.faults += 1
