"""Simulated nodes by the thousand, for tests and benchmarks on the api profile.

In: how many nodes, with which GPUs. Out: nodes that KWOK makes Ready, and that the scheduler takes for machines.
"""

from pathlib import Path

from kubernetes import client, config

from localcluster.gpus import RESOURCE, Gpus
from localcluster.kwok import MANAGED

# Put these before a pod's annotations that say how it runs; kwok-stages.yaml lists them.
ANNOTATION_PREFIX = "localcluster.rfuav.io/"


def create_nodes(
    kubeconfig: Path,
    count: int,
    *,
    prefix: str = "gpu",
    gpus: Gpus = Gpus(),  # noqa: B008 - frozen
    cpu: str = "32",
    memory: str = "128Gi",
    labels: dict[str, str] | None = None,
) -> list[str]:
    """Create simulated nodes `<prefix>-0` ... and return their names; they are Ready within a second or two.

    `gpus=Gpus(0)` makes CPU nodes: no GPU labels, no `nvidia.com/gpu`. `cpu`, `memory`: allocatable quantities.
    """
    api_client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    core = client.CoreV1Api(api_client)
    resources = {"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "1Ti"}
    if gpus.slots:
        resources[RESOURCE] = str(gpus.slots)
    base = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **gpus.labels(), **(labels or {})}
    names = [f"{prefix}-{index}" for index in range(count)]
    for name in names:
        metadata = client.V1ObjectMeta(name=name, annotations=MANAGED, labels={**base, "kubernetes.io/hostname": name})
        status = client.V1NodeStatus(capacity=resources, allocatable=resources)
        core.create_node(client.V1Node(metadata=metadata, status=status))
    return names
