"""The physical GPUs of a node: how many are healthy and how large each is, or why that is not known.

The labels of GPU feature discovery and the slots of the device plugin come in; for nodes without labels, what their
pool declares. With data that is missing or contradicts itself the node has no GPUs for new jobs: a guess would put
several trainings on one.
"""

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from rfuav_operator.core import quantity
from rfuav_operator.core.model import Node, PoolSpec
from rfuav_operator.core.names import GPU

_LABELS = (f"{GPU}.count", f"{GPU}.memory", f"{GPU}.replicas")
_DIGITS = 8  # of the longest number that a label may give
_MIB = 2**20


class Gpus(msgspec.Struct, frozen=True):
    """Healthy physical GPUs, with the slots and MiB of each; `unknown` says why they are not known."""

    healthy: int = 0
    replicas: int = 0
    memory_mib: int | None = None
    unknown: str = ""


def by_labels(labels: Mapping[str, str], *, slots: int, capacity: int) -> Gpus:
    """The GPUs of a node with these labels.

    Args:
        labels: those of the node.
        slots: allocatable nvidia.com/gpu: only healthy GPUs count there.
        capacity: nvidia.com/gpu in all.
    """
    if capacity == 0:
        return Gpus()
    missing = [label for label in _LABELS if label not in labels]
    if missing:
        names = f"labels {GPU}.*" if len(missing) == len(_LABELS) else f"label {', '.join(missing)}"
        return Gpus(unknown=f"no {names}")
    for label in _LABELS:
        if not _is_count(labels[label]):
            return Gpus(unknown=f"a label {label} that is no positive number ({labels[label]!r})")
    count, memory, replicas = (int(labels[label]) for label in _LABELS)
    if capacity > count * replicas or capacity % replicas:
        text = f"labels of {count} GPUs with {replicas} slots each, and a device plugin that offers {capacity} slots"
        return Gpus(unknown=text)
    return Gpus(healthy=slots // replicas, replicas=replicas, memory_mib=memory)


def in_pool(node: Node, pool: PoolSpec) -> Node:
    """The node as its pool's jobs see it: where its labels do not tell of its GPUs, what the pool declares does."""
    sharing = pool.gpu_sharing
    if sharing is None or not node.gpu_unknown:
        return node
    if node.gpu_capacity % sharing.replicas:
        text = f"{node.gpu_capacity} slots, which gpuSharing.replicas ({sharing.replicas}) does not divide"
        return replace(node, gpu_unknown=text)
    return replace(
        node,
        gpus=node.gpu_slots // sharing.replicas,
        gpu_replicas=sharing.replicas,
        gpu_memory_mib=quantity.whole(sharing.memory) // _MIB,
        gpu_unknown="",
    )


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS and int(text) > 0
