"""GPUQuota and ResourceQuota: what a namespace may use, what it may borrow, and what it is told."""

import pytest
from msgspec.structs import replace
from unit.core import builders
from unit.core.builders import (
    T0,
    after,
    job,
    node,
    of_type,
    pod_of,
    pool,
    quota,
    resource_quota,
    run,
    snapshot,
    statuses,
    whole,
)
from unit.core.cluster import Cluster

from rfuav_operator.core.capacity.room import shape_of
from rfuav_operator.core.capacity.usage import Usage, planned
from rfuav_operator.core.model import Kind, NodeName, PatchLimitsStatus, Phase, PodPhase, PoolQuota, Quota, Resources

CPU_JOB = Resources(gpus=0, cpu="1", memory="1Gi")
ROOMY = [whole(gpus=8)]


def jobs(count, namespace="team", **rest):
    return [job(f"{namespace}{i}", namespace=namespace, created=after(i), **rest) for i in range(count)]


def admitted(made, *, nodes=ROOMY, **snap):
    done = statuses(run(snapshot(made, nodes=nodes, **snap)))
    return sum(s.phase is Phase.ADMITTED for s in done.values())


def why(made, *, nodes=ROOMY, **snap):
    """Reason and message of the last job."""
    status = statuses(run(snapshot(made, nodes=nodes, **snap)))[made[-1].name]
    assert status.phase is Phase.QUEUED
    return status.reason, status.message


# --- nominal, borrowing, lending


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ([], 8),  # no quota: all that is idle
        ([quota(nominal=2)], 8),  # no borrowing limit
        ([quota(nominal=2, borrow=0)], 2),
        ([quota(nominal=2, borrow=3)], 5),
        ([quota(nominal=20, borrow=0)], 8),  # never more than there is room
        ([quota(nominal=2, borrow=0, pool="other")], 8),  # another pool's entry says nothing here
        ([quota("other", nominal=5)], 8),  # what others do not use and lend freely is idle
        ([quota("other", nominal=5, lend=5)], 8),
        ([quota("other", nominal=5, lend=2)], 5),  # 3 of 5 are kept
        ([quota("other", nominal=5, lend=0)], 3),
        ([quota(nominal=4), quota("other", nominal=5, lend=0)], 4),  # its own it has, whatever others keep
        ([quota("other", nominal=5, lend=2), quota("third", nominal=4, lend=1)], 2),
    ],
)
def test_what_a_namespace_may_use(quotas, expected):
    assert admitted(jobs(12), quotas=quotas) == expected


def test_what_is_kept_shrinks_as_its_owner_uses_it():
    theirs = quota("other", nominal=4, lend=1)  # keeps 3
    cluster = Cluster(ROOMY, quotas=[theirs])
    for made in (*jobs(2, "other"), *jobs(9, "team")):
        cluster.add(made)
    cluster.go()
    assert sum(name.startswith("team") for name in cluster.running()) == 5  # 8 - 2 used - 1 still kept


def test_nominal_is_had_however_much_others_keep_or_hold():
    """Nominal shares may add up to more than there is: then room alone decides."""
    quotas = [quota(nominal=8, borrow=0), quota("other", nominal=8, lend=0)]
    assert admitted(jobs(12), quotas=quotas) == 8


def test_what_a_namespace_keeps_from_others_is_its_own():
    made = [job(resources=Resources(gpus=6))]
    assert admitted(made, quotas=[quota(nominal=4, lend=0)]) == 1  # 4 of its own and 2 borrowed


def test_a_large_job_may_not_cross_the_limit():
    made = [job("small"), job("large", created=after(1), resources=Resources(gpus=4))]
    reason, message = why(made, quotas=[quota(nominal=2, borrow=2)])
    assert reason == "WaitingForQuota"
    assert message == "needs 4 GPUs; namespace team uses 1 of 4 in pool default (nominal 2, may borrow 2)"


def test_the_message_names_what_is_kept_by_others():
    reason, message = why(jobs(4), quotas=[quota("other", nominal=5, lend=0)])
    assert reason == "WaitingForQuota"
    assert message == (
        "needs 1 GPU; namespace team uses 3 in pool default (nominal 0); "
        "0 can be borrowed (5 idle are kept by namespaces that do not lend them)"
    )


def test_jobs_without_gpu_need_no_share():
    assert admitted(jobs(2, resources=CPU_JOB), quotas=[quota(nominal=0, borrow=0)]) == 2


# --- at most so many jobs at a time


@pytest.mark.parametrize("kind", list(Kind))
def test_at_most_so_many_jobs_of_a_kind(kind):
    limit = {"training": 2} if kind is Kind.TRAINING else {"inference": 2}
    made = jobs(4, kind=kind)
    assert admitted(made, quotas=[quota(nominal=8, **limit)]) == 2
    reason, message = why(made, quotas=[quota(nominal=8, **limit)])
    word = "training" if kind is Kind.TRAINING else "inference"
    assert (reason, message) == (
        "WaitingForQuota",
        f"namespace team runs 2 of at most 2 {word} jobs in pool default",
    )
    other = Kind.INFERENCE if kind is Kind.TRAINING else Kind.TRAINING
    assert admitted(jobs(4, kind=other), quotas=[quota(nominal=8, **limit)]) == 4


def test_jobs_without_gpu_count_as_jobs():
    assert admitted(jobs(2, resources=CPU_JOB), quotas=[quota(training=1)]) == 1


def test_shards_of_a_job_that_runs_are_one_job():
    wide = jobs(2, kind=Kind.INFERENCE, shards=4, parallelism=3)
    cluster = Cluster(ROOMY, quotas=[quota(nominal=8, inference=1)])
    cluster.add(wide[0])
    cluster.go().start_all()
    cluster.add(wide[1])
    cluster.go()
    cluster.finish(cluster.pods_of("team0")[0].name)
    cluster.go()
    assert [a.shard for a in cluster.status("team0").assignments] == [1, 2, 3]
    assert cluster.status("team1").reason == "WaitingForQuota"


# --- what holds a share, and how long


def test_a_pod_that_still_ends_counts():
    cluster = Cluster(ROOMY, quotas=[quota(nominal=1, borrow=0, training=1)])
    for made in jobs(2):
        cluster.add(made)
    cluster.go().start_all()
    cluster.edit(cluster.named("team0").uid, cancel=True)
    cluster.go()
    assert (cluster.status("team0").phase, cluster.status("team1").reason) == (Phase.CANCELLED, "WaitingForQuota")
    assert cluster.leave().status("team1").phase is Phase.ADMITTED


def test_a_deleted_job_counts_until_its_pod_is_gone():
    cluster = Cluster(ROOMY, quotas=[quota(nominal=1, borrow=0)])
    for made in jobs(2):
        cluster.add(made)
    cluster.go().start_all()
    cluster.delete_job(cluster.named("team0").uid)
    assert cluster.go().status("team1").phase is Phase.QUEUED
    assert cluster.leave().status("team1").phase is Phase.ADMITTED


@pytest.mark.parametrize("first", [0, 1])
def test_what_a_deleted_job_held_in_two_pools_is_given_back(first):
    """The pool of a job that is gone is that of each pod's node (nodes may be relabelled): no count is left behind."""
    nodes = [whole("a", labels={"pool": "a"}), whole("b", labels={"pool": "b"})]
    pools = [pool("a", node_selector={"pool": "a"}), pool("b", node_selector={"pool": "b"})]
    (wide,) = builders.admitted(job(kind=Kind.INFERENCE, shards=2, parallelism=2), nodes=[whole()])
    pods = [pod_of(wide, at=at, node=NodeName("ab"[at]), index=at, deleting=True) for at in range(2)]

    def seen(left):
        return snapshot(pods=left, nodes=nodes, pools=pools)

    usage = Usage(seen(pods), {}, T0)
    assert [usage.share(name, "team").jobs[Kind.INFERENCE] for name in "ab"] == [1, 1]
    usage.update_job(wide.uid, None, seen([pods[first]]))
    assert [usage.share(name, "team").jobs[Kind.INFERENCE] for name in "ab"] == [first == 0, first == 1]
    usage.update_job(wide.uid, None, seen([]))
    assert [usage.share(name, "team").jobs[Kind.INFERENCE] for name in "ab"] == [0, 0]


def test_a_room_is_counted_again_only_when_what_is_held_of_it_changes():
    """A pod that is created, then bound, where its room was held already changes nothing for the others."""
    changes = []
    usage = Usage(snapshot(nodes=ROOMY), {}, T0, on_change=lambda *change: changes.append(change))
    changes.clear()
    made = job(resources=Resources(gpus=2))
    first = planned(made, shape_of(made), "n1")
    usage.hold(made.uid, "pod", first)
    assert changes == [("default", "n1", False)]
    usage.hold(made.uid, "pod", replace(first, absent=False))
    usage.hold(made.uid, "pod", replace(first, absent=False, bars=True))
    assert len(changes) == 1
    larger = replace(first.requests, slots=3)
    usage.hold(made.uid, "pod", replace(first, requests=larger))
    assert changes[1:] == [("default", "n1", True)]
    room = usage.room(NodeName("n1"))
    assert room is not None
    assert room.slots[Kind.TRAINING].used == 3
    usage.release(made.uid, "pod")
    assert (len(changes), room.slots[Kind.TRAINING].used) == (3, 0)


def test_held_again_in_another_place_counts_once():
    usage = Usage(snapshot(nodes=ROOMY), {}, T0)
    made = job(resources=Resources(gpus=2))
    for place in ("n1", "", "n1"):
        usage.hold(made.uid, "pod", planned(made, shape_of(made), place))
    assert (usage.share("default", "team").gpus, usage.share("default", "team").jobs[Kind.TRAINING]) == (2, 1)
    room = usage.room(NodeName("n1"))
    assert room is not None
    assert room.slots[Kind.TRAINING].used == 2
    usage.release(made.uid, "pod")
    assert (usage.share("default", "team").gpus, usage.share("default", "team").jobs[Kind.TRAINING]) == (0, 0)


# --- a quota that changes


def test_a_smaller_quota_stops_nothing_and_a_larger_one_admits_at_once():
    cluster = Cluster(ROOMY, quotas=[quota(nominal=3, borrow=0)])
    for made in jobs(6):
        cluster.add(made)
    assert len(cluster.go().running()) == 3
    cluster.set_quota(quota(nominal=1, borrow=0))
    assert len(cluster.go().running()) == 3
    cluster.set_quota(quota(nominal=5, borrow=0))
    assert len(cluster.go().running()) == 5
    cluster.set_quota(None, "team")
    assert len(cluster.go().running()) == 6


# --- can never fit


@pytest.mark.parametrize(
    ("made", "snap", "words"),
    [
        (job(), {"quotas": [quota(training=0)]}, "namespace team may run no training jobs in pool default (GPUQuota)"),
        (
            job(resources=Resources(gpus=4)),
            {"quotas": [quota(nominal=2, borrow=1)]},
            "may use at most 3 in pool default (nominal 2, borrowingLimit 1)",
        ),
        (
            job(nodes=2, resources=Resources(gpus=2)),
            {"quotas": [quota(nominal=3, borrow=0)], "nodes": [whole("a"), whole("b")]},
            "needs 2 GPUs on each of 2 nodes; namespace team may use at most 3",
        ),
        (
            job(resources=Resources(gpus=2)),
            {"resource_quotas": [resource_quota(gpus=1)]},
            "ResourceQuota rq of namespace team allows 1 requests.nvidia.com/gpu in all, 2 needed",
        ),
        (
            job(nodes=2, resources=Resources(gpus=2)),
            {"resource_quotas": [resource_quota(gpus=3)], "nodes": [whole("a"), whole("b")]},
            "allows 3 requests.nvidia.com/gpu in all, 4 needed",
        ),
        (
            job(resources=Resources(cpu="2500m")),
            {"resource_quotas": [resource_quota(cpu=2000)]},
            "allows 2 requests.cpu in all, 2.5 needed",
        ),
    ],
)
def test_what_a_quota_can_never_give(made, snap, words):
    reason, message = why([made], **snap)
    assert reason == "ExceedsMaxQuota"
    assert words in message


# --- what the status of the quota says


def test_status_of_a_quota():
    made = [*jobs(4), *jobs(2, kind=Kind.INFERENCE, namespace="other")]
    entries = (*quota(nominal=2, borrow=1).spec.pools, PoolQuota(name="gone"))
    held = replace(quota(), spec=replace(quota().spec, pools=entries))
    done = run(snapshot(made, nodes=ROOMY, quotas=[held]))
    status = next(p.status for p in of_type(done, PatchLimitsStatus) if isinstance(p.target, Quota))
    assert status["pools"][0] == {
        "name": "default",
        "used": 3,
        "borrowed": 1,
        "reserved": 0,
        "admitted": {"training": 3, "inference": 0},
        "pending": {"training": 1, "inference": 0},
    }
    assert (status["conditions"][0]["reason"], status["conditions"][0]["message"]) == (
        "NoSuchPool",
        "pools that do not exist: gone",
    )


def test_slots_of_a_shared_gpu_are_what_counts():
    """Shares are in nvidia.com/gpu: a node of two GPUs and eight slots runs six inferences, and each is one."""
    made = jobs(8, kind=Kind.INFERENCE)
    assert admitted(made, nodes=[node()], quotas=[quota(nominal=4, borrow=0)]) == 4


def test_a_label_that_is_changed_moves_nothing_out_of_a_quota():
    held = builders.admitted(job("a"))[0]
    seen = snapshot([held], pods=[replace(pod_of(held, phase=PodPhase.RUNNING), pool="elsewhere")])
    usage = Usage(seen, seen.jobs, T0)
    assert usage.share("default", held.namespace).gpus == 1
    assert usage.share("elsewhere", held.namespace).gpus == 0
