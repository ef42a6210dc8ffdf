"""The choice of a node was wrong: the scheduler refuses it, or it goes away before the pod is bound."""

import pytest
from msgspec.structs import replace
from unit.core.builders import after, job, node, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.job import vetoes
from rfuav_operator.core.model import NodeName, Phase, Taint

OTHERS = "9 node(s) didn't satisfy plugin(s) [NodeAffinity]"
CONFLICT = f"0/10 nodes are available: 1 node(s) had volume node affinity conflict, {OTHERS}. preemption: 0/10 nodes \
are available: 10 Preemption is not helpful for scheduling."


def refuse(made: Cluster, words: str = CONFLICT, name: str = "a") -> str:
    """The scheduler refuses the job's pod; the node that it was for."""
    (pod,) = made.pods_of(name)
    made.change_pod(pod.name, unschedulable=words, unschedulable_since=made.now)
    made.go()
    return str(pod.wanted_node)


# --- what the scheduler's words mean


@pytest.mark.parametrize(
    ("reasons", "meant"),
    [
        (f"1 node(s) had volume node affinity conflict, {OTHERS}.", vetoes.Veto.NODE),
        (
            "1 node(s) had untolerated taint {dedicated: x}, 3 node(s) didn't match Pod's node affinity/selector.",
            "node",
        ),
        (f"1 node(s) exceed max volume count, {OTHERS}.", "node"),
        ("1 node(s) were unschedulable. preemption: 0/1 nodes are available: 1 Preemption is not helpful.", "node"),
        ("3 node(s) didn't satisfy plugin(s) [NodeAffinity].", "node"),
        ("1 node(s) didn't find available persistent volumes to bind, 2 node(s) didn't match ...", "node"),
        (f"1 node(s) had untolerated taint(s), {OTHERS}.", "node"),
        (f"1 node(s) didn't match pod anti-affinity rules, {OTHERS}.", "node"),
        (f"1 node(s) didn't have free ports for the requested pod ports, {OTHERS}.", "node"),
        (f"1 node(s) had untolerated taint {{node.cilium.io/agent-not-ready: }}, {OTHERS}.", "node"),
        (f"1 cannot allocate all claims, {OTHERS}.", "node"),
        (f"1 node(s) didn't match pod topology spread constraints (missing required label), {OTHERS}.", "node"),
        (f"1 Insufficient ephemeral-storage, {OTHERS}.", None),
        (f"1 Insufficient nvidia.com/gpu, {OTHERS}. preemption: 0/2 nodes are available: 1 ...", None),
        (f"1 Insufficient cpu, 1 Insufficient memory, {OTHERS}.", None),
        (f"1 Too many pods, {OTHERS}.", None),
        ("pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes are available: ...", "volume"),
        ('persistentvolumeclaim "x" not found.', "volume"),
        ("1 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).", "volume"),
        (f"1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode, {OTHERS}", "volume"),
    ],
)
def test_what_the_scheduler_refuses(reasons, meant):
    assert vetoes.of(f"0/10 nodes are available: {reasons}") == (None if meant is None else vetoes.Veto(meant))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "no nodes available to schedule pods",
        "waits for its volume",
        "0/x nodes",
        "Scheduling is blocked due to non-empty scheduling gates",
        'running Bind plugin "DefaultBinder": etcdserver: request timed out',
        "nodes are available: none",
    ],
)
def test_other_words_are_waited_on(words):
    assert vetoes.of(words) is None


# --- a node that is refused


def test_a_refused_node_is_left_after_some_seconds_and_others_come_first():
    made = Cluster([whole(f"n{i}") for i in range(10)])
    made.add(job("a"))
    made.go()
    tried = []
    for _ in range(9):
        tried.append(refuse(made))
        made.go(21)
        made.leave().go(15)
    assert len(set(tried)) == 9
    assert made.now < after(600)
    status = made.status("a")
    assert status.assignments[0].node not in tried
    assert (status.counted_failures, status.uncounted_failures, status.rejections) == (0, 0, 0)
    assert "volume node affinity conflict" in status.failures[-1].message
    made.start_all()
    made.go()
    assert made.status("a").phase is Phase.RUNNING
    assert made.status("a").vetoes == {}


def test_when_all_nodes_are_refused_the_job_says_so_and_holds_nothing():
    made = Cluster([whole("n0"), whole("n1")])
    made.add(job("a"))
    made.go()
    for _ in range(2):
        refuse(made)
        made.go(21)
        made.leave().go(15)
    status = made.status("a")
    assert (status.phase, status.reason, status.assignments) == (Phase.QUEUED, "Unschedulable", ())
    assert "refused every suitable node (n0, n1)" in status.message
    assert "volume node affinity conflict" in status.message
    made.go(600)
    assert made.status("a").phase is Phase.ADMITTED  # one is tried again


def test_a_node_is_avoided_for_longer_each_time():
    made = Cluster([whole("n0")])
    made.add(job("a"))
    made.go()
    waits = []
    for _ in range(4):
        refuse(made)
        made.go(21)
        made.leave().go(15)
        (until,) = made.status("a").avoided_nodes.values()
        waits.append(round((until - made.now).total_seconds() + 15, -2))
        made.go((until - made.now).total_seconds() + 1)
    assert waits == [600, 1200, 2400, 4800]


def test_a_node_that_was_refused_long_ago_comes_after_those_never_tried():
    made = Cluster([whole("n0", gpus=1), whole("n1", gpus=1)])
    one = job("a")
    made.add(replace(one, status=replace(one.status, vetoes={"n0": 1})))
    assert [a.node for a in made.go().status("a").assignments] == ["n1"]
    made.add(replace(job("b"), status=replace(one.status, vetoes={"n0": 1})))
    assert [a.node for a in made.go().status("b").assignments] == ["n0"]


def test_what_may_come_back_by_itself_is_waited_for():
    made = Cluster([whole("n0")])
    made.add(job("a"))
    made.go()
    refuse(made, f"0/10 nodes are available: 1 Insufficient nvidia.com/gpu, {OTHERS}.")
    made.go(299)
    assert made.status("a").assignments
    assert not made.status("a").failures
    made.go(2)
    status = made.status("a")
    assert (status.failures[0].reason, status.uncounted_failures, status.rejections) == ("ScheduleTimeout", 0, 1)


def test_a_claim_that_no_node_can_mount_is_not_held_against_the_node():
    made = Cluster([whole("n0")])
    made.add(job("a"))
    made.go()
    refuse(made, "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.")
    made.go(21)
    status = made.leave().go().status("a")
    assert (status.failures[0].reason, status.avoided_nodes, status.vetoes) == ("Unschedulable", {}, {})
    assert "unbound immediate PersistentVolumeClaims" in status.message
    assert (status.rejections, status.uncounted_failures) == (1, 0)


def test_many_refusals_stay_within_what_a_status_may_hold():
    status = job().status
    for i in range(300):
        status = vetoes.record(status, f"n{i}", after(i), Cluster().snapshot().defaults)
    assert len(status.avoided_nodes) == len(status.vetoes) == 256
    assert "n299" in status.avoided_nodes.keys() & status.vetoes.keys()


# --- a node that goes before the pod is bound


def gone(made: Cluster) -> None:
    made.set_node(None, "n0")


def cordoned(made: Cluster) -> None:
    made.set_node(whole("n0", unschedulable=True), "n0")


def tainted(made: Cluster) -> None:
    made.set_node(whole("n0", taints=(Taint(key="x", effect="NoSchedule"),)), "n0")


def not_ready(made: Cluster) -> None:
    made.set_node(whole("n0", ready=False), "n0")


def being_deleted(made: Cluster) -> None:
    made.set_node(whole("n0", deleting=True), "n0")


def about_to_be_removed(made: Cluster) -> None:
    marked = Taint(key="ToBeDeletedByClusterAutoscaler", value="1700000000", effect="NoSchedule")
    made.set_node(whole("n0", taints=(marked,)), "n0")


@pytest.mark.parametrize(
    ("happens", "words"),
    [
        (gone, "node n0 was deleted before the pod was bound to it"),
        (cordoned, "node n0 became unavailable (cordoned) before"),
        (tainted, "(with the taint x:NoSchedule)"),
        (not_ready, "(not ready)"),
        (being_deleted, "(being deleted)"),
        (about_to_be_removed, "(with the taint ToBeDeletedByClusterAutoscaler=1700000000:NoSchedule)"),
    ],
)
def test_a_node_that_is_lost_before_the_pod_is_bound_is_left_at_once(happens, words):
    made = Cluster([whole("n0")])
    made.add(job("a"))
    made.go()
    happens(made)
    status = made.go().leave().go().status("a")
    assert (status.phase, status.assignments) == (Phase.QUEUED, ())
    (failure,) = status.failures
    assert failure.reason == "NodeUnavailable"
    assert words in failure.message
    assert (status.counted_failures, status.uncounted_failures) == (0, 0)
    assert made.now < after(5)
    assert status.not_before is not None


def test_the_next_try_after_a_lost_node_waits_longer_each_time():
    made = Cluster([whole("n0")])
    made.add(job("a"))
    waits = []
    for _ in range(4):
        made.set_node(node("n0"), "n0")
        made.go(1000)
        gone(made)
        made.go().leave().go()
        until = made.status("a").not_before
        assert until is not None
        waits.append((until - made.now).total_seconds())
    assert waits == sorted(waits)
    assert waits[-1] >= 80


def test_a_bound_pod_stays_on_a_node_that_is_cordoned():
    made = Cluster([whole("n0")])
    made.add(job("a"))
    made.go().start_all()
    cordoned(made)
    assert made.go(30).status("a").phase is Phase.RUNNING


def test_a_node_that_is_being_deleted_takes_nothing_new():
    """An autoscaler that empties it first keeps its Node until then."""
    made = Cluster([whole("n0", deleting=True)])
    made.add(job("a"))
    assert "1 being deleted" in made.go().status("a").message
    made.set_node(whole("n1"), "n1")
    assert [a.node for a in made.go().status("a").assignments] == ["n1"]


def test_a_node_that_an_autoscaler_would_merely_like_to_remove_is_used():
    wish = Taint(key="DeletionCandidateOfClusterAutoscaler", effect="PreferNoSchedule")
    made = Cluster([whole("n0", taints=(wish,))])
    made.add(job("a"))
    assert [a.node for a in made.go().status("a").assignments] == ["n0"]


# --- bound elsewhere


def elsewhere(*running: str) -> Cluster:
    """A job whose pod is bound to n2, though n1 is recorded; these others run on n2 by then."""
    made = Cluster([node("n1", gpus=1, slots=4), node("n2", gpus=1, slots=4)])
    made.add(job())
    made.go()
    for name in running:
        made.add(job(name, created=after(1)))
    made.go()
    if running:
        made.start_all()
    (pod,) = made.pods_of("a")
    assert pod.wanted_node == "n1"
    made.change_pod(pod.name, wanted_node=None, node=NodeName("n2"), bound_at=made.now)
    return made


def test_a_pod_counts_where_it_is_bound():
    """A webhook may change its affinity, or somebody bind it by hand."""
    made = elsewhere()
    made.go()
    assert [a.node for a in made.status("a").assignments] == ["n2"]
    made.add(job("b"))
    made.add(job("c"))
    made.go()
    assert made.running() == {"a", "b"}
    assert [a.node for a in made.status("b").assignments] == ["n1"]


def test_it_is_stopped_where_there_is_no_room_for_it_and_not_charged():
    made = elsewhere("b")
    (pod,) = made.pods_of("a")
    made.turn()
    made.deliver_all()
    assert made.pods[pod.name].deleting
    (failure,) = made.status("a").failures
    assert (failure.reason, failure.node, failure.counted) == ("NodeUnsuited", "n2", False)
