"""What a node with NVIDIA GPUs looks like: its resource, its labels, its device ids.

Real and simulated nodes imitate it alike.

In: physical GPUs and how each is shared. Out: labels as GPU feature discovery sets them, ids as the device plugin
hands them out.
"""

import uuid
from dataclasses import dataclass

RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Gpus:
    """The GPUs of one node.

    `count`: physical GPUs. `replicas`: slots each is time-sliced into. `memory_mib`: of one physical GPU, MiB.
    """

    count: int = 2
    replicas: int = 4
    memory_mib: int = 24576
    product: str = "NVIDIA-GeForce-RTX-4090"

    @property
    def slots(self) -> int:
        """What the node offers as `nvidia.com/gpu`."""
        return self.count * self.replicas

    def labels(self) -> dict[str, str]:
        """The labels GPU feature discovery sets; none without GPUs."""
        if not self.count:
            return {}
        shared = self.replicas > 1
        return {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.count": str(self.count),
            "nvidia.com/gpu.replicas": str(self.replicas),
            "nvidia.com/gpu.memory": str(self.memory_mib),
            "nvidia.com/gpu.product": f"{self.product}-SHARED" if shared else self.product,
            "nvidia.com/gpu.sharing-strategy": "time-slicing" if shared else "none",
        }

    def device_ids(self, node: str) -> list[str]:
        """One id a slot, `GPU-<uuid>::<replica>` as the device plugin names them; a node's UUIDs never change."""
        uuids = [uuid.uuid5(uuid.NAMESPACE_DNS, f"{index}.gpu.{node}") for index in range(self.count)]
        return [f"GPU-{one}::{replica}" for one in uuids for replica in range(self.replicas)]
