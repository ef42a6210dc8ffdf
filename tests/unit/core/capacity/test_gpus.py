"""Only GPUs that are known to be healthy take new jobs; a node of which too little is known takes none."""

from typing import Any

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
    statuses,
    whole,
)

from rfuav_crds.contract import EXIT_GPU_OUT_OF_MEMORY
from rfuav_operator.core.capacity import gpus
from rfuav_operator.core.model import (
    DeletePod,
    GpuSharing,
    GpuTier,
    Job,
    Kind,
    Node,
    PatchLimitsStatus,
    Phase,
    PodPhase,
    PoolSpec,
    Resources,
)

LABELS = {"nvidia.com/gpu.count": "2", "nvidia.com/gpu.memory": "24576", "nvidia.com/gpu.replicas": "4"}
SHARING = GpuSharing(replicas=4, memory="24Gi")
UNLABELLED = node(memory_mib=None)


def labels(**changed: str | None) -> dict[str, str]:
    """LABELS with some changed, or without them."""
    found = LABELS | {f"nvidia.com/gpu.{name}": value for name, value in changed.items()}
    return {name: value for name, value in found.items() if value is not None}


def trainings(count: int, **spec: Any) -> list[Job]:
    return [job(f"t{i}", created=after(i), **spec) for i in range(count)]


def admitted_of(jobs: list[Job], **snap: Any) -> list[str]:
    return sorted(n for n, s in statuses(run(snapshot(jobs, **snap))).items() if s.phase is Phase.ADMITTED)


# --- what is read of a node


@pytest.mark.parametrize(
    ("changed", "slots", "capacity", "healthy"),
    [
        ({}, 8, 8, 2),
        ({}, 4, 8, 1),  # one of two is sick
        ({}, 4, 4, 1),  # one of two was not found when the device plugin was started again
        ({}, 7, 8, 1),  # slots are missing, whosever they are
        ({}, 3, 8, 0),
        ({}, 0, 8, 0),
        ({"count": "8", "replicas": "1"}, 7, 8, 7),
        ({"count": "8", "replicas": "1"}, 8, 8, 8),
        ({"count": "1", "replicas": "10"}, 10, 10, 1),
    ],
)
def test_healthy_gpus_are_the_allocatable_slots_divided_by_the_slots_of_a_gpu(changed, slots, capacity, healthy):
    found = gpus.known(labels(**changed), slots=slots, capacity=capacity)
    assert (found.healthy, found.unknown) == (healthy, "")


@pytest.mark.parametrize(
    ("changed", "capacity", "words"),
    [
        ({"count": None, "memory": None, "replicas": None}, 8, "no labels nvidia.com/gpu.*"),
        ({"replicas": None}, 8, "no label nvidia.com/gpu.replicas"),
        ({"count": None, "memory": None}, 8, "no label nvidia.com/gpu.count, nvidia.com/gpu.memory"),
        ({"memory": None}, 8, "no label nvidia.com/gpu.memory"),
        ({"count": "0"}, 8, "a label nvidia.com/gpu.count that is not a positive number ('0')"),
        ({"count": "-2"}, 8, "not a positive number ('-2')"),
        ({"replicas": "0"}, 8, "gpu.replicas that is not a positive number"),
        ({"replicas": ""}, 8, "not a positive number ('')"),
        ({"memory": "24Gi"}, 8, "gpu.memory that is not a positive number ('24Gi')"),
        ({"count": "٢"}, 8, "not a positive number"),
        ({"count": "9" * 63}, 8, "not a positive number"),
        ({"replicas": "3"}, 8, "2 GPUs with 3 slots each, and its device plugin offers 8"),
        ({"replicas": "1"}, 8, "2 GPUs with 1 slots each, and its device plugin offers 8"),
        ({"count": "1"}, 8, "1 GPUs with 4 slots each"),
    ],
)
@pytest.mark.parametrize("sick", [0, 4])
def test_labels_that_are_missing_unreadable_or_contradict_the_device_plugin_mean_no_gpus(
    changed, capacity, words, sick
):
    found = gpus.known(labels(**changed), slots=capacity - sick, capacity=capacity)
    assert (found.healthy, found.replicas, found.memory_mib) == (0, 0, None)
    assert words in found.unknown


def test_a_node_without_gpus_needs_no_labels():
    assert gpus.known({}, slots=0, capacity=0) == gpus.Gpus()


# --- what its pool declares


def test_a_pool_that_declares_how_its_nodes_share_needs_no_labels():
    assert admitted_of(trainings(9), nodes=[UNLABELLED], pools=[pool(gpu_sharing=SHARING)]) == ["t0", "t1"]
    sick = node(memory_mib=None, slots=4, capacity=8)
    assert admitted_of(trainings(9), nodes=[sick], pools=[pool(gpu_sharing=SHARING)]) == ["t0"]


def test_what_the_labels_of_a_node_say_goes_before_what_its_pool_declares():
    declared = pool(gpu_sharing=GpuSharing(replicas=1, memory="80Gi"))
    assert admitted_of(trainings(9), nodes=[node()], pools=[declared]) == ["t0", "t1"]


def test_the_declared_memory_decides_which_limits_apply_and_who_fits():
    small = pool(gpu_sharing=GpuSharing(replicas=4, memory="8Gi"))
    (told,) = statuses(
        run(snapshot([job(resources=Resources(gpu_memory="20Gi"))], nodes=[UNLABELLED], pools=[small]))
    ).values()
    assert "with GPUs of 8Gi (20Gi needed)" in told.message


def test_a_declaration_that_the_device_plugin_contradicts_is_not_believed():
    declared = pool(gpu_sharing=GpuSharing(replicas=3, memory="24Gi"))
    (told,) = statuses(run(snapshot([job()], nodes=[UNLABELLED], pools=[declared]))).values()
    assert told.phase is Phase.QUEUED
    assert "gpuSharing.replicas (3) does not divide its 8 slots" in told.message
    assert told.message.endswith("or correct spec.gpuSharing in GPUPool default")


def labelled(**changed: str | None) -> Node:
    """A node of 8 slots with these labels, read as the shell does."""
    read = labels(**changed)
    found = gpus.known(read, slots=8, capacity=8)
    return replace(
        node(),
        labels=read,
        gpus=found.healthy,
        gpu_replicas=found.replicas,
        gpu_memory_mib=found.memory_mib,
        gpu_unknown=found.unknown,
    )


@pytest.mark.parametrize(
    ("changed", "memory_mib"),
    [
        ({"count": None, "memory": None, "replicas": None}, 24576),
        ({"memory": None}, 24576),
        ({"replicas": None, "memory": "8192"}, 8192),  # a label that is there counts
        ({"count": None, "memory": "8192"}, 8192),
    ],
)
def test_a_declaration_replaces_missing_labels(changed, memory_mib):
    seen = gpus.in_pool(labelled(**changed), PoolSpec(gpu_sharing=SHARING))
    assert (seen.gpus, seen.gpu_replicas, seen.gpu_memory_mib, seen.gpu_unknown) == (2, 4, memory_mib, "")


@pytest.mark.parametrize(
    ("changed", "replicas", "words"),
    [
        ({"replicas": "3"}, 4, "its labels say 2 GPUs with 3 slots each, and its device plugin offers 8 slots"),
        ({"count": "1"}, 4, "its labels say 1 GPUs with 4 slots each"),
        ({"memory": "24Gi"}, 4, "a label nvidia.com/gpu.memory that is not a positive number"),
        ({"replicas": None}, 2, "its label says 2 GPUs and gpuSharing 2 slots each, and its device plugin offers 8"),
        ({"memory": None}, 1, "label nvidia.com/gpu.replicas is 4, and gpuSharing.replicas is 1"),
        ({"count": None, "replicas": "1"}, 4, "label nvidia.com/gpu.replicas is 1, and gpuSharing.replicas is 4"),
        ({"count": "x", "replicas": None}, 4, "a label nvidia.com/gpu.count that is not a positive number"),
    ],
)
def test_a_declaration_does_not_put_right_what_contradicts_itself(changed, replicas, words):
    declared = pool(gpu_sharing=GpuSharing(replicas=replicas, memory="24Gi"))
    made = snapshot([job()], nodes=[labelled(**changed)], pools=[declared])
    (told,) = statuses(run(made)).values()
    assert told.phase is Phase.QUEUED
    assert words in told.message


def test_where_labels_contradict_the_device_plugin_no_declaration_is_advised():
    (told,) = statuses(run(snapshot([job()], nodes=[labelled(replicas="3")]))).values()
    assert told.message.endswith(
        "offers 8 slots: give GPU feature discovery and the device plugin the same configuration"
    )


def test_gpus_declared_as_not_shared_take_jobs_of_several():
    declared = pool(gpu_sharing=GpuSharing(replicas=1, memory="24Gi"))
    bare = node(memory_mib=None, slots=4)
    assert admitted_of([job(resources=Resources(gpus=4))], nodes=[bare], pools=[declared]) == ["a"]


# --- who is admitted


@pytest.mark.parametrize("kind", Kind)
def test_a_node_with_gpus_and_without_labels_takes_nothing_new_and_jobs_say_why(kind):
    (told,) = statuses(run(snapshot([job(kind=kind)], nodes=[UNLABELLED]))).values()
    assert (told.phase, told.reason) == (Phase.QUEUED, "NoMatchingNode")
    assert told.message.endswith(
        "1 with GPUs of unknown sharing; node n1 has GPUs, but no labels nvidia.com/gpu.*: check that GPU feature "
        "discovery runs, or set spec.gpuSharing in GPUPool default"
    )


def test_it_takes_jobs_without_gpu():
    assert admitted_of([job(resources=Resources(gpus=0))], nodes=[UNLABELLED]) == ["a"]


def test_a_job_that_waits_for_other_nodes_names_the_unknown_gpus_too():
    bare = [node(f"n{i}", memory_mib=None) for i in (2, 3)]
    told = statuses(run(snapshot(trainings(3), nodes=[node(), *bare])))
    assert told["t2"].reason == "WaitingForCapacity"
    assert "0 of 2 training slots free on 1 node" in told["t2"].message
    assert "node n2 (and 1 node more) has GPUs, but no labels" in told["t2"].message


@pytest.mark.parametrize("after_that", [UNLABELLED, node(memory_mib=None, slots=0, capacity=8)])
def test_running_jobs_continue_and_keep_their_room_when_the_labels_vanish(after_that):
    held = admitted(*trainings(1))
    pods = [pod_of(one, phase=PodPhase.RUNNING) for one in held]
    running = [replace(one, status=statuses(run(snapshot(held, pods=pods)))["t0"]) for one in held]
    done = run(snapshot([*running, job("late")], pods=pods, nodes=[after_that]))
    assert statuses(done)["late"].phase is Phase.QUEUED
    assert not [a for a in done.actions if type(a).__name__ == "DeletePod"]
    (told,) = of_type(done, PatchLimitsStatus)
    assert told.status["slotsInUse"] == {"training": 1, "inference": 0}
    back = run(snapshot([*running, job("late"), job("later", created=after(1))], pods=pods, nodes=[node()]))
    assert {n: s.phase for n, s in statuses(back).items()} == {"late": Phase.ADMITTED, "later": Phase.QUEUED}


def test_never_more_than_the_healthy_gpus_take():
    sick = node(gpus=1, slots=4, capacity=8)
    assert admitted_of(trainings(5), nodes=[sick]) == ["t0"]
    held = admitted(*trainings(2))
    pods = [pod_of(one, phase=PodPhase.RUNNING) for one in held]
    assert admitted_of([*held, job("late")], pods=pods, nodes=[sick]) == []


def test_a_node_with_a_sick_gpu_still_takes_jobs_of_several():
    seven = whole(gpus=7, capacity=8)
    assert admitted_of([job(resources=Resources(gpus=4))], nodes=[seven]) == ["a"]
    (told,) = statuses(run(snapshot([job(resources=Resources(gpus=8))], nodes=[seven]))).values()
    assert "1 with at most 7 training GPU slots" in told.message


def test_without_a_healthy_gpu_it_says_so():
    (told,) = statuses(run(snapshot([job()], nodes=[node(gpus=0, slots=0, capacity=8)]))).values()
    assert "1 without a healthy GPU" in told.message


def test_a_pod_with_resource_claims_closes_the_gpus_of_its_node():
    """It may have any of them. What runs goes on, and jobs without GPU come."""
    claims = foreign_pod("dra", "n1", claims_devices=True)
    jobs = [*trainings(1), job("cpu", resources=Resources(gpus=0))]
    told = statuses(run(snapshot(jobs, nodes=[node()], foreign=[claims])))
    assert {n: s.phase for n, s in told.items()} == {"t0": Phase.QUEUED, "cpu": Phase.ADMITTED}
    assert (
        "1 node closed to new GPU jobs by a pod with resource claims (DRA): pod other/dra on n1" in told["t0"].message
    )
    assert admitted_of(trainings(1), nodes=[node(), node("n2")], foreign=[claims]) == ["t0"]
    held = admitted(*trainings(1))
    running = [pod_of(one, phase=PodPhase.RUNNING) for one in held]
    assert not of_type(run(snapshot(held, pods=running, foreign=[claims])), DeletePod)


def test_nobody_is_stopped_for_gpus_that_a_pod_with_resource_claims_closes():
    held = admitted(*trainings(2, priority_class_name="low"))
    running = [pod_of(one, phase=PodPhase.RUNNING) for one in held]
    started = [replace(one, status=statuses(run(snapshot(held, pods=running)))[one.name]) for one in held]
    snap = {"pods": running, "pools": [pool(preemption=PREEMPTION)], "nodes": [node(), node("n2", gpus=0, slots=0)]}
    wants = [*started, job("high", priority_class_name="high", created=after(100))]
    assert len(of_type(run(snapshot(wants, **snap), now=after(100)), DeletePod)) == 1
    claims = foreign_pod("dra", "n1", claims_devices=True)
    assert not of_type(run(snapshot(wants, foreign=[claims], **snap), now=after(100)), DeletePod)


def test_what_nobody_gets_is_not_lent():
    """A borrower takes only what is idle beyond the shares that are not lent; a node without labels is not idle."""
    quotas = [quota("lab", 2, lend=0), quota("team", 0)]
    assert admitted_of(trainings(1), nodes=[node(gpus=1, slots=2), UNLABELLED], quotas=quotas) == []
    assert admitted_of(trainings(1), nodes=[node(gpus=1, slots=2), node("n2")], quotas=quotas) == ["t0"]


# --- exit code 4: out of GPU memory


@pytest.mark.parametrize(
    ("held", "declared", "final"),
    [
        (node(), None, False),
        (whole(), None, True),
        (UNLABELLED, None, False),  # it may be shared
        (UNLABELLED, GpuSharing(replicas=1, memory="24Gi"), True),
        (node(gpus=0, slots=0, capacity=8, gpu_replicas=4), None, False),
    ],
)
def test_a_gpu_that_may_be_shared_is_not_held_against_the_job(held, declared, final):
    pools = [pool(gpu_sharing=declared)]
    (one,) = admitted(job())
    pod = pod_of(one, phase=PodPhase.FAILED, exit_code=EXIT_GPU_OUT_OF_MEMORY)
    (told,) = statuses(run(snapshot([one], pods=[pod], nodes=[held], pools=pools))).values()
    assert (told.phase is Phase.FAILED) == final


# --- what the pool says


def told_of(*nodes: Node, **spec: Any) -> tuple[str, str, str, int]:
    (patch,) = of_type(run(snapshot([], nodes=nodes, pools=[pool(**spec)])), PatchLimitsStatus)
    (ready,) = patch.status["conditions"]
    return ready["status"], ready["reason"], ready["message"], patch.status["gpus"]


def test_the_pool_names_the_node_whose_gpus_are_not_known():
    status, reason, message, count = told_of(node("a"), node("b", memory_mib=None))
    assert (status, reason, count) == ("True", "GPUsUnknown", 2)
    assert message.startswith("node b has GPUs, but no labels nvidia.com/gpu.*: check that GPU feature discovery runs")
    assert told_of(UNLABELLED)[:2] == ("False", "GPUsUnknown")
    assert told_of(UNLABELLED, gpu_sharing=SHARING) == ("True", "Ready", "admits jobs on 1 of 1 nodes", 2)


def test_the_pool_names_the_node_whose_gpus_are_unhealthy():
    status, reason, message, count = told_of(node("a", gpus=1, slots=4, capacity=8), node("b"))
    assert (status, reason, count) == ("True", "GPUsUnhealthy", 3)
    assert message.startswith("node a offers 4 of its 8 GPU slots")


def test_a_tier_without_limits_of_its_own_is_not_what_an_unknown_gpu_gets():
    """The lowest tier is not always the least."""
    generous = pool(per_gpu=(GpuTier(min_memory="22Gi", training=1), GpuTier(min_memory=0, training=8)))
    assert admitted_of(trainings(9), nodes=[UNLABELLED], pools=[generous]) == []
