"""The cluster of the end-to-end run: brought up once, watched from the first event to the last, taken down again even after a failure.

RFUAV_KEEP_CLUSTER=1 leaves it running (and the next run finds it); RFUAV_TEST_CLUSTER names it, default `e2e`.
"""

import json
import os
from collections.abc import Iterator

import pytest
from cluster import data
from cluster.install import install
from cluster.jobs import APART, PULLING, REGISTRY, claim, on_the_second_node, restricted_pod, training
from cluster.kube import NAMESPACE, Kube
from cluster.observer import observing
from cluster.running import Running

from localcluster import api
from localcluster.api import Cluster

# Jobs that need no hand are submitted at the start and looked at in the end, so that they run beside the others.
ORDER = (
    "test_queue",
    "test_disturbances",
    "test_standby",
    "test_whole_way",
    "test_gateway",
    "test_page",
    "test_bad_inputs",
    "test_gang",
    "test_drain",
    "test_replicas",
    "test_promises",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "submits(*manifests): applied before the first test of the end-to-end run")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.parent.name == "cluster"]
    for item in ours:
        item.add_marker("cluster")
    ours.sort(key=lambda item: ORDER.index(item.path.stem))
    for first in ours[:1]:  # it brings everything up, images included
        first.add_marker(pytest.mark.timeout(1800))
    items[:] = [item for item in items if item not in ours] + ours


@pytest.fixture(scope="session")
def full_cluster() -> Iterator[Cluster]:
    """Two real nodes with pods in them; the second is for those who ask for it (`jobs.APART`)."""
    if os.geteuid() != 0:
        pytest.skip("real nodes need root: run `sudo make test-cluster`")
    name = os.environ.get("RFUAV_TEST_CLUSTER", "e2e")
    keep = os.environ.get("RFUAV_KEEP_CLUSTER") == "1" or api.get(name) is not None  # what ran before goes on running
    try:
        yield api.up(name, "full", nodes=2)
    finally:
        if not keep:
            api.down(name)


@pytest.fixture(scope="session")
def running(full_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Running]:
    """The operator installed, the data in its claims, the jobs of all chosen tests submitted, the observer watching."""
    kube = Kube(full_cluster.kubeconfig, full_cluster.programs["kubectl"])
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=180)  # of a cluster that was kept
    kube.apply(_namespace())  # the gateway gets a Role in it
    trainer_image = install(full_cluster)
    first, second = sorted(node.metadata.name for node in kube.core.list_node().items)
    kube.kubectl("taint", "node", second, f"{APART}:NoSchedule", "--overwrite")
    with observing(kube.api) as observer:
        kube.apply(*map(claim, data.CLAIMS))
        data.prepare(kube, trainer_image)
        # the second node pulls the image, gigabytes, beside the first tests
        kube.apply(on_the_second_node(restricted_pod(PULLING, trainer_image, "true"), second))
        early = [job for item in request.session.items for mark in item.iter_markers("submits") for job in mark.args]
        kube.apply(training("base"), *json.loads(json.dumps(early).replace(REGISTRY, str(full_cluster.registry))))
        yield Running(kube, observer, str(full_cluster.registry), trainer_image, first, second)


def _namespace() -> dict[str, object]:
    """The namespace of the jobs; nothing but restricted pods gets in."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
