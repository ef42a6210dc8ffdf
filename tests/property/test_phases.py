"""The table of phases, walked: what it allows goes on, everything else is refused, and every job can end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfuav_operator.core.job.phases import FOLLOWING, IllegalTransitionError, move
from rfuav_operator.core.model import JobStatus, Phase

many = settings(max_examples=300, derandomize=True, deadline=None)


def reachable(start: Phase | None) -> set[Phase]:
    found: set[Phase] = set()
    left = [start]
    while left:
        for phase in FOLLOWING[left.pop()] - found:
            found.add(phase)
            left.append(phase)
    return found


@many
@given(wanted=st.lists(st.sampled_from(Phase), max_size=12))
def test_a_walk_takes_the_steps_of_the_table_and_no_others(wanted):
    status = JobStatus()
    for phase in wanted:
        before = status
        if phase is before.phase or phase in FOLLOWING[before.phase]:
            status = move(status, phase, reason="Because")
            assert (status.phase, status.reason) == (phase, "Because")
        else:
            with pytest.raises(IllegalTransitionError):
                move(status, phase)


def test_every_phase_is_in_the_table_and_can_be_reached():
    assert FOLLOWING.keys() == {None, *Phase}
    assert reachable(None) == set(Phase)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_phase_is_terminal_when_none_follows_and_every_other_can_end(phase):
    assert phase.terminal == (not FOLLOWING[phase])
    assert phase.terminal or {Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED} <= reachable(phase)
