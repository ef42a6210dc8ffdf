"""Two trainings that the device plugin put on one GPU are both told so, for as long as it lasts."""

from typing import Any

from msgspec.structs import replace
from unit.core.builders import T0, admitted, job, of_type, pod_of, pool, run, snapshot, statuses

from rfuav_operator.core import conditions
from rfuav_operator.core.capacity import gpu_sharing
from rfuav_operator.core.model import GpuTier, Job, Kind, Pod, PodPhase, Progress, RecordEvent, Report


def running(*jobs: Job, **snap: Any) -> tuple[list[Job], list[Pod]]:
    held = admitted(*jobs, **snap)
    pods = [pod_of(one, phase=PodPhase.RUNNING) for one in held]
    now = statuses(run(snapshot(held, pods=pods, **snap)))
    return [replace(one, status=now[one.name]) for one in held], pods


def report(pod: Pod, uuid: str, sequence: int = 1) -> Report:
    return Report(
        job_uid=pod.job_uid,
        pod=pod.name,
        attempt=1,
        index=0,
        sequence=sequence,
        progress=Progress(percent=1),
        gpu_uuid=uuid,
        received_at=T0,
    )


def told(held: list[Job], pods: list[Pod], *reports: Report, **snap: Any) -> tuple[list[Job], list[RecordEvent]]:
    done = run(snapshot(held, pods=pods, **snap), reports=reports, dirty=[], plan=False)
    wrote = statuses(done)
    return [replace(one, status=wrote.get(one.name, one.status)) for one in held], of_type(done, RecordEvent)


def flagged(held: list[Job]) -> dict[str, str]:
    found = {one.name: conditions.find(one.status.conditions, gpu_sharing.CONDITION) for one in held}
    return {name: c.message for name, c in found.items() if c is not None and c.status == "True"}


def test_both_are_flagged_once_and_name_each_other():
    held, pods = running(job("a"), job("b"))
    held, events = told(held, pods, report(pods[0], "GPU-1"), report(pods[1], "GPU-1"))
    assert [one.status.assignments[0].gpu_uuid for one in held] == ["GPU-1", "GPU-1"]
    assert flagged(held).keys() == {"a", "b"}
    assert "GPU-1 of node n1 also runs training team/b" in flagged(held)["a"]
    assert "team/a" in flagged(held)["b"]
    assert {(e.job.name, e.type, e.reason) for e in events} >= {(n, "Warning", "TrainingsShareGPU") for n in "ab"}
    _, events = told(held, pods, report(pods[0], "GPU-1", 2))
    assert events == []


def test_a_gpu_each_is_as_it_should_be():
    held, pods = running(job("a"), job("b"))
    held, _ = told(held, pods, report(pods[0], "GPU-1"), report(pods[1], "GPU-2"))
    assert flagged(held) == {}


def test_an_inference_beside_a_training_is_meant():
    held, pods = running(job("a"), job("b", kind=Kind.INFERENCE))
    held, _ = told(held, pods, report(pods[0], "GPU-1"), report(pods[1], "GPU-1"))
    assert flagged(held) == {}


def test_two_are_meant_where_the_pool_allows_two():
    two = {"pools": [pool(per_gpu=(GpuTier(min_memory=0, training=2, inference=1),))]}
    held, pods = running(job("a"), job("b"), **two)
    held, _ = told(held, pods, report(pods[0], "GPU-1"), report(pods[1], "GPU-1"), **two)
    assert flagged(held) == {}


def test_the_flag_goes_when_the_other_ends():
    held, pods = running(job("a"), job("b"))
    held, _ = told(held, pods, report(pods[0], "GPU-1"), report(pods[1], "GPU-1"))
    ended = replace(pods[1], phase=PodPhase.SUCCEEDED, exit_code=0)
    now = statuses(run(snapshot(held, pods=[pods[0], ended])))
    assert flagged([replace(one, status=now[one.name]) for one in held]) == {}
