"""Who is stopped for whom by priority, what each is told, and that nobody is stopped in vain."""

import pytest
from msgspec.structs import replace
from unit.core.builders import PREEMPTION, RECLAIM, job, pool, quota, whole
from unit.core.cluster import Cluster
from unit.core.crowded import add, cluster, gpus, high, low, stopping

from rfuav_operator.core import conditions
from rfuav_operator.core.model import DeletePod, PatchStatus, Phase, Preemption

# --- by priority


def test_a_job_of_higher_priority_stops_one_of_lower_and_takes_its_place():
    made = add(cluster(low("a"), low("b")), high())
    (victim,) = stopping(made)
    told = made.status("high")
    pod = made.pods_of(victim)[0].name
    assert (told.phase, told.reason) == (Phase.QUEUED, "WaitingForPreemptedJobs")
    assert told.message == f"needs 1 GPU; waits until preempted pods have stopped: {pod} on n1"
    assert made.pods_of(victim)[0].deleting
    evicted = conditions.find(made.status(victim).conditions, "Evicted")
    assert evicted is not None
    assert (evicted.status, evicted.reason) == ("True", "Preempted")
    assert evicted.message == (
        "preempted by TrainingJob team/high, of priority 9000 over 10; runs again from its checkpoint"
    )
    assert made.status(victim).reason == "Preempted"
    made.finish(pod, 75)
    made.leave()
    assert made.status("high").phase is Phase.ADMITTED
    assert (made.status(victim).phase, made.status(victim).failures) == (Phase.QUEUED, ())
    assert conditions.is_true(made.status(victim).conditions, "Evicted")


def test_a_victim_returns_to_its_old_place_and_the_condition_ends_with_its_admission():
    made = add(cluster(low("a"), nodes=[whole(gpus=1)]), low("younger"), high())
    queued_at = made.status("a").queued_at
    made.leave()
    assert made.running() == {"high"}
    assert (made.status("a").queued_at, made.status("a").queue.position) == (queued_at, 1)
    made.start_all()
    made.finish(made.pods_of("high")[0].name)
    assert "a" in made.go().running()
    assert not conditions.is_true(made.status("a").conditions, "Evicted")
    assert made.status("a").attempt == 2


def test_the_victims_status_is_written_before_its_pod_is_deleted():
    made = cluster(low("a"), nodes=[whole(gpus=1)])
    made.add(replace(high(), created=made.now))
    actions = [a for a in made.turn() if isinstance(a, PatchStatus | DeletePod)]
    mine = [type(a) for a in actions if (a.job.uid if isinstance(a, PatchStatus) else a.job_uid) == "uid-a"]
    assert mine == [PatchStatus, DeletePod]


@pytest.mark.parametrize(
    ("policy", "waiting", "stops"),
    [
        (Preemption(), high(), False),  # off by default
        (PREEMPTION, high(), True),
        (PREEMPTION, low("same"), False),  # not of equal priority
        (RECLAIM, high(), False),  # nothing of its own to take back
    ],
)
def test_when_priority_stops_others(policy, waiting, stops):
    made = add(cluster(low("a"), nodes=[whole(gpus=1)], policy=policy), waiting)
    assert stopping(made) == ({"a"} if stops else set())


def test_nothing_young_is_stopped_and_the_plan_looks_again_when_it_is_old_enough():
    made = add(cluster(low("a"), nodes=[whole(gpus=1)], age=20), high())
    assert stopping(made) == set()
    made.go(2)  # the status of the pool has followed
    assert made.wake_at is not None
    assert (made.wake_at - made.now).total_seconds() == 38
    made.pass_time(38)
    made.turn()
    assert made.snapshot().jobs["uid-a"].status.assignments[0].stopping == "Preempted"


def test_a_pod_that_does_not_run_yet_is_not_stopped():
    made = Cluster([whole(gpus=1)], [pool(preemption=replace(PREEMPTION, min_runtime_seconds=0))])
    made.add(low("a"))
    made.go(100)
    assert stopping(add(made, high())) == set()


# --- never in vain


def test_nobody_is_stopped_where_it_would_not_help():
    keeps = job("keeps", priority_class_name="high", resources=gpus(1))
    made = add(cluster(low("a"), keeps), high(resources=gpus(2)))
    assert stopping(made) == set()
    assert made.status("high").reason == "WaitingForCapacity"


def test_nobody_is_stopped_for_a_job_that_quota_keeps_out():
    quotas = (quota("team", nominal=1, borrow=0, training=1), quota("other", nominal=0))
    running = [job("mine", priority_class_name="high"), low("b", namespace="other")]
    made = add(cluster(*running, quotas=quotas), high())
    assert stopping(made) == set()
    assert made.status("high").reason == "WaitingForQuota"


def test_room_that_comes_back_anyway_is_waited_for():
    made = cluster(low("a"), low("b"))
    made.edit(made.named("a").uid, suspend=True)
    add(made, high())
    assert stopping(made) == set()
    made.leave()
    assert made.running() == {"b", "high"}


def test_while_victims_leave_their_node_is_kept_for_the_one_that_waits():
    made = add(cluster(low("a"), low("b")), high(resources=gpus(1)))
    (first,) = stopping(made)
    add(made, low("c"), job("d", priority_class_name="mid"))
    assert stopping(made) == {first}  # `d` may stop the other, but not before `high` is in
    made.leave()
    assert made.running() == {"high", *({"a", "b"} - {first})}
    assert stopping(made) == {"a", "b"} - {first}
    assert made.leave().running() == {"high", "d"}


def test_a_waiting_job_that_is_gone_leaves_no_trace():
    made = add(cluster(low("a"), nodes=[whole(gpus=1)]), high())
    made.edit("uid-high", suspend=True)
    made.go()
    add(made, high("next"))
    assert made.status("next").reason == "WaitingForCapacity"  # the room comes back anyway
    made.delete_job("uid-high")
    assert made.leave().running() == {"next"}


def test_room_that_comes_back_on_another_node_is_waited_for():
    made = cluster(low("a"), low("b"), nodes=[whole("a", gpus=1), whole("b", gpus=1)])
    made.edit(made.named("a").uid, suspend=True)
    assert stopping(add(made, high())) == set()


def test_what_its_namespace_may_use_is_kept_too():
    """Room for the smaller job is free on another node; with it the namespace could not run the one that waits."""
    quotas = (quota("team", nominal=2, borrow=0), quota("other", nominal=0))
    borrower = job("b", namespace="other", resources=gpus(2))
    made = cluster(borrower, nodes=[whole("a", gpus=2), whole("b", gpus=1)], policy=RECLAIM, quotas=quotas)
    add(made, job("m1", resources=gpus(2)))
    add(made, job("m2"))
    assert made.status("m2").message == (
        "needs 1 GPU; namespace team uses 0 of 2 in pool default (nominal 2, may borrow 0); "
        "2 more reserved for a job that waits for room"
    )
    assert made.leave().running() == {"m1"}


def test_a_job_that_waits_for_victims_says_so_immediately_at_any_place():
    """Its victims become old enough while nothing of its own changes, and many stand before it."""
    quotas = (quota("team", nominal=1), quota("other", nominal=0))
    made = cluster(job("b", namespace="other"), nodes=[whole(gpus=1)], policy=RECLAIM, quotas=quotas, age=20)
    add(made, *(high(f"first{i:02}", namespace="other") for i in range(11)), job("mine"))
    assert made.status("mine").queue.position == 12
    made.go(39)
    made.go(2)
    assert stopping(made) == {"b"}
    assert (made.status("mine").reason, made.status("mine").queue.position) == ("WaitingForPreemptedJobs", 1)


def test_the_first_place_is_known_before_it_is_written():
    """The victim is gone before the waiting job's status was sent: nobody passes it all the same."""
    made = cluster(high("b", namespace="other"), nodes=[whole(gpus=1)], policy=RECLAIM, quotas=[quota(nominal=2)])
    made.add(replace(high("third", namespace="third"), created=made.now))
    made.add(replace(job("mine"), created=made.now))
    made.turn()
    assert made.snapshot().jobs["uid-mine"].status.reason == "WaitingForPreemptedJobs"
    while made.lanes["uid-b"]:
        made.deliver("uid-b")
    made.reap()
    made.turn()
    assert made.snapshot().jobs["uid-mine"].status.phase is Phase.ADMITTED


def test_a_node_that_is_cleared_for_another_is_not_counted_on():
    made = cluster(low("a"), low("b"), low("c"), nodes=[whole("n1", gpus=2), whole("n2", gpus=1)])
    assert len(stopping(add(made, high(resources=gpus(2))))) == 2
    assert stopping(add(made, job("d", priority_class_name="mid"))) == {"a", "b", "c"}
    assert made.leave().running() == {"high", "d"}


# --- two at once


def test_two_that_wait_each_get_what_was_cleared_for_them():
    """Whichever pods leave first: a part of the first's room is not taken by the second, whose own comes later."""
    made = cluster(*(low(name) for name in "abcd"), nodes=[whole("n1", gpus=2), whole("n2", gpus=2)])
    add(made, high("first", resources=gpus(2), priority="mid"))
    (one, other) = sorted(stopping(made))
    add(made, high("second", namespace="other"))
    (third,) = stopping(made) - {one, other}
    for name in (one, third, other):
        made.vanish(made.pods_of(name)[0].name)
        made.go()
    assert {"first", "second"} <= made.running()
    assert stopping(made) == set()


def test_the_other_room_of_a_stopped_gang_is_not_what_was_cleared():
    """`second` stops a gang for its pod on n2; that it leaves n1 too gives it no right to what `first` waits for there."""
    nodes = [whole("n1", gpus=2), whole("n2", gpus=1), whole("n3", gpus=1)]
    made = cluster(low("c"), low("gang", nodes=2), nodes=nodes)
    assert {a.node for a in made.status("gang").assignments} == {"n1", "n3"}
    add(made, high("first", nodes=2, priority="mid"))  # n1, which has room, and n2
    assert stopping(made) == {"c"}
    add(made, high("second", namespace="other"))
    assert stopping(made) == {"c", "gang"}
    made.vanish(made.pods_of("c")[0].name)
    assert made.go().running() >= {"first"}
    assert {a.node for a in made.status("first").assignments} == {"n1", "n2"}
    assert made.leave().running() == {"first", "second", "c"}  # which has found room beside them


def test_a_victim_on_a_lost_node_is_not_waited_for():
    made = add(cluster(low("a"), low("b"), nodes=[whole("n1", gpus=1), whole("n2", gpus=1)]), high())
    (first,) = stopping(made)
    (lost,) = (p.node for p in made.pods_of(first))
    made.set_node(replace(made.nodes[lost], ready=False), lost)
    made.go()
    assert stopping(made) == {"a", "b"}
    made.vanish(made.pods_of(({"a", "b"} - {first}).pop())[0].name)
    assert "high" in made.go().running()
