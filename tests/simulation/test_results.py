"""Results pass through the operator: they go with statuses that are written anyway."""

import pytest
from simulation.kubelet import Kubelet
from simulation.play import play_seed


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_results_cost_no_request(seed, monkeypatch):
    with_them = play_seed(seed)
    monkeypatch.setattr(Kubelet, "with_results", False)
    without = play_seed(seed)
    assert not with_them.violation
    assert (with_them.requests, with_them.events) == (without.requests, without.events)
    assert with_them.digest != without.digest  # there were some
