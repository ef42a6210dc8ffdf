"""GPUPool.spec.defaultQuota: what a namespace may use whose GPUQuota does not name the pool."""

import pytest
from msgspec.structs import replace
from unit.core.builders import RECLAIM, after, job, of_type, pool, quota, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import (
    GpuShare,
    Kind,
    PatchLimitsStatus,
    Phase,
    Pool,
    PoolQuota,
    Quota,
    QuotaSpec,
    Resources,
)

ROOMY = [whole(gpus=8)]


def default(nominal=0, *, borrow=None, lend=None, training=None, inference=None):
    return PoolQuota(
        gpus=GpuShare(nominal=nominal, borrowing_limit=borrow, lending_limit=lend),
        max_training_jobs=training,
        max_inference_jobs=inference,
    )


def jobs(count, namespace="team", **rest):
    return [job(f"{namespace}{i}", namespace=namespace, created=after(i), **rest) for i in range(count)]


def taken(made, share, *, quotas=()):
    """How many are admitted of each namespace."""
    seen = snapshot(made, nodes=ROOMY, pools=[pool(default_quota=share)], quotas=quotas)
    done = statuses(run(seen))
    admitted = [j.namespace for j in made if done[j.name].phase is Phase.ADMITTED]
    return {namespace: admitted.count(namespace) for namespace in {j.namespace for j in made}}


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (None, 8),  # as ever: nothing of its own, and no limit
        (default(), 8),
        (default(2, borrow=0), 2),
        (default(2, borrow=3), 5),
        (default(0, borrow=1), 1),
        (default(2), 8),
        (default(4, borrow=4, training=1), 1),
        (default(4, borrow=4, inference=1), 8),
    ],
)
def test_a_namespace_without_a_quota_is_under_the_pools_default(share, expected):
    assert taken(jobs(12), share) == {"team": expected}


def test_a_quota_that_names_the_pool_applies_and_one_that_omits_it_does_not():
    limit = default(1, borrow=0)
    assert taken(jobs(12), limit, quotas=[quota(nominal=3, borrow=0)]) == {"team": 3}
    assert taken(jobs(12), limit, quotas=[quota(nominal=8, pool="other")]) == {"team": 1}


def test_deleting_ones_quota_frees_from_no_limit():
    cluster = Cluster(ROOMY, [pool(default_quota=default(2, borrow=0))], quotas=[quota(nominal=1, borrow=0)])
    for made in jobs(8):
        cluster.add(made)
    cluster.go()
    assert len(cluster.running()) == 1
    del cluster.quotas["team"]
    cluster.everything = True
    cluster.go()
    assert len(cluster.running()) == 2


def test_a_job_that_can_never_fit_the_default_says_so():
    for made, share, words in (
        (job(resources=Resources(gpus=4, cpu="1", memory="1Gi")), default(1, borrow=2), "may use at most 3"),
        (job(), default(training=0), "may run no training jobs in pool default (the pool's defaultQuota)"),
    ):
        status = statuses(run(snapshot([made], nodes=ROOMY, pools=[pool(default_quota=share)])))["a"]
        assert status.reason == "ExceedsMaxQuota"
        assert words in status.message


def test_what_the_default_does_not_lend_is_kept_for_namespaces_with_jobs_in_the_pool():
    share = default(3, lend=0)
    assert taken(jobs(8, "team"), share) == {"team": 8}  # nobody else is at work
    cluster = Cluster(ROOMY, [pool(default_quota=share)])
    for made in (*jobs(1, "other"), *jobs(9, "team")):
        cluster.add(made)
    cluster.go()
    assert sum(name.startswith("team") for name in cluster.running()) == 5  # 8 - 1 used - 2 kept


def test_a_namespace_that_waits_has_its_default_share_kept_although_others_go_first():
    share = default(3, lend=0)
    made = [*jobs(9, "team", priority_class_name="high"), *jobs(3, "other")]
    assert taken(made, share) == {"team": 5, "other": 3}


def test_a_namespace_with_a_quota_of_its_own_keeps_back_what_that_says():
    share = default(3, lend=0)
    assert taken(jobs(9), share, quotas=[quota("other", nominal=2, lend=0)]) == {"team": 6}
    assert taken(jobs(9), share, quotas=[quota("other", nominal=2, pool="lab", lend=0)]) == {"team": 8}


def test_within_the_default_share_a_namespace_takes_back_what_others_borrow():
    cluster = Cluster(ROOMY, [pool(default_quota=default(4), preemption=RECLAIM)])
    for made in jobs(8, "team"):
        cluster.add(made)
    cluster.go()
    assert len(cluster.running()) == 8
    cluster.start_all().go(600)
    for made in jobs(5, "other"):
        cluster.add(replace(made, created=after(590)))
    cluster.go()
    for _ in range(6):
        cluster.leave()
    kept = [name.rstrip("0123456789") for name in cluster.running()]
    assert (kept.count("team"), kept.count("other")) == (4, 4)


def test_what_is_borrowed_is_counted_beyond_the_default_share():
    cluster = Cluster(ROOMY, [pool(default_quota=default(2))], compare=False)
    for made in jobs(5):
        cluster.add(made)
    cluster.go()
    seen = cluster.snapshot()
    found = [a for a in of_type(run(seen, now=after(60)), PatchLimitsStatus) if isinstance(a.target, Pool)]
    assert found[0].status["borrowed"] == 3


def test_the_queue_is_ordered_by_the_default_share_too():
    """Who is within its share goes before who borrows."""
    busy = jobs(3, "team")
    late = job("late", namespace="other", created=after(50))
    made = [*busy, late]
    seen = snapshot(made, nodes=[whole(gpus=3)], pools=[pool(default_quota=default(1))])
    done = statuses(run(seen))
    assert done["late"].phase is Phase.ADMITTED
    assert [done[f"team{i}"].phase for i in range(3)].count(Phase.ADMITTED) == 2


def test_a_quota_on_hold_holds_although_the_pool_has_a_default():
    held = Quota(
        namespace="team",
        uid="q",
        resource_version="1",
        generation=1,
        spec=replace(quota().spec, pools=(), stop_policy="Hold"),
    )
    seen = snapshot([job(kind=Kind.TRAINING)], nodes=ROOMY, pools=[pool(default_quota=default(4))], quotas=[held])
    assert statuses(run(seen))["a"].reason == "OnHold"


def test_what_a_namespace_runs_is_not_taken_from_it_because_its_quota_cannot_be_read():
    """It holds its namespace, and what was its own stays so."""
    cluster = Cluster([whole(gpus=2)], [pool(preemption=RECLAIM)], quotas=[quota("other", nominal=2), quota(nominal=2)])
    for made in jobs(2):
        cluster.add(made)
    cluster.go()
    cluster.start_all().go(600)
    broken = Quota(
        namespace="team",
        uid="q",
        resource_version="2",
        generation=2,
        spec=QuotaSpec(stop_policy="Hold"),
        unreadable="spec cannot be read",
    )
    cluster.set_quota(broken)
    for made in (job("mine", namespace="other", created=after(590)), job("next", created=after(591))):
        cluster.add(made)
    cluster.go()
    assert not any(pod.deleting for pod in cluster.pods.values())
    assert cluster.status("mine").reason == "WaitingForCapacity"
    assert cluster.status("next").reason == "OnHold"
    assert "spec cannot be read" in cluster.status("next").message


def test_reserved_gpus_of_a_namespace_stay_reserved_when_its_quota_becomes_unreadable():
    """`ingest` keeps the spec that was read last."""
    lent = quota("other", nominal=2, lend=0)
    broken = replace(lent, spec=replace(lent.spec, stop_policy="Hold"), unreadable="spec cannot be read")
    cluster = Cluster([whole(gpus=3)], [pool(preemption=RECLAIM)], quotas=[broken])
    for made in jobs(2):
        cluster.add(made)
    assert len(cluster.go().running()) == 1
