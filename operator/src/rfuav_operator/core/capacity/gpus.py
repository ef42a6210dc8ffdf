"""The physical GPUs of a node: how many are healthy and how large each is, or why that is not known.

In: the labels of GPU feature discovery, the slots of the device plugin, and the pool's `gpuSharing`, which replaces
missing labels. An existing label is never overridden. If data is missing or contradictory, the node has no GPUs for new
jobs: a guess would put several trainings on one.
"""

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from rfuav_crds.contract import GPU
from rfuav_operator.core import quantity
from rfuav_operator.core.model import GpuSharing, Node, PoolSpec

_COUNT, _MEMORY, _REPLICAS = f"{GPU}.count", f"{GPU}.memory", f"{GPU}.replicas"
_LABELS = (_COUNT, _MEMORY, _REPLICAS)
_DIGITS = 8  # of the longest number that a label may give
_MIB = 2**20


class Gpus(msgspec.Struct, frozen=True):
    """Healthy physical GPUs, with the slots and MiB of each; `unknown` says why they are not known."""

    healthy: int = 0
    replicas: int = 0
    memory_mib: int | None = None
    unknown: str = ""


def missing(labels: Mapping[str, str]) -> list[str]:
    """The labels of feature discovery that a node with GPUs lacks."""
    return [label for label in _LABELS if label not in labels]


def known(labels: Mapping[str, str], *, slots: int, capacity: int, declared: GpuSharing | None = None) -> Gpus:
    """The GPUs of a node with these labels.

    Args:
        labels: those of the node.
        slots: allocatable nvidia.com/gpu: only healthy GPUs count there.
        capacity: nvidia.com/gpu in all.
        declared: the `gpuSharing` of its pool, which replaces missing labels.
    """
    if capacity == 0:
        return Gpus()
    for label in _LABELS:
        if label in labels and not _is_count(labels[label]):
            return Gpus(unknown=f"a label {label} that is not a positive number ({labels[label]!r})")
    read = {label: int(labels[label]) for label in _LABELS if label in labels}
    if absent := missing(labels):
        if declared is None:
            names = f"labels {GPU}.*" if len(absent) == len(_LABELS) else f"label {', '.join(absent)}"
            return Gpus(unknown=f"no {names}")
        if read.get(_REPLICAS, declared.replicas) != declared.replicas:
            text = f"label {_REPLICAS} is {read[_REPLICAS]}, and gpuSharing.replicas is {declared.replicas}"
            return Gpus(unknown=text)
        read = {_REPLICAS: declared.replicas, _MEMORY: quantity.whole(declared.memory) // _MIB} | read
    count, replicas = read.get(_COUNT), read[_REPLICAS]
    if capacity % replicas or (count is not None and capacity > count * replicas):
        if absent and count is None:
            return Gpus(unknown=f"gpuSharing.replicas ({replicas}) does not divide its {capacity} slots")
        words = f"its label says {count} GPUs and gpuSharing" if absent else f"its labels say {count} GPUs with"
        return Gpus(unknown=f"{words} {replicas} slots each, and its device plugin offers {capacity} slots")
    return Gpus(healthy=slots // replicas, replicas=replicas, memory_mib=read[_MEMORY])


def in_pool(node: Node, pool: PoolSpec) -> Node:
    """The node as its pool's jobs see it: the pool's `gpuSharing` replaces missing labels."""
    if pool.gpu_sharing is None or not node.gpu_unknown:
        return node
    found = known(node.labels, slots=node.gpu_slots, capacity=node.gpu_capacity, declared=pool.gpu_sharing)
    return replace(
        node,
        gpus=found.healthy,
        gpu_replicas=found.replicas,
        gpu_memory_mib=found.memory_mib,
        gpu_unknown=found.unknown,
    )


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS and int(text) > 0
