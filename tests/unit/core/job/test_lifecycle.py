"""From queue to end: running, suspending, cancelling, deadlines, TTL, dependencies, shards."""

import pytest
from msgspec.structs import replace
from unit.core.builders import T0, admitted, after, created, job, of_type, pod_of, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core import conditions
from rfuav_operator.core.model import (
    Assignment,
    DeleteJob,
    DeletePod,
    JobStatus,
    Kind,
    PatchStatus,
    Phase,
    PodPhase,
    Progress,
    RecordEvent,
    ShardCounts,
)


def step(made, *pods, now=T0, **snap):
    """The job after a turn in which these were its pods, and the turn."""
    done = run(snapshot([made], pods=pods, **snap), now=now)
    return replace(made, status=statuses(done).get(made.name, made.status)), done


def running(made, now=T0):
    held = admitted(made, now=now)[0]
    return step(held, pod_of(held, phase=PodPhase.RUNNING, started_at=now), now=now)[0]


def test_from_queue_to_success():
    held = admitted(job())[0]
    assert [e.reason for e in of_type(run(snapshot([job()])), RecordEvent)] == ["Admitted"]
    held, done = step(held, pod_of(held, phase=PodPhase.RUNNING, started_at=after(5)), now=after(6))
    assert (held.status.phase, held.status.started_at) == (Phase.RUNNING, after(5))
    assert conditions.is_true(held.status.conditions, "PodsReady")
    assert not of_type(done, RecordEvent)  # the condition tells it, with its time
    held, done = step(held, pod_of(held, phase=PodPhase.SUCCEEDED, exit_code=0), now=after(65))
    assert (held.status.phase, held.status.finished_at) == (Phase.SUCCEEDED, after(65))
    assert conditions.is_true(held.status.conditions, "Complete")
    assert not conditions.is_true(held.status.conditions, "Stalled")
    assert (held.status.running_seconds, held.status.running_since) == (60, None)
    assert held.status.assignments[0].node == "n1"  # where it ran stays on record
    assert [e.reason for e in of_type(done, RecordEvent)] == ["Succeeded"]


def test_a_job_that_is_being_deleted_is_left_alone():
    held = replace(running(job()), deleting=True)
    done = run(snapshot([held], pods=[pod_of(held, phase=PodPhase.RUNNING)]))
    assert not [a for a in done.actions if isinstance(a, PatchStatus | DeletePod)]


# --- suspend and cancel


def suspended(held, value=True):
    return replace(held, spec=replace(held.spec, suspend=value), generation=held.generation + 1)


def test_suspend_stops_the_pod_keeps_the_age_and_gives_room_back_when_it_is_gone():
    held = suspended(running(job()))
    pod = pod_of(held, phase=PodPhase.RUNNING)
    queued_at = held.status.queued_at
    held, done = step(held, pod)
    assert [d.uid for d in of_type(done, DeletePod)] == [pod.uid]
    assert (held.status.phase, held.status.queued_at) == (Phase.SUSPENDED, queued_at)
    assert "1 pod still stopping" in held.status.message
    assert held.status.assignments
    held, done = step(held, replace(pod, deleting=True))
    assert of_type(done, DeletePod) == []
    early, done = step(suspended(held, False), replace(pod, deleting=True))
    assert (early.status.phase, created(done)) == (Phase.QUEUED, [])
    assert "earlier attempt" in early.status.message
    held, _ = step(held, replace(pod, phase=PodPhase.FAILED, exit_code=75, deleting=True))
    assert (held.status.assignments, held.status.failures) == ((), ())
    held, done = step(suspended(held, False), now=after(60))
    assert (held.status.phase, held.status.attempt, held.status.queued_at) == (Phase.ADMITTED, 2, queued_at)
    assert not conditions.is_true(held.status.conditions, "Suspended")


def test_suspended_before_the_create_is_seen():
    held = admitted(job())[0]
    name = held.status.assignments[0].pod
    held, done = step(suspended(held), creating={held.uid: frozenset({name})})
    assert held.status.assignments
    _late, done = step(held, pod_of(held))
    assert [d.name for d in of_type(done, DeletePod)] == [name]
    gone, done = step(held)
    assert (gone.status.assignments, created(done)) == ((), [])


def test_a_job_made_suspended_gets_in_line_when_it_is_let_go():
    held, _ = step(job(suspend=True), now=after(10))
    assert (held.status.phase, held.status.queued_at) == (Phase.SUSPENDED, None)
    held, _ = step(suspended(held, False), now=after(500))
    assert held.status.queued_at == after(500)


def cancelled(held):
    return replace(held, spec=replace(held.spec, cancel=True), generation=held.generation + 1)


def test_cancel_is_terminal_at_once_and_the_room_stays_held():
    held = cancelled(running(job()))
    pod = pod_of(held, phase=PodPhase.RUNNING)
    held, done = step(held, pod)
    failed = conditions.find(held.status.conditions, "Failed")
    assert (held.status.phase, failed.status, failed.reason) == (Phase.CANCELLED, "True", "Cancelled")
    assert not conditions.is_true(held.status.conditions, "Stalled")
    assert [d.uid for d in of_type(done, DeletePod)] == [pod.uid]
    other, third = job("b", created=after(1)), job("c", created=after(2))
    late = run(snapshot([held, other, third], pods=[replace(pod, deleting=True)]))
    assert len(created(late)) == 1
    after_all, _ = step(held, replace(pod, phase=PodPhase.SUCCEEDED, exit_code=0))
    assert after_all.status == held.status


def test_a_success_seen_together_with_the_cancellation_wins():
    held = cancelled(running(job()))
    held, _ = step(held, pod_of(held, phase=PodPhase.SUCCEEDED, exit_code=0))
    assert held.status.phase is Phase.SUCCEEDED


def test_cancel_while_queued():
    held, done = step(cancelled(job()))
    assert (held.status.phase, created(done)) == (Phase.CANCELLED, [])


# --- time


def test_the_deadline_counts_running_time_only():
    held = running(job(active_deadline_seconds=100))
    pod = pod_of(held, phase=PodPhase.RUNNING)
    assert run(snapshot([held], pods=[pod]), now=after(50)).wake_at == after(100)
    held, _ = step(suspended(held), replace(pod, deleting=True, phase=PodPhase.FAILED, exit_code=75), now=after(60))
    assert held.status.running_seconds == 60
    held, _ = step(suspended(held, False), now=after(1000))
    pod = pod_of(held, phase=PodPhase.RUNNING, started_at=after(1000), attempt=2)
    held, _ = step(held, pod, now=after(1000))
    assert step(held, pod, now=after(1039))[0].status.phase is Phase.RUNNING
    held, done = step(held, pod, now=after(1040))
    assert (held.status.phase, held.status.reason) == (Phase.FAILED, "DeadlineExceeded")
    assert of_type(done, DeletePod)


def test_a_node_whose_clock_is_ahead_gives_no_more_time():
    held = admitted(job(active_deadline_seconds=100))[0]
    held, _ = step(held, pod_of(held, phase=PodPhase.RUNNING, started_at=after(3600)), now=after(5))
    assert (held.status.started_at, held.status.running_since) == (after(5), after(5))
    done = step(held, pod_of(held, phase=PodPhase.RUNNING, started_at=after(3600)), now=after(106))[0]
    assert done.status.reason == "DeadlineExceeded"


def test_ttl_deletes_a_finished_job():
    held = running(job(ttl_seconds_after_finished=60))
    held, done = step(held, pod_of(held, phase=PodPhase.SUCCEEDED, exit_code=0))
    assert done.wake_at == after(60)
    assert of_type(run(snapshot([held]), now=after(59), dirty=[], plan=False), DeleteJob) == []
    due = run(snapshot([held]), now=after(60), dirty=[], plan=False)
    assert [d.job.name for d in of_type(due, DeleteJob)] == ["a"]
    assert due.wake_at > after(60)


def test_a_training_is_not_deleted_before_those_that_wait_for_its_weights_have_stored_them():
    made = Cluster([whole(gpus=2)])
    made.add(job("train", ttl_seconds_after_finished=0))
    made.add(job("inf", kind=Kind.INFERENCE, source="train", suspend=True))
    made.go()
    made.start_all()
    train, inf = made.named("train").uid, made.named("inf").uid
    made.finish(made.pods_of("train")[0].name)
    made.turn()
    made.deliver_all()
    for _ in range(3):  # the record of the weights is decided, and on its way
        made.turn()
        made.pass_time(40)
        assert DeleteJob not in {type(a) for a in made.lanes.get(train, ())}
    assert made.planned[inf].source is not None
    made.go(40).go(40)  # it is looked at again every half minute
    assert train not in made.jobs
    assert made.status("inf").source.uid == train
    made.edit(inf, suspend=False)
    assert made.go().status("inf").phase is Phase.ADMITTED


@pytest.mark.parametrize(
    ("dependent", "goes"),
    [
        (job("inf", kind=Kind.INFERENCE, source="train", cancel=True), True),
        (job("inf", kind=Kind.INFERENCE, source="train", deleting=True), True),
        (job("inf", kind=Kind.INFERENCE, source="train", namespace="other"), True),
        (job("inf", kind=Kind.INFERENCE, source="another"), True),
        (job("inf", kind=Kind.INFERENCE, source="train"), False),
    ],
)
def test_who_keeps_a_finished_training(dependent, goes):
    status = JobStatus(phase=Phase.SUCCEEDED, finished_at=T0, observed_generation=1)
    train = job("train", ttl_seconds_after_finished=0, status=status)
    seen = snapshot([train, dependent], unwritten={dependent.uid})
    assert bool(of_type(run(seen), DeleteJob)) is (goes and not dependent.spec.cancel)
    if dependent.spec.cancel:
        ended = replace(dependent, status=JobStatus(phase=Phase.CANCELLED))
        assert of_type(run(snapshot([train, ended])), DeleteJob)


def test_a_finished_training_has_done_all_its_steps():
    """Early stopping ends it after fewer epochs than it was to have; the steps are those of its last one."""
    held = running(job())
    told = Progress(percent=40, epoch=7, total_epochs=20, step=0, total_steps=23)
    held = replace(held, status=replace(held.status, progress=told))
    held, _ = step(held, pod_of(held, phase=PodPhase.SUCCEEDED, exit_code=0))
    assert held.status.progress == replace(told, percent=100, remaining_seconds=0, step=23)


def test_pods_of_older_attempts_do_not_stay_and_of_later_ones_are_left_alone():
    held = running(job())
    now = pod_of(held, phase=PodPhase.RUNNING)
    old = pod_of(held, name="a-old-0", attempt=0, phase=PodPhase.RUNNING)
    newer = pod_of(held, name="a-newer-9", attempt=9, phase=PodPhase.RUNNING)
    _, done = step(held, now, old, newer)
    assert [d.name for d in of_type(done, DeletePod)] == ["a-old-0"]


def test_a_copy_of_a_later_attempt_is_deleted_after_a_minute():
    """Its status would have been read by then. It must not hold room, and its job's unit, for ever."""
    made = Cluster([whole("n0", gpus=2)])
    made.add(job())
    made.go().start_all()
    (own,) = made.pods_of("a")
    copy = replace(own, name=f"{own.name[:-1]}9", uid="copy", attempt=9, node=None, phase=PodPhase.PENDING)
    made.pods[copy.name] = replace(copy, started_at=None, created=made.now)
    made.touch("uid-a")
    made.turn()
    assert not made.pods[copy.name].deleting
    assert made.wake_at is not None
    assert (made.wake_at - made.pods[copy.name].created).total_seconds() <= 60
    made.pass_time(60)
    made.turn()
    made.deliver_all()
    assert made.pods[copy.name].deleting
    assert not made.pods[own.name].deleting


def test_a_stray_pod_that_lives_keeps_the_unit_from_starting_again():
    held = job(status=JobStatus(phase=Phase.QUEUED, attempt=1, queued_at=T0))
    stray = pod_of(
        replace(held, status=replace(held.status, assignments=(Assignment(pod="a-x-1", node="n1", gpus=1),))),
        phase=PodPhase.RUNNING,
        deleting=True,
    )
    waiting, done = step(held, stray)
    assert created(done) == []
    assert "a-x-1" in waiting.status.message


# --- dependencies


def inference(**rest):
    return job("inf", kind=Kind.INFERENCE, source="train", **rest)


@pytest.mark.parametrize(
    ("status", "weights"),
    [
        (JobStatus(phase=Phase.SUCCEEDED, outputs={"bestWeights": "pvc://m/b.safetensors"}), "pvc://m/b.safetensors"),
        (JobStatus(phase=Phase.SUCCEEDED), "pvc://models/train/best.safetensors"),
        (JobStatus(phase=Phase.SUCCEEDED, outputs={"bestWeights": "s3://m/b.safetensors"}), "s3://m/b.safetensors"),
    ],
)
def test_the_weights_of_a_finished_training_are_recorded(status, weights):
    done = statuses(run(snapshot([job("train", status=status), inference()])))["inf"]
    assert (done.phase, done.source.weights, done.source.uid) == (Phase.ADMITTED, weights, "uid-train")
    held = replace(inference(), status=done)
    alone = run(snapshot([held], pods=[pod_of(held)]))  # the TrainingJob is deleted: what was recorded stays
    assert statuses(alone).get("inf", done).source == done.source


def test_weights_in_a_store_that_were_not_reported_are_looked_for_below_the_output():
    train = job("train", status=JobStatus(phase=Phase.SUCCEEDED), raw={"output": {"uri": "s3://models/train/"}})
    assert statuses(run(snapshot([train, inference()])))["inf"].source.weights == "s3://models/train/best.safetensors"


def test_it_waits_for_a_running_training_and_notices_its_end():
    train = replace(
        job("train"), status=JobStatus(phase=Phase.RUNNING, progress=Progress(percent=41), observed_generation=1)
    )
    waiting = statuses(run(snapshot([train, inference()]), dirty=["uid-inf"]))["inf"]
    assert waiting.reason == "WaitingForTrainingJob"
    assert waiting.message == "waits for TrainingJob train, which is Running (41 %)"
    held = replace(inference(), status=waiting)
    train = running(job("train"))
    pod = pod_of(train, phase=PodPhase.SUCCEEDED, exit_code=0)
    wrote = statuses(run(snapshot([train, held], pods=[pod]), dirty=[train.uid], plan=False))
    assert wrote["train"].phase is Phase.SUCCEEDED
    assert "inf" not in wrote or wrote["inf"].phase is Phase.QUEUED  # the record of the source stands first
    ended = replace(train, status=wrote["train"])
    done = run(snapshot([ended, held], pods=[pod]), dirty=[held.uid], plan=False)
    assert statuses(done)["inf"].phase is Phase.ADMITTED


@pytest.mark.parametrize(("phase", "word"), [(Phase.FAILED, "failed"), (Phase.CANCELLED, "was cancelled")])
def test_a_source_that_fails_fails_the_job(phase, word):
    train = job("train", status=JobStatus(phase=phase, message="exit code 2"))
    done = statuses(run(snapshot([train, inference()])))["inf"]
    assert (done.phase, done.reason) == (Phase.FAILED, "SourceFailed")
    assert word in done.message


# --- shards


def test_shards_are_retried_on_their_own_and_summed():
    made = job("w", kind=Kind.INFERENCE, shards=3, parallelism=3, backoff_limit=1)
    held = admitted(made)[0]
    pods = [
        pod_of(held, at=0, phase=PodPhase.SUCCEEDED, exit_code=0),
        pod_of(held, at=1, phase=PodPhase.FAILED, exit_code=1),
        pod_of(held, at=2, phase=PodPhase.RUNNING),
    ]
    held, done = step(held, *pods)
    shards = held.status.shards
    assert (shards.completed, shards.retries, shards.counted_failures) == ("0", {"1": 1}, {"1": 1})
    assert [a.shard for a in held.status.assignments] == [2]
    assert held.status.phase is Phase.RUNNING
    assert done.wake_at == shards.not_before["1"]
    held, done = step(held, *pods, now=after(60))
    assert [(a.shard, a.pod[-3:]) for a in held.status.assignments] == [(2, "1-2"), (1, "2-1")]
    again = pod_of(held, at=1, attempt=2, phase=PodPhase.FAILED, exit_code=1)
    held, done = step(held, *pods, again, now=after(70))
    assert (held.status.phase, held.status.reason) == (Phase.FAILED, "BackoffLimitExceeded")
    assert held.status.message.startswith("shard 1 failed 2 times")
    assert [d.name for d in of_type(done, DeletePod)] == [pods[2].name]


def test_the_last_shard_completes_the_job():
    status = JobStatus(phase=Phase.QUEUED, queued_at=T0, shards=ShardCounts(total=3, completed="0-1"))
    held = admitted(job("w", kind=Kind.INFERENCE, shards=3, parallelism=3, status=status))[0]
    assert [a.shard for a in held.status.assignments] == [2]
    held, _ = step(held, pod_of(held, phase=PodPhase.SUCCEEDED, exit_code=0))
    assert (held.status.phase, held.status.shards.completed) == (Phase.SUCCEEDED, "0-2")
