"""A pool that is deleted, perhaps to be made again at once: what was admitted goes on, what waits says why."""

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    admitted,
    after,
    job,
    node,
    of_type,
    pod_of,
    pool,
    run,
    snapshot,
    statuses,
    whole,
)
from unit.core.cluster import Cluster

from rfuav_operator.core.model import (
    CreatePod,
    DeletePod,
    Kind,
    NodeName,
    Phase,
    PodPhase,
    ScaleUp,
)

A_DAY = 86_400


def seen(owner, *pods, at=A_DAY, nodes=None, pools=(), **rest):
    return run(snapshot([owner], pods=pods, nodes=nodes or [node()], pools=pools, **rest), now=after(at))


@pytest.mark.parametrize(
    "changes",
    [
        {},  # waits to be bound
        {"node": NodeName("n1"), "bound_at": after(0)},  # waits for its volume or image
        {"node": NodeName("n1"), "bound_at": after(0), "waiting_reason": "ContainerCreating"},
    ],
)
def test_a_pod_that_is_starting_is_not_deleted_while_its_pool_is_missing(changes):
    (owner,) = admitted(job())
    its_pod = pod_of(owner, **changes)
    done = seen(owner, its_pod)
    assert not of_type(done, DeletePod)
    assert not statuses(done) or statuses(done)["a"].phase is Phase.ADMITTED
    # When the pool is there again its own limits count, from when the pod was made.
    back = seen(owner, its_pod, pools=[pool(schedule_timeout_seconds=60, start_timeout_seconds=60)])
    assert of_type(back, DeletePod)
    patient = seen(owner, its_pod, pools=[pool(schedule_timeout_seconds=2 * A_DAY, start_timeout_seconds=2 * A_DAY)])
    assert not of_type(patient, DeletePod)


def test_a_pod_that_waits_for_a_new_node_keeps_waiting():
    (owner,) = admitted(job(), nodes=[node(gpus=0, slots=0)], pools=[pool(scale_up=ScaleUp(max_jobs=1))])
    assert not owner.status.assignments[0].node
    its_pod = pod_of(owner, wanted_node=None, for_new_node=True)
    assert not of_type(seen(owner, its_pod), DeletePod)


def test_a_pod_that_lands_on_a_new_node_is_not_judged_by_limits_that_nobody_set():
    (owner,) = admitted(
        job(kind=Kind.INFERENCE), nodes=[node(gpus=0, slots=0)], pools=[pool(scale_up=ScaleUp(max_jobs=1))]
    )
    its_pod = pod_of(owner, wanted_node=None, for_new_node=True, node=NodeName("new"), bound_at=after(10))
    done = seen(owner, its_pod, at=20, nodes=[node("new", memory_mib=4000)])
    assert not of_type(done, DeletePod)
    assert statuses(done)["a"].assignments[0].node == "new"


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_pod_that_was_recorded_and_not_made_waits_for_the_pool(nodes):
    there = [whole("n1"), whole("n2")]
    (owner,) = admitted(job(nodes=nodes), nodes=there)
    made = [pod_of(owner, phase=PodPhase.RUNNING)] if nodes == 2 else []
    done = seen(owner, *made, at=5, nodes=there)
    assert not of_type(done, CreatePod)
    assert not of_type(done, DeletePod)
    status = statuses(done)["a"]
    assert [a.pod for a in status.assignments] == [a.pod for a in owner.status.assignments]
    assert status.reason == "NoSuchPool"
    assert "pool default does not exist; pod " in status.message
    back = seen(replace(owner, status=status), *made, at=6, nodes=there, pools=[pool()])
    assert len(of_type(back, CreatePod)) == 1


def test_a_pool_that_cannot_be_read_is_as_good_as_missing():
    (owner,) = admitted(job())
    broken = pool(problems=("spec cannot be read",), start_timeout_seconds=1, schedule_timeout_seconds=1)
    assert not of_type(seen(owner, pod_of(owner), pools=[broken]), DeletePod)
    assert "pool default cannot be read; pod " in statuses(seen(owner, at=5, pools=[broken]))["a"].message


def test_a_running_job_says_what_it_said():
    (owner,) = admitted(job())
    held = (replace(owner.status.assignments[0], started_at=after(1)),)
    owner = replace(owner, status=replace(owner.status, phase=Phase.RUNNING, assignments=held))
    its_pod = pod_of(owner, phase=PodPhase.RUNNING)
    settled = statuses(seen(owner, its_pod, at=5, pools=[pool()]))["a"]
    assert not statuses(seen(replace(owner, status=settled), its_pod, at=6))


def test_a_queued_job_says_that_the_pool_does_not_exist():
    status = statuses(run(snapshot([job()], pools=[pool("lab")])))["a"]
    assert status.phase is Phase.QUEUED
    assert status.message == "pool default does not exist; existing pools: lab"


def test_a_pool_that_is_deleted_and_created_again_does_not_affect_admitted_jobs():
    cluster = Cluster([whole(gpus=4)], [pool(start_timeout_seconds=A_DAY, schedule_timeout_seconds=A_DAY)])
    for i in range(6):
        cluster.add(job(f"j{i}", created=after(i)))
    cluster.go()
    before = {uid: held.status.assignments for uid, held in cluster.jobs.items()}
    held = cluster.pools.pop("default")
    cluster.touch_all()
    cluster.go(7200)
    assert {uid: held.status.assignments for uid, held in cluster.jobs.items()} == before
    assert not any(pod.deleting for pod in cluster.pods.values())
    cluster.pools["default"] = replace(held, uid="again")
    cluster.touch_all()
    cluster.go()
    assert {uid: held.status.assignments for uid, held in cluster.jobs.items()} == before
    waits = [held.status for held in cluster.jobs.values() if held.status.phase is Phase.QUEUED]
    assert [status.reason for status in waits] == ["WaitingForCapacity"] * 2
