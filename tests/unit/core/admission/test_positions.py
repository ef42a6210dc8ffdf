"""What those in line are told: the first reason that applies, with the numbers of now, their place and estimated start."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from unit.core.builders import after, job, of_type, pool, quota, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Kind, PatchStatus, Phase, Progress, Report, Resources

HELD = pool(stop_policy="Hold")
NO_TRAINING = quota(nominal=8, training=0)
NO_SHARE = quota(nominal=0, borrow=0)


def full(gpus=1, **rest):
    """A cluster whose GPUs are all in use by one job each."""
    made = Cluster([whole(gpus=gpus)], [pool(**rest)])
    for index in range(gpus):
        made.add(job(f"r{index}", created=after(index - 100)))
    return made.go().start_all()


def queue(made, count, **rest):
    for index in range(count):
        made.add(job(f"q{index:02}", created=after(index), **rest))
    return made.go()


def places(made):
    return {j.name: j.status.queue.position for j in made.jobs.values() if j.status.queue}


# --- reasons, the first that applies


@pytest.mark.parametrize(
    ("changes", "snap", "reason"),
    [
        ({}, {}, "WaitingForCapacity"),
        ({}, {"quotas": [quota(training=1, nominal=8)]}, "WaitingForQuota"),
        ({"backing_off": True}, {"quotas": [quota(training=1, nominal=8)]}, "BackingOff"),
        ({"backing_off": True}, {"quotas": [NO_TRAINING]}, "ExceedsMaxQuota"),
        ({}, {"quotas": [NO_TRAINING]}, "ExceedsMaxQuota"),
        ({"backing_off": True, "resources": Resources(gpus=9)}, {"quotas": [NO_TRAINING]}, "ExceedsMaxQuota"),
        ({"backing_off": True}, {"quotas": [NO_TRAINING], "nodes": []}, "NoMatchingNode"),
        ({"source": "t"}, {"quotas": [NO_TRAINING], "nodes": []}, "WaitingForTrainingJob"),
        ({"source": "t", "priority_class_name": "gone"}, {"nodes": []}, "Misconfigured"),
        ({"source": "t", "priority_class_name": "gone"}, {"pools": [HELD], "nodes": []}, "OnHold"),
        ({"priority_class_name": "gone", "suspend": True}, {"pools": [HELD], "nodes": []}, "Suspended"),
        ({"suspend": True, "cancel": True}, {"pools": [HELD], "nodes": []}, "Cancelled"),
    ],
)
def test_the_first_reason_that_applies(changes, snap, reason):
    waits = job("waits", **{key: value for key, value in changes.items() if key != "backing_off"})
    if "backing_off" in changes:
        waits = replace(waits, status=replace(waits.status, phase=Phase.QUEUED, not_before=after(60)))
    jobs = [job("runs", created=after(-1)), waits]
    status = statuses(run(snapshot(jobs, **{"nodes": [whole(gpus=1)]} | snap)))["waits"]
    assert status.reason == reason
    admitted = next(c for c in status.conditions if c.type == "Admitted")
    assert (admitted.status, admitted.reason, admitted.message) == ("False", reason, status.message)


def test_numbers_are_those_of_the_moment():
    made = queue(full(gpus=2), 1)
    assert made.status("q00").message == (
        "needs 1 GPU; pool default has 0 of 2 training slots free on 1 node "
        "(2 training slots used; 0 of 2 inference slots used)"
    )
    big = job("big", created=after(9), resources=Resources(gpus=2))
    made.add(big)
    made.edit("uid-q00", suspend=True)
    made.finish(made.pods_of("r0")[0].name)
    made.go()
    assert made.status("big").message.startswith("needs 2 GPUs; pool default has 1 of 2 training slots free on 1 node")
    made.edit("uid-r1", cancel=True)
    made.go().leave()
    assert made.running() == {"big"}


def test_the_largest_free_block_is_named_when_that_is_what_lacks():
    nodes = [whole(name, gpus=2) for name in "ab"]
    spread = Cluster(nodes, [pool(placement="Spread")])
    for name in "xy":
        spread.add(job(name))
    spread.add(job("big", created=after(1), resources=Resources(gpus=2)))
    assert "has 2 of 4 training slots free on 2 nodes" in spread.go().status("big").message
    assert "(largest free block 1)" in spread.status("big").message


# --- places


def test_places_are_in_the_order_of_admission():
    made = full(gpus=2)
    for index, (namespace, priority) in enumerate([("a", ""), ("a", ""), ("b", ""), ("b", ""), ("a", "high")]):
        made.add(job(f"q{index}", namespace=namespace, created=after(index), priority_class_name=priority))
    made.go()
    assert sorted(places(made), key=places(made).get) == ["q4", "q2", "q0", "q3", "q1"]
    assert {j.status.queue.of for j in made.jobs.values() if j.status.queue} == {5}
    order = []
    while len(order) < 5:
        made.finish(next(p.name for p in made.pods.values() if p.live))
        before = made.running()
        order += sorted(made.go().start_all().running() - before)
    assert order == ["q4", "q2", "q0", "q3", "q1"]  # as it was told


def test_gated_jobs_have_no_place_and_take_none():
    made = full()
    made.add(job("held", namespace="held"))
    made.set_quota(quota("held", stop_policy="Hold"))
    queue(made, 1)
    assert places(made) == {"q00": 1}


def test_an_admitted_job_has_no_place():
    made = queue(full(), 2)
    made.finish(made.pods_of("r0")[0].name)
    made.go()
    assert made.status("q00").queue is None
    assert (made.status("q01").queue.position, made.status("q01").queue.of) == (1, 1)


def test_further_shards_of_a_running_job_have_no_place_in_the_queue():
    made = Cluster([whole(gpus=1)])
    made.add(job("wide", kind=Kind.INFERENCE, shards=4, parallelism=4))
    made.add(job("next", created=after(1)))
    made.go()
    assert (places(made), made.status("next").queue.of) == ({"next": 1}, 1)


def test_the_first_ten_are_always_right_and_the_rest_in_a_while():
    made = queue(full(), 15)
    assert sorted(places(made).values()) == list(range(1, 16))
    made.pass_time(1)
    made.delete_job("uid-q03")
    made.go()
    told = {name: (j.status.queue.position, j.status.queue.of) for name in places(made) for j in [made.named(name)]}
    assert [told[f"q{i:02}"] for i in (0, 1, 2, 4, 5, 6, 7, 8, 9, 10)] == [(i, 14) for i in range(1, 11)]
    assert [told[f"q{i}"] for i in (11, 12, 13, 14)] == [(i, 15) for i in (12, 13, 14, 15)]  # as it was
    assert made.wake_at <= made.now + timedelta(seconds=10)
    made.go(10)
    assert sorted(places(made).values()) == list(range(1, 15))


def test_a_new_job_shows_its_place_immediately_in_a_queue_of_any_length():
    made = queue(full(), 15)
    made.add(job("new", created=after(99)))
    made.turn()
    status = made.snapshot().jobs["uid-new"].status
    assert (status.queue.position, status.queue.of, status.reason) == (16, 16, "WaitingForCapacity")


def test_at_rest_nobody_is_told_anything():
    made = queue(full(), 15)
    made.go(10)
    for _ in range(3):
        made.pass_time(10)
        made.plan = True
        assert not any(isinstance(action, PatchStatus) for action in made.turn())


def test_a_place_may_wait_and_a_reason_may_not():
    done = run(snapshot([job("a"), job("b", created=after(1))], nodes=[whole(gpus=1)]))
    (told,) = [p for p in of_type(done, PatchStatus) if p.job.name == "b"]
    assert told.urgent  # from nothing to Queued
    waits = job("b", created=after(1), status=told.status)
    runs = job("a", status=statuses(done)["a"])
    moved = run(snapshot([runs, job("first", created=after(-1)), waits], nodes=[whole(gpus=1)]))
    (told,) = [p for p in of_type(moved, PatchStatus) if p.job.name == "b"]
    assert (told.urgent, told.slow, told.status.queue.position) == (False, True, 2)
    held = run(snapshot([runs, waits], nodes=[whole(gpus=1)], pools=[HELD]))
    (told,) = [p for p in of_type(held, PatchStatus) if p.job.name == "b"]
    assert (told.urgent, told.slow, told.status.reason) == (True, False, "OnHold")


# --- estimated start


def report(made, name, seconds):
    pod = made.pods_of(name)[0]
    progress = Progress(percent=10, remaining_seconds=seconds)
    return Report(
        job_uid=pod.job_uid,
        pod=pod.name,
        attempt=pod.attempt,
        index=0,
        sequence=1,
        progress=progress,
        received_at=made.now,
    )


def test_the_estimated_start_is_when_all_jobs_before_it_could_have_started():
    made = full(gpus=3)
    made.turn([report(made, "r0", 600), report(made, "r1", 300)])
    queue(made, 3)
    starts = [made.status(f"q0{i}").queue.estimated_start for i in range(3)]
    assert starts == [after(300), after(600), None]  # of r2 nothing is known
    assert [made.status(f"q0{i}").queue.position for i in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(("remaining", "start"), [(301, 330), (330, 330), (0, 0)])
def test_it_is_rounded_up_to_half_minutes(remaining, start):
    made = full()
    made.turn([report(made, "r0", remaining)])
    assert queue(made, 1).status("q00").queue.estimated_start == after(start)


def test_it_stands_still_while_it_moves_little():
    made = full()
    made.turn([report(made, "r0", 300)])
    queue(made, 1)
    told = made.status("q00").queue.estimated_start
    made.pass_time(20)
    made.turn([replace(report(made, "r0", 300), sequence=2)])
    assert made.go().status("q00").queue.estimated_start == told
    made.pass_time(60)
    made.turn([replace(report(made, "r0", 300), sequence=3)])
    made.go()
    assert made.status("q00").queue.estimated_start == after(390)


def test_only_pods_of_its_kind_make_room_for_it():
    made = full()
    made.turn([report(made, "r0", 300)])
    assert queue(made, 1, kind=Kind.INFERENCE).status("q00").queue.estimated_start is None


def test_a_job_far_back_shows_its_reason_immediately_and_its_place_later(monkeypatch):
    monkeypatch.setattr("rfuav_operator.core.admission.positions.NEAR", 12)
    made = queue(full(), 15)
    made.add(job("late", created=after(100)))
    assert made.go().status("late").reason == "WaitingForCapacity"
    assert made.status("late").queue is None
    made.go(11)
    assert made.status("late").queue.position == 16
