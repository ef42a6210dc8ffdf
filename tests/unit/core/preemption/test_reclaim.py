"""What was borrowed is taken back for those whose own it is, and no more than that."""

import pytest
from unit.core.builders import RECLAIM, job, quota, whole
from unit.core.crowded import add, cluster, gpus, high, low, stopping

from rfuav_operator.core import conditions
from rfuav_operator.core.model import Phase, Preemption, Resources

BOTH = Preemption(within_pool="LowerPriority", reclaim_borrowed="Any", min_runtime_seconds=60)

# --- what was borrowed

THREE = [whole(name, gpus=1) for name in "abc"]
OWN = (quota("team", nominal=2), quota("other", nominal=0))


@pytest.mark.parametrize(
    ("policy", "theirs", "quotas", "stops"),
    [
        ("Any", "", OWN, True),
        ("Any", "high", OWN, True),  # whatever their priority
        ("LowerPriority", "", OWN, False),  # equal
        ("LowerPriority", "low", OWN, True),
        ("Never", "low", OWN, False),
        ("Any", "", (quota("team", nominal=0), quota("other", nominal=0)), False),  # it would borrow itself
        ("Any", "", (quota("team", nominal=2), quota("other", nominal=2)), False),  # they use their own
    ],
)
def test_when_borrowed_room_is_taken_back(policy, theirs, quotas, stops):
    reclaim = Preemption(reclaim_borrowed=policy, min_runtime_seconds=60)
    borrowers = [job(f"b{i}", namespace="other", priority_class_name=theirs) for i in range(2)]
    made = add(cluster(*borrowers, policy=reclaim, quotas=quotas), job("mine"))
    assert len(stopping(made)) == stops
    if stops:
        assert made.leave().status("mine").phase is Phase.ADMITTED
        assert made.running() & {"b0", "b1"}


def test_reclaimed_room_goes_to_the_job_it_was_taken_for_and_the_victim_says_so():
    """The victim has the higher priority, and would take its room again: once told, the waiting one goes first."""
    borrower = high("b", namespace="other")
    made = add(cluster(borrower, nodes=[whole(gpus=1)], policy=RECLAIM, quotas=OWN), job("mine"))
    evicted = conditions.find(made.status("b").conditions, "Evicted")
    assert evicted is not None
    assert "preempted by TrainingJob team/mine, to give back borrowed GPUs" in evicted.message
    add(made, high("third", namespace="third"))
    made.leave()
    assert made.running() == {"mine"}
    assert [made.status(name).queue.position for name in ("b", "third")] == [1, 2]
    made.go(1000)
    assert made.running() == {"mine"}


def test_a_namespace_is_left_what_is_its_own():
    """It borrows one of its three: one is taken, although two wait."""
    quotas = (quota("team", nominal=2), quota("other", nominal=2))
    borrowers = [job(f"b{i}", namespace="other") for i in range(3)]
    made = cluster(*borrowers, nodes=THREE, policy=RECLAIM, quotas=quotas)
    add(made, job("m1"))
    assert len(stopping(made)) == 1
    add(made, job("m2"))  # while that one still stops
    assert len(stopping(made)) == 1


def test_two_that_wait_in_one_plan_do_not_take_it_twice():
    quotas = (quota("team", nominal=2), quota("other", nominal=2))
    borrowers = [job(f"b{i}", namespace="other") for i in range(3)]
    made = cluster(*borrowers, nodes=THREE, policy=RECLAIM, quotas=quotas)
    assert len(stopping(add(made, job("m1"), job("m2", resources=Resources(gpus=1, cpu="2", memory="1Gi"))))) == 1


def test_a_gang_does_not_take_beyond_what_is_borrowed_on_its_second_node():
    quotas = (quota("team", nominal=2), quota("other", nominal=1))
    nodes = [whole("a", gpus=1), whole("b", gpus=1)]
    borrowers = [job(f"b{i}", namespace="other") for i in range(2)]
    made = add(cluster(*borrowers, nodes=nodes, policy=RECLAIM, quotas=quotas), job("gang", nodes=2))
    assert stopping(made) == set()
    made.set_quota(quota("other", nominal=0))
    assert stopping(made.go()) == {"b0", "b1"}
    assert made.leave().status("gang").phase is Phase.ADMITTED


def test_a_namespace_that_does_not_borrow_is_stopped_for_nobody_elses_sake():
    quotas = (quota("other", nominal=1),)
    made = add(cluster(low("a", namespace="other"), nodes=[whole(gpus=1)], policy=BOTH, quotas=quotas), high())
    assert stopping(made) == set()
    assert stopping(add(made, high("own", namespace="other"))) == {"a"}  # its own jobs may
    made.leave()
    assert made.running() == {"own"}  # not `high`, which is older and of the same priority


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (1, 1, 2)])
def test_a_small_victim_does_not_protect_a_large_one_of_its_namespace(sizes):
    """Whoever was stopped first, the namespace would borrow no more; stopping the large one alone is enough."""
    nodes = [whole(gpus=sum(sizes))]
    quotas = (quota("team", nominal=2), quota("other", nominal=sum(sizes) - 1))
    for order in (sizes, sizes[::-1]):
        borrowers = [job(f"b{i}", namespace="other", resources=gpus(size)) for i, size in enumerate(order)]
        made = add(cluster(*borrowers, nodes=nodes, policy=RECLAIM, quotas=quotas), job("mine", resources=gpus(2)))
        assert stopping(made) == {f"b{order.index(2)}"}
        assert made.leave().status("mine").phase is Phase.ADMITTED


def test_a_small_victim_on_one_node_does_not_protect_a_gang_on_both():
    nodes = [whole(name, gpus=2) for name in "ab"]
    quotas = (quota("team", nominal=2), quota("other", nominal=3))
    borrowers = [
        job("b0", namespace="other", resources=gpus(1)),
        job("both", namespace="other", resources=gpus(1), nodes=2),
        job("b2", namespace="other", resources=gpus(1)),
    ]
    made = cluster(*borrowers, nodes=nodes, policy=RECLAIM, quotas=quotas)
    assert stopping(add(made, job("mine", resources=gpus(1), nodes=2))) == {"both"}
    assert made.leave().status("mine").phase is Phase.ADMITTED
