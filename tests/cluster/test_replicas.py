"""Two replicas: the leader is killed, stopped, cut off. The standby takes over each time, and was never restarted."""

from collections.abc import Iterator

import pytest
from cluster import replicas
from cluster.jobs import training
from cluster.kube import Kube
from cluster.running import Running

LEASE_SECONDS = 10
SURELY_PROBED = 95.0  # seconds after which a standby that fails its liveness probe would have been restarted


@pytest.fixture(scope="module")
def pair(running: Running) -> Iterator[Kube]:
    """Two replicas that have stood for a while."""
    kube = running.kube
    replicas.scale(kube, 2)
    kube.wait_for(
        lambda: min(map(replicas.age, replicas.pods(kube).values())) > SURELY_PROBED, timeout=100, what="their age"
    )
    yield kube
    replicas.scale(kube, 1)


def others(kube: Kube, leader: str) -> str:
    (standby,) = set(replicas.pods(kube)) - {leader}
    return standby


def decides(kube: Kube, leader: str) -> None:
    """It leads, is sent the reports, and decides: of a job that is too large for every node, at once."""
    kube.wait_for(lambda: replicas.leader(kube) == leader, timeout=LEASE_SECONDS + 10, what=f"the lease of {leader}")
    name = f"for-{leader[-5:]}"
    kube.apply(training(name, resources={"gpus": 64}))
    try:
        kube.wait("TrainingJob", name, lambda s: s.get("phase") == "Queued", timeout=5, what="a decision")
    finally:
        kube.kubectl("delete", "tj", name)
    kube.wait_for(lambda: leader in replicas.labelled(kube), timeout=5, what=f"the label of {leader}")


def test_the_leader_is_killed(pair: Kube) -> None:
    first = replicas.leader(pair)
    second = others(pair, first)
    before = replicas.pods(pair)
    pair.kill(before[first])
    pair.kubectl("--namespace", replicas.SYSTEM, "delete", "pod", first, "--grace-period=0", "--force")
    decides(pair, second)
    assert replicas.restarts(replicas.pods(pair)[second]) == 0, "the standby was restarted"
    pair.wait_for(lambda: len(replicas.ready(pair)) == 2, timeout=60, what="another standby")


@pytest.mark.parametrize("how", ["stopped", "cut off"])
def test_the_leader_is(pair: Kube, how: str) -> None:
    first = replicas.leader(pair)
    second = others(pair, first)
    before = replicas.pods(pair)
    with replicas.stopped(before[first]) if how == "stopped" else replicas.cut_off(pair, before[first]):
        decides(pair, second)
    pair.wait_for(lambda: replicas.labelled(pair) == [second], timeout=20, what="the other's step down")
    pair.wait_for(lambda: len(replicas.ready(pair)) == 2, timeout=30, what="two ready replicas")
    assert replicas.leader(pair) == second
    after = replicas.pods(pair)
    assert {name: replicas.restarts(pod) for name, pod in after.items()} == {
        name: replicas.restarts(pod) for name, pod in before.items()
    }, "who lost the lease stands by in the same process"
