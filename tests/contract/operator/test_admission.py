"""What the cluster's own admission, and other teams' webhooks, do to pods; and things that return under their old name."""

import contextlib

import pytest
from contract.operator.webhooks import changing_pods
from kubernetes import client
from kubernetes.client.rest import ApiException

from localcluster.gpus import Gpus
from localcluster.simulation import create_nodes

pytestmark = pytest.mark.contract

GPU = "nvidia.com~1gpu"  # as a path of a JSON patch
RESOURCES = "/spec/containers/0/resources"


@pytest.mark.parametrize(
    ("patch", "what"),
    [
        ([{"op": "remove", "path": "/metadata/labels"}], "its label rfuav.io/"),
        ([{"op": "remove", "path": "/metadata/ownerReferences"}], "its owner"),
        (
            [{"op": "replace", "path": "/spec/containers/0/name", "value": "main"}],
            "the name of its container trainer",
        ),
        ([{"op": "remove", "path": "/spec/containers/0/env"}], "the variable RFUAV_JOB"),
        (
            [{"op": "replace", "path": f"{RESOURCES}/{part}/{GPU}", "value": "2"} for part in ("limits", "requests")],
            "the GPUs of its container trainer",
        ),
    ],
    ids=["labels", "owner", "container", "variables", "gpus"],
)
def test_a_webhook_that_changes_what_a_job_depends_on(world, audited, kube, patch, what):
    """The job says so, keeps no GPU, is not charged, and runs when the webhook is gone."""
    with changing_pods(kube, world.namespace, lambda _: patch):
        world.submit("a", backoffLimit=0)
        status = world.reason("a", "RejectedByCluster")
        assert f"a webhook or policy of the cluster changed {what}" in status["message"]
        assert not status.get("assignments")
    status = world.phase("a", "Succeeded", seconds=30)
    assert not status.get("countedFailures")
    world.wait(lambda: len(world.core.list_namespaced_pod(world.namespace).items) == 1)  # of any label


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"type": "Container", "default": {"cpu": "100m"}}, "cpu limit of 100m; if a LimitRange of the namespace sets"),
        ({"type": "Pod", "max": {"memory": "1Gi"}}, "maximum memory usage per Pod is 1Gi"),
    ],
    ids=["default", "max"],
)
def test_a_limit_range_that_refuses_pods_is_quoted(world, audited, limit, words):
    body = {"metadata": {"name": "limits"}, "spec": {"limits": [limit]}}
    world.core.create_namespaced_limit_range(world.namespace, body)
    world.submit("a")
    assert words in world.reason("a", "RejectedByCluster")["message"]
    assert not world.pods("a")
    world.core.delete_namespaced_limit_range("limits", world.namespace)
    assert not world.phase("a", "Succeeded", seconds=30).get("countedFailures")


def test_a_node_that_returns_under_its_name_with_other_gpus(world, kubeconfig):
    """What is bound to the name goes on and holds its room; nothing new comes beyond what the new GPUs take."""
    (node,) = world.nodes
    for name in ("a", "b"):
        world.submit(name, run=None)
        world.phase(name, "Running")
    world.core.delete_node(node)
    create_nodes(kubeconfig, 1, prefix=world.namespace, gpus=Gpus(1), labels={"test": world.namespace})
    world.submit("c")
    world.until("c", lambda s: "0 of 1 training slots free" in s.get("message", ""))
    world.delete("a")
    world.wait(lambda: not world.pods("a"))
    world.submit("d")
    world.until("d", lambda s: "0 of 1 training slots free" in s.get("message", ""))  # decided after a has gone
    assert [len(world.pods(name)) for name in "bcd"] == [1, 0, 0]
    world.delete("b")
    for name in ("c", "d"):
        world.phase(name, "Succeeded", seconds=30)


def test_a_namespace_that_is_made_again_with_the_same_job(world, audited, kube):
    core = client.CoreV1Api(kube)
    world.submit("a", run=None)
    old = world.phase("a", "Running") and world.job("a")["metadata"]["uid"]
    core.delete_namespace(world.namespace)

    def is_gone() -> bool:
        with contextlib.suppress(ApiException):
            core.read_namespace(world.namespace)
            return False
        return True

    world.wait(is_gone, 60)
    core.create_namespace({"metadata": {"name": world.namespace}})
    accounts = core.list_namespaced_service_account
    world.wait(lambda: "default" in {a.metadata.name for a in accounts(world.namespace).items})
    world.submit("a")
    status = world.phase("a", "Succeeded", seconds=30)
    assert world.job("a")["metadata"]["uid"] != old
    assert (status["attempt"], status.get("failures")) == (1, None)
