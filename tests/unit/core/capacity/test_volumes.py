"""Volumes: only nodes that can mount them are chosen, a claim of one node keeps its jobs there, and why a job waits."""

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    PREEMPTION,
    T0,
    after,
    claim,
    foreign_pod,
    job,
    node,
    orphan,
    pool,
    snapshot,
    volume,
    whole,
)
from unit.core.cluster import Cluster

from rfuav_operator.core.capacity import volumes
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.model import (
    Kind,
    NodeTerm,
    Phase,
    PodPhase,
    Requirement,
    Resources,
    ScaleUp,
    Source,
    Volume,
)

NODES = [whole(f"n{i}", gpus=1) for i in range(4)]
WIDE = [whole(f"n{i}", gpus=4) for i in range(3)]


def cluster(*jobs, nodes=NODES, **rest) -> Cluster:
    made = Cluster(nodes, rest.pop("pools", ()), **rest)
    for one in jobs:
        made.add(one)
    return made.go()


def where(made: Cluster, name: str) -> list[str]:
    return [a.node for a in made.status(name).assignments]


def of(name: str, *claims: str, **rest):
    return job(name, claims=claims or ("data",), **rest)


# --- which claims a job mounts


def test_claims_stand_in_uris_and_in_the_volumes_of_the_template():
    spec = {
        "model": {"weights": "pvc://models/a"},
        "dataset": {"train": {"uri": "pvc://captures/x"}, "more": [{"uri": "pvc://other/y"}, {"uri": "s3://b/c"}]},
        "output": {"uri": "pvc://models/out"},
        "podTemplate": {"volumes": [{"persistentVolumeClaim": {"claimName": "extra"}}, {"emptyDir": {}}]},
    }
    assert volumes.named_in(spec) == ("captures", "extra", "models", "other")


@pytest.mark.parametrize("template", [5, [], {"volumes": 5}, {"volumes": [5, {"persistentVolumeClaim": []}]}])
def test_a_template_that_makes_no_sense_names_no_claims(template):
    assert volumes.named_in({"output": {"uri": "pvc://a/b"}, "podTemplate": template}) == ("a",)


def test_a_spec_of_any_depth_is_read():
    spec: dict = {"uri": "pvc://deep/x"}
    for _ in range(5000):
        spec = {"a": [spec]}
    assert volumes.named_in(spec) == ("deep",)


def test_the_weights_of_the_source_count_once_they_are_known():
    made = of("a")
    source = Source(name="s", uid="u", weights="pvc://weights/best.safetensors")
    assert volumes.claims_of(replace(made, status=replace(made.status, source=source))) == ("data", "weights")


# --- nodes that can mount a volume


def label(key, operator, *values):
    return NodeTerm(match_expressions=(Requirement(key=key, operator=operator, values=values),))


@pytest.mark.parametrize(
    ("terms", "reachable"),
    [
        ((label("zone", "In", "a", "b"),), True),
        ((label("zone", "In", "b"),), False),
        ((label("zone", "In", "b"), label("disk", "Exists")), True),  # one of the terms
        ((label("zone", "NotIn", "b"),), True),
        ((label("rack", "NotIn", "b"),), True),
        ((label("rack", "DoesNotExist"),), True),
        ((label("rack", "Exists"),), False),
        ((label("size", "Gt", "4"),), True),
        ((label("size", "Lt", "4"),), False),
        ((label("disk", "Gt", "4"),), False),
        ((label("zone", "Unknown", "a"),), False),
        ((label("kubernetes.io/hostname", "In", "n1"),), True),
        ((NodeTerm(match_fields=(Requirement(key="metadata.name", operator="In", values=("n1",)),)),), True),
        ((NodeTerm(match_fields=(Requirement(key="metadata.name", operator="In", values=("n2",)),)),), False),
        ((NodeTerm(),), False),
        ((), False),
        (None, True),
    ],
)
def test_a_volumes_node_affinity_is_read_as_the_scheduler_reads_it(terms, reachable):
    there = node("n1", labels={"zone": "a", "disk": "ssd", "size": "5"})
    assert Volume(name="pv", terms=terms).is_reachable(there) is reachable


@pytest.mark.parametrize(
    ("labels", "reachable"),
    [
        ({"topology.kubernetes.io/zone": "a"}, True),
        ({"topology.kubernetes.io/zone": "b"}, True),
        ({"topology.kubernetes.io/zone": "c"}, False),
        ({"failure-domain.beta.kubernetes.io/zone": "a"}, True),
        ({"topology.kubernetes.io/region": "a"}, False),
        ({}, True),  # of nodes that name no zone the scheduler asks nothing
    ],
)
def test_zone_labels_of_a_volume_choose_nodes(labels, reachable):
    assert volume("pv", zone="a__b").is_reachable(node(labels=labels)) is reachable


def test_a_volume_that_one_of_ten_nodes_can_mount_sends_the_job_there_at_once():
    made = cluster(
        of("a"),
        nodes=[whole(f"n{i}") for i in range(10)],
        claims=[claim(volume="pv")],
        volumes=[volume("pv", "n7")],
    )
    assert where(made, "a") == ["n7"]


def test_it_waits_for_room_on_a_node_that_can_mount_it():
    made = cluster(
        of("first"), of("second", created=after(1)), claims=[claim(volume="pv")], volumes=[volume("pv", "n2")]
    )
    assert (where(made, "first"), made.status("second").reason) == (["n2"], "WaitingForCapacity")
    assert "0 of 1 training slots free on 1 node" in made.status("second").message


def test_when_no_node_can_mount_it_the_message_names_the_volume():
    made = cluster(of("a"), claims=[claim(volume="pv")], volumes=[volume("pv", "elsewhere")])
    assert made.status("a").reason == "NoMatchingNode"
    assert "4 that cannot mount volume pv" in made.status("a").message


# --- claims that are not there


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ([], "waits for PersistentVolumeClaim data, which does not exist in namespace team (yet)"),
        ([claim(namespace="other")], "which does not exist in namespace team (yet)"),
        ([claim(phase="Lost", volume="pv")], "data has lost its PersistentVolume pv: create the claim again"),
        ([claim(volume="gone")], "waits for PersistentVolume gone of claim data, which does not exist (yet)"),
        ([claim(deleting=True)], "data is being deleted"),
    ],
)
def test_a_job_whose_claim_is_not_there_says_so(claims, words):
    made = cluster(of("a"), claims=claims)
    status = made.status("a")
    assert (status.phase, status.reason) == (Phase.QUEUED, "WaitingForVolume")
    assert words in status.message


def test_it_continues_when_the_claim_is_created_and_blocks_no_job_meanwhile():
    made = cluster(
        of("a"), job("b", created=after(1)), nodes=[whole("n0", gpus=2)], pools=[pool(queueing="StrictFIFO")]
    )
    assert where(made, "b") == ["n0"]
    made.set_claim(claim())  # not bound: it waits for its first pod
    assert where(made.go(), "a") == ["n0"]


# --- claims that one node mounts


@pytest.mark.parametrize("namespace", ["team", "other"])
def test_a_claim_in_use_by_somebody_else_sends_the_job_to_its_node(namespace):
    made = Cluster(NODES, claims=[claim(mode="ReadWriteOnce")])
    made.set_foreign(foreign_pod("editor", "n3", namespace=namespace, claims=("data",)))
    made.add(of("a"))
    assert (where(made.go(), "a") == ["n3"]) is (namespace == "team")


def test_two_jobs_of_one_claim_go_to_the_same_node_in_one_plan():
    made = cluster(
        of("a"),
        of("b", created=after(1)),
        job("c", created=after(2)),
        nodes=WIDE,
        pools=[pool(placement="Spread")],
        claims=[claim(mode="ReadWriteOnce")],
    )
    assert where(made, "a") == where(made, "b")
    assert where(made, "c") != where(made, "a")


def test_it_says_which_node_it_waits_for_and_moves_on_when_the_claim_is_free():
    made = cluster(of("a"), of("b", created=after(1)), claims=[claim(mode="ReadWriteOnce")])
    made.start_all()
    (here,) = where(made, "a")
    status = made.status("b")
    assert status.reason == "WaitingForCapacity"
    assert f"needs 1 GPU on {here}, where team/data is in use (ReadWriteOnce)" in status.message
    made.finish(made.pods_of("a")[0].name)
    assert made.go().status("b").phase is Phase.ADMITTED


def test_a_node_that_does_not_suit_is_named_with_the_claim():
    made = Cluster(NODES, claims=[claim(mode="ReadWriteOnce")])
    made.set_node(whole("n3", gpus=1, unschedulable=True), "n3")
    made.set_foreign(foreign_pod("editor", "n3", namespace="team", claims=("data",)))
    made.add(of("a"))
    status = made.go().status("a")
    assert status.reason == "NoMatchingNode"
    assert "on n3, where team/data is in use" in status.message


@pytest.mark.parametrize("mode", ["ReadWriteMany", "ReadOnlyMany"])
def test_claims_of_several_nodes_bind_nobody(mode):
    made = cluster(of("a"), of("b", created=after(1)), claims=[claim(mode=mode)])
    assert where(made, "a") != where(made, "b")


def test_a_claim_of_one_pod_is_waited_for():
    made = cluster(of("a"), of("b", created=after(1)), nodes=WIDE, claims=[claim(mode="ReadWriteOncePod")])
    made.start_all()
    status = made.status("b")
    pod = made.pods_of("a")[0]
    assert status.reason == "WaitingForVolume"
    assert f"team/data is ReadWriteOncePod and in use by pod {pod.name} on {pod.node}" in status.message
    made.finish(pod.name)
    assert made.go().status("b").phase is Phase.ADMITTED


def test_two_claims_in_use_on_two_nodes_are_waited_for():
    made = Cluster(NODES, claims=[claim("x", "ReadWriteOnce"), claim("y", "ReadWriteOnce")])
    users = [foreign_pod(f"on-{c}", n, namespace="team", claims=(c,)) for c, n in (("x", "n1"), ("y", "n2"))]
    made.set_foreign(*users)
    made.add(of("a", "x", "y"))
    status = made.go().status("a")
    assert status.reason == "WaitingForVolume"
    assert "team/x by pod team/on-x on n1, team/y by pod team/on-y on n2" in status.message
    made.set_foreign(users[0])
    assert where(made.go(), "a") == ["n1"]


def test_all_shards_of_a_job_run_where_its_claim_is():
    many = of("a", kind=Kind.INFERENCE, shards=3, parallelism=3)
    made = cluster(many, nodes=WIDE, pools=[pool(placement="Spread")], claims=[claim(mode="ReadWriteOnce")])
    assert len(set(where(made, "a"))) == 1
    assert len(where(made, "a")) == 3


def test_a_job_of_several_nodes_cannot_use_a_claim_of_one():
    made = cluster(of("a", nodes=2), claims=[claim(mode="ReadWriteOnce")])
    status = made.status("a")
    assert status.reason == "WaitingForVolume"
    assert "one node can mount it, and spec.nodes is 2; use a claim with ReadWriteMany" in status.message


def test_a_pod_that_still_stops_keeps_the_claim_on_its_node():
    """Its job is gone: what it mounts is known by the pod alone."""
    made = cluster(of("a"), claims=[claim(mode="ReadWriteOnce")])
    made.start_all()
    (here,) = where(made, "a")
    made.delete_job(made.named("a").uid)
    made.add(of("b"))
    assert "is in use (ReadWriteOnce)" in made.go().status("b").message
    assert where(made.leave(), "b")
    assert here


def test_nobody_is_stopped_on_another_node_for_a_job_that_a_claim_binds():
    made = cluster(
        *(job(f"low{i}", priority_class_name="low") for i in range(4)),
        pools=[pool(preemption=replace(PREEMPTION, min_runtime_seconds=0))],
        claims=[claim(mode="ReadWriteOnce")],
    )
    made.start_all()
    made.go(60)
    made.set_foreign(foreign_pod("editor", "n2", namespace="team", claims=("data",)))
    made.add(of("a", priority_class_name="high"))
    made.go()
    assert [p.node for p in made.pods.values() if p.deleting] == ["n2"]


def test_a_pool_does_not_grow_for_a_job_that_a_claim_binds():
    made = cluster(
        job("b"),
        nodes=[whole("n0", gpus=1)],
        pools=[pool(scale_up=ScaleUp(max_jobs=2))],
        claims=[claim(mode="ReadWriteOnce")],
    )
    made.set_foreign(foreign_pod("editor", "n0", namespace="team", claims=("data",)))
    made.add(of("a"))
    made.add(job("c", resources=Resources(gpus=1, cpu="1", memory="1Gi")))
    made.go()
    assert (where(made, "a"), where(made, "c")) == ([], [""])


def test_a_pod_of_others_that_ended_uses_no_claim():
    made = Cluster(NODES, claims=[claim(mode="ReadWriteOncePod")])
    user = foreign_pod("editor", "n3", namespace="team", claims=("data",))
    made.set_foreign(user)
    made.add(of("a"))
    assert made.go().status("a").reason == "WaitingForVolume"
    made.set_foreign(replace(user, name="other", claims=(), phase=PodPhase.RUNNING))
    assert made.go().status("a").phase is Phase.ADMITTED


def test_a_claim_of_which_no_mode_is_known_is_one_of_one_node():
    made = cluster(of("a"), of("b", created=after(1)), claims=[replace(claim(), modes=frozenset())])
    assert where(made, "a") == where(made, "b") or made.status("b").phase is Phase.QUEUED


def test_a_claim_used_on_an_unknown_node_is_in_use_there():
    """The Node object is gone, and what runs there may still have the volume."""
    made = Cluster(NODES, claims=[claim(mode="ReadWriteOnce")])
    made.set_foreign(foreign_pod("editor", "gone", namespace="team", claims=("data",)))
    made.add(of("a"))
    status = made.go().status("a")
    assert status.phase is Phase.QUEUED
    assert "on gone, where team/data is in use" in status.message


@pytest.mark.parametrize("order", [("n1", "n2"), ("n2", "n1")])
def test_a_claim_follows_a_pod_that_is_bound_elsewhere_than_it_was_made_for(order):
    """In whichever order the two nodes are looked at."""
    user = orphan("o", "n2", gpus=0, namespace="team", claims=("data",))
    seen = snapshot(nodes=NODES, foreign=[user])
    usage = Usage(seen, seen.jobs, T0)
    assert usage.nodes_of_claims(["team/data"]) == {"n2"}
    seen = snapshot(nodes=NODES, foreign=[replace(user, node="n1", phase=PodPhase.RUNNING)])
    for name in order:
        usage.update_node(name, seen, T0)
    assert usage.nodes_of_claims(["team/data"]) == {"n1"}
