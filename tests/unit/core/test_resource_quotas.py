"""A plain ResourceQuota is honoured before a pod is made, with what is on its way counted once."""

import pytest
from msgspec.structs import replace
from unit.core.builders import after, created, job, resource_quota, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Resources

ROOMY = [whole(gpus=8)]


def jobs(count, namespace="team", **rest):
    return [job(f"{namespace}{i}", namespace=namespace, created=after(i), **rest) for i in range(count)]


@pytest.mark.parametrize(
    ("hard", "used", "expected"),
    [
        ({"gpus": 3}, {}, 3),
        ({"gpus": 3}, {"gpus": 2}, 1),
        ({"pods": 2}, {}, 2),
        ({"cpu": 4000}, {"cpu": 1500}, 2),  # a core each
        ({"memory": 3 * 2**30}, {}, 3),
    ],
)
def test_a_resource_quota_is_honoured_before_pods_are_made(hard, used, expected):
    done = run(snapshot(jobs(6), nodes=ROOMY, resource_quotas=[resource_quota(used=used, **hard)]))
    assert len(created(done)) == expected


def test_what_a_resource_quota_says():
    held = resource_quota(gpus=3, used={"gpus": 2})
    told = statuses(run(snapshot(jobs(2), nodes=ROOMY, resource_quotas=[held])))["team1"]
    assert (told.reason, told.message) == (
        "WaitingForQuota",
        "needs 1 GPU; ResourceQuota rq of namespace team: 3 of 3 requests.nvidia.com/gpu in use, 1 needed",
    )


def test_a_resource_quota_counts_what_is_on_its_way_once():
    """Recorded, not seen: beside what the API server counts. Seen: the API server counts it."""
    cluster = Cluster(ROOMY, resource_quotas=[resource_quota(gpus=2)])
    for made in jobs(4):
        cluster.add(made)
    cluster.turn()
    assert len(cluster.running() | {j.name for j in cluster.snapshot().jobs.values() if j.status.assignments}) == 2
    cluster.go()
    assert len(cluster.running()) == 2
    cluster.start_all()
    cluster.finish(min(cluster.pods))
    assert len(cluster.go().running()) == 2


def test_another_namespaces_resource_quota_does_not_matter():
    done = run(snapshot(jobs(3), nodes=ROOMY, resource_quotas=[resource_quota("other", gpus=0)]))
    assert len(created(done)) == 3


def test_a_resource_quota_whose_use_is_not_counted_yet_admits_nothing_that_it_counts():
    """The API server refuses pods until its controller has counted."""
    fresh = replace(resource_quota(gpus=3), used={})
    done = run(snapshot([job(), job("cpu", resources=Resources(gpus=0))], nodes=ROOMY, resource_quotas=[fresh]))
    assert [name[:3] for name in created(done)] == ["cpu"]
    told = statuses(done)["a"]
    assert (told.reason, told.message) == (
        "WaitingForQuota",
        "needs 1 GPU; ResourceQuota rq of namespace team does not say yet how much requests.nvidia.com/gpu is in use",
    )
