"""What happens to one pod of a gang happens to all: failures, lost pods, refused creates, room that is gone."""

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    admitted,
    foreign_pod,
    pod_of,
    run,
    snapshot,
    statuses,
    whole,
)
from unit.core.cluster import Cluster
from unit.core.pairs import PAIR, cluster, gang, pods

from rfuav_operator.core.model import CreatePod, Phase, PodPhase

# --- what happens to one happens to all


def test_when_one_fails_the_others_stop_and_all_start_again_together():
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.finish(first, 1)
    made.go()
    status = made.status("gang")
    assert [(a.pod, a.stopping) for a in status.assignments] == [(second, "RestartedTogether")]
    assert (status.phase, status.reason) == (Phase.ADMITTED, "RestartedTogether")
    assert f"waits until pod {second} is gone" in status.message
    assert made.pods[second].deleting
    made.go(30)  # past its backoff: not before all are gone
    assert made.status("gang").attempt == 1
    made.leave()
    status = made.status("gang")
    assert (status.attempt, len(status.assignments), status.counted_failures) == (2, 2, 1)
    assert len(pods(made)) == 2


def test_one_failure_is_counted_however_many_pods_it_takes_along():
    made = cluster(gang(backoff_limit=1)).start_all()
    for name in pods(made):
        made.finish(name, 1)
    made.go()
    assert (made.status("gang").phase, made.status("gang").counted_failures) == (Phase.QUEUED, 1)


def test_the_first_to_end_is_the_cause():
    """The second rank has no valid input; the first fails a moment later, because its peer is gone."""
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.finish(second, 3, termination_message='{"message": "no such folder"}')
    made.pass_time(2)
    made.finish(first, 1)
    made.go()
    assert (made.status("gang").phase, made.status("gang").reason) == (Phase.FAILED, "InputMissing")


@pytest.mark.parametrize(("code", "counted"), [(1, 1), (137, 1), (75, 0)])
def test_one_that_stopped_because_another_did_is_not_the_cause(code, counted):
    """It may be heard of first, from another kubelet: what the other says is waited for."""
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.finish(first, 75)
    made.go()
    assert (made.status("gang").failures, made.pods[second].deleting) == ((), False)
    made.finish(second, code)
    made.go()
    (failure,) = made.status("gang").failures
    assert (failure.exit_code, failure.counted) == (code, bool(counted))
    assert failure.pod == (second if counted else first)
    assert made.go(30).status("gang").attempt == 2


def test_one_that_stopped_in_the_same_second_is_not_the_cause():
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.finish(first, 75)
    made.finish(second, 3)
    made.go()
    assert (made.status("gang").phase, made.status("gang").reason) == (Phase.FAILED, "InputMissing")


def test_the_cause_is_not_waited_for_for_ever():
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.finish(first, 75)
    made.go().go(9)
    assert not made.pods[second].deleting
    made.go(1)
    assert made.pods[second].deleting
    assert (made.status("gang").failures[0].pod, made.status("gang").counted_failures) == (first, 0)
    made.leave()
    assert made.go(30).status("gang").attempt == 2


@pytest.mark.parametrize("at", [0, 1])
def test_a_pod_that_is_lost_before_it_started_is_made_again_alone(at):
    made = cluster(gang())
    lost = pods(made)[at]
    made.vanish(lost)
    made.crash()  # nobody knows that it was there: its create may have been lost
    made.go()
    assert lost in pods(made)
    assert (made.status("gang").attempt, len(pods(made))) == (1, 2)


def test_a_pod_that_somebody_deleted_before_it_started_takes_the_others_along():
    made = cluster(gang())
    made.vanish(pods(made)[1])
    made.go()
    status = made.status("gang")
    assert [(f.reason, f.counted) for f in status.failures] == [("PodDeleted", False)]
    made.leave().go(30)
    assert (made.status("gang").attempt, len(pods(made))) == (2, 2)


def test_a_pod_that_vanished_while_it_ran_takes_the_others_along():
    made = cluster(gang()).start_all()
    made.vanish(pods(made)[1])
    made.go()
    assert [a.stopping for a in made.status("gang").assignments] == ["RestartedTogether"]
    assert made.status("gang").failures[0].reason == "PodVanished"
    made.leave().go(30)
    assert (made.status("gang").attempt, len(pods(made))) == (2, 2)


@pytest.mark.parametrize("refused", [0, 1])
def test_a_create_that_is_refused_takes_the_others_along(refused):
    made = Cluster(PAIR)
    made.add(gang())
    made.turn()
    uid = made.named("gang").uid
    created = 0
    while made.lanes[uid]:
        is_pod = isinstance(made.lanes[uid][0], CreatePod)
        made.deliver(uid, outcome="refused" if is_pod and created == refused else "ok")
        created += is_pod
    made.go()
    status = made.status("gang")
    assert [a.stopping for a in status.assignments] == ["RestartedTogether"]
    assert status.failures[0].reason == "RejectedByCluster"
    made.leave()
    assert (made.status("gang").phase, made.status("gang").reason) == (Phase.QUEUED, "RejectedByCluster")
    made.go(30)
    assert len(pods(made)) == 2


def test_all_creates_refused():
    made = Cluster(PAIR)
    made.add(gang())
    made.turn()
    uid = made.named("gang").uid
    made.deliver(uid)
    while made.lanes[uid]:
        made.deliver(uid, outcome="refused")
    made.go()
    assert (made.status("gang").phase, made.status("gang").assignments) == (Phase.QUEUED, ())
    assert len(made.go(30).status("gang").assignments) == 2


def test_a_create_on_its_way_is_waited_for():
    """The first pod failed while the second's create has no answer yet: its room is held until it has."""
    made = Cluster(PAIR)
    made.add(gang())
    made.turn()
    uid = made.named("gang").uid
    while len(made.lanes[uid]) > 1:
        made.deliver(uid)
    (first,) = pods(made)
    made.start(first)
    made.finish(first, 1)
    made.turn()
    held = made.snapshot().jobs[uid].status
    assert [(a.rank, a.stopping) for a in held.assignments] == [(1, "RestartedTogether")]
    made.deliver_all()
    made.go(60)
    assert all(p.deleting for p in made.pods_of("gang") if p.live)
    assert made.leave().status("gang").attempt == 2


def test_a_gang_that_lost_part_of_its_room_gives_up_all_of_it():
    """A crash lost the create of one pod, and the room for it went to another record."""
    made = cluster(gang())
    made.vanish(pods(made)[1])
    made.crash()
    foreign = foreign_pod("x", made.status("gang").assignments[1].node, gpus=1)
    made.set_foreign(foreign)
    made.go()
    assert [a.stopping for a in made.status("gang").assignments] == ["RestartedTogether"]
    made.leave()
    assert (made.status("gang").phase, made.status("gang").assignments) == (Phase.QUEUED, ())
    assert made.status("gang").failures == ()
    made.set_foreign()
    assert len(made.go().status("gang").assignments) == 2


def test_one_that_is_not_bound_in_time_takes_the_others_along_and_its_node_is_avoided():
    nodes = [*PAIR, whole("c", gpus=1)]
    made = cluster(gang(), nodes=nodes)
    first, second = pods(made)
    made.start(first)
    made.go(301)
    status = made.status("gang")
    assert {a.pod: a.stopping for a in status.assignments} == {first: "RestartedTogether", second: "ScheduleTimeout"}
    bad = status.avoided_nodes
    made.leave().go(30)
    assert {a.node for a in made.status("gang").assignments} == {"a", "b", "c"} - set(bad)


def test_avoided_nodes_are_forgiven_when_too_few_others_are_left():
    """Two nodes, one of them avoided: there is no other pair."""
    made = cluster(gang())
    made.start(pods(made)[0])
    made.go(301)
    made.leave().go(30)
    assert len(made.status("gang").assignments) == 2


def test_no_new_attempt_beside_a_pod_of_the_old_one():
    nodes = [*PAIR, whole("c", gpus=1), whole("d", gpus=1)]
    (held,) = admitted(gang(), nodes=nodes)
    old = pod_of(held, at=1, phase=PodPhase.RUNNING, deleting=True)
    again = replace(held, status=replace(held.status, phase=Phase.QUEUED, assignments=()))
    done = statuses(run(snapshot([again], nodes=nodes, pods=[old])))["gang"]
    assert (done.phase, done.message) == (
        Phase.QUEUED,
        f"waits until pods of an earlier attempt are gone: {old.name}",
    )
