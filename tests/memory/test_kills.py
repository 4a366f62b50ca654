"""Processes are killed at random moments, again and again, on the same memory."""

import time
from random import Random

import pytest

from scripts.soak.nursery import Nursery
from scripts.soak.rounds import MODULE, Soak

pytestmark = pytest.mark.slow

ROUNDS = 10


@pytest.fixture(scope="module")
def nursery():
    with Nursery(MODULE) as nursery:
        yield nursery


@pytest.mark.parametrize("sync", ["power", "process"])
def test_nothing_acknowledged_is_lost_to_kills(tmp_path, nursery, sync):
    """Two writers, a process that tidies up and thins, and a reader that checks every byte."""
    soak = Soak(tmp_path / "memory", nursery, Random(time.strftime("%j")))
    for _ in range(ROUNDS):
        soak.round(sync)
    soak.finish()
    assert soak.ledger.done > 2 * ROUNDS
