"""A thousand histories, every one replayable with `make simulate SEED=n`: all invariants hold, and every job ends.

The seeds are fixed, so that a failure can be repeated. They move on by a thousand with each release: seeds that always hold
find nothing new. `RFUAV_HISTORIES=n` plays another number of them.
"""

import os

import pytest
from simulation.many import executor, play_many

FIRST = 1_000
HISTORIES = int(os.environ.get("RFUAV_HISTORIES", "1000"))


@pytest.mark.timeout(600)
def test_all_invariants_hold(capsys):
    with executor(2) as workers:
        summary = play_many(range(FIRST, FIRST + HISTORIES), workers)
    with capsys.disabled():
        print(f"\n{summary}")
    assert not summary.failed, "\n".join(
        f"make simulate SEED={result.seed}: {result.violation}" for result in summary.failed
    )
    # Histories in which little happens would prove little.
    assert summary.events > 200 * HISTORIES
    assert summary.faults > 20 * HISTORIES
