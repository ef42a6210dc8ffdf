"""Nodes as the core's values: their GPUs, and what else they offer."""

from collections.abc import Mapping

from rfuav_crds.contract import GPU
from rfuav_kube.objects import Condition, Meta, Wire, words
from rfuav_operator.core.capacity import gpus
from rfuav_operator.core.model import Node, NodeName, Taint
from rfuav_operator.core.quantity import Amounts, milli, whole
from rfuav_operator.shell.reading import instants


class _NodeSpec(Wire, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] | None = None


class _NodeStatus(Wire, frozen=True):
    allocatable: dict[str, str] | None = None
    capacity: dict[str, str] | None = None
    conditions: tuple[Condition, ...] | None = None


class NodeObject(Wire, frozen=True):
    """A node, as much of it as is read."""

    metadata: Meta
    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


def node(read: NodeObject, unreadable: str = "") -> Node:
    """A node with its GPUs; `gpu_problem` names GPU resources that this operator does not assign.

    A node that cannot be read completely stays known and offers nothing.
    """
    try:
        if not unreadable:
            return _node(read)
    except ValueError as error:
        unreadable = words(error)
    return Node(
        name=NodeName(read.metadata.name),
        labels=read.metadata.labels or {},
        ready=_is_ready(read),
        unschedulable=read.spec.unschedulable,
        deleting=read.metadata.deletion_timestamp is not None,
        taints=read.spec.taints or (),
        unreadable=unreadable,
    )


def _is_ready(read: NodeObject) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in read.status.conditions or ())


def _node(read: NodeObject) -> Node:
    labels = read.metadata.labels or {}
    room = read.status.allocatable or {}
    slots = whole(room.get(GPU, "0"))
    capacity = max(slots, whole((read.status.capacity or {}).get(GPU, "0")))
    found = gpus.known(labels, slots=slots, capacity=capacity)
    return Node(
        name=NodeName(read.metadata.name),
        labels=labels,
        ready=_is_ready(read),
        unschedulable=read.spec.unschedulable,
        deleting=read.metadata.deletion_timestamp is not None,
        taints=read.spec.taints or (),
        gpu_capacity=capacity,
        gpus=found.healthy,
        gpu_replicas=found.replicas,
        gpu_memory_mib=found.memory_mib,
        gpu_unknown=found.unknown,
        gpu_problem=_gpu_problem(room),
        allocatable=Amounts(
            slots=slots,
            cpu_milli=milli(room.get("cpu", "0")),
            memory=whole(room.get("memory", "0")),
            pods=whole(room.get("pods", "0")),
        ),
        created=instants.at(read.metadata.creation_timestamp),
    )


def _gpu_problem(room: Mapping[str, str]) -> str:
    others = sorted(k for k, v in room.items() if k != GPU and k.startswith("nvidia.com/") and whole(v) > 0)
    if not others:
        return ""
    if any("/mig-" in name for name in others):
        return f"it offers MIG devices ({', '.join(others)}); use the device plugin's `single` MIG strategy or no MIG"
    if any(name.startswith(f"{GPU}.") for name in others):
        return (
            f"its GPUs are renamed ({', '.join(others)}); set renameByDefault: false in the time-slicing configuration"
        )
    return ""
