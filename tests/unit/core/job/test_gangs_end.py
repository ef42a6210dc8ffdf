"""How a gang ends: with all of its pods, stopped half-way, after a crash."""

from datetime import timedelta

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    after,
    job,
    pool,
    run,
    snapshot,
    statuses,
    whole,
)
from unit.core.cluster import Cluster
from unit.core.pairs import PAIR, cluster, gang, pods

from rfuav_operator.core import conditions
from rfuav_operator.core.model import Phase, PodPhase

# --- to the end


def test_it_succeeds_when_all_have():
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.finish(first)
    made.go()
    assert (made.status("gang").phase, len(made.status("gang").assignments)) == (Phase.RUNNING, 2)
    made.finish(second)
    made.go()
    assert made.status("gang").phase is Phase.SUCCEEDED


def test_one_that_fails_after_another_succeeded_starts_all_again():
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.finish(first)
    made.go()
    made.finish(second, 1)
    made.go().go(30)
    assert (made.status("gang").attempt, len(pods(made))) == (2, 2)


@pytest.mark.parametrize("how", ["suspend", "drain"])
def test_stopped_when_one_has_succeeded_already(how):
    """The pod that is done is not there to stop: nothing waits for it to go."""
    made = cluster(gang(), pools=[pool()]).start_all()
    first, second = pods(made)
    made.finish(first)
    made.go()
    uid = made.named("gang").uid
    if how == "suspend":
        made.edit(uid, suspend=True)
    else:
        made.set_pool(stop_policy="HoldAndDrain")
    made.go()
    assert made.pods[second].deleting
    made.finish(second, 75)
    made.go()
    assert made.status("gang").assignments == ()
    if how == "suspend":
        made.edit(uid, suspend=False)
    else:
        made.set_pool(stop_policy="None")
    made.go(1)
    assert (made.status("gang").attempt, len(made.status("gang").assignments)) == (2, 2)


def test_told_to_stop_and_done_all_the_same():
    made = cluster(gang()).start_all()
    made.edit(made.named("gang").uid, suspend=True)
    made.go()
    for name in list(made.pods):
        made.finish(name)
        made.go()
    assert made.status("gang").phase is Phase.SUCCEEDED


def test_pods_ready_when_all_run():
    made = cluster(gang())
    first, second = pods(made)
    made.start(first)
    made.go()
    assert not conditions.is_true(made.status("gang").conditions, "PodsReady")
    made.start(second)
    made.go()
    assert conditions.is_true(made.status("gang").conditions, "PodsReady")


def test_a_crash_between_the_two_creates():
    made = Cluster(PAIR)
    made.add(gang())
    made.turn()
    uid = made.named("gang").uid
    while len(made.lanes[uid]) > 1:
        made.deliver(uid)
    assert len(pods(made)) == 1
    made.crash()
    made.go()
    assert (made.status("gang").attempt, len(pods(made))) == (1, 2)


def test_cancelled_and_failed_jobs_take_all_pods_along():
    made = cluster(gang()).start_all()
    made.edit(made.named("gang").uid, cancel=True)
    made.go()
    assert pods(made) == []
    assert made.status("gang").phase is Phase.CANCELLED


def test_a_pod_that_is_being_deleted_by_others_still_holds_its_room():
    made = cluster(gang(), job("late", created=after(1))).start_all()
    made.change_pod(pods(made)[0], deleting=True)
    made.go()
    assert made.running() == {"gang"}
    made.change_pod(next(p.name for p in made.pods.values() if p.deleting), phase=PodPhase.FAILED, exit_code=75)
    made.go()
    assert made.running() == {"gang", "late"}  # the first room is free; the gang waits for its second pod


def test_shapes_of_several_sizes_do_not_mix():
    """One node is enough for the single job although the pair of the same shape waits."""
    made = replace(gang("pair"), created=after(-1))
    done = statuses(run(snapshot([made, job("single")], nodes=[whole("a", gpus=1), whole("b", ready=False)])))
    assert (done["pair"].phase, done["single"].phase) == (Phase.QUEUED, Phase.ADMITTED)


def test_one_that_has_stopped_already_holds_nothing_when_the_gang_is_suspended():
    """It waits to hear why the other failed; nobody asks that any more."""
    made = cluster(gang(), pools=[pool()]).start_all()
    first, second = pods(made)
    made.edit(made.named("gang").uid, suspend=True)
    made.finish(second, 75)
    made.turn()
    made.deliver_all()
    assert [a.pod for a in made.status("gang").assignments] == [first]
    assert made.pods[first].deleting


def test_it_does_not_wait_for_a_node_whose_clock_is_ahead():
    made = cluster(gang()).start_all()
    _, second = pods(made)
    ahead = made.now + timedelta(hours=1)
    made.change_pod(second, phase=PodPhase.FAILED, exit_code=75, finished_at=ahead)
    made.go(15)
    assert {a.stopping for a in made.status("gang").assignments} == {"RestartedTogether"}
    assert made.status("gang").failures[-1].finished_at <= made.now
