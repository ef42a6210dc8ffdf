"""What stands between a job and its GPUs: the operator's verdict ticks off what is before it, numbers judge the rest."""

import pytest
from msgspec.structs import replace
from unit.core.builders import T0, after, job, pool, quota

from rfuav_crds import reasons
from rfuav_operator.core.guidance.advice import advice
from rfuav_operator.core.guidance.checklist import POOL, QUOTA, Step, checklist
from rfuav_operator.core.guidance.spans import span
from rfuav_operator.core.model import (
    Assignment,
    Failure,
    GpuShare,
    JobStatus,
    Phase,
    PoolQuota,
    Progress,
    Queue,
    QuotaSpec,
    Source,
)

READY = {"conditions": [{"type": "Ready", "status": "True", "message": "admits jobs on 3 of 3 nodes"}]}
BUSY = READY | {"nodes": 3, "gpus": 6, "slots": 6, "slotsInUse": {"training": 4, "inference": 2}}


def steps(one, of_pool=READY, *, of_quota=None, now=T0, unread=(), no_pool=False):
    held = None if no_pool else replace(pool(), status=of_pool)
    return {s.what: s for s in checklist(one, pool=held, quota=of_quota, now=now, unread=unread)}


def waiting(reason, message="why", **more):
    return job(status=JobStatus(phase=Phase.QUEUED, reason=reason, message=message, **more))


def team(nominal=2, borrowing=None, *, used=0, trainings=0, most=None):
    entry = PoolQuota(name="default", gpus=GpuShare(nominal=nominal, borrowing_limit=borrowing), max_training_jobs=most)
    status = {"pools": [{"name": "default", "used": used, "admitted": {"training": trainings, "inference": 0}}]}
    return replace(quota("team"), spec=QuotaSpec(pools=(entry,)), status=status)


def test_the_verdict_ticks_off_what_is_before_it_and_says_what_to_do():
    found = steps(waiting(reasons.WAITING_FOR_QUOTA, "namespace team uses 2 of 2 in pool default"))
    assert [s.ok for s in found.values()][:6] == [True] * 6
    step = found["namespace team has quota left"]
    assert step.ok is False
    assert step.detail == (
        "namespace team uses 2 of 2 in pool default. To do: wait for the team's other jobs, or ask an administrator "
        "for a larger quota"
    )


def test_what_is_behind_the_verdict_is_judged_by_the_numbers():
    found = steps(waiting(reasons.WAITING_FOR_TRAINING_JOB), BUSY, of_quota=team(2, 0, used=2))
    assert found["namespace team has quota left"] == Step(
        False, "namespace team has quota left", "it uses 2 of 2 GPU slots (2 are its own)"
    )
    room = found["pool default has room for 1 GPU slot"]
    assert room.ok is False
    assert room.detail == "0 of 6 GPU slots are free (4 in use by trainings, 2 by inferences)"


def test_free_slots_alone_do_not_say_that_there_is_room():
    free = BUSY | {"slotsInUse": {"training": 1}, "foreignSlots": 2}
    room = steps(waiting(reasons.BACKING_OFF), free)["pool default has room for 1 GPU slot"]
    assert room.ok is None
    assert room.detail.startswith("3 of 6 GPU slots are free (1 in use by trainings, 0 by inferences, 2 by other")


@pytest.mark.parametrize(
    ("held", "ok", "words"),
    [
        (team(2, 2, used=3), True, "it uses 3 of 4 GPU slots (2 are its own)"),
        (team(2, used=30), True, "it uses 30 of any number of GPU slots (2 are its own)"),
        (team(9, used=1, trainings=1, most=1), False, "(9 are its own); 1 of at most 1 training jobs run"),
        (None, True, "no limit"),
    ],
)
def test_the_share_of_the_team(held, ok, words):
    step = steps(waiting(reasons.BACKING_OFF), of_quota=held)["namespace team has quota left"]
    assert step.ok is ok
    assert words in step.detail


def test_what_may_not_be_read_is_not_judged():
    found = steps(waiting(""), no_pool=True, unread={POOL, QUOTA})
    assert found["pool default admits jobs"] == Step(None, "pool default admits jobs", "you may not read pools")
    assert found["namespace team has quota left"].ok is None
    assert found["pool default has room for 1 GPU slot"].ok is None


def test_a_pool_that_does_not_exist():
    found = steps(waiting(reasons.MISCONFIGURED, "pool default does not exist"), no_pool=True)
    assert found["its manifest can run"].ok is False
    assert steps(waiting(""), no_pool=True)["pool default admits jobs"].detail == "it does not exist"


def test_the_place_in_the_queue():
    place = Queue(position=3, of=12, estimated_start=after(2400))
    step = steps(waiting(reasons.WAITING_FOR_CAPACITY, queue=place))["it is its turn"]
    assert step == Step(False, "it is its turn", "place 3 of 12, starts in about 40m")


def test_a_job_that_nobody_has_seen():
    assert steps(job(), now=after(2))["the operator has seen it"].ok is None
    assert steps(job(), now=after(60))["the operator has seen it"].detail.endswith("check that the operator runs")


def test_a_suspended_job_says_what_to_do():
    found = steps(job(suspend=True, status=JobStatus(phase=Phase.SUSPENDED, reason="Suspended", message="suspended")))
    assert found["it is not suspended"] == Step(False, "it is not suspended", "suspended. To do: resume it")


def test_weights_of_a_training():
    one = job(source="first", status=JobStatus(phase=Phase.QUEUED, reason=reasons.WAITING_FOR_CAPACITY))
    ready = replace(one, status=replace(one.status, source=Source(name="first", uid="u", weights="pvc://m/w")))
    assert steps(ready)["its weights are there"] == Step(True, "its weights are there", "pvc://m/w")
    assert "its weights are there" not in steps(waiting(""))


def test_a_running_job_says_how_it_goes():
    status = JobStatus(
        phase=Phase.RUNNING,
        admitted_at=T0,
        running_since=after(30),
        assignments=(Assignment(pod="a-1", node="gpu-1", gpus=2),),
        progress=Progress(epoch=3, total_epochs=20, percent=15, remaining_seconds=600, updated_at=after(80)),
    )
    found = steps(job(status=status), now=after(90))
    assert found["it has room"] == Step(True, "it has room", "1m30s ago, 2 GPU slots on gpu-1")
    assert found["its pods run"] == Step(True, "its pods run", "for 1m")
    assert found["it reports progress"].detail == "epoch 3 of 20, 15 %, 10m left, heard 10s ago"
    assert steps(job(status=status), now=after(400))["it reports progress"].ok is False


def test_a_failed_job_says_why_and_what_to_do():
    failure = Failure(
        attempt=2, pod="a-2", node="gpu-1", reason="OutOfMemory", exit_code=137, message="killed", finished_at=T0
    )
    status = JobStatus(phase=Phase.FAILED, reason="OutOfMemory", message="twice", failures=(failure,))
    found = steps(job(status=status))
    assert found["it has failed"].detail == "OutOfMemory: twice. To do: raise spec.resources.memory"
    assert found["attempt 2"].detail == (
        "OutOfMemory (exit code 137) on gpu-1: killed. To do: raise spec.resources.memory"
    )


NOTHING_TO_DO = {
    "Alone", "Admitted", "Cancelled", "Completed", "Failed", "GPUsUnhealthy", "GPUsUnknown", "Interrupted", "NoNodes",
    "NoPods", "OneRelease", "PodNameTaken", "Queued", "Ready", "Recovered", "Resumed", "Running", "StandsBy", "Starting",
    "Succeeded", "Suspended", "TrainingsShareGPU",
}  # fmt: skip


def test_there_is_advice_for_every_reason_that_stops_a_job():
    without = {reason for reason in reasons.OWN | reasons.OF_TRAINER if not advice(reason)}
    assert without == NOTHING_TO_DO


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0s"), (59, "59s"), (90, "1m30s"), (700, "11m"), (3600, "1h"), (11_100, "3h5m"), (187_200, "2d4h")],
)
def test_spans(seconds, words):
    assert span(seconds) == words
