"""A plain ResourceQuota is honoured before a pod is made, with what is on its way counted once."""

import pytest
from msgspec.structs import replace
from unit.core.builders import after, created, job, pool, resource_quota, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.job import failures
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
        ({"limits": 5000}, {}, 2),  # two cores at most, each
        ({"limits": 5000}, {"limits": 2000}, 1),
        ({"limits": 1000}, {}, 0),
    ],
)
def test_a_resource_quota_is_honoured_before_pods_are_made(hard, used, expected):
    made = jobs(6, resources=Resources(gpus=1, cpu="1", cpu_limit="2", memory="1Gi"))
    done = run(snapshot(made, nodes=ROOMY, resource_quotas=[resource_quota(used=used, **hard)]))
    assert len(created(done)) == expected


def test_a_job_without_a_cpu_limit_is_left_to_the_api_server_where_limits_are_counted():
    """A LimitRange may set the limit when the pod is made; where none does, the refusal says what to write."""
    held = resource_quota(limits=1000)
    assert len(created(run(snapshot(jobs(1), nodes=ROOMY, resource_quotas=[held])))) == 1
    words = 'pods "x" is forbidden: failed quota: rq: must specify limits.cpu for: trainer'
    assert failures.rejected(words).message.endswith("for: trainer; write spec.resources.cpuLimit")
    assert "cpuLimit" not in failures.rejected('pods "x" is forbidden: exceeded quota: limits.cpu=2').message
    words = 'Pod "x" is invalid: requests: Invalid value: "4": must be less than or equal to cpu limit of 100m'
    assert failures.rejected(words).message.endswith("sets that limit, write spec.resources.cpuLimit")


def test_limits_of_memory_and_cpu_count_what_is_on_its_way():
    wanted = Resources(gpus=0, cpu="1", cpu_limit="2", memory="1Gi")
    made = jobs(3, resources=wanted)
    seen = snapshot(made, nodes=ROOMY, resource_quotas=[resource_quota(limits=4000)])
    told = statuses(run(seen))
    assert [told[j.name].reason for j in made] == ["Starting", "Starting", "WaitingForQuota"]
    assert "4 of 4 limits.cpu in use, 2 needed" in told[made[-1].name].message


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


def test_a_resource_quota_without_counted_use_admits_nothing_that_it_limits():
    """The API server refuses pods until its controller has counted."""
    fresh = replace(resource_quota(gpus=3), used={})
    done = run(snapshot([job(), job("cpu", resources=Resources(gpus=0))], nodes=ROOMY, resource_quotas=[fresh]))
    assert [name[:3] for name in created(done)] == ["cpu"]
    told = statuses(done)["a"]
    assert (told.reason, told.message) == (
        "WaitingForQuota",
        "needs 1 GPU; ResourceQuota rq of namespace team does not say yet how much requests.nvidia.com/gpu is in use",
    )


def test_what_a_refused_pod_held_of_a_quota_is_free_for_a_job_of_another_pool():
    """A ResourceQuota is of a namespace: nothing changed in the pool of the job that waits."""
    names = ("east", "west")
    cluster = Cluster(
        [whole(name, labels={"pool": name}) for name in names],
        [pool(name, node_selector={"pool": name}) for name in names],
        resource_quotas=[resource_quota(gpus=1)],
    )
    for number, name in enumerate(names):
        cluster.add(job(name, pool=name, created=after(number)))
    cluster.turn()
    assert [cluster.planned[f"uid-{name}"].reason for name in names] == ["Starting", "WaitingForQuota"]
    cluster.deliver("uid-west")
    cluster.deliver("uid-east")  # the status; the create is on its way
    cluster.turn()
    assert not cluster.dirty
    cluster.deliver("uid-east", outcome="refused")
    cluster.turn()
    assert [cluster.planned[f"uid-{name}"].reason for name in names] == ["RejectedByCluster", "Starting"]
