"""Why a pod failed, and what follows: counted, final, tried again, given up."""

import json

import pytest
from msgspec.structs import replace
from unit.core.builders import (
    DEFAULTS,
    T0,
    admitted,
    after,
    created,
    foreign_pod,
    job,
    node,
    of_type,
    pod_of,
    run,
    snapshot,
    statuses,
    whole,
)
from unit.core.cluster import Cluster

from rfuav_operator.core import conditions
from rfuav_operator.core.job import units
from rfuav_operator.core.job.failures import classify
from rfuav_operator.core.model import DeletePod, Kind, Phase, PodPhase, ShardCounts, Taint


def failed(**changes):
    owner = admitted(job())[0]
    return pod_of(owner, phase=PodPhase.FAILED, **changes)


@pytest.mark.parametrize(
    ("changes", "reason", "counted", "final"),
    [
        ({"disrupted": True, "exit_code": 2}, "Evicted", False, False),
        ({"reason": "Evicted", "exit_code": 137}, "Evicted", False, False),
        ({"reason": "UnexpectedAdmissionError"}, "UnexpectedAdmissionError", False, False),
        ({"reason": "OutOfnvidia.com/gpu"}, "OutOfnvidia.com/gpu", False, False),
        ({"reason": "NodeLost"}, "NodeLost", False, False),
        ({"terminated_reason": "OOMKilled", "exit_code": 137}, "OutOfMemory", True, False),
        ({"terminated_reason": "OOMKilled", "exit_code": 137, "disrupted": True}, "Evicted", False, False),
        ({"exit_code": 2}, "InvalidConfiguration", True, True),
        ({"exit_code": 3}, "InputMissing", True, True),
        ({"exit_code": 4}, "GPUOutOfMemory", True, True),
        ({"exit_code": 75}, "StoppedAfterCheckpoint", False, False),
        ({"exit_code": 1, "terminated_reason": "Error"}, "ContainerFailed", True, False),
        ({"exit_code": 128, "terminated_reason": "StartError"}, "StartError", True, False),
        (
            {
                "exit_code": 128,
                "terminated_reason": "StartError",
                "termination_message": "OCI runtime create failed: nvidia-container-cli: nvml error: driver not loaded",
            },
            "StartError",
            False,
            False,
        ),
        (
            {
                "exit_code": 128,
                "terminated_reason": "StartError",
                "termination_message": 'exec: "train": executable file not found in $PATH',
            },
            "StartError",
            True,
            False,
        ),
        (
            {
                "exit_code": 128,
                "terminated_reason": "StartError",
                "termination_message": "failed to create shim task: mkdir /run/containerd/x: no space left on device",
            },
            "StartError",
            False,
            False,
        ),
        (
            {
                "exit_code": 128,
                "terminated_reason": "ContainerCannotRun",
                "termination_message": "dial unix:///run/containerd/containerd.sock: connect: connection refused",
            },
            "ContainerCannotRun",
            False,
            False,
        ),
        ({"reason": "TaintToleration", "started_at": None}, "TaintToleration", False, False),
        ({"reason": "InvalidNodeInfo", "started_at": None, "message": "no node"}, "InvalidNodeInfo", False, False),
        ({"started_at": None}, "UnexpectedAdmissionError", False, False),
        ({"exit_code": 2, "started_at": None}, "InvalidConfiguration", True, True),
        ({"exit_code": 255, "terminated_reason": "Unknown"}, "Unknown", False, False),
        ({"exit_code": 137, "terminated_reason": "Error", "deleting": True}, "PodDeleted", False, False),
        ({"exit_code": 143, "terminated_reason": "Error", "deleting": True}, "PodDeleted", False, False),
        ({"exit_code": 137, "terminated_reason": "Error"}, "ContainerFailed", True, False),
        ({"exit_code": 1, "terminated_reason": "Error", "deleting": True}, "ContainerFailed", True, False),
        ({"exit_code": 137, "terminated_reason": "OOMKilled", "deleting": True}, "OutOfMemory", True, False),
        ({"exit_code": 137, "terminated_reason": "ContainerStatusUnknown"}, "ContainerStatusUnknown", False, False),
    ],
)
def test_the_order_of_reasons(changes, reason, counted, final):
    verdict = classify(failed(**changes), gpu_shared=False)
    assert (verdict.reason, verdict.counted, verdict.final) == (reason, counted, final)
    assert verdict.message


@pytest.mark.parametrize(
    ("where", "otherwise"),
    [
        ({"exit_code": 1, "terminated_reason": ...}, "ContainerFailed"),
        ({"disrupted": True, "reason": ...}, "Evicted"),
        ({"started_at": None, "reason": ...}, "UnexpectedAdmissionError"),
        ({"reason": ...}, "PodVanished"),
    ],
)
@pytest.mark.parametrize(
    ("word", "taken"),
    [
        ("Suspended", False),
        ("RestartedTogether", False),
        (" ", False),
        ("x" * 3000, False),
        ("two\nlines", False),
        ("NodeShutdown", True),
        ("OutOfnvidia.com/gpu", True),
        ("SysctlForbidden", True),
    ],
)
def test_a_reason_of_others_is_one_word_and_none_of_our_own(where, otherwise, word, taken):
    verdict = classify(failed(**{k: word if v is ... else v for k, v in where.items()}), gpu_shared=False)
    assert verdict.reason == (word if taken else otherwise)


def test_out_of_memory_is_said_of_a_trainer_alone():
    assert classify(failed(reason="OutOfMemory"), gpu_shared=False).reason == "Evicted"


def test_a_pod_that_ran_and_does_not_say_how_it_ended_is_not_charged():
    """Its node was restarted, say, and the kubelet has forgotten the container."""
    verdict = classify(failed(started_at=None), gpu_shared=False, ran=True)
    assert (verdict.reason, verdict.counted, verdict.avoid_node) == ("PodVanished", False, False)
    assert "was not observed" in verdict.message


def ended(code, **said):
    message = json.dumps(
        {"reason": "OutputBusy", "message": "output.uri: another job writes there", "exitCode": code} | said
    )
    return failed(exit_code=code, terminated_reason="Error", termination_message=message)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 75, 139])
def test_the_trainers_own_word_is_the_reason_and_the_exit_code_says_what_follows(code):
    verdict, usual = classify(ended(code), gpu_shared=False), classify(failed(exit_code=code), gpu_shared=False)
    assert verdict.reason == "OutputBusy"
    assert "another job writes there" in verdict.message
    assert (verdict.counted, verdict.final, verdict.outage, verdict.avoid_node, verdict.exit_code) == (
        (usual.counted, usual.final, usual.outage, usual.avoid_node, usual.exit_code)
    )


@pytest.mark.parametrize(
    "said",
    [
        *({"reason": word} for word in ("OutOfMemory", "Succeeded", "Suspended", "Evicted", "NodeShutdown", "Unknown")),
        *(
            {"reason": word}
            for word in ("", "two words", "lower", "Ümlaut", "X" * 65, "A\n", "OutputBusy\u202e", 7, None, ["A"])
        ),
        {"reason": "Completed", "exitCode": 0},  # it was done, and crashed on its way out
        {"exitCode": "1"},
    ],
    ids=repr,
)
def test_an_invalid_or_reserved_word_is_not_the_reason(said):
    assert classify(ended(1, **said), gpu_shared=False).reason == "ContainerFailed"


def test_gpu_memory_is_final_only_on_a_gpu_of_ones_own():
    assert not classify(failed(exit_code=4), gpu_shared=True).final


def test_a_trainers_out_of_memory_is_counted_like_any_other_end():
    said = json.dumps({"reason": "OutOfMemory", "exitCode": 1})
    assert after_failures(codes=[1, 1], termination_message=said).phase is Phase.QUEUED


@pytest.mark.parametrize(("slots", "phase"), [(8, Phase.QUEUED), (2, Phase.FAILED)])
def test_a_job_out_of_gpu_memory_runs_again_where_the_gpu_is_shared(slots, phase):
    nodes = [node(slots=slots, gpus=2)]
    held = admitted(job(), nodes=nodes)[0]
    pod = pod_of(held, phase=PodPhase.FAILED, exit_code=4)
    assert statuses(run(snapshot([held], pods=[pod], nodes=nodes)))["a"].phase is phase


def test_the_termination_message_is_quoted():
    said = classify(failed(exit_code=1, termination_message="no such file"), gpu_shared=False)
    assert said.message == "exit code 1: no such file"
    said = classify(failed(exit_code=3, termination_message='{"error": "folder /x is empty"}'), gpu_shared=False)
    assert said.message == "folder /x is empty"


def after_failures(kind=Kind.TRAINING, *, codes, backoff_limit=3, **changes):
    """The job after its pods failed one after the other, each admitted when its backoff was over."""
    held, now = job(kind=kind, backoff_limit=backoff_limit), T0
    for code in codes:
        held = replace(held, status=statuses(run(snapshot([held]), now=now))["a"])
        assert held.status.phase is Phase.ADMITTED
        extra = {"terminated_reason": "OOMKilled"} if code == 137 else changes
        if code is None:
            extra = {"disrupted": True}
        pod = pod_of(held, phase=PodPhase.FAILED, exit_code=code, **extra)
        held = replace(held, status=statuses(run(snapshot([held], pods=[pod]), now=now))["a"])
        now = after(10_000 * (1 + held.status.attempt))
    return held.status


@pytest.mark.parametrize("kind", Kind)
def test_backoff_limit(kind):
    status = after_failures(kind, codes=[1, 1], backoff_limit=2)
    assert (status.phase, status.counted_failures, status.reason) == (Phase.QUEUED, 2, "BackingOff")
    status = after_failures(kind, codes=[1, None, 75, 1, 1], backoff_limit=2)
    assert (status.phase, status.counted_failures, status.reason) == (Phase.FAILED, 3, "BackoffLimitExceeded")
    assert "backoffLimit 2" in status.message
    assert conditions.is_true(status.conditions, "Failed")
    assert conditions.is_true(status.conditions, "Stalled")
    assert status.finished_at is not None
    assert [f.counted for f in status.failures] == [True, False, False, True, True]


def test_the_last_five_failures_are_kept():
    assert len(after_failures(codes=[75] * 7).failures) == 5


def test_disruptions_end_some_day():
    status = after_failures(codes=[None] * (DEFAULTS.uncounted_limit + 1), backoff_limit=0)
    assert (status.phase, status.reason, status.counted_failures) == (Phase.FAILED, "TooManyDisruptions", 0)


def interrupted(kind, *, moves, times, **spec):
    """The status after the pod was evicted so many times; each attempt saves `moves` more than the last one."""
    held, now, saved = job(kind=kind, backoff_limit=0, **spec), T0, 0
    for _ in range(times):
        held = replace(held, status=statuses(run(snapshot([held]), now=now))["a"])
        assert held.status.phase is Phase.ADMITTED
        saved += moves
        ours = {"sequence": 1, "epoch": 0, "checkpoint": {"uri": "pvc://m/c", "epoch": 0, "step": saved}}
        if kind is Kind.INFERENCE:
            ours = {"sequence": 1, "processed": saved}
        said = json.dumps({"trainerStatus": {"rfuav": ours}})
        pod = pod_of(held, phase=PodPhase.FAILED, exit_code=137, disrupted=True, termination_message=said)
        held = replace(held, status=statuses(run(snapshot([held], pods=[pod]), now=now))["a"])
        now = after(10_000 * (1 + held.status.attempt))
    return held.status


@pytest.mark.parametrize("kind", Kind)
def test_a_job_that_gets_further_survives_any_number_of_interruptions(kind):
    status = interrupted(kind, moves=1, times=3 * DEFAULTS.uncounted_limit)
    assert (status.phase, units.failures(status, None if kind is Kind.TRAINING else 0)) == (Phase.QUEUED, (0, 1))


@pytest.mark.parametrize("kind", Kind)
def test_a_job_that_gets_nowhere_ends(kind):
    status = interrupted(kind, moves=0, times=DEFAULTS.uncounted_limit + 1)
    assert (status.phase, status.reason) == (Phase.FAILED, "TooManyDisruptions")
    assert "uncountedLimit 20" in status.message


@pytest.mark.parametrize("kind", Kind)
def test_a_job_sets_its_own_limit(kind):
    assert interrupted(kind, moves=0, times=40, uncounted_limit=40).phase is Phase.QUEUED
    assert interrupted(kind, moves=0, times=1, uncounted_limit=0).phase is Phase.FAILED


def test_work_that_was_lost_and_done_again_is_not_further():
    """`checkpoint.resume: false`, or a volume that was emptied."""
    status = job().status
    for saved in (5, 3, 5, 5):
        status = units.record_failure(units.moved_forward(status, None, saved), None, counted=False, outage=False)
    assert (status.uncounted_failures, status.furthest) == (4, 5)
    assert units.moved_forward(status, None, 6).uncounted_failures == 0


def test_counted_failures_of_a_shard_stay_when_it_moves_on():
    status = job(kind=Kind.INFERENCE).status
    status = replace(status, shards=ShardCounts(retries={"0": 5}, counted_failures={"0": 2}))
    assert units.failures(units.moved_forward(status, 0, 10), 0) == (2, 0)


def test_out_of_memory_has_one_more_try():
    assert after_failures(codes=[137], backoff_limit=0).reason == "OutOfMemory"
    assert after_failures(codes=[137]).phase is Phase.QUEUED
    twice = after_failures(codes=[137, 137])
    assert (twice.phase, twice.reason) == (Phase.FAILED, "OutOfMemory")
    assert "raise spec.resources.memory" in twice.message


def test_an_eviction_says_so_until_the_next_admission():
    status = after_failures(codes=[None])
    assert conditions.is_true(status.conditions, "Evicted")
    again = statuses(run(snapshot([job(status=status)]), now=after(10_000)))["a"]
    assert not conditions.is_true(again.conditions, "Evicted")
    assert again.attempt == 2


def test_a_new_attempt_waits_for_its_backoff():
    held = admitted(job())[0]
    gone = run(snapshot([held], pods=[pod_of(held, phase=PodPhase.FAILED, exit_code=1)]))
    status = statuses(gone)["a"]
    assert T0 < gone.wake_at == status.not_before
    waiting = replace(held, status=status)
    assert created(run(snapshot([waiting]), now=after(5))) == []
    assert created(run(snapshot([waiting]), now=status.not_before, dirty=[], plan=False)) == [
        held.status.assignments[0].pod[:-1] + "2"
    ]


# --- pods that do not start


def test_an_image_that_cannot_be_pulled_has_a_grace():
    held = admitted(job(backoff_limit=0))[0]
    stuck = pod_of(held, node="n1", bound_at=T0, waiting_reason="ImagePullBackOff", waiting_message="not found")
    first = run(snapshot([held], pods=[stuck]))
    status = statuses(first)["a"]
    assert (status.phase, status.reason) == (Phase.ADMITTED, "ImagePullBackOff")
    assert "not found" in status.message
    assert first.wake_at == after(30)
    later = run(snapshot([replace(held, status=status)], pods=[stuck]), now=after(30))
    status = statuses(later)["a"]
    assert (status.phase, status.counted_failures) == (Phase.FAILED, 1)
    assert "not found" in status.message
    assert [d.name for d in of_type(later, DeletePod)] == [stuck.name]


def test_an_invalid_image_name_has_none():
    held = admitted(job())[0]
    stuck = pod_of(held, node="n1", bound_at=T0, waiting_reason="InvalidImageName")
    status = statuses(run(snapshot([held], pods=[stuck])))["a"]
    assert status.failures[0].reason == "ImagePullFailed"


@pytest.mark.parametrize(
    ("changes", "seconds", "reason", "words"),
    [
        ({"unschedulable": 'claim "captures" not found'}, 300, "ScheduleTimeout", 'claim "captures" not found'),
        (
            {
                "node": "n1",
                "bound_at": T0,
                "waiting_reason": "CreateContainerConfigError",
                "waiting_message": "no secret",
            },
            120,
            "StartTimeout",
            "no secret",
        ),
    ],
)
def test_timeouts_give_the_room_back_once_the_pod_is_gone(changes, seconds, reason, words):
    held = admitted(job())[0]
    pod = pod_of(held, **changes)
    waiting = run(snapshot([held], pods=[pod]))
    assert words in statuses(waiting)["a"].message
    assert waiting.wake_at == after(seconds)
    held = replace(held, status=statuses(waiting)["a"])
    timed_out = run(snapshot([held], pods=[pod]), now=after(seconds))
    status = statuses(timed_out)["a"]
    assert status.reason == reason
    assert status.assignments  # the room is still held
    assert words in status.failures[0].message
    assert not status.failures[0].counted
    assert [d.uid for d in of_type(timed_out, DeletePod)] == [pod.uid]
    leaving = replace(pod, deleting=True)
    still = run(snapshot([replace(held, status=status)], pods=[leaving]), now=after(seconds + 1))
    assert of_type(still, DeletePod) == []
    gone = statuses(run(snapshot([replace(held, status=status)], nodes=[node(), node("n2")]), now=after(seconds + 2)))
    assert gone["a"].assignments == ()
    assert "n1" in gone["a"].avoided_nodes
    again = run(snapshot([replace(held, status=gone["a"])], nodes=[node(), node("n2")]), now=after(seconds + 60))
    assert statuses(again)["a"].assignments[0].node == "n2"


def test_a_node_is_not_avoided_when_there_is_no_other():
    held = admitted(job())[0]
    refused = pod_of(held, phase=PodPhase.FAILED, reason="UnexpectedAdmissionError")
    status = statuses(run(snapshot([held], pods=[refused])))["a"]
    assert status.avoided_nodes
    assert created(run(snapshot([replace(held, status=status)]), now=after(60)))


# --- lost nodes, lost pods


def test_a_lost_node_holds_the_job_until_a_person_says_so():
    held = admitted(job())[0]
    held = replace(held, status=statuses(run(snapshot([held], pods=[pod_of(held, phase=PodPhase.RUNNING)])))["a"])
    leaving = pod_of(held, phase=PodPhase.RUNNING, deleting=True)
    down = node(ready=False)
    waiting = statuses(run(snapshot([held], pods=[leaving], nodes=[down, node("n2")])))["a"]
    assert (waiting.phase, waiting.reason) == (Phase.RUNNING, "NodeLost")
    assert "out-of-service" in waiting.message
    out = replace(down, taints=(Taint(key="node.kubernetes.io/out-of-service", effect="NoExecute"),))
    for nodes in ([out, node("n2")], [node("n2")]):
        status = statuses(run(snapshot([held], pods=[leaving], nodes=nodes)))["a"]
        assert (status.phase, status.failures[0].reason) == (Phase.QUEUED, "NodeLost")
        assert status.assignments == ()
        again = run(snapshot([replace(held, status=status)], pods=[leaving], nodes=nodes), now=after(60))
        assert statuses(again)["a"].assignments[0].node == "n2"


def test_a_reported_end_counts_although_the_node_is_lost_a_moment_later():
    held = admitted(job())[0]
    ended = pod_of(held, phase=PodPhase.RUNNING, exit_code=0, deleting=True)
    assert statuses(run(snapshot([held], pods=[ended], nodes=[node("n2")])))["a"].phase is Phase.SUCCEEDED


def test_a_lost_create_is_repeated_and_a_pod_that_ran_has_vanished():
    held = admitted(job())[0]
    name = held.status.assignments[0].pod
    assert created(run(snapshot([held]))) == [name]
    assert created(run(snapshot([held], creating={held.uid: frozenset({name})}))) == []
    running = replace(held, status=statuses(run(snapshot([held], pods=[pod_of(held, phase=PodPhase.RUNNING)])))["a"])
    status = statuses(run(snapshot([running])))["a"]
    assert (status.phase, status.failures[0].reason) == (Phase.QUEUED, "PodVanished")
    assert status.counted_failures == 0


def test_a_pod_that_is_deleted_before_it_runs_is_made_again_after_a_pause():
    """Whoever deletes it again and again is not answered with a create each turn; it ends as other interruptions do."""
    made = Cluster([whole(gpus=1)])
    made.add(job("a"))
    made.go()
    creates = 0
    for _ in range(200):
        for pod in made.pods_of("a"):
            creates += 1
            made.vanish(pod.name)
        made.go(5)
    status = made.status("a")
    assert (creates, status.attempt) == (7, 7)
    assert [(f.reason, f.counted) for f in status.failures] == [("PodDeleted", False)] * 5
    assert status.reason == "BackingOff"
    assert "the pod or its node was deleted" in status.message
    while not made.status("a").phase.terminal:
        for pod in made.go(600).pods_of("a"):
            made.vanish(pod.name)
    assert (made.status("a").reason, made.status("a").attempt) == ("TooManyDisruptions", DEFAULTS.uncounted_limit + 1)


def test_a_refused_pod_is_quoted_and_tried_again():
    held = admitted(job())[0]
    words = 'pods "a" is forbidden: exceeded quota: gpus'
    refused = run(snapshot([held], rejected={held.uid: words}))
    status = statuses(refused)["a"]
    assert (status.phase, status.reason) == (Phase.QUEUED, "RejectedByCluster")
    assert words in status.message
    assert status.assignments == ()
    assert (status.counted_failures, status.uncounted_failures) == (0, 0)
    assert created(run(snapshot([replace(held, status=status)]), now=after(60)))


def test_many_shards_that_are_refused_at_once_wait_as_one():
    """Each of them a try more would make an outage of a minute a wait of ten."""
    held = admitted(job(kind=Kind.INFERENCE, shards=6, parallelism=6))[0]
    assert len(held.status.assignments) == 6
    for second in (0, 1):  # in two turns
        creating = {held.uid: frozenset(a.pod for a in held.status.assignments[3:])} if second == 0 else {}
        refused = run(snapshot([held], rejected={held.uid: "no"}, creating=creating), now=after(second))
        held = replace(held, status=statuses(refused)["a"])
    assert not held.status.assignments
    assert held.status.rejections == 1
    assert held.status.shards is not None
    assert max(held.status.shards.not_before.values()) <= after(1 + 12)
    again = run(snapshot([held]), now=after(15))
    assert len(created(again)) == 6
    held = replace(held, status=statuses(again)["a"])
    refused = run(snapshot([held], rejected={held.uid: "no"}), now=after(16))
    assert statuses(refused)["a"].rejections == 2


def test_avoided_nodes_are_forgiven_as_the_nodes_are_now():
    """The other node goes while the job waits: nothing of the job changes, and it need not wait any longer."""
    made = Cluster([whole("a", gpus=1), whole("b", gpus=1)])
    made.add(job("other", namespace="other"))
    made.add(job("a", created=after(1)))
    made.go()
    made.start(made.pods_of("other")[0].name)
    (avoided,) = (a.node for a in made.status("a").assignments)
    made.go(301)
    made.leave().go(30)
    assert (made.status("a").phase, set(made.status("a").avoided_nodes)) == (Phase.QUEUED, {avoided})
    made.set_node(None, made.pods_of("other")[0].node)
    assert [a.node for a in made.go().status("a").assignments] == [avoided]


def test_a_shard_fails_while_another_has_lost_its_room():
    """Each shard has its own fate: only pods of a gang share one."""
    wide = job(kind=Kind.INFERENCE, shards=2, parallelism=2)
    (held,) = admitted(wide, nodes=[whole("a", gpus=1), whole("b", gpus=1)])
    pods = [pod_of(held, at=1, phase=PodPhase.FAILED, exit_code=1)]
    others = [foreign_pod("x", held.status.assignments[0].node, gpus=1)]
    done = run(snapshot([held], pods=pods, nodes=[whole("a", gpus=1), whole("b", gpus=1)], foreign=others))
    status = statuses(done)["a"]
    assert (status.counted_failures, [f.shard for f in status.failures]) == (1, [1])
    assert "1" in status.shards.not_before
