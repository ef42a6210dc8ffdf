"""A pod has more containers than the trainer: the trainer's end decides, and the others are told by their names."""

import pytest
from msgspec.structs import replace
from unit.core.builders import T0, admitted, after, job, of_type, pod_of, run, snapshot, statuses, whole
from unit.core.cluster import Cluster
from unit.core.pairs import cluster, gang, pods

from rfuav_operator.core.job.failures import classify
from rfuav_operator.core.model import Beside, DeletePod, Kind, Phase, PodPhase

PROXY = Beside(name="istio-proxy", exit_code=1, reason="Error")


def one_gpu(*jobs):
    made = Cluster([whole(gpus=1)])
    for each in jobs:
        made.add(each)
    made.go()
    return made.start_all()


# --- a sidecar runs on


def test_the_job_succeeds_with_its_trainer_and_the_pod_goes():
    made = one_gpu(job("a"), job("next", created=after(1)))
    (pod,) = made.pods_of("a")
    made.change_pod(pod.name, exit_code=0, accompanied=True, finished_at=made.now)
    made.go()
    assert made.status("a").phase is Phase.SUCCEEDED
    assert made.pods[pod.name].deleting
    assert made.running() == set()  # the sidecar still holds the room
    made.leave()
    assert made.running() == {"next"}


@pytest.mark.parametrize("code", [0, 1])
def test_without_a_sidecar_the_kubelet_has_the_last_word_and_the_pod_stays(code):
    """The container has ended a moment before the pod has: deleted then, its log would be lost."""
    made = one_gpu(job("a"))
    (pod,) = made.pods_of("a")
    made.change_pod(pod.name, exit_code=code, finished_at=made.now)
    made.go()
    assert (made.status("a").phase, made.pods[pod.name].deleting) == (Phase.RUNNING, False)
    made.finish(pod.name, code)
    made.go()
    assert (made.status("a").phase, made.pods[pod.name].deleting) == ((Phase.SUCCEEDED, Phase.QUEUED)[code], False)


def test_a_failed_trainer_is_counted_once_and_its_room_is_held_until_the_sidecar_is_gone():
    made = one_gpu(job("a", created=after(-1)), job("next"))
    (pod,) = made.pods_of("a")
    made.change_pod(pod.name, exit_code=1, accompanied=True, terminated_reason="Error", finished_at=made.now)
    made.go()
    assert (made.status("a").counted_failures, made.pods[pod.name].deleting) == (1, True)
    assert made.running() == {"a"}
    made.change_pod(pod.name, phase=PodPhase.FAILED)
    made.go()
    assert (made.status("a").counted_failures, made.running()) == (1, {"next"})


def test_a_final_exit_ends_the_job_although_the_sidecar_ended_well():
    held = admitted(job())[0]
    pod = pod_of(
        held, phase=PodPhase.RUNNING, exit_code=3, accompanied=True, termination_message='{"error": "no data"}'
    )
    done = run(snapshot([held], pods=[pod]))
    assert (statuses(done)["a"].phase, statuses(done)["a"].reason) == (Phase.FAILED, "InputMissing")
    assert [d.uid for d in of_type(done, DeletePod)] == [pod.uid]


def test_a_shard_is_done_and_its_pod_goes_while_others_run():
    made = Cluster([whole(gpus=2)])
    made.add(job("a", kind=Kind.INFERENCE, shards=3, parallelism=2))
    made.go()
    made.start_all()
    first, second = made.pods_of("a")
    made.change_pod(first.name, exit_code=0, accompanied=True, finished_at=made.now)
    made.go()
    assert (made.status("a").shards.completed, made.pods[first.name].deleting) == ("0", True)
    assert len(made.pods) == 2  # the third shard waits for the room
    made.leave()
    assert sorted(a.shard for a in made.status("a").assignments) == [1, 2]
    assert not made.pods[second.name].deleting


def test_a_gang_succeeds_when_all_trainers_have():
    made = cluster(gang()).start_all()
    for name in pods(made):
        assert not any(p.deleting for p in made.pods.values())
        made.change_pod(name, exit_code=0, accompanied=True, finished_at=made.now)
        made.go()
    assert made.status("gang").phase is Phase.SUCCEEDED
    assert all(p.deleting for p in made.pods.values())


def test_pods_of_a_gang_that_are_done_go_when_all_start_again():
    made = cluster(gang()).start_all()
    first, second = pods(made)
    made.change_pod(first, exit_code=0, accompanied=True, finished_at=made.now)
    made.go()
    made.finish(second, 1)
    made.go()
    assert made.pods[first].deleting
    made.leave().go(30)
    assert (made.status("gang").attempt, len(pods(made))) == (2, 2)


def test_running_time_ends_with_the_trainer():
    made = one_gpu(job("a"))
    (pod,) = made.pods_of("a")
    made.pass_time(50)
    made.change_pod(pod.name, exit_code=1, accompanied=True, finished_at=made.now)
    made.go()
    made.go(1000)
    assert made.status("a").running_seconds == 50


# --- a sidecar fails


def test_success_counts_although_a_sidecar_failed_the_pod():
    held = admitted(job())[0]
    pod = pod_of(held, phase=PodPhase.FAILED, exit_code=0, beside=(PROXY,))
    assert statuses(run(snapshot([held], pods=[pod])))["a"].phase is Phase.SUCCEEDED


def test_a_trainer_that_was_asked_to_stop_has_not_succeeded():
    """It may end with 0 when its pod is taken off the node."""
    held = admitted(job())[0]
    pod = pod_of(held, phase=PodPhase.FAILED, exit_code=0, reason="Evicted", disrupted=True)
    status = statuses(run(snapshot([held], pods=[pod])))["a"]
    assert (status.phase, status.failures[0].reason) == (Phase.QUEUED, "Evicted")


def test_a_trainer_that_runs_is_not_disturbed_by_a_sidecar_that_does_not():
    held = admitted(job())[0]
    stuck = Beside(name="istio-proxy", waiting_reason="ErrImagePull", waiting_message="not found")
    pod = pod_of(held, node="n1", bound_at=T0, started_at=T0, beside=(stuck,))
    status = statuses(run(snapshot([held], pods=[pod])))["a"]
    assert status.phase is Phase.RUNNING
    assert statuses(run(snapshot([replace(held, status=status)], pods=[pod]), now=after(5000))) == {}


@pytest.mark.parametrize(
    ("beside", "reason", "words"),
    [
        (
            Beside(name="fetch-ca", init=True, exit_code=1, reason="Error", message="no route"),
            "InitContainerFailed",
            "init container `fetch-ca`: exit 1: no route",
        ),
        (
            Beside(name="fetch-ca", init=True, exit_code=137, reason="OOMKilled"),
            "InitContainerFailed",
            "init container `fetch-ca`: killed for memory (OOMKilled): it needs a larger limit",
        ),
        (
            Beside(name="istio-proxy", exit_code=128, reason="StartError"),
            "SidecarFailed",
            "sidecar `istio-proxy`: exit 128 (StartError)",
        ),
    ],
)
def test_a_container_that_ends_the_pod_before_the_trainer_is_named_and_not_counted(beside, reason, words):
    verdict = classify(pod_of(admitted(job())[0], phase=PodPhase.FAILED, beside=(beside,)), gpu_shared=False)
    assert (verdict.reason, verdict.message, verdict.counted, verdict.final) == (reason, words, False, False)


def test_the_trainers_own_end_counts_whatever_failed_beside_it():
    pod = pod_of(admitted(job())[0], phase=PodPhase.FAILED, exit_code=2, beside=(PROXY,))
    assert classify(pod, gpu_shared=False).reason == "InvalidConfiguration"


# --- what keeps the trainer from starting


@pytest.mark.parametrize(
    ("beside", "seconds", "words"),
    [
        (
            Beside(name="fetch-ca", init=True, waiting_reason="ErrImagePull", waiting_message="x: not found"),
            30,
            "the image of init container `fetch-ca` cannot be pulled: x: not found",
        ),
        (
            Beside(name="istio-proxy", waiting_reason="CrashLoopBackOff", waiting_message="back-off 10s", exit_code=1),
            120,
            "not running within 120 s: sidecar `istio-proxy`: CrashLoopBackOff: back-off 10s: exit 1",
        ),
        (
            Beside(name="fetch-ca", init=True, running=True),
            1800,
            "not running within 1800 s: init container `fetch-ca` has not ended yet",
        ),
    ],
)
def test_another_container_keeps_it_waiting(beside, seconds, words):
    held = admitted(job(backoff_limit=0))[0]
    pod = pod_of(held, node="n1", bound_at=T0, waiting_reason="PodInitializing", beside=(beside,))
    first = run(snapshot([held], pods=[pod]))
    status = statuses(first)["a"]
    assert beside.title in status.message
    assert first.wake_at == after(seconds)
    done = run(snapshot([replace(held, status=status)], pods=[pod]), now=after(seconds))
    assert (statuses(done)["a"].failures[0].message, statuses(done)["a"].counted_failures) == (words, 0)
    assert [d.uid for d in of_type(done, DeletePod)] == [pod.uid]


def test_a_usual_start_costs_no_status_write():
    held = admitted(job())[0]
    pod = pod_of(held, node="n1", bound_at=T0, waiting_reason="ContainerCreating", setting_up_since=T0)
    status = statuses(run(snapshot([held], pods=[pod]))).get("a", held.status)
    assert (status.reason, status.message) == (held.status.reason, held.status.message)
