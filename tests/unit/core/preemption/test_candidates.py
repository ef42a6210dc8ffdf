"""Whom preemption chooses: the fewest and cheapest, in jobs of several pods and for a namespace's own quota."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from unit.core.builders import after, job, quota, resource_quota, whole
from unit.core.crowded import add, cluster, gpus, high, low, stopping
from unit.sizes import sizes

from rfuav_operator.core.model import Checkpoint, Kind, Phase

# --- the fewest and cheapest


def test_fewest_on_the_cheapest_node():
    nodes = [whole("a", gpus=2), whole("b", gpus=2)]
    running = [low("a1"), low("a2"), job("b1", resources=gpus(2), priority_class_name="mid")]
    made = add(cluster(*running, nodes=nodes), high(resources=gpus(2)))
    assert stopping(made) == {"b1"}  # one of higher priority rather than two


@pytest.mark.parametrize(
    ("running", "victim"),
    [
        ([low("a"), job("b", priority_class_name="mid")], "a"),
        ([job("a", priority_class_name="mid"), low("b")], "b"),
        ([low("a", namespace="own"), low("b", namespace="other")], "b"),  # borrowed first
        (
            [low("a", namespace="own"), job("b", namespace="other", priority_class_name="mid")],
            "a",
        ),  # but priority before
        ([low("a"), low("b", kind=Kind.INFERENCE)], "b"),  # an inference loses nothing
    ],
)
def test_the_cheapest_on_a_node(running, victim):
    quotas = (quota("own", nominal=1), quota("team", nominal=0))
    made = add(cluster(*running, quotas=quotas), high(namespace="own"))
    assert stopping(made) == {victim}


def test_all_pods_of_a_job_of_several_nodes_count():
    """Three of the gang, or the two single ones of the same priority."""
    nodes = [whole(name, gpus=2) for name in ("g1", "g2", "g3", "z")]
    running = [low("gang", nodes=3, resources=gpus(2)), low("x"), low("y")]
    assert stopping(add(cluster(*running, nodes=nodes), high(resources=gpus(2)))) == {"x", "y"}


def test_a_plain_resource_quota_makes_nobody_stop():
    """What it counts changes when pods are gone, not when they are chosen."""
    made = cluster(low("a"), low("b"), nodes=[whole(gpus=8)])
    made.resource_quotas["team"] = resource_quota(pods=2)
    assert stopping(add(made, high())) == set()
    assert made.status("high").reason == "WaitingForQuota"


def test_progress_leaves_nothing_behind():
    """Each report steps the job: what is kept of when it may be stopped does not pile up."""
    made = cluster(low("a"), low("b"))
    before = sum(sizes(made.scheduler).values())
    for _ in range(300):
        made.dirty.add("uid-a")
        made.go()
    assert sum(sizes(made.scheduler).values()) < before + 100


def test_least_work_since_the_last_checkpoint_is_lost():
    made = cluster(low("a"), low("b"))
    for name, ago in (("a", 50), ("b", 10)):
        held = made.named(name)
        saved = Checkpoint(uri="pvc://x", saved_at=made.now - timedelta(seconds=ago))
        made._store(replace(held, status=replace(held.status, checkpoint=saved)))
    assert stopping(add(made.go(), high())) == {"b"}


def test_nobody_is_stopped_beyond_need():
    """The cheapest alone are not enough, and with the dearer one they are not needed."""
    running = [low("a"), job("b", resources=gpus(2), priority_class_name="mid")]
    made = add(cluster(*running, nodes=[whole(gpus=3)]), high(resources=gpus(2)))
    assert stopping(made) == {"b"}
    made = add(cluster(*running, nodes=[whole(gpus=3)]), high(resources=gpus(3)))
    assert stopping(made) == {"a", "b"}


# --- the namespace's own quota


def test_a_quota_in_use_by_lower_priority_is_freed():
    quotas = (quota("team", nominal=2, borrow=0),)
    made = add(cluster(low("a"), low("b", kind=Kind.INFERENCE), nodes=[whole(gpus=8)], quotas=quotas), high())
    assert stopping(made) == {"b"}
    assert made.leave().running() == {"a", "high"}


def test_of_a_quota_no_more_is_freed_than_is_needed():
    quotas = (quota("team", nominal=3, borrow=0),)
    running = [low("a"), job("b", resources=gpus(2), priority_class_name="mid")]
    made = add(cluster(*running, nodes=[whole(gpus=8)], quotas=quotas), high(resources=gpus(2)))
    assert stopping(made) == {"b"}
    assert made.leave().running() == {"a", "high"}


def test_a_gang_gets_its_quota_only_when_all_its_nodes_have_room():
    quotas = (quota("team", nominal=2, borrow=0),)
    nodes = [whole("a", gpus=2), whole("b", gpus=1)]
    made = cluster(high("z", namespace="other"), low("x"), low("y"), nodes=nodes, quotas=quotas)
    assert [p.node for p in made.pods_of("z")] == ["b"]  # the only GPU there, and not the team's to stop
    assert stopping(add(made, high("gang", nodes=2))) == set()
    made.finish(made.pods_of("z")[0].name)
    assert stopping(made.go()) == {"x", "y"}
    assert made.leave().running() == {"gang"}


def test_a_shard_of_a_running_job_asks_although_an_older_job_asked_in_vain():
    """Only the older one is kept out by the number of jobs."""
    quotas = (quota("team", nominal=4, inference=1), quota("other", nominal=0))
    made = cluster(low("x", namespace="other"), nodes=[whole(gpus=2)], quotas=quotas, age=20)
    add(made, high("wide", kind=Kind.INFERENCE, shards=2, parallelism=2))
    made.add(high("older", kind=Kind.INFERENCE, created=after(-100)))
    assert stopping(made.go()) == set()
    assert stopping(made.go(41)) == {"x"}
    assert len(made.leave().status("wide").assignments) == 2


def test_its_quota_and_its_room_together():
    """Its own lower job for the quota, and one that borrows for the room: either alone would be in vain."""
    quotas = (quota("team", nominal=2, borrow=0), quota("other", nominal=0))
    running = [low("x", namespace="other"), low("y", namespace="other"), low("own")]
    made = cluster(*running, nodes=[whole("a", gpus=1), whole("b", gpus=2)], quotas=quotas)
    add(made, high("gang", nodes=2))
    assert "own" in stopping(made)
    assert len(stopping(made)) == 2
    assert "gang" in made.leave().running()


# --- jobs of several pods


def test_a_gang_is_stopped_whole():
    nodes = [whole("a", gpus=1), whole("b", gpus=1)]
    made = add(cluster(low("gang", nodes=2), nodes=nodes), high())
    assert [a.stopping for a in made.status("gang").assignments] == ["Preempted", "Preempted"]
    assert all(p.deleting for p in made.pods_of("gang"))
    made.leave()
    assert made.running() == {"high"}
    assert made.status("gang").assignments == ()


def test_a_gang_stopped_on_one_node_is_gone_from_the_other():
    """On `b` a cheaper one runs too, but the first gang leaves room enough there."""
    made = cluster(
        job("gang", nodes=2, priority_class_name="mid"), low("x"), nodes=[whole("a", gpus=1), whole("b", gpus=2)]
    )
    add(made, high("waits", nodes=2))
    assert stopping(made) == {"gang"}
    assert made.leave().running() == {"waits", "x"}


def test_of_a_job_of_several_shards_one_is_stopped():
    wide = low("wide", kind=Kind.INFERENCE, shards=4, parallelism=2)
    made = add(cluster(wide), high())
    assert len([a for a in made.status("wide").assignments if a.stopping]) == 1
    assert made.status("wide").phase is Phase.RUNNING
    made.leave()
    assert made.running() == {"wide", "high"}
    left = made.status("wide")
    assert (len(left.assignments), left.shards.completed, left.shards.retries) == (1, "", {})
    made.start_all()
    made.finish(made.pods_of("high")[0].name)
    assert len(made.go().status("wide").assignments) == 2


def test_shards_of_a_running_job_may_stop_others_too():
    wide = high("wide", kind=Kind.INFERENCE, shards=2, parallelism=2)
    made = cluster(low("a"), nodes=[whole(gpus=2)])
    add(made, wide)
    assert stopping(made) == {"a"}
    assert made.leave().status("wide").assignments[1].shard == 1
