"""Pods with our labels and without an owner: bound, they take room by their kind; not bound, for a minute at most."""

import pytest
from msgspec.structs import replace
from unit.core.builders import after, claim, foreign_pod, job, node, orphan, pool
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Kind, NodeName, PerNodeCpu, Phase, PodPhase, Resources
from rfuav_operator.core.quantity import Amounts

ONE = {"gpus": 1, "slots": 4}  # a node that takes one training at a time


def with_orphan(**changes):
    made = Cluster([node("n1", **ONE)])
    made.set_foreign(orphan("left", "n1", **changes))
    made.add(job())
    return made.go()


def test_an_orphan_that_is_about_to_be_bound_counts_for_a_minute():
    made = with_orphan()
    assert made.status("a").reason == "WaitingForCapacity"
    made.go(20)
    made.go(39)
    assert made.status("a").phase is Phase.QUEUED
    assert made.wake_at == after(60)
    made.go(1)
    assert [a.node for a in made.status("a").assignments] == ["n1"]


def test_the_minute_is_that_of_its_creation():
    assert with_orphan(created=after(-59)).status("a").phase is Phase.QUEUED
    assert with_orphan(created=after(-60)).status("a").phase is Phase.ADMITTED


def test_it_counts_again_when_it_is_bound_after_all():
    made = with_orphan(created=after(-3600))
    made.finish(made.start_all().pods_of("a")[0].name)
    made.add(job("b"))
    bound = orphan("left", "n1", node=NodeName("n1"))
    made.set_foreign(bound)
    assert made.go(60).status("b").phase is Phase.QUEUED
    made.set_foreign(replace(bound, phase=PodPhase.SUCCEEDED, requests=Amounts(pods=1)))
    assert made.go().status("b").phase is Phase.ADMITTED


def test_several_end_one_after_the_other():
    made = Cluster([node("n1", gpus=2, slots=8)])
    made.set_foreign(orphan("x", "n1", created=after(-30)), orphan("y", "n1", created=after(-10)))
    made.add(job("a"))
    made.add(job("b", created=after(1)))
    assert [s.phase for s in (made.go().status("a"), made.status("b"))] == [Phase.QUEUED, Phase.QUEUED]
    made.go(30)
    assert [s.phase for s in (made.status("a"), made.status("b"))] == [Phase.ADMITTED, Phase.QUEUED]
    made.go(20)
    assert made.status("b").phase is Phase.ADMITTED


def test_what_is_never_bound_holds_no_claim_either():
    """A ReadWriteOnce claim that it names does not send others to its node for ever."""
    made = Cluster([node("n1", **ONE), node("n2", **ONE)], claims=[claim("models", "ReadWriteOnce")])
    made.set_foreign(
        orphan("left", "n1", namespace="team", claims=("models",)),
        foreign_pod("full", "n1", gpus=4),
    )
    made.add(job(claims=("models",)))
    assert made.go().status("a").phase is Phase.QUEUED
    made.go(60)
    assert [a.node for a in made.status("a").assignments] == ["n2"]


@pytest.mark.parametrize("kind", Kind)
def test_a_node_that_is_gone_is_not_looked_at_for_ever(kind):
    made = with_orphan(kind=kind)
    made.set_node(None, "n1")
    made.go(60)
    assert made.wake_at is None or made.wake_at > after(60)


@pytest.mark.parametrize("bound", [NodeName("n1"), None])
def test_one_without_gpu_takes_the_place_of_a_job(bound):
    without = Resources(gpus=0, cpu="1", memory="1Gi")
    made = Cluster([node("n1", gpus=0, slots=0)], [pool(per_node_cpu=PerNodeCpu(training=1, inference=1))])
    made.set_foreign(orphan("left", "n1", gpus=0, node=bound))
    made.add(job("a", resources=without))
    made.add(job("b", kind=Kind.INFERENCE, resources=without))
    assert made.go().running() == {"b"}
    made.set_foreign()
    assert made.go().running() == {"a", "b"}
