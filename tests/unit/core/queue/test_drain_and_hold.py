"""Hold admits nothing new, HoldAndDrain stops what runs as well; a quota's Hold is for its namespace alone."""

import pytest
from msgspec.structs import replace
from unit.core.builders import after, job, of_type, pool, quota, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core import conditions
from rfuav_operator.core.model import Kind, PatchLimitsStatus, Phase, Pool


def cluster(*jobs, gpus=2, **rest):
    made = Cluster([whole(gpus=gpus)], [pool()], **rest)
    for one in jobs:
        made.add(one)
    return made.go().start_all()


def deleting(made):
    return {p.name.split("-")[0] for p in made.pods.values() if p.deleting}


# --- of a pool


def test_hold_stops_nothing_and_admits_nothing():
    made = cluster(job("runs"), gpus=2)
    made.set_pool(stop_policy="Hold")
    made.add(job("new", created=after(1)))
    made.go()
    assert (made.running(), deleting(made)) == ({"runs"}, set())
    told = made.status("new")
    assert (told.phase, told.reason) == (Phase.QUEUED, "OnHold")
    assert told.message == "pool default admits nothing new (stopPolicy: Hold)"
    assert told.queue is None
    made.set_pool(stop_policy="None")
    assert made.go().running() == {"runs", "new"}


def test_hold_lets_what_failed_wait_and_no_further_shard_in():
    wide = job("wide", kind=Kind.INFERENCE, shards=4, parallelism=2)
    made = cluster(wide, gpus=4)
    made.set_pool(stop_policy="Hold")
    made.go()
    made.finish(made.pods_of("wide")[0].name)
    made.go()
    assert len(made.status("wide").assignments) == 1
    assert (made.status("wide").phase, made.status("wide").message) == (Phase.RUNNING, "1 of 4 shards done, 1 admitted")
    made.set_pool(stop_policy="None")
    assert len(made.go().status("wide").assignments) == 2


def test_drain_stops_all_and_they_run_again_in_their_old_order():
    made = cluster(job("a"), job("b", created=after(1)), job("c", created=after(2)))
    made.set_pool(stop_policy="HoldAndDrain")
    made.go()
    assert deleting(made) == {"a", "b"}
    status = made.status("a")
    evicted = conditions.find(status.conditions, "Evicted")
    assert evicted is not None
    assert (evicted.status, evicted.reason) == ("True", "PoolDrained")
    assert evicted.message == "pool default is drained (stopPolicy: HoldAndDrain); runs again later"
    assert status.message.startswith(f"{evicted.message}; waits until pod a-")
    assert (status.phase, status.reason, len(status.assignments)) == (Phase.ADMITTED, "PoolDrained", 1)
    for name in list(made.pods):
        made.finish(name, 75)
    made.go()
    for name in "ab":
        status = made.status(name)
        assert (status.phase, status.reason, status.failures) == (Phase.QUEUED, "OnHold", ())
        assert status.uncounted_failures == 0
    made.set_pool(stop_policy="None")
    made.go()
    assert made.running() == {"a", "b"}
    assert made.status("a").attempt == 2
    assert not conditions.is_true(made.status("a").conditions, "Evicted")


def test_drained_jobs_hold_their_room_until_their_pods_are_gone():
    made = cluster(job("a"), job("b", created=after(1)), gpus=1)
    made.set_pool(stop_policy="HoldAndDrain")
    made.go()
    made.set_pool(stop_policy="None")
    made.go()
    assert made.running() == {"a"}  # it stops all the same, and holds what it has until then
    assert made.leave().running() == {"a"}
    assert made.status("a").attempt == 2


def test_a_pod_that_was_not_made_yet_is_never_made():
    made = Cluster([whole()], [pool()])
    made.add(job("a"))
    made.turn()
    made.deliver("uid-a")  # the record alone
    made.crash()
    made.set_pool(stop_policy="HoldAndDrain")
    made.go()
    assert made.pods == {}
    assert (made.status("a").phase, made.status("a").reason) == (Phase.QUEUED, "OnHold")


@pytest.mark.parametrize("policy", ["HoldAndDrain", "None"])
def test_a_create_on_its_way_is_drained_when_it_arrives(policy):
    """What was told to stop stops, although the pool is let go before it arrives."""
    made = Cluster([whole()], [pool()])
    made.add(job("a"))
    made.turn()
    made.set_pool(stop_policy="HoldAndDrain")
    made.turn()
    assert [a.stopping for a in made.snapshot().jobs["uid-a"].status.assignments] == ["PoolDrained"]
    made.set_pool(stop_policy=policy)
    made.go()
    assert deleting(made) == {"a"}
    assert len(made.leave().status("a").assignments) == (policy == "None")


def test_one_that_succeeds_while_it_is_drained_has_succeeded():
    made = cluster(job("a"))
    made.set_pool(stop_policy="HoldAndDrain")
    made.go()
    made.finish(next(iter(made.pods)))
    assert made.go().status("a").phase is Phase.SUCCEEDED


def test_another_pool_is_left_alone():
    nodes = [whole("a", labels={"pool": "a"}), whole("b", labels={"pool": "b"})]
    pools = [pool("a", node_selector={"pool": "a"}, stop_policy="HoldAndDrain"), pool("b", node_selector={"pool": "b"})]
    made = Cluster(nodes, pools)
    made.add(job("x", pool="a"))
    made.add(job("y", pool="b"))
    assert made.go().running() == {"y"}


@pytest.mark.parametrize("policy", ["Hold", "HoldAndDrain"])
def test_the_status_of_the_pool_says_so(policy):
    done = run(snapshot([job()], pools=[pool(stop_policy=policy)]))
    status = next(p.status for p in of_type(done, PatchLimitsStatus) if isinstance(p.target, Pool))
    (ready,) = status["conditions"]
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "OnHold", f"stopPolicy is {policy}")
    assert status["pending"]["total"] == 1


# --- of a quota


def test_hold_of_a_quota_is_for_its_namespace():
    held = quota("team", nominal=2, stop_policy="Hold")
    jobs = [job("a"), job("b", namespace="other")]
    done = statuses(run(snapshot(jobs, quotas=[held])))
    assert (done["a"].reason, done["b"].phase) == ("OnHold", Phase.ADMITTED)
    assert done["a"].message == "namespace team admits nothing new (GPUQuota default, stopPolicy: Hold)"


def test_what_runs_goes_on_under_a_quotas_hold():
    made = cluster(job("a"), gpus=2)
    made.set_quota(quota("team", nominal=2, stop_policy="Hold"))
    made.add(job("b", created=after(1)))
    made.go()
    assert (made.running(), deleting(made), made.status("b").reason) == ({"a"}, set(), "OnHold")
    made.set_quota(quota("team", nominal=2))
    assert made.go().running() == {"a", "b"}


def test_a_held_namespace_stands_in_nobodys_way():
    """Not even when strict, and it keeps no room: it is beside the queue."""
    strict = pool(queueing="StrictFIFO", starvation_seconds=0)
    jobs = [job("a"), job("b", namespace="other", created=after(1))]
    held = quota("team", nominal=8, stop_policy="Hold")
    done = statuses(run(snapshot(jobs, nodes=[whole(gpus=1)], pools=[strict], quotas=[held])))
    assert (done["a"].reason, done["b"].phase) == ("OnHold", Phase.ADMITTED)


# --- suspended is before on hold


def test_suspended_goes_before_on_hold():
    made = cluster(job("a", suspend=True))
    made.set_pool(stop_policy="HoldAndDrain")
    made.go()
    assert (made.status("a").phase, made.status("a").reason) == (Phase.SUSPENDED, "Suspended")


def test_suspended_while_it_is_drained():
    made = cluster(job("a"))
    made.set_pool(stop_policy="HoldAndDrain")
    made.go()
    made.edit("uid-a", suspend=True)
    made.go()
    assert made.status("a").phase is Phase.SUSPENDED
    made.leave()
    made.set_pool(stop_policy="None")
    assert made.go().status("a").assignments == ()
    made.edit("uid-a", suspend=False)
    assert made.go().running() == {"a"}


def test_shards_resumed_while_old_pods_stop_wait_until_they_are_gone():
    """A new attempt starts after every pod of the old one is gone; until then the job has a reason and no place."""
    wide = job("wide", kind=Kind.INFERENCE, shards=4, parallelism=3)
    made = cluster(wide, gpus=4)
    made.edit("uid-wide", suspend=True)
    made.go()
    first = made.pods_of("wide")[0].name
    made.finish(first, 75)
    made.edit("uid-wide", suspend=False)
    made.go()
    status = made.status("wide")
    assert (status.phase, status.reason, len(status.assignments)) == (Phase.QUEUED, "WaitingForCapacity", 2)
    assert status.message.startswith("waits until pods of an earlier attempt are gone: wide-")
    made.leave()
    status = made.status("wide")
    assert (status.phase, [a.shard for a in status.assignments]) == (Phase.ADMITTED, [0, 1, 2])
    assert status == replace(status, failures=())
