"""A pool that grows: jobs that no present node has room for are admitted without one, a few at a time, within quota."""

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    PREEMPTION,
    admitted,
    after,
    foreign_pod,
    job,
    node,
    of_type,
    pod_of,
    pool,
    quota,
    run,
    snapshot,
    whole,
)
from unit.core.cluster import Cluster

from rfuav_crds import contract
from rfuav_operator.core import scheduler
from rfuav_operator.core.capacity.room import Allocation, Room
from rfuav_operator.core.job import lifecycle
from rfuav_operator.core.model import CreatePod, GpuSharing, GpuTier, Kind, Phase, PodPhase, Resources, ScaleUp, Uid
from rfuav_operator.core.quantity import Amounts

GROWS = ScaleUp(max_jobs=2, timeout_seconds=900)


def cluster(*jobs, nodes=None, up=GROWS, running=(), **rest):
    quotas = rest.pop("quotas", ())
    made = Cluster([whole("old", gpus=1)] if nodes is None else nodes, [pool(scale_up=up, **rest)], quotas=quotas)
    for one in running:
        made.add(one)
    made.go().start_all()
    for one in jobs:
        made.add(one)
    return made.go()


def nodeless(made):
    return {j.name for j in made.jobs.values() if any(not a.node for a in j.status.assignments)}


def jobs(count, **rest):
    return [job(f"j{i}", created=after(1 + i), **rest) for i in range(count)]


# --- who, and how many


@pytest.mark.parametrize(("most", "expected"), [(0, set()), (1, {"j0"}), (2, {"j0", "j1"})])
def test_at_most_so_many_are_admitted_without_a_node(most, expected):
    made = cluster(*jobs(4), running=[job("a")], up=ScaleUp(max_jobs=most))
    assert nodeless(made) == expected


def test_a_node_that_has_room_is_taken_first():
    made = cluster(*jobs(1))
    assert [a.node for a in made.status("j0").assignments] == ["old"]


def test_a_pool_without_nodes_grows_from_nothing():
    made = Cluster(
        [whole("other", labels={"gpu": "x"})], [pool(), pool("new", node_selector={"gpu": "a"}, scale_up=GROWS)]
    )
    made.add(job("a", pool="new"))
    made.go()
    status = made.status("a")
    assert (status.phase, status.reason) == (Phase.ADMITTED, "Starting")
    assert status.message == "waits for a node that the cluster's autoscaler adds"


@pytest.mark.parametrize(
    ("made", "quotas", "reason"),
    [
        (jobs(1), [quota(nominal=1, borrow=0)], "WaitingForQuota"),
        (jobs(1), [quota(nominal=8, training=1)], "WaitingForQuota"),
        (jobs(1, resources=Resources(gpus=2)), [quota(nominal=1, borrow=0)], "ExceedsMaxQuota"),
        ([job("j0", kind=Kind.INFERENCE)], [quota(inference=0)], "ExceedsMaxQuota"),
    ],
)
def test_never_beyond_quota(made, quotas, reason):
    grown = cluster(*made, running=[job("a")], quotas=quotas)
    assert (nodeless(grown), grown.status("j0").reason) == (set(), reason)


def test_what_has_no_node_yet_counts_against_quota():
    made = cluster(*jobs(3), running=[job("a")], quotas=[quota(nominal=2, borrow=0)])
    assert nodeless(made) == {"j0"}
    assert "uses 2 of 2" in made.status("j1").message


def test_those_whose_turn_it_is_not_are_told_so():
    """No present node takes them, which is no final word in a pool that grows."""
    wide = Resources(gpus=4)
    made = cluster(*jobs(3, resources=wide), running=[job("a")])
    told = made.status("j2")
    assert told.reason == "WaitingForCapacity"
    assert told.message.endswith("; 2 of at most 2 jobs wait for nodes that an autoscaler adds (scaleUp)")
    assert told.queue.position == 1


def test_higher_priority_is_first():
    made = cluster(*jobs(2), job("urgent", created=after(9), priority_class_name="high"), running=[job("a")])
    assert nodeless(made) == {"urgent", "j0"}


def test_one_that_grows_the_pool_keeps_no_room_and_stops_nobody():
    """Its shards beyond the first wait for what is there; those behind it may have that, strict or not."""
    wide = job("wide", kind=Kind.INFERENCE, shards=3, parallelism=3, resources=Resources(gpus=4))
    made = cluster(wide, *jobs(1), queueing="StrictFIFO", starvation_seconds=0)
    assert [a.node for a in made.status("wide").assignments] == [""]
    assert [a.node for a in made.status("j0").assignments] == ["old"]


# --- the pods


def test_its_pods_must_land_on_a_new_node_of_the_pool():
    grows = pool(node_selector={"gpu": "a100"}, scale_up=GROWS)
    old = whole("old", gpus=1, labels={"gpu": "a100"})
    (busy,) = admitted(job("busy"), nodes=[old], pools=[grows])
    there = pod_of(busy, phase=PodPhase.RUNNING)
    done = run(snapshot([busy, job(nodes=2)], pods=[there], nodes=[old], pools=[grows]))
    pods = [a.manifest for a in of_type(done, CreatePod)]
    assert len(pods) == 2
    for pod in pods:
        affinity = pod["spec"]["affinity"]
        assert affinity.keys() == {
            "podAntiAffinity"
        }  # of the node there is none: some autoscalers would add none for it
        assert pod["spec"]["nodeSelector"] == {"gpu": "a100"}  # the autoscaler chooses by it what kind of node to add
        each, present = affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        everywhere = {"topologyKey": "kubernetes.io/hostname", "namespaceSelector": {}}
        assert each == {  # a node each, whosever they are: nobody knows yet what the node will bear
            **everywhere,
            "labelSelector": {"matchExpressions": [{"key": contract.LABEL_SCALE_UP, "operator": "Exists"}]},
        }
        assert present == {  # nor where pods of ours are now
            **everywhere,
            "labelSelector": {"matchExpressions": [{"key": contract.LABEL_NODE, "operator": "In", "values": ["old"]}]},
        }
        assert pod["metadata"]["labels"][contract.LABEL_SCALE_UP] == "default"


def test_the_jobs_own_selector_stays():
    made = job()
    made = replace(
        made, spec=replace(made.spec, pod_template=replace(made.spec.pod_template, node_selector={"z": "1"}))
    )
    made = replace(made, raw_spec={**made.raw_spec, "podTemplate": {"nodeSelector": {"z": "1"}}})
    grows = pool(node_selector={"gpu": "a"}, scale_up=GROWS)
    (pod,) = of_type(run(snapshot([made], nodes=[], pools=[grows])), CreatePod)
    assert pod.manifest["spec"]["nodeSelector"] == {"gpu": "a", "z": "1"}
    assert "nodeAffinity" not in pod.manifest["spec"]["affinity"]


def test_a_pod_bound_to_the_new_node_holds_its_room():
    made = cluster(*jobs(3), running=[job("a")])
    made.set_node(whole("new", gpus=2), "new")
    made.start(made.pods_of("j0")[0].name)
    made.go()
    assert [a.node for a in made.status("j0").assignments] == ["new"]
    assert made.status("j0").phase is Phase.RUNNING
    assert nodeless(made) <= {"j1", "j2"}
    room = made.scheduler._admission.usage.room("new")
    assert room.slots[Kind.TRAINING].used == 2  # j0, and room for j1, which might land there too
    made.finish(made.pods_of("j0")[0].name)
    assert made.go().status("j0").phase is Phase.SUCCEEDED


def test_the_next_may_grow_the_pool_when_one_has_its_node():
    made = cluster(*jobs(3, resources=Resources(gpus=2)), running=[job("a")])
    assert nodeless(made) == {"j0", "j1"}
    made.set_node(whole("new", gpus=2), "new")
    made.start(made.pods_of("j0")[0].name)
    assert nodeless(made.go()) == {"j1", "j2"}


def test_the_first_shard_that_is_ready_is_taken():
    """Shard 0 backs off, so it is shard 1 that gets a pod: never two pods for one shard."""
    wide = job("wide", kind=Kind.INFERENCE, shards=2, parallelism=1)
    made = cluster(wide, nodes=[whole("old", gpus=1)]).start_all()
    made.finish(made.pods_of("wide")[0].name, 1)
    made.set_node(whole("old", gpus=1, unschedulable=True), "old")
    made.go()
    assert [(a.shard, a.node) for a in made.status("wide").assignments] == [(1, "")]


# --- room where they may land

SHARED = {"gpus": 1, "slots": 4}  # one training at a time by the pool's limits, four by what the scheduler knows


def nodes_of(made, name):
    return [a.node for a in made.status(name).assignments]


def test_a_new_node_keeps_room_for_those_that_may_land_there():
    made = cluster(*jobs(1), running=[job("a")], up=ScaleUp(max_jobs=1))
    made.set_node(node("new1", **SHARED), "new1")
    made.add(job("b", created=after(60)))
    assert nodes_of(made.go(), "b") == []
    made.start(made.pods_of("j0")[0].name)
    assert nodes_of(made.go(), "j0") == ["new1"]
    assert nodes_of(made, "b") == [""]  # the next for which the pool grows


def test_when_it_has_landed_elsewhere_the_room_is_given_back():
    made = cluster(*jobs(1), running=[job("a")], up=ScaleUp(max_jobs=1))
    for name in ("new1", "new2"):
        made.set_node(node(name, **SHARED), name)
    made.add(job("b", created=after(60)))
    assert nodes_of(made.go(), "b") == []
    made.start(made.pods_of("j0")[0].name)
    made.go()
    assert (nodes_of(made, "j0"), nodes_of(made, "b")) == (["new1"], ["new2"])


@pytest.mark.parametrize("labels", [{}, {"gpu": "b"}])
def test_no_room_is_kept_where_it_cannot_land(labels):
    grows = pool("grows", node_selector={"gpu": "a"}, scale_up=GROWS)
    made = Cluster([whole("x", labels={"gpu": "x"})], [pool(), grows])
    made.add(job("waits", pool="grows"))
    made.go()
    made.set_node(node("new", **SHARED, labels=labels), "new")
    made.add(job("b", created=after(60)))
    made.add(job("c", created=after(60), resources=Resources(gpus=1)))
    made.go()
    assert "new" in nodes_of(made, "b") + nodes_of(made, "c")


def test_it_avoids_a_missing_node_whose_room_is_held():
    """The Node may come back with all that runs there."""
    made = cluster(running=[job("a")], up=ScaleUp(max_jobs=1))
    (held,) = made.nodes.values()
    made.set_node(None, held.name)
    made.add(job("j0", created=after(1)))
    created = [a for a in made.turn() if isinstance(a, CreatePod)]
    assert [a.landing and a.landing.barred for a in created] == [frozenset({held.name})]


def test_a_create_on_its_way_may_land_too():
    made = cluster(running=[job("a")], up=ScaleUp(max_jobs=1))
    made.add(job("j0", created=after(1)))
    made.turn()
    made.deliver("uid-j0")  # the record; the create is under way
    assert (nodes_of(made, "j0"), made.pods_of("j0")) == ([""], [])
    made.set_node(node("new", **SHARED), "new")
    made.add(job("b", created=after(60)))
    assert [a.name for a in made.turn() if isinstance(a, CreatePod)] == []
    made.deliver_all()
    assert nodes_of(made.go(), "b") == []


def test_a_pod_of_a_deleted_job_counts_against_quota_until_it_is_gone():
    made = cluster(*jobs(1), running=[job("a")], quotas=[quota(nominal=2, borrow=0)])
    made.delete_job("uid-j0")
    made.add(job("late", created=after(50)))
    assert nodeless(made.go()) == set()
    made.leave()
    assert nodeless(made) == {"late"}


@pytest.mark.parametrize(
    ("new", "asked", "words"),
    [
        (node("new", gpus=2, slots=8), {"gpus": 2, "gpu_memory": "0"}, "with shared GPUs"),
        (whole("new", memory_mib=8000), {"gpu_memory": "16Gi"}, "with GPUs of 7.8Gi (16Gi needed)"),
    ],
)
def test_a_node_that_is_not_for_it_is_left_at_once(new, asked, words):
    """The scheduler knows nothing of a pool's limits; an autoscaler that adds the wrong nodes is not asked for ever."""
    made = cluster(job("j0", created=after(1), resources=Resources(**asked), backoff_limit=0), running=[job("a")])
    made.set_node(new, "new")
    made.start(made.pods_of("j0")[0].name)
    made.go().leave()
    status = made.status("j0")
    assert (status.phase, status.failures[0].reason) == (Phase.FAILED, "NodeUnsuited")
    assert words in status.message


@pytest.mark.parametrize("new", [node("new", memory_mib=None), node("new", slots=0)])
def test_a_node_with_missing_labels_or_slots_is_not_judged_yet(new):
    made = cluster(job("j0", created=after(1), resources=Resources(gpus=1, gpu_memory="8Gi")), running=[job("a")])
    (pod,) = made.pods_of("j0")
    made.set_node(new, "new")
    made.change_pod(pod.name, node="new", bound_at=made.now)
    made.turn()
    made.deliver_all()
    assert not made.status("j0").failures


# --- the timeout


def test_at_the_timeout_room_is_given_back_and_it_backs_off():
    made = cluster(*jobs(1), running=[job("a")], quotas=[quota(nominal=2, borrow=0)])
    made.add(job("late", created=after(50)))
    made.go(5).go(2)
    assert made.wake_at == after(900)
    made.go(893)
    status = made.status("j0")
    assert (status.assignments[0].stopping, made.pods_of("j0")[0].deleting) == ("ScaleUpTimeout", True)
    assert status.failures[0].message == "no node was added within 900 s: the scheduler gave no reason"
    assert (status.counted_failures, status.uncounted_failures, status.rejections) == (0, 0, 1)
    made.leave()
    status = made.status("j0")
    assert (status.phase, status.reason) == (Phase.QUEUED, "BackingOff")
    assert "ScaleUpTimeout: no node was added within 900 s" in status.message
    assert nodeless(made) == {"late"}


def test_while_it_backs_off_it_says_so_although_no_node_suits():
    """A pool without nodes that grows: that there is none is not why it waits."""
    made = Cluster([node("x", labels={"other": "1"})], [pool(node_selector={"gpu": "a"}, scale_up=GROWS)])
    made.add(job("a"))
    made.go()
    made.go(900)
    made.leave()
    assert made.status("a").reason == "BackingOff"
    assert nodeless(made.go(30)) == {"a"}


def test_a_gang_that_grows_the_pool_is_whole_too():
    made = cluster(job("gang", nodes=2, created=after(1)), running=[job("a")])
    assert [(a.rank, a.node) for a in made.status("gang").assignments] == [(0, ""), (1, "")]
    made.set_node(whole("n1", gpus=4), "n1")
    for pod in made.pods_of("gang"):
        made.start(pod.name)
    made.go(900)
    assert {a.stopping for a in made.status("gang").assignments} == {"ScaleUpTimeout", "RestartedTogether"}


def test_a_lost_create_of_one_without_a_node_is_repeated():
    made = cluster(*jobs(1), running=[job("a")])
    lost = made.pods_of("j0")[0].name
    made.vanish(lost)
    made.crash()  # nobody knows that it was there
    made.go()
    assert lost in made.pods


# --- where others may land


def lands(*, lower="low"):
    """`j0` waits for a node, and might land on `new`, which came for another; `a` runs."""
    made = Cluster([whole("old", gpus=1)], [pool(scale_up=GROWS, preemption=PREEMPTION)])
    made.add(job("a", priority_class_name=lower))
    made.go().start_all().go()
    made.add(job("k", created=after(1), priority_class_name=lower, resources=Resources(gpus=4)))
    made.go()
    made.add(job("j0", created=after(2), priority_class_name=lower))
    made.go(100)
    made.set_pool(scale_up=ScaleUp(max_jobs=1))
    made.go()
    return made


def test_a_pod_that_lands_elsewhere_holds_nothing_on_a_node_that_changed_meanwhile():
    made = cluster(*jobs(1), nodes=[whole("old", gpus=1)], running=[job("a")], up=ScaleUp(max_jobs=1))
    for name in ("new1", "new2"):
        made.set_node(node(name, gpus=1, slots=4), name)
    made.go()
    made.start(made.pods_of("j0")[0].name)
    made.set_node(node("new2", gpus=1, slots=4, labels={"x": "y"}), "new2")
    made.go()
    assert [p.node for p in made.pods_of("j0")] == ["new1"]
    made.add(job("b", created=after(60)))
    assert [a.node for a in made.go().status("b").assignments] == ["new2"]


def test_nobody_stops_where_a_pod_goes_that_might_have_landed():
    made = lands()
    made.set_node(whole("new", gpus=1), "new")
    made.go().edit("uid-j0", suspend=True)
    made.turn()
    made.deliver_all()
    made.add(job("high", priority_class_name="high", created=made.now))
    made.turn()
    made.deliver_all()
    assert [a.stopping_for for a in made.status("a").assignments] == [""]
    made.leave()
    assert [a.node for a in made.status("high").assignments] == ["new"]


def test_a_pod_that_stops_on_a_node_not_heard_of_yet_is_waited_for():
    """Watches are not in step: the pod is bound and runs, and of its node nothing was read."""
    made = cluster(*jobs(1), running=[job("a")])
    made.set_node(whole("new", gpus=1), "new")
    (pod,) = made.pods_of("j0")
    made.start(pod.name)
    made.nodes.pop("new")
    made.dirty_nodes.add("new")
    made.edit("uid-j0", suspend=True)
    made.go()
    assert made.pods[pod.name].deleting
    made.edit("uid-j0", suspend=False)
    made.go(5)
    assert [p.name for p in made.pods_of("j0")] == [pod.name]
    assert [a.pod for a in made.status("j0").assignments] == [pod.name]
    made.leave()
    assert [p.name for p in made.pods_of("j0")] != [pod.name]


def test_a_job_with_a_stopping_pod_counts_among_those_that_wait_for_nodes():
    made = cluster(*jobs(2), running=[job("a")], up=ScaleUp(max_jobs=1))
    assert nodeless(made) == {"j0"}
    made.edit("uid-j0", suspend=True)
    made.go()
    assert nodeless(made) == {"j0"}
    made.leave()
    assert nodeless(made) == {"j1"}


# --- where the scheduler puts them, which knows no limits

FULL = ScaleUp(max_jobs=2)


def test_it_stays_off_a_node_that_is_full_by_the_limits_and_comes_when_that_is_free():
    """One GPU in four slots: for the scheduler three are free."""
    made = cluster(*jobs(1), nodes=[node("old", **SHARED)], running=[job("a")], up=FULL)
    made.start_all()
    assert nodes_of(made, "j0") == [""]
    made.add(job("b", created=after(60)))
    made.finish(made.pods_of("a")[0].name)
    made.go()
    assert nodes_of(made, "b") == [""]  # the room is for the one that may land there
    made.start_all()
    assert (nodes_of(made, "j0"), made.status("j0").phase) == (["old"], Phase.RUNNING)


def landed(made, name="j0", on="old", **changes):
    """The scheduler has put it there, whatever the limits say."""
    (pod,) = made.pods_of(name)
    made.change_pod(pod.name, node=on, bound_at=made.now, bars=True, landing=None, **changes)
    made.turn()
    made.deliver_all()
    return pod


def test_one_that_lands_where_the_limits_have_no_room_is_stopped_at_once_and_not_charged():
    made = cluster(*jobs(1), nodes=[node("old", **SHARED)], running=[job("a")], up=FULL)
    pod = landed(made)
    assert made.pods[pod.name].deleting
    status = made.go().leave().status("j0")
    assert (status.phase, status.failures[0].reason, status.failures[0].counted) == (
        Phase.QUEUED,
        "NodeUnsuited",
        False,
    )
    assert "with too little room left (2 training GPU slots of 1)" in status.failures[0].message
    assert (status.counted_failures, status.uncounted_failures, status.rejections) == (0, 0, 1)
    assert status.not_before is not None


def room(on, *others, training=1):
    """A node with one pod of ours and those of others."""
    asked = Amounts(slots=1, cpu_milli=1000, memory=2**30, pods=1)
    mine = Allocation(kind=Kind.TRAINING, namespace="team", pool="default", node=on.name, requests=asked)
    tier, cpu_jobs = GpuTier(training=training), dict.fromkeys(Kind, 1)
    return Room(node=on, tier=tier, cpu_jobs=cpu_jobs, holders={(Uid("u"), "p"): mine}, foreign=others)


def test_a_pod_of_nobody_counts_by_its_kind_where_one_lands():
    left = replace(foreign_pod("x", "old", gpus=1), kind=Kind.TRAINING)
    assert room(node("old", **SHARED)).crowded() == ""
    assert room(node("old", **SHARED), left).crowded() == "2 training GPU slots of 1"


@pytest.mark.parametrize(
    ("taken", "offered", "words"),
    [
        ({"gpus": 8}, {"slots": 8}, "9 GPU slots of 8"),
        ({"cpu": 8}, {"cpu": 8}, "9 CPU of 8"),
        ({"memory_gi": 8}, {"memory_gi": 8}, "9Gi memory of 8Gi"),
        ({}, {"pods": 1}, "2 pods of 1"),
        ({}, {}, ""),
    ],
)
def test_the_resource_that_runs_short_where_one_lands_is_named(taken, offered, words):
    assert room(node("old", **offered), foreign_pod("x", "old", **taken), training=2).crowded() == words


def test_one_that_lands_on_a_node_of_another_pool_is_stopped():
    old, other = whole("old", gpus=1), whole("lab", labels={"zone": "b"})
    made = Cluster([old, other], [pool(scale_up=FULL), pool("lab", node_selector={"zone": "b"})])
    made.add(job("a"))
    made.add(job("theirs", pool="lab"))
    made.go().start_all()
    made.add(job("j0", created=after(1)))
    assert nodes_of(made.go(), "j0") == [""]
    landed(made, on="lab")
    assert (
        made.status("j0")
        .failures[0]
        .message.startswith("the scheduler chose node lab, which does not suit the job (of pool lab")
    )


def test_labels_that_come_late_are_looked_at_until_it_starts():
    made = cluster(
        job("j0", created=after(1), resources=Resources(gpus=1, gpu_memory="16Gi"), backoff_limit=0),
        running=[job("a")],
    )
    made.set_node(node("new", memory_mib=None), "new")
    landed(made, on="new")
    assert nodes_of(made, "j0") == ["new"]
    made.set_node(node("new", memory_mib=8000), "new")
    made.go().leave()
    assert made.status("j0").failures[0].reason == "NodeUnsuited"


@pytest.mark.parametrize(("age", "counted"), [(-1, False), (1, True)])
def test_only_a_node_that_was_added_for_it_counts(age, counted):
    made = cluster(
        job("j0", created=after(1), resources=Resources(gpus=1, gpu_memory="16Gi")), running=[job("a")], up=FULL
    )
    made.set_node(whole("x", memory_mib=8000, created=after(age)), "x")
    landed(made, on="x")
    assert made.status("j0").failures[0].counted is counted


def test_a_pool_does_not_grow_for_a_job_that_the_scheduler_would_bring_to_the_wrong_node():
    small, full = whole("small", memory_mib=8000), whole("full", gpus=1)
    wants = Resources(gpus=1, gpu_memory="16Gi")
    made = cluster(
        job("j0", created=after(1), resources=wants), nodes=[full, small], running=[job("a", resources=wants)]
    )
    assert nodes_of(made, "j0") == []
    assert (
        "the pool does not grow for it: the scheduler would bind it to node small, which does not suit the job (with GPUs of 7.8Gi"
        in made.status("j0").message
    )
    made.set_node(whole("small", memory_mib=8000, unschedulable=True), "small")
    assert nodes_of(made.go(), "j0") == [""]


def test_where_one_landed_that_keeps_others_off_no_other_is_sent():
    """The scheduler would refuse them: what it keeps off for itself it keeps off for others too."""
    made = cluster(*jobs(1), nodes=[node("old", gpus=2, slots=8)], running=[job("a"), job("b")], up=FULL)
    assert nodes_of(made, "j0") == [""]
    for name in ("a", "b"):
        made.finish(made.pods_of(name)[0].name)
    made.go()
    landed(made, alone=True)
    made.add(job("late", created=after(60)))
    made.go()
    assert nodes_of(made, "j0") == ["old"]
    assert nodes_of(made, "late") == [""]


def test_a_job_with_a_withdrawn_and_a_crowded_pod_is_stepped_with_both(monkeypatch):
    held, seen = admitted(job("a"))[0], []
    step = lifecycle.step
    monkeypatch.setattr(lifecycle, "step", lambda one, facts: (seen.append(facts), step(one, facts))[1])
    monkeypatch.setattr(scheduler._Steps, "_withdrawn", lambda _self, _recreate: {held.uid: {"never-made"}})
    monkeypatch.setattr(scheduler._Steps, "_crowded", lambda _self, _uid: {"landed": "with too little room left"})
    run(snapshot([held]))
    assert seen[-1].withdrawn == {"never-made"}
    assert seen[-1].crowded == {"landed": "with too little room left"}


# --- where too little is known of the node when it lands

UNREAD = node("new", memory_mib=None, gpus=1, slots=4)  # a node whose labels are not there yet
NOT_FOR_IT = node("new", memory_mib=8000, gpus=1, slots=4)
WANTS = Resources(gpus=1, gpu_memory="16Gi", cpu="1", memory="1Gi")


def runs_unjudged(**rest):
    """`j0` runs on a node that came for it, whose labels are late."""
    made = cluster(job("j0", created=after(1), resources=WANTS, **rest), running=[job("a")])
    made.set_node(UNREAD, "new")
    landed(made, on="new")
    made.start(made.pods_of("j0")[0].name)
    made.go()
    assert (nodes_of(made, "j0"), made.status("j0").phase) == (["new"], Phase.RUNNING)
    return made


@pytest.mark.parametrize("restarted", [False, True])
def test_one_that_runs_before_the_labels_come_is_judged_when_they_do(restarted):
    made = runs_unjudged()
    assert made.status("j0").assignments[0].provisional
    if restarted:
        made.crash()
        made.go()
    made.set_node(NOT_FOR_IT, "new")
    made.turn()
    made.deliver_all()
    assert made.pods_of("j0")[0].deleting
    made.go().leave()
    told = made.status("j0").failures[0]
    assert (told.reason, told.node) == ("NodeUnsuited", "new")
    assert "with GPUs of 7.8Gi (16Gi needed)" in told.message


def test_one_whose_node_suits_is_judged_once():
    """What changes later stops nobody who runs."""
    made = runs_unjudged()
    made.set_node(node("new", memory_mib=24000, gpus=1, slots=4), "new")
    made.go()
    assert not made.status("j0").assignments[0].provisional
    made.set_node(NOT_FOR_IT, "new")
    made.go()
    assert (made.status("j0").phase, made.status("j0").failures) == (Phase.RUNNING, ())


def test_a_declaration_of_the_pool_is_enough_to_judge():
    made = runs_unjudged()
    made.set_pool(scale_up=GROWS, gpu_sharing=GpuSharing(replicas=4, memory="8Gi"))
    made.go().leave()
    assert made.status("j0").failures[0].reason == "NodeUnsuited"


def test_one_that_landed_beside_others_where_labels_were_away_leaves_when_they_say_that_there_is_no_room():
    made = cluster(*jobs(1), nodes=[node("old", **SHARED)], running=[job("a")], up=FULL)
    made.set_node(node("old", **SHARED, memory_mib=None), "old")
    pod = landed(made)
    made.start(pod.name)
    made.turn()
    made.deliver_all()
    assert made.status("j0").phase is Phase.RUNNING
    made.set_node(node("old", **SHARED), "old")
    made.turn()
    made.deliver_all()
    assert made.pods[pod.name].deleting
    assert not made.pods_of("a")[0].deleting
    assert "2 training GPU slots of 1" in made.go().leave().status("j0").failures[0].message


def test_one_that_lands_while_its_pool_is_away_is_judged_when_it_is_back():
    made = cluster(job("j0", created=after(1), resources=WANTS), running=[job("a")])
    held = made.pools.pop("default")
    made.touch_all()
    made.set_node(NOT_FOR_IT, "new")
    landed(made, on="new")
    made.go()
    assert (nodes_of(made, "j0"), made.status("j0").failures) == (["new"], ())
    made.pools["default"] = held
    made.touch_all()
    made.go().leave()
    assert made.status("j0").failures[0].reason == "NodeUnsuited"


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_one_that_lands_beside_others_while_its_pool_is_away_leaves_when_it_is_back(runs, elsewhere):
    """Also where another pool takes its nodes meanwhile: only its own pool's limits are its terms."""
    made = cluster(*jobs(1), nodes=[node("old", **SHARED)], running=[job("a")], up=FULL)
    held = made.pools.pop("default")
    if elsewhere:
        made.pools["other"] = pool("other", scale_up=FULL)
    made.touch_all()
    pod = landed(made)
    if runs:
        made.start(pod.name)
        made.turn()
        made.deliver_all()
    assert not made.pods[pod.name].deleting
    made.pools["default"] = held
    made.touch_all()
    made.turn()
    made.deliver_all()
    assert made.pods[pod.name].deleting
    assert not made.pods_of("a")[0].deleting
    assert "2 training GPU slots of 1" in made.go().leave().status("j0").failures[0].message


# --- a node that one of them keeps for itself, and preemption


def test_where_others_are_kept_off_nobody_is_stopped_in_vain_and_others_are_stopped_elsewhere():
    """What is free beside a pod that came alone is room for nobody: those on other nodes must make it."""
    made = Cluster([node("old", gpus=2, slots=8)], [pool(scale_up=FULL, preemption=PREEMPTION)])
    for name in ("x", "y"):
        made.add(job(name, priority_class_name="high"))
    made.go().start_all()
    made.add(job("j0", created=after(1), priority_class_name="high"))
    assert nodes_of(made.go(), "j0") == [""]
    for name in ("x", "y"):
        made.finish(made.pods_of(name)[0].name)
    made.go()
    landed(made, alone=True)
    made.start(made.pods_of("j0")[0].name)
    made.set_node(whole("n2", gpus=1), "n2")
    made.add(job("a", created=after(2), priority_class_name="low"))
    made.go().start_all()
    assert nodes_of(made, "a") == ["n2"]
    made.set_pool(scale_up=ScaleUp())
    made.go(100)
    made.add(job("late", created=made.now, priority_class_name="mid"))
    made.turn()
    made.deliver_all()
    assert [a.stopping for a in made.status("a").assignments] == ["Preempted"]
    assert [a.stopping for a in made.status("j0").assignments] == [""]


def test_one_that_runs_on_a_node_not_heard_of_yet_says_so():
    """Watches are not in step."""
    made = cluster(*jobs(1), running=[job("a")])
    made.set_node(whole("new", gpus=1), "new")
    made.start(made.pods_of("j0")[0].name)
    made.nodes.pop("new")
    made.go()
    assert (made.status("j0").phase, made.status("j0").message) == (
        Phase.RUNNING,
        "runs on a node that has not been read yet",
    )


@pytest.mark.parametrize(
    "words",
    [
        "0/1 nodes are available: 1 node(s) had untolerated taint {karpenter.sh/unregistered: }.",
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) didn't match pod anti-affinity rules.",
        "0/1 nodes are available: 1 node(s) had untolerated taint {node.cilium.io/agent-not-ready: true}.",
    ],
)
def test_the_schedulers_message_before_the_node_exists_is_no_refusal(words):
    made = cluster(*jobs(1), running=[job("a")])
    made.change_pod(made.pods_of("j0")[0].name, unschedulable=words, unschedulable_since=made.now)
    made.go(300)
    assert (nodes_of(made, "j0"), made.status("j0").failures) == ([""], ())


def test_a_node_that_is_taken_away_before_its_pod_starts_is_not_charged():
    made = cluster(*jobs(1), running=[job("a")])
    (pod,) = made.pods_of("j0")
    made.set_node(whole("new", gpus=1), "new")
    landed(made, on="new")
    made.set_node(None, "new")
    made.vanish(pod.name)
    status = made.go().status("j0")
    assert (status.counted_failures, [f.counted for f in status.failures]) == (0, [False])
