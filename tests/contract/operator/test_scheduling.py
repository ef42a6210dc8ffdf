"""Teams, crowds and jobs of several nodes against a real API server and scheduler, watched by an independent observer."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kubernetes import client

from localcluster.gpus import Gpus
from localcluster.simulation import create_nodes
from rfuav_crds import contract

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("audited")]


def pool(world, **spec: Any) -> None:
    """Change the pool of this test."""
    world.custom.patch_cluster_custom_object("rfuav.io", "v1alpha1", "gpupools", world.namespace, {"spec": spec})


def quota(world, namespace: str, **share: Any) -> None:
    """Give a namespace a GPUQuota for the pool of this test."""
    body = {
        "apiVersion": contract.API_VERSION,
        "kind": "GPUQuota",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"pools": [{"name": world.namespace, **share}]},
    }
    world.custom.create_namespaced_custom_object("rfuav.io", "v1alpha1", namespace, "gpuquotas", body)


def more_nodes(world, kubeconfig, litter, count: int) -> list[str]:
    names = create_nodes(
        kubeconfig, count, prefix=f"{world.namespace}-more", gpus=Gpus(), labels={"test": world.namespace}
    )
    litter.extend(lambda name=name: world.core.delete_node(name) for name in names)
    return names


def test_inference_goes_first_and_all_of_a_crowd_finish(world):
    """The reference service's own scenario: 10 trainings and 30 inferences on two GPUs, at most 2 + 6 at a time."""
    world.submit("warm-up", run=None)
    world.phase("warm-up", "Running")
    for index in range(10):
        world.submit(f"train{index}")
    for index in range(30):
        world.submit(f"infer{index}", "InferenceJob")
    world.delete("warm-up")
    for index in range(30):
        world.phase(f"infer{index}", "Succeeded", "InferenceJob", seconds=60)
    for index in range(10):
        world.phase(f"train{index}", "Succeeded", seconds=60)


PHASES = [None, "Queued", "Admitted", "Running", "Succeeded"]


def test_twenty_at_once_and_a_hundred_who_ask_at_once(world):
    """The reference service's own scenario: 20 tasks at once, and their status asked 100 times at once until they end.

    Whoever asks at the same time, or later, is told the same, or what came after it.
    """
    names, rounds, end = [f"task{index}" for index in range(20)], [], time.monotonic() + 120
    with ThreadPoolExecutor(100) as people:
        list(people.map(world.submit, names))
        while not rounds or any(phase(answer) != "Succeeded" for answer in rounds[-1]):
            assert time.monotonic() < end, [phase(answer) for answer in rounds[-1]]
            rounds.append(list(people.map(world.job, names * 5)))
            assert sum(pod.status.phase == "Running" for pod in world.pods()) <= 2
    for index, name in enumerate(names):
        mine = [answers[index :: len(names)] for answers in rounds]
        assert {answer["metadata"]["name"] for answers in mine for answer in answers} == {name}
        for earlier, later in itertools.pairwise(mine):
            assert max(map(version, earlier)) <= min(map(version, later))
        told = {version(answer): answer for answers in mine for answer in answers}
        assert all(answer == told[version(answer)] for answers in mine for answer in answers)
        story = [PHASES.index(phase(told[at])) for at in sorted(told)]
        assert story == sorted(story), f"{name} moved back"
        assert {told[at]["status"].get("attempt", 1) for at in told if phase(told[at])} == {1}


def phase(job: dict[str, Any]) -> str | None:
    return (job.get("status") or {}).get("phase")


def version(job: dict[str, Any]) -> int:
    return int(job["metadata"]["resourceVersion"])


def test_a_gang_is_admitted_whole_or_not_at_all(world, kubeconfig, litter):
    world.submit("gang", nodes=2, run="2s")
    status = world.reason("gang", "ExceedsMaxQuota")
    assert "on each of 2 nodes" in status["message"]
    assert not world.pods("gang")
    more_nodes(world, kubeconfig, litter, 1)
    world.phase("gang", "Running", seconds=30)
    pods = world.pods("gang")
    assert len({pod.spec.node_name for pod in pods}) == len(pods) == 2
    (service,) = world.core.list_namespaced_service(world.namespace).items
    assert service.spec.cluster_ip == "None"
    env = {e.name: e.value for e in pods[0].spec.containers[0].env}
    assert env[contract.MASTER_ADDRESS].split(".")[0] in {pod.metadata.name for pod in pods}
    world.phase("gang", "Succeeded")


def test_a_gang_whose_pod_fails_starts_again_as_a_whole(world, kubeconfig, litter):
    more_nodes(world, kubeconfig, litter, 1)
    world.submit("gang", nodes=2, run=None)
    world.phase("gang", "Running", seconds=30)
    first = {pod.metadata.name for pod in world.pods("gang")}
    world.core.delete_namespaced_pod(min(first), world.namespace, grace_period_seconds=0)
    world.until("gang", lambda s: s.get("attempt") == 2 and s["phase"] == "Running", seconds=30)
    world.wait(lambda: not {pod.metadata.name for pod in world.pods("gang") if pod.status.phase == "Running"} & first)


def test_a_job_of_higher_priority_takes_room_and_the_other_continues_later(world):
    names = {"low": f"{world.namespace}-low", "high": f"{world.namespace}-high"}
    scheduling = client.SchedulingV1Api(world.core.api_client)
    for value, name in ((10, names["low"]), (1000, names["high"])):
        scheduling.create_priority_class({"metadata": {"name": name}, "value": value})
    try:
        pool(world, preemption={"withinPool": "LowerPriority", "minRuntimeSeconds": 0})
        for index in range(2):
            world.submit(f"low{index}", run=None, priorityClassName=names["low"])
            world.phase(f"low{index}", "Running")
        world.submit("high", run="2s", priorityClassName=names["high"])
        world.phase("high", "Running", seconds=30)
        (evicted,) = [n for n in ("low0", "low1") if any(c["type"] == "Evicted" for c in world.status(n)["conditions"])]
        condition = next(c for c in world.status(evicted)["conditions"] if c["type"] == "Evicted")
        assert "preempted by TrainingJob" in condition["message"]
        assert "/high" in condition["message"]
        world.phase("high", "Succeeded")
        status = world.until(evicted, lambda s: s.get("attempt") == 2 and s["phase"] == "Running")
        assert status.get("countedFailures", 0) == 0
    finally:
        for name in names.values():
            scheduling.delete_priority_class(name)


def test_a_quota_limits_a_team_and_shows_its_use(world, kubectl):
    quota(world, world.namespace, gpus={"nominal": 1, "borrowingLimit": 0})
    world.submit("one", run=None)
    world.phase("one", "Running")
    world.submit("two", run="1s")
    status = world.reason("two", "WaitingForQuota")
    assert f"namespace {world.namespace} uses 1 of 1" in status["message"]

    def row() -> list[str]:
        return kubectl("get", "gquota", "-n", world.namespace).stdout.splitlines()[1].split()[:5]

    world.wait(lambda: row() == ["default", world.namespace, "1", "1", "0"])
    world.delete("one")
    world.phase("two", "Succeeded", seconds=30)


def test_a_resource_quota_is_honoured_before_a_pod_is_created(world):
    body = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "1"}}}
    world.core.create_namespaced_resource_quota(world.namespace, body)
    world.wait(lambda: world.core.read_namespaced_resource_quota("q", world.namespace).status.hard)
    world.submit("one", run=None)
    world.phase("one", "Running")
    world.submit("two")
    status = world.reason("two", "WaitingForQuota")
    assert "ResourceQuota q" in status["message"]
    assert "failures" not in status
    world.delete("one")
    world.phase("two", "Succeeded", seconds=30)


def test_gpus_that_are_not_known_to_be_healthy_take_nothing_new(world):
    """The labels of GPU feature discovery go and come back; then one of the two GPUs turns unhealthy."""
    (node,) = world.nodes
    labels = Gpus().labels()
    # The simulated kubelet writes allocatable once, before the node is ready.
    world.wait(
        lambda: any(
            c.type == "Ready" and c.status == "True" for c in world.core.read_node(node).status.conditions or ()
        )
    )
    world.core.patch_node(node, {"metadata": {"labels": dict.fromkeys(labels)}})
    world.submit("t0", run=None)
    status = world.until("t0", lambda status: "no labels nvidia.com/gpu.*" in status.get("message", ""))
    assert (status["phase"], status["reason"]) == ("Queued", "NoMatchingNode")

    def pool_says() -> list[str]:
        seen = world.custom.get_cluster_custom_object("rfuav.io", "v1alpha1", "gpupools", world.namespace)
        return [condition["reason"] for condition in seen.get("status", {}).get("conditions", ())]

    world.wait(lambda: pool_says() == ["GPUsUnknown"])
    assert not world.pods()
    world.core.patch_node_status(node, {"status": {"allocatable": {contract.GPU: "4"}}})
    world.core.patch_node(node, {"metadata": {"labels": labels}})
    world.phase("t0", "Running")
    world.submit("t1", run="2s")
    world.until("t1", lambda status: "0 of 1 training slots free" in status.get("message", ""))
    assert len(world.pods()) == 1
    world.core.patch_node_status(node, {"status": {"allocatable": {contract.GPU: "8"}}})
    world.phase("t1", "Succeeded")


def test_a_pod_with_resource_claims_closes_the_gpus_of_its_node_until_it_is_gone(world):
    (node,) = world.nodes
    claimant = {
        "metadata": {"name": "claimant"},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "a", "image": "a"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}],
            "terminationGracePeriodSeconds": 0,
        },
    }
    world.core.create_namespaced_pod(world.namespace, claimant)
    world.submit("t0", run=None)
    words = f"closed to new GPU jobs by a pod with resource claims (DRA): pod {world.namespace}/claimant on {node}"
    world.until("t0", lambda status: words in status.get("message", ""))
    assert not [pod for pod in world.pods() if pod.metadata.name != "claimant"]
    world.core.delete_namespaced_pod("claimant", world.namespace)
    world.phase("t0", "Running")
