"""A job runs, and an operator of another version cannot read its spec whole: what is missing is not read as a default."""

from typing import Any

import pytest
from msgspec.structs import replace
from unit.core.builders import T0, after, job, node, of_type, pod_of, run, snapshot, statuses, whole
from unit.shell.bodies import job_body

from rfuav_operator.core.capacity.usage import Share, Usage
from rfuav_operator.core.job.aside import stand_in
from rfuav_operator.core.model import (
    Assignment,
    DeleteJob,
    DeletePod,
    Job,
    JobStatus,
    Kind,
    NodeName,
    Phase,
    PodPhase,
    ShardCounts,
)
from rfuav_operator.shell.reading import ours

ODD = {"backoffLimit": 10**6}


def running(kind: Kind, *assignments: Assignment, counts: ShardCounts | None = None, **spec: Any) -> Job:
    read = ours.job(kind, job_body(kind=kind.value, spec=ODD | spec))
    assert read.problems
    at: dict[str, Any] = dict.fromkeys(("queued_at", "admitted_at", "started_at", "running_since"), T0)
    held = tuple(replace(a, started_at=T0) for a in assignments)
    return replace(
        read,
        status=JobStatus(phase=Phase.RUNNING, attempt=1, priority=1, assignments=held, shards=counts, **at),
    )


@pytest.mark.parametrize(
    ("kind", "shards", "spec"),
    [(Kind.INFERENCE, (0, 1, 2), {"shards": 3}), (Kind.TRAINING, (None, None), {"nodes": 2})],
)
def test_a_job_of_several_pods_is_not_done_with_the_first(kind, shards, spec):
    held = running(
        kind,
        *(
            Assignment(pod=f"a-{i}", node="n1", gpus=1, shard=shard, rank=i if shard is None else None)
            for i, shard in enumerate(shards)
        ),
        counts=ShardCounts(total=3) if kind is Kind.INFERENCE else None,
        **spec,
    )
    pods = [pod_of(held, at=i, phase=PodPhase.RUNNING) for i in range(len(shards))]
    pods[0] = replace(pods[0], phase=PodPhase.SUCCEEDED, exit_code=0)
    done = run(snapshot([held], pods=pods), now=after(10))
    assert statuses(done)["a"].phase is Phase.RUNNING
    assert not of_type(done, DeletePod)


def test_a_recorded_pod_holds_the_gpus_of_its_record():
    held = running(Kind.TRAINING, Assignment(pod="a-1", node="n1", gpus=4), resources={"gpus": "four"})
    seen = snapshot([held], nodes=[whole()])
    room = Usage(seen, seen.jobs, T0).room(NodeName("n1"))
    assert room is not None
    assert room.slots[Kind.TRAINING].used == 4


def finished() -> Job:
    status = JobStatus(phase=Phase.SUCCEEDED, attempt=1, priority=1, finished_at=T0)
    return job("train", namespace="ns", ttl_seconds_after_finished=0, status=status)


def test_a_training_stays_for_one_that_waits_for_its_weights():
    waits = ours.job(Kind.INFERENCE, job_body(kind="InferenceJob", spec=ODD | {"model": {"fromTrainingJob": "train"}}))
    assert waits.problems
    assert not of_type(run(snapshot([finished(), waits]), now=after(60)), DeleteJob)


def test_it_stays_for_one_whose_handling_failed_too():
    broken = job("i", kind=Kind.INFERENCE, namespace="ns", source="train")
    broken = replace(broken, spec=replace(broken.spec, resources=replace(broken.spec.resources, cpu="many")))
    aside = stand_in(broken, "something nobody thought of")
    assert not of_type(run(snapshot([finished(), aside]), now=after(60)), DeleteJob)


def test_a_pod_that_a_status_names_twice_counts_once():
    twice = (Assignment(pod="a-1", node="n1", gpus=1),) * 2
    held = job(status=JobStatus(phase=Phase.ADMITTED, attempt=1, priority=1, assignments=twice, admitted_at=T0))
    seen = snapshot([held], nodes=[node()])
    usage = Usage(seen, seen.jobs, T0)
    assert usage.share("default", "team").gpus == 1
    usage.update_job(held.uid, None, snapshot())
    assert usage.share("default", "team") == Share()
