"""Who is admitted where, and what the others are told."""

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    DEFAULTS,
    T0,
    admitted,
    after,
    created,
    foreign_pod,
    job,
    node,
    of_type,
    pod_of,
    pool,
    run,
    snapshot,
    statuses,
)

from rfuav_crds import contract
from rfuav_operator.core.model import (
    CreatePod,
    GpuTier,
    JobStatus,
    Kind,
    PatchLimitsStatus,
    PatchStatus,
    PerNodeCpu,
    Phase,
    PodPhase,
    PriorityClass,
    Resources,
    Taint,
    Uid,
)

CPU_JOB = Resources(gpus=0, cpu="1", memory="1Gi")


def crowd(training=0, inference=0, **rest):
    return [
        *(job(f"t{i:02}", created=after(i), **rest) for i in range(training)),
        *(job(f"i{i:02}", kind=Kind.INFERENCE, created=after(100 + i), **rest) for i in range(inference)),
    ]


def admitted_names(jobs, **snap):
    return sorted(n for n, s in statuses(run(snapshot(jobs, **snap))).items() if s.phase is Phase.ADMITTED)


def count(jobs, **snap):
    names = admitted_names(jobs, **snap)
    return sum(n.startswith("t") for n in names), sum(n.startswith("i") for n in names)


# --- limits


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (node(), (2, 6)),
        (node(memory_mib=12288), (2, 4)),
        (node(memory_mib=8192), (2, 2)),
        (node(memory_mib=None), (0, 0)),
        (node(gpus=1, slots=4), (1, 3)),
        (node(gpus=1, slots=2), (0, 2)),  # inference is first, and two slots are all there is
        (node(gpus=2, slots=2), (0, 2)),
        (node(gpus=0, slots=0), (0, 0)),
        (node(gpu_problem="MIG resources are not supported"), (0, 0)),
    ],
)
def test_limits_of_a_node(held, expected):
    assert count(crowd(10, 10), nodes=[held]) == expected


def test_three_nodes_run_twenty_four():
    nodes = [node(f"n{i}") for i in range(3)]
    assert count(crowd(20, 30), nodes=nodes) == (6, 18)


def test_below_every_tier_there_is_no_room():
    only_large = pool(per_gpu=(GpuTier(min_memory="22Gi", training=1, inference=1),))
    done = statuses(run(snapshot([job()], nodes=[node(memory_mib=8192)], pools=[only_large])))["a"]
    assert done.reason == "ExceedsMaxQuota"


def test_the_highest_tier_counts_in_whatever_order_they_are_written():
    tiers = (GpuTier(min_memory=0, training=0, inference=1), GpuTier(min_memory="22Gi", training=2, inference=0))
    assert count(crowd(9, 9), pools=[pool(per_gpu=tiers)]) == (4, 0)


def test_cpu_jobs_are_counted_as_jobs_and_leave_gpu_nodes_free():
    nodes = [node("a-gpu"), node("b-cpu", gpus=0, slots=0)]
    done = statuses(run(snapshot(crowd(3, resources=CPU_JOB), nodes=nodes)))
    assert [s.assignments[0].node for n, s in sorted(done.items()) if s.assignments] == ["b-cpu", "b-cpu", "a-gpu"]
    limits = pool(per_node_cpu=PerNodeCpu(training=1, inference=2))
    assert count(crowd(9, 9, resources=CPU_JOB), pools=[limits]) == (1, 2)


@pytest.mark.parametrize(
    ("held", "others", "expected"),
    [
        (node(), [foreign_pod("x", "n1", gpus=6)], 2),
        (node(), [foreign_pod("x", "n1", gpus=8)], 0),
        (node(cpu=4), [foreign_pod("x", "n1", cpu=2)], 2),
        (node(memory_gi=4), [foreign_pod("x", "n1", memory_gi=3)], 1),
        (node(pods=3), [foreign_pod("x", "n1")], 2),
    ],
)
def test_what_others_use_is_used(held, others, expected):
    assert count(crowd(0, 9), nodes=[held], foreign=others) == (0, expected)


@pytest.mark.parametrize(
    ("kind", "gpus", "expected"),
    [
        (Kind.TRAINING, 1, (1, 6)),
        (Kind.TRAINING, 2, (0, 6)),
        (Kind.INFERENCE, 3, (2, 3)),
        (Kind.TRAINING, 0, (2, 6)),  # a label alone takes nobody's place
    ],
)
def test_a_pod_that_has_our_labels_and_no_job_takes_the_gpus_it_asks_for_by_its_kind(kind, gpus, expected):
    left = replace(foreign_pod("x", "n1", gpus=gpus), kind=kind)
    assert count(crowd(9, 9), foreign=[left]) == expected


@pytest.mark.parametrize(
    ("output", "phase", "waits"),
    [
        ("pvc://models/x", PodPhase.RUNNING, True),
        ("pvc://models/x", PodPhase.FAILED, False),
        ("pvc://models/y", PodPhase.RUNNING, False),
    ],
)
def test_a_job_waits_for_the_pods_of_an_earlier_one_of_its_name_that_write_to_its_output(output, phase, waits):
    again = replace(job("a"), raw_spec={"output": {"uri": "pvc://models/x"}})
    old = replace(foreign_pod("a-01234-3", "n1", gpus=1), job_name="a", output=output, phase=phase)
    status = statuses(run(snapshot([again], made_for={(again.namespace, "a"): {old.name: old}})))["a"]
    assert (status.phase is Phase.QUEUED) is waits
    assert ("an earlier job of this name are gone: a-01234-3" in status.message) is waits


def test_a_job_waits_for_a_create_of_an_earlier_one_of_its_name():
    again = job("a")
    seen = snapshot([again], leaving={(again.namespace, "a"): frozenset({Uid("old")})})
    status = statuses(run(seen))["a"]
    assert status.phase is Phase.QUEUED
    assert status.message == "waits until it is known whether an earlier pod of this name was created"


def test_every_pod_is_counted_once():
    held = admitted(*crowd(2, 0))
    pods = [pod_of(j, phase=PodPhase.RUNNING) for j in held]
    for seen in (
        snapshot([*held, job("late", created=after(50))]),
        snapshot([*held, job("late", created=after(50))], pods=pods),
        snapshot(
            [*held, job("late", created=after(50))],
            pods=pods[:1],
            creating={held[1].uid: frozenset({held[1].status.assignments[0].pod})},
        ),
    ):
        late = statuses(run(seen))["late"]
        assert "0 of 2 training slots free on 1 node (2 training slots used" in late.message


def test_room_of_a_deleted_job_is_held_by_its_live_pod_and_by_a_create_on_its_way():
    first, second = admitted(*crowd(2, 0))
    late = job("late", created=after(50))
    live = pod_of(first, phase=PodPhase.RUNNING, deleting=True)
    busy = pod_of(second, phase=PodPhase.RUNNING)
    assert created(run(snapshot([second, late], pods=[live, busy]))) == []
    name = first.status.assignments[0].pod
    leaving = replace(first, deleting=True)
    on_its_way = snapshot([leaving, second, late], pods=[busy], creating={first.uid: frozenset({name})})
    assert created(run(on_its_way)) == []
    assert len(created(run(snapshot([second, late], pods=[busy])))) == 1


# --- order


def test_inference_goes_first_then_priority_then_age():
    small = [node(gpus=1, slots=4)]
    urgent = {"urgent": PriorityClass(name="urgent", value=9000)}
    jobs = [
        job("t-old", created=after(-50)),
        job("t-urgent", created=after(10), priority_class_name="urgent"),
        job("t-new", created=after(0)),
        job("i-new", kind=Kind.INFERENCE, created=after(60)),
    ]
    done = statuses(run(snapshot(jobs, nodes=small, priority_classes=urgent)))
    assert done["t-urgent"].phase is done["i-new"].phase is Phase.ADMITTED
    assert [(n, s.queue.position, s.queue.of) for n, s in sorted(done.items()) if s.queue] == [
        ("t-new", 2, 2),
        ("t-old", 1, 2),
    ]
    classes = {
        "rfuav-training": PriorityClass(name="rfuav-training", value=5000),
        "rfuav-inference": PriorityClass(name="rfuav-inference", value=1),
    }
    one_slot = [node(gpus=1, slots=1)]
    done = run(snapshot(crowd(1, 1), nodes=one_slot, priority_classes=classes))
    assert statuses(done)["t00"].phase is Phase.ADMITTED


def test_best_effort_passes_a_head_that_does_not_fit_and_strict_does_not():
    jobs = [job("big", created=after(0), resources=Resources(gpus=1, cpu="30")), job("small", created=after(1))]
    others = [foreign_pod("x", "n1", cpu=8)]
    best = statuses(run(snapshot(jobs, foreign=others)))
    assert (best["big"].phase, best["small"].phase) == (Phase.QUEUED, Phase.ADMITTED)
    assert "too little CPU left (30 needed, at most 23 on n1)" in best["big"].message
    strict = statuses(run(snapshot(jobs, foreign=others, pools=[pool(queueing="StrictFIFO")])))
    assert strict["small"].phase is Phase.QUEUED
    assert "behind team/big" in strict["small"].message


def test_parallelism_bounds_the_shards_that_run_at_once():
    wide = job("w", kind=Kind.INFERENCE, shards=5, parallelism=2)
    done = run(snapshot([wide]))
    assert [a.shard for a in statuses(done)["w"].assignments] == [0, 1]
    held = replace(wide, status=statuses(done)["w"])
    pods = [
        pod_of(held, phase=PodPhase.SUCCEEDED, exit_code=0),
        pod_of(held, at=1, phase=PodPhase.RUNNING),
    ]
    status = statuses(run(snapshot([held], pods=pods)))["w"]
    assert status.shards.completed == "0"
    assert [a.shard for a in status.assignments] == [1, 2]
    assert status.phase is Phase.RUNNING


@pytest.mark.parametrize(("placement", "used"), [("Pack", {"a"}), ("Spread", {"a", "b"})])
def test_placement(placement, used):
    done = statuses(run(snapshot(crowd(2), nodes=[node("a"), node("b")], pools=[pool(placement=placement)])))
    assert {s.assignments[0].node for s in done.values()} == used


def test_several_gpus_go_to_nodes_that_do_not_share():
    big = job(resources=Resources(gpus=2))
    shared = statuses(run(snapshot([big])))["a"]
    assert shared.reason == "NoMatchingNode"
    assert "shared GPUs" in shared.message
    done = statuses(run(snapshot([big], nodes=[node(), node("whole", gpus=2, slots=2)])))["a"]
    assert (done.assignments[0].node, done.assignments[0].gpus) == ("whole", 2)


def test_a_node_belongs_to_the_pool_with_the_most_terms():
    pools = [pool(), pool("a", node_selector={"gpu": "a100"}), pool("b", node_selector={"gpu": "a100", "zone": "x"})]
    held = node(labels={"gpu": "a100", "zone": "x"})
    for name, fits in (("default", False), ("a", False), ("b", True)):
        done = statuses(run(snapshot([job(pool=name)], nodes=[held], pools=pools)))["a"]
        assert (done.phase is Phase.ADMITTED) is fits


# --- reasons


def why(made, **snap):
    status = statuses(run(snapshot([made], **snap)))["a"]
    assert status.phase is Phase.QUEUED
    assert status.conditions
    return status.reason, status.message


@pytest.mark.parametrize(
    ("made", "snap", "reason", "words"),
    [
        (job(pool="x"), {}, "Misconfigured", "pool x does not exist; existing pools: default"),
        (job(problems=("spec.dataset.train: s3 is not built yet",)), {}, "Misconfigured", "s3 is not built yet"),
        (job(), {"pools": [pool(problems=("preemption is not built yet",))]}, "Misconfigured", "preemption"),
        (
            job(nodes=2),
            {},
            "ExceedsMaxQuota",
            "needs 1 GPU on each of 2 nodes; pool default has 1 node that could run",
        ),
        (job(priority_class_name="gone"), {}, "Misconfigured", "PriorityClass gone does not exist"),
        (job(), {"defaults": replace(DEFAULTS, image="")}, "Misconfigured", "spec.image"),
        (job(resources=Resources(cpu="lots")), {}, "Misconfigured", "spec.resources: 'lots' is not a quantity"),
        (job(), {"pools": [pool(stop_policy="Hold")]}, "OnHold", "stopPolicy: Hold"),
        (job(source="x"), {}, "WaitingForTrainingJob", "TrainingJob x, which does not exist in namespace team"),
        (job(), {"nodes": []}, "NoMatchingNode", "pool default has no nodes"),
        (
            job(),
            {"nodes": [node(ready=False), node("n2", unschedulable=True)]},
            "NoMatchingNode",
            "1 not ready, 1 cordoned",
        ),
        (job(), {"nodes": [node(gpus=0, slots=0)]}, "NoMatchingNode", "1 without GPU"),
        (
            job(),
            {"nodes": [node(taints=(Taint(key="k", effect="NoSchedule"),))]},
            "NoMatchingNode",
            "taint k:NoSchedule",
        ),
        (
            job(resources=Resources(gpu_memory="40Gi")),
            {},
            "NoMatchingNode",
            "1 with GPUs of 23.4Gi (40Gi needed)",
        ),
        (
            job(resources=Resources(gpu_memory="1Gi")),
            {"nodes": [node(memory_mib=None)]},
            "NoMatchingNode",
            "unknown sharing",
        ),
        (job(resources=Resources(cpu="64")), {}, "ExceedsMaxQuota", "1 with 32 CPU"),
        (job(resources=Resources(memory="1Ti")), {}, "ExceedsMaxQuota", "1 with 128Gi memory"),
        (
            job(),
            {"foreign": [foreign_pod("x", "n1", gpus=8)]},
            "WaitingForCapacity",
            (
                "needs 1 GPU; pool default has 0 of 2 training slots free on 1 node "
                "(0 training slots used; 0 of 6 inference slots used; other pods use 8)"
            ),
        ),
    ],
)
def test_why_it_waits(made, snap, reason, words):
    told = why(made, **snap)
    assert told[0] == reason
    assert words in told[1]


def test_tolerations_and_the_usual_gpu_taint():
    usual = node(taints=(Taint(key=contract.GPU, effect="NoSchedule"),))
    assert admitted_names([job("t")], nodes=[usual]) == ["t"]
    special = node(taints=(Taint(key="team", value="rf", effect="NoExecute"),))
    for tolerations, fits in (
        (({"key": "team", "value": "rf"},), True),
        (({"key": "team", "operator": "Exists", "effect": "NoExecute"},), True),
        (({"operator": "Exists"},), True),
        (({"key": "team", "value": "other"},), False),
        (({"key": "team", "operator": "Exists", "effect": "NoSchedule"},), False),
        (({"key": "team", "operator": "Gt", "value": "rf"},), False),  # not known here
        (({"operator": "Equal", "value": "rf"},), False),
    ):
        made = job("t")
        made = replace(
            made, spec=replace(made.spec, pod_template=replace(made.spec.pod_template, tolerations=tolerations))
        )
        assert (admitted_names([made], nodes=[special]) == ["t"]) is fits


@pytest.mark.parametrize(("effect", "fits"), [("PreferNoSchedule", True), ("NoSchedule", False), ("Later", False)])
def test_a_taint_repels_unless_it_merely_asks(effect, fits):
    held = node(taints=(Taint(key="team", effect=effect),))
    assert (admitted_names([job("t")], nodes=[held]) == ["t"]) is fits


def test_misconfigured_is_stalled_and_the_queue_decision_ends_reconciling():
    status = statuses(run(snapshot([job(pool="x")])))["a"]
    assert {c.type: c.status for c in status.conditions} == {
        "Reconciling": "False",
        "Admitted": "False",
        "Stalled": "True",
    }
    fixed = statuses(run(snapshot([job(status=status)])))["a"]
    assert {c.type: c.status for c in fixed.conditions}["Stalled"] == "False"


# --- the writes


def test_the_record_stands_before_the_pod():
    actions = run(snapshot([job()])).actions
    kinds = [type(a) for a in actions]
    assert kinds.index(PatchStatus) < kinds.index(CreatePod)
    status = actions[kinds.index(PatchStatus)].status
    assert actions[kinds.index(PatchStatus)].urgent
    assert (status.attempt, status.phase, status.admitted_at) == (1, Phase.ADMITTED, T0)
    assert actions[kinds.index(CreatePod)].name == status.assignments[0].pod


def test_a_second_turn_changes_nothing():
    done = run(snapshot(crowd(5, 9)))
    jobs = [replace(j, status=statuses(done)[j.name]) for j in crowd(5, 9)]
    pods = [pod_of(j) for j in jobs if j.status.assignments]
    again = run(snapshot(jobs, pods=pods))
    assert of_type(again, PatchStatus) == []
    assert of_type(again, CreatePod) == []


def test_a_place_in_the_queue_is_not_urgent():
    jobs = crowd(4)
    done = run(snapshot(jobs))
    jobs = [replace(j, status=statuses(done)[j.name]) for j in jobs]
    pods = [pod_of(j) for j in jobs if j.status.assignments]
    waiting = next(j for j in jobs if j.status.queue and j.status.queue.position == 1)
    later = run(snapshot([j for j in jobs if j is not waiting], pods=pods))
    (patch,) = of_type(later, PatchStatus)
    assert (patch.urgent, patch.status.queue.position) == (False, 1)


def test_pool_status_has_the_current_numbers_and_is_written_once():
    done = run(snapshot(crowd(3, 1), foreign=[foreign_pod("x", "n1", gpus=1)]))
    (patch,) = of_type(done, PatchLimitsStatus)
    status = dict(patch.status)
    assert status.pop("conditions")[0]["reason"] == "Ready"
    assert status == {
        "observedGeneration": 1,
        "nodes": 1,
        "gpus": 2,
        "slots": 8,
        "slotsInUse": {"training": 2, "inference": 1},
        "foreignSlots": 1,
        "pending": {"training": 1, "inference": 0, "total": 1},
        "running": {"training": 2, "inference": 1},
        "borrowed": 3,
    }
    jobs = [replace(j, status=statuses(done)[j.name]) for j in crowd(3, 1)]
    seen = replace(pool(), status=patch.status)
    again = run(snapshot(jobs, foreign=[foreign_pod("x", "n1", gpus=1)], pools=[seen]))
    assert of_type(again, PatchLimitsStatus) == []


def test_pools_tell_of_a_second_release_and_when_it_is_gone():
    def told(held, rival):
        done = run(snapshot([], pools=[held], defaults=replace(DEFAULTS, rival=rival)))
        patches = of_type(done, PatchLimitsStatus)
        return patches[0].status if patches else held.status

    first = told(pool(), "other/rfuav-operator")
    _, second_release = first["conditions"]
    assert (second_release["type"], second_release["status"], second_release["reason"]) == (
        "SecondRelease",
        "True",
        "StandsBy",
    )
    assert "(other/rfuav-operator) is on standby" in second_release["message"]
    seen = replace(pool(), status=first)
    assert told(seen, "other/rfuav-operator") is first
    assert [c["status"] for c in told(seen, "")["conditions"]] == ["True", "False"]
    assert len(told(pool(), "")["conditions"]) == 1


def test_two_records_of_one_room_make_one_pod():
    """What a crash between two writes leaves behind."""
    one = [node(gpus=1, slots=4)]
    first = admitted(job("t1"), nodes=one)[0]
    second = admitted(job("t2", created=after(1)), nodes=one)[0]
    done = run(snapshot([first, second], nodes=one))
    assert created(done) == [first.status.assignments[0].pod]
    assert statuses(done)["t2"].phase is Phase.QUEUED
    assert statuses(done)["t2"].failures == JobStatus().failures
