"""Pools of which nothing changed are not planned again: the others decide as if all were."""

import random

import pytest
from msgspec.structs import replace
from unit.core.builders import claim, foreign_pod, job, pool, resource_quota, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Kind, PodPhase, Preemption, Resources, ScaleUp

POOLS = ("east", "north", "south", "west")
TEAMS = ("team", "other", "third")


def world(chance):
    grows = chance.random() < 0.5  # the last pool, unless the scheduler would find a node of the others
    policy = Preemption(within_pool=chance.choice(["Never", "LowerPriority"]), min_runtime_seconds=60)
    pools = [
        pool(
            name,
            node_selector={} if grows and name == "west" else {"pool": name},
            preemption=policy,
            queueing=chance.choice(["BestEffortFIFO", "StrictFIFO"]),
            starvation_seconds=chance.choice([0, 600]),
            scale_up=ScaleUp(max_jobs=int(grows and name == "west"), timeout_seconds=300),
        )
        for name in POOLS
    ]
    nodes = [
        whole(f"{name}{i}", gpus=2, cpu=6, labels={"pool": name}) for name in POOLS for i in range(1 if grows else 2)
    ]
    return Cluster(nodes, pools, claims=[claim("models"), claim("scratch", mode="ReadWriteOnce")])


def submit(cluster, chance, number):
    team = chance.choice(TEAMS)
    cluster.add(
        job(
            f"j{number}",
            kind=chance.choice(list(Kind)),
            namespace=team,
            created=cluster.now,
            priority_class_name=chance.choice(["", "low", "high"]),
            resources=Resources(gpus=chance.choice([0, 1, 1, 2]), cpu=chance.choice(["500m", "2"]), memory="1Gi"),
            pool=chance.choice(POOLS),
            claims=("scratch",) if team == "team" and chance.random() < 0.6 else (),
        )
    )


@pytest.mark.parametrize("seed", range(12))
def test_what_is_decided_does_not_depend_on_the_pools_that_are_left_out(seed):
    """The cluster compares each turn with one that knows nothing, and so leaves nothing out."""
    chance = random.Random(seed)
    cluster, number = world(chance), 0
    for _ in range(120):
        match chance.choice(["submit"] * 4 + ["end"] * 4 + ["start", "start", "node", "quota", "others", "time", "go"]):
            case "submit":
                number += 1
                submit(cluster, chance, number)
            case "end" if running := sorted(p.name for p in cluster.pods.values() if p.phase is PodPhase.RUNNING):
                cluster.finish(chance.choice(running), chance.choice([0, 0, 1, 75]))
            case "start":
                for name in sorted(cluster.pods)[: chance.randint(1, 4)]:
                    cluster.start(name)
            case "node":
                name = chance.choice(sorted(cluster.nodes))
                held = cluster.nodes[name]
                other = {"unschedulable": not held.unschedulable}, {"labels": {"pool": chance.choice(POOLS)}}
                cluster.set_node(replace(held, **chance.choice(other)), name)
            case "quota":
                team = chance.choice(TEAMS)
                cluster.resource_quotas.pop(team, None)
                if chance.random() < 0.6:
                    cluster.resource_quotas[team] = resource_quota(team, gpus=chance.randint(0, 4), pods=6)
            case "others":
                node, used = chance.choice(sorted(cluster.nodes)), chance.choice([(), ("scratch",)])
                pod = foreign_pod("x", node, gpus=chance.randint(0, 2), cpu=1, namespace="team", claims=used)
                cluster.set_foreign(*([pod] if chance.random() < 0.6 else []))
            case "time":
                cluster.pass_time(chance.choice([5, 60, 700]))
        if chance.random() < 0.7:
            cluster.turn()
            while waiting := sorted(uid for uid, lane in cluster.lanes.items() if lane):
                cluster.deliver(waiting[0], outcome=chance.choice(["ok"] * 4 + ["refused"]))
            cluster.check()
        if chance.random() < 0.02:
            cluster.crash()
    assert cluster.pods
