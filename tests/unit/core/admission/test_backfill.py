"""A blocked head that is old enough has the next room that would fit it kept; others may use what does not delay it."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from unit.core.builders import after, foreign_pod, job, node, pool, quota, run, snapshot, statuses, whole
from unit.core.cluster import Cluster

from rfuav_operator.core.model import Kind, Phase, Resources


def gpus(count, **rest):
    return Resources(gpus=count, **{"cpu": "1", "memory": "1Gi"} | rest)


def cluster(*running, nodes=None, starvation=0, placement="Pack", quotas=()):
    """These jobs run already; whoever comes next and is blocked is starving at once."""
    pools = [pool(starvation_seconds=starvation, placement=placement)]
    made = Cluster(nodes or [whole(gpus=4)], pools, quotas=quotas)
    for one in running:
        made.add(one)
        made.go().start_all()
    assert made.running() == {j.name for j in running}
    return made


def add(made, *jobs):
    """Each is younger than those before it."""
    for one in jobs:
        made.pass_time(1)
        made.add(replace(one, created=made.now))
    return made.go()


def end(made, name):
    made.finish(next(p.name for p in made.pods_of(name) if p.live))
    return made.go()


# --- the room of the head


def test_without_starvation_smaller_jobs_pass():
    made = add(cluster(job("a", resources=gpus(2)), starvation=1800), job("head", resources=gpus(4)), job("small"))
    assert made.running() == {"a", "small"}


def test_a_starving_head_keeps_the_next_room_that_would_fit_it():
    made = add(cluster(job("a", resources=gpus(2))), job("head", resources=gpus(4)), job("small"))
    assert made.running() == {"a"}
    told = made.status("small")
    assert (told.reason, told.message) == (
        "WaitingForCapacity",
        "needs 1 GPU; room on n1 is kept for team/head, which is first",
    )
    assert made.status("head").message.startswith("needs 4 GPUs; pool default has 2 of 4 training slots free")
    assert end(made, "a").running() == {"head"}


def test_it_starves_when_its_time_has_come_and_the_plan_wakes_for_it():
    made = cluster(job("a", resources=gpus(2)), starvation=600)
    add(made, job("head", resources=gpus(4)))
    made.go(5)
    assert made.wake_at == made.status("head").queued_at + timedelta(seconds=600)
    made.now = made.wake_at
    assert add(made, job("small")).running() == {"a"}


def test_suspended_time_does_not_make_it_younger():
    """Its age is that of its place in the queue."""
    made = add(cluster(job("a", resources=gpus(2)), starvation=600), job("head", resources=gpus(4)))
    made.edit("uid-head", suspend=True)
    made.go(500)
    made.edit("uid-head", suspend=False)
    made.go(101)
    assert add(made, job("small")).running() == {"a"}


def test_only_the_first_that_is_blocked_by_room_keeps_some():
    made = cluster(*(job(name) for name in "abcd"), nodes=[whole("n1", gpus=2), whole("n2", gpus=2)])
    add(made, job("first", resources=gpus(2)), job("second", resources=gpus(2, cpu="2")), job("small"))
    assert {p.node for name in "ab" for p in made.pods_of(name)} == {"n1"}
    assert end(made, "c").running() == {"a", "b", "d"}  # on n2, the nearest for `first`
    assert end(made, "a").running() == {"b", "d", "small"}  # n1 is as near now; nothing is kept for `second`
    assert [a.node for a in made.status("small").assignments] == ["n2"]


# --- what does not delay it


@pytest.mark.parametrize(
    ("head", "other", "passes"),
    [
        (gpus(4), job("x"), False),
        (gpus(4), job("x", kind=Kind.INFERENCE), False),  # the same slots
        (gpus(4), job("x", resources=gpus(0)), True),  # none of them
        (gpus(4, cpu="32"), job("x", resources=gpus(0)), False),
        (gpus(4, memory="128Gi"), job("x", resources=gpus(0)), False),
        (gpus(4, memory="126Gi"), job("x", resources=gpus(0)), True),
        (gpus(4, cpu="32"), job("x", resources=gpus(0, cpu=None, memory=None)), True),
    ],
)
def test_what_may_run_on_the_node_that_is_kept(head, other, passes):
    first = job("head", resources=head, priority_class_name="high")
    made = add(cluster(job("a", resources=gpus(1))), first, other)
    assert made.status("head").phase is Phase.QUEUED
    assert ("x" in made.running()) is passes


@pytest.mark.parametrize(("memory", "passing"), [(24000, 5), (12288, 4)])
def test_slots_of_another_kind_on_a_shared_gpu(memory, passing):
    """The head lacks a training slot; of the eight slots there are enough for both, but for the last."""
    made = cluster(job("t1"), job("t2"), nodes=[node(memory_mib=memory)])
    inference = [job(f"i{i}", kind=Kind.INFERENCE, priority_class_name="low") for i in range(6)]
    add(made, job("head"), *inference)
    assert made.running() == {"t1", "t2", *(f"i{i}" for i in range(passing))}


def test_the_last_slot_of_its_own_kind():
    """The head lacks CPU; another that needs none would take the training slot."""
    made = cluster(job("t1", resources=gpus(1, cpu="8")), nodes=[node()])
    free = gpus(1, cpu=None)
    add(made, job("head", resources=gpus(1, cpu="30")), job("t2", resources=free))
    add(made, job("i", kind=Kind.INFERENCE, resources=free))
    assert made.running() == {"t1", "i"}


def test_the_last_place_for_a_pod_is_kept_too():
    made = cluster(job("a", resources=gpus(3)), nodes=[whole(gpus=4, pods=2)])
    add(made, job("head", resources=gpus(2), priority_class_name="high"), job("x", resources=gpus(0)))
    assert made.running() == {"a"}


@pytest.mark.parametrize(("places", "running"), [(1, {"c0"}), (2, {"c0", "c1"})])
def test_jobs_without_gpu_keep_a_place(places, running):
    """One place is the head's: it lacks CPU, which the next one would not take."""
    big, small = gpus(0, cpu="31"), gpus(0, cpu=None, memory="1Gi")
    held = pool(starvation_seconds=0, per_node_cpu=replace(pool().spec.per_node_cpu, training=places + 1))
    made = Cluster([node()], [held])
    add(made, job("c0", resources=gpus(0, cpu="2")))
    add(made, job("head", resources=big), *(job(f"c{i}", resources=small) for i in range(1, 4)))
    assert made.running() == running


def test_other_nodes_are_free_for_all():
    nodes = [whole("a", gpus=4), whole("b", gpus=2)]
    made = add(cluster(job("x", resources=gpus(3)), nodes=nodes), job("head", resources=gpus(4)), job("small"))
    assert made.running() == {"x", "small"}
    assert made.status("small").assignments[0].node == "b"


def test_the_nearest_node_is_kept():
    nodes = [whole("a", gpus=4), whole("b", gpus=4)]
    made = cluster(job("x", resources=gpus(3)), job("y", resources=gpus(2)), nodes=nodes)
    assert {p.name.split("-")[0]: p.node for p in made.pods.values()} == {"x": "a", "y": "b"}
    add(made, job("head", resources=gpus(4)), job("small"))
    assert made.status("small").assignments[0].node == "a"  # `b` lacks less


def test_a_gang_keeps_as_many_nodes_as_it_needs():
    nodes = [whole(name, gpus=2) for name in "abc"]
    running = [job(name, resources=gpus(count)) for name, count in (("a0", 2), ("b0", 1), ("b1", 1), ("c0", 2))]
    made = add(cluster(*running, nodes=nodes), job("head", resources=gpus(2), nodes=2), job("small"))
    assert end(made, "a0").running() == {"b0", "b1", "c0"}
    assert end(made, "b0").running() == {"b1", "c0"}
    assert end(made, "b1").running() == {"c0", "head"}
    assert end(made, "c0").running() == {"head", "small"}


def test_a_gang_with_reserved_room_on_some_nodes_says_what_it_lacks_on_the_others():
    nodes = [whole(name, gpus=2) for name in "ab"]
    made = add(cluster(job("a0", resources=gpus(2)), nodes=nodes), job("head", resources=gpus(2), nodes=2))
    assert made.status("head").message.endswith("; 1 node of the 2 needed has room now")
    assert add(made, job("small")).status("small").message.endswith("; room on b is kept for team/head, which is first")


def test_the_quota_of_its_namespace_is_kept_too():
    """`small` would run on another node, but the namespace may use four, and the head needs them."""
    nodes = [whole("a", gpus=4), whole("b", gpus=2)]
    quotas = [quota("team", nominal=4, borrow=0), quota("other")]
    made = cluster(job("x", namespace="other", resources=gpus(4)), nodes=nodes, quotas=quotas)
    add(made, job("head", resources=gpus(4)), job("small"), job("theirs", namespace="other"))
    assert made.running() == {"x", "theirs"}
    assert made.status("small").reason == "WaitingForQuota"
    assert made.status("small").message == (
        "needs 1 GPU; namespace team uses 0 of 4 in pool default (nominal 4, may borrow 0); "
        "4 more reserved for a job that waits for room"
    )
    assert end(made, "x").running() == {"theirs", "head"}


def test_the_number_of_jobs_of_its_namespace_is_kept_too():
    nodes = [whole("a", gpus=4), whole("b", gpus=2)]
    quotas = [quota("team", nominal=8, training=1), quota("other")]
    made = cluster(job("x", namespace="other", resources=gpus(4)), nodes=nodes, quotas=quotas)
    add(
        made,
        job("head", resources=gpus(4)),
        job("small"),
        job("infers", kind=Kind.INFERENCE, priority_class_name="low"),
    )
    assert made.running() == {"x", "infers"}
    assert made.status("small").message == (
        "namespace team runs 0 of at most 1 training jobs in pool default; 1 more reserved for a job that waits for room"
    )


def test_idle_room_that_it_will_borrow_is_kept_too():
    """Four more may be borrowed and the head wants them all: others get none, although there is room."""
    nodes = [whole("a", gpus=4), whole("b", gpus=4)]
    quotas = [quota("keeper", nominal=2, lend=0)]
    running = [job(name, namespace="third") for name in "xy"]
    made = cluster(*running, nodes=nodes, quotas=quotas, placement="Spread")
    add(made, job("head", resources=gpus(4)), job("small", namespace="fourth"))
    assert made.running() == {"x", "y"}
    assert made.status("head").reason == "WaitingForCapacity"
    assert made.status("small").message == (
        "needs 1 GPU; namespace fourth uses 0 in pool default (nominal 0); "
        "0 can be borrowed (2 idle are kept by namespaces that do not lend them)"
    )


def test_a_head_that_waits_for_quota_keeps_no_room():
    quotas = [quota("team", nominal=1, borrow=0, training=1)]
    made = add(cluster(job("a"), quotas=quotas), job("head", priority_class_name="high"))
    add(made, job("other", namespace="other", resources=gpus(3)))
    assert made.running() == {"a", "other"}


def test_one_of_higher_priority_takes_the_room_all_the_same():
    made = add(cluster(job("a", resources=gpus(2))), job("head", resources=gpus(4)))
    add(made, job("urgent", priority_class_name="high"))
    assert made.running() == {"a", "urgent"}


def test_a_node_that_is_avoided_is_not_kept_while_there_are_others():
    """Of two nodes that lack the same, the one that failed the job is not the one to wait for."""
    waits = job("head", resources=gpus(4))
    status = replace(waits.status, phase=Phase.QUEUED, avoided_nodes={"a": after(600)}, queued_at=after(-10))
    held = replace(waits, status=status)
    nodes = [whole("a", gpus=4), whole("b", gpus=4)]
    others = [foreign_pod("x", "a", gpus=2), foreign_pod("y", "b", gpus=2)]
    starving = pool(starvation_seconds=0)
    done = statuses(run(snapshot([held, job("small")], nodes=nodes, foreign=others, pools=[starving])))
    assert done["small"].assignments[0].node == "a"
