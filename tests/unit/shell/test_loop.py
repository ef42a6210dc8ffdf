"""The loop keeps nothing of what is gone."""

from typing import Any

from msgspec.structs import replace
from unit.core.builders import admitted, job, node, pod_of

from rfuav_operator.core.model import Defaults, NodeName, PodPhase
from rfuav_operator.shell import clock, loop
from rfuav_operator.shell.loop import Loop
from rfuav_operator.shell.state import ClusterState


def test_ends_on_nodes_that_are_gone_are_forgotten(monkeypatch):
    """A cluster that scales has another name for every node that comes."""
    now = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    writer: Any = None
    made = Loop(ClusterState(Defaults()), writer, lambda _jobs: [])
    held = admitted(job("a"), nodes=[node()])[0]
    for index in range(1000):
        now[0] += 1.0
        pod = pod_of(held, phase=PodPhase.RUNNING, node=NodeName(f"spot-{index}"))
        made.pod_changed(pod, replace(pod, phase=PodPhase.SUCCEEDED))
    assert len(made._freed) <= 2 * loop.HANDOFF_LIMIT + 1
