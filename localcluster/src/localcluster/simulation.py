"""Simulated nodes.

KWOK answers for them, so a thousand cost nothing, and their pods end when an annotation says (kwok-stages.yaml).

In: how many nodes, with which GPUs. Out: Ready nodes that look to the scheduler like machines with NVIDIA's device
plugin and labels.
"""

from pathlib import Path

from kubernetes import client, config

from localcluster import controlplane
from localcluster.state import Layout, Settings

ANNOTATION_PREFIX = "localcluster.rfuav.io/"
_MANAGED = {"kwok.x-k8s.io/node": "fake"}  # the mark of a simulated node: KWOK leaves all others alone
STAGES = Path(__file__).with_name("kwok-stages.yaml")


def start(layout: Layout, settings: Settings, programs: dict[str, Path]) -> None:
    """Start KWOK against the cluster's API server."""
    command = [
        str(programs["kwok"]),
        f"--kubeconfig={layout.kubeconfig}",
        f"--config={STAGES}",
        f"--server-address=127.0.0.1:{settings.ports['kwok']}",
        f"--manage-nodes-with-annotation-selector={'='.join(next(iter(_MANAGED.items())))}",
        "--node-lease-duration-seconds=40",
        "--node-ip=10.0.0.1",
        "--cidr=10.0.0.0/12",
    ]
    controlplane.launch(layout, settings, "kwok", command)


def gpu_labels(gpus: int, replicas: int, memory_mib: int, product: str) -> dict[str, str]:
    """The labels GPU feature discovery sets on a node.

    `gpus`: physical ones; `replicas`: into how many slots each is time-sliced; `memory_mib`: of one GPU.
    """
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(gpus),
        "nvidia.com/gpu.replicas": str(replicas),
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.product": f"{product}-SHARED" if replicas > 1 else product,
        "nvidia.com/gpu.sharing-strategy": "time-slicing" if replicas > 1 else "none",
    }


def create_nodes(
    kubeconfig: Path,
    count: int,
    *,
    prefix: str = "gpu",
    gpus: int = 2,
    replicas: int = 4,
    memory_mib: int = 24576,
    product: str = "NVIDIA-GeForce-RTX-4090",
    cpu: str = "32",
    memory: str = "128Gi",
    labels: dict[str, str] | None = None,
) -> list[str]:
    """Create simulated nodes `<prefix>-0` ... and return their names; they are Ready within a second or two.

    `gpus=0` makes CPU nodes: no GPU labels, no `nvidia.com/gpu`. Allocatable is `gpus * replicas`.
    """
    core = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))  # type: ignore[no-untyped-call]
    resources = {"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "1Ti"}
    own_labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **(labels or {})}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus * replicas)
        own_labels |= gpu_labels(gpus, replicas, memory_mib, product)
    names = [f"{prefix}-{index}" for index in range(count)]
    for name in names:
        metadata = client.V1ObjectMeta(
            name=name, annotations=_MANAGED, labels={**own_labels, "kubernetes.io/hostname": name}
        )
        status = client.V1NodeStatus(capacity=resources, allocatable=resources)
        core.create_node(client.V1Node(metadata=metadata, status=status))
    return names
