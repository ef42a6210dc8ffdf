"""TrainingJobs of several nodes: all pods or none, on a node each, at the start and at every start after it."""

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    admitted,
    after,
    foreign_pod,
    job,
    node,
    pod_of,
    pool,
    quota,
    run,
    snapshot,
    statuses,
    whole,
)
from unit.core.cluster import Cluster

from rfuav_operator.core import conditions
from rfuav_operator.core.model import CreatePod, CreateService, Phase, PodPhase, Resources

PAIR = [whole("a", gpus=1), whole("b", gpus=1)]


def cluster(*jobs, nodes=PAIR, **rest):
    made = Cluster(nodes, **rest)
    for one in jobs:
        made.add(one)
    return made.go()


def gang(name="gang", nodes=2, **rest):
    return job(name, nodes=nodes, **rest)


def pods(made, name="gang"):
    """Live pods that nobody told to stop."""
    return [p.name for p in made.pods_of(name) if p.live and not p.deleting]


# --- all or none


@pytest.mark.parametrize(
    ("size", "nodes", "foreign", "fits"),
    [
        (2, PAIR, [], True),
        (2, PAIR, [foreign_pod("x", "b", gpus=1)], False),
        (2, [whole("a", gpus=2)], [], False),  # a node each
        (3, [*PAIR, node("c")], [], True),
        (3, [*PAIR, whole("c", ready=False)], [], False),
        (2, [whole("a"), whole("b", cpu=1)], [], True),
        (2, [whole("a"), whole("b", cpu=0)], [], False),
    ],
)
def test_all_pods_or_none(size, nodes, foreign, fits):
    made = gang(nodes=size)
    done = run(snapshot([made], nodes=nodes, foreign=foreign))
    status = statuses(done)["gang"]
    assert (status.phase is Phase.ADMITTED) is fits
    assert len([a for a in done.actions if isinstance(a, CreatePod)]) == (size if fits else 0)
    assert [a.rank for a in status.assignments] == (list(range(size)) if fits else [])
    assert len({a.node for a in status.assignments}) == len(status.assignments)


def test_one_attempt_one_service_and_a_name_for_each_rank():
    done = run(snapshot([gang()], nodes=PAIR))
    status = statuses(done)["gang"]
    assert status.attempt == 1
    assert [a.pod.rsplit("-", 2)[1:] for a in status.assignments] == [["1", "0"], ["1", "1"]]
    kinds = [type(a) for a in done.actions]
    assert kinds.count(CreateService) == 1
    assert kinds.index(CreateService) < kinds.index(CreatePod)


@pytest.mark.parametrize(("nominal", "fits"), [(4, True), (3, False)])
def test_the_quota_is_for_all_its_pods_together(nominal, fits):
    made = gang(resources=Resources(gpus=2))
    nodes = [whole("a", gpus=2), whole("b", gpus=2)]
    done = statuses(run(snapshot([made], nodes=nodes, quotas=[quota(nominal=nominal, borrow=0)])))
    assert (done["gang"].phase is Phase.ADMITTED) is fits


def test_what_it_waits_for_in_words():
    done = statuses(run(snapshot([gang()], nodes=PAIR, foreign=[foreign_pod("x", "b", gpus=1)])))["gang"]
    assert done.reason == "WaitingForCapacity"
    assert done.message.startswith("needs 1 GPU on each of 2 nodes; pool default has 1 of 2 training slots free")
    assert "; 1 node of 2 with room now" in done.message


def test_it_takes_nothing_while_it_waits():
    made = cluster(job("runs"), gang("gang", created=after(1)), job("late", created=after(2)))
    assert made.running() == {"runs", "late"}


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


@pytest.mark.parametrize("at", [0, 1])
def test_a_pod_that_is_lost_before_it_started_is_made_again_alone(at):
    made = cluster(gang())
    lost = pods(made)[at]
    made.vanish(lost)
    made.go()
    assert lost in pods(made)
    assert (made.status("gang").attempt, len(pods(made))) == (1, 2)


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


def test_a_gang_whose_room_is_not_there_any_more_gives_up_all_of_it():
    """A crash lost the create of one pod, and the room for it went to another record."""
    made = cluster(gang())
    made.vanish(pods(made)[1])
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
