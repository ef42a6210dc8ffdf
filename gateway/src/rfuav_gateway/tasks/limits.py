"""Limits of devices, as clients of the model service write them, as limits of the pool.

A pool has limits for each kind of GPU (a tier of `perGPU`, by memory), and for each node's tasks without GPU. Setting
the limits of one GPU sets those of its tier: devices of one tier cannot differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rfuav_gateway.tasks.bodies import CPU, Slots
from rfuav_gateway.tasks.devices import Counts, Device, Fleet
from rfuav_gateway.tasks.words import Problem, RefusedError, said
from rfuav_operator.core import quantity

_FIELD = "max_concurrent"
_SHOWN = 8  # devices in a message


@dataclass(frozen=True)
class Limits:
    """New limits of a pool."""

    tiers: Mapping[int, Counts] = field(default_factory=dict)
    """By the least memory of the tier, bytes: of one GPU."""
    per_node: Counts | None = None
    """Tasks without GPU of one node; None: as they are."""


def limits(wanted: Mapping[str, Slots], fleet: Fleet) -> Limits:
    """The limits of the pool that give its devices these.

    Raises:
        RefusedError: there is no such device, or the pool has no such limits.
    """
    known = {one.name: one for one in fleet.devices}
    unknown = [name for name in wanted if name != CPU and name not in known]
    if unknown:
        raise _refused("unknown_device", device=unknown[0], devices=_names([*known, CPU]))
    tiers: dict[int, Counts] = {}
    first: dict[int, Device] = {}
    for name, slots in wanted.items():
        if name == CPU:
            continue
        tier = _bytes(known[name].min_memory)
        counts = Counts(slots.training, slots.inference)
        if tiers.setdefault(tier, counts) != counts:
            raise _refused("limits_differ", one=first[tier].name, other=name)
        first.setdefault(tier, known[name])
    return Limits(tiers, _per_node(wanted[CPU], fleet.cpu.nodes) if CPU in wanted else None)


def _per_node(slots: Slots, nodes: int) -> Counts:
    if not nodes or slots.training % nodes or slots.inference % nodes:
        raise _refused("cpu_by_node", nodes=nodes)
    return Counts(slots.training // nodes, slots.inference // nodes)


def spec(change: Limits, held: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a GPUPool's spec that change, from the spec that it has."""
    patch: dict[str, Any] = {}
    if change.tiers:
        left = dict(change.tiers)
        tiers = []
        for tier in held.get("perGPU") or ():
            counts = left.pop(_bytes(tier.get("minMemory", 0)), None)
            tiers.append(tier if counts is None else tier | _counts(counts))
        tiers += [{"minMemory": memory, **_counts(counts)} for memory, counts in sorted(left.items(), reverse=True)]
        patch["perGPU"] = tiers
    if change.per_node is not None:
        patch["perNodeCPU"] = _counts(change.per_node)
    return patch


def _counts(counts: Counts) -> dict[str, int]:
    return {"training": counts.training, "inference": counts.inference}


def _bytes(memory: str | int) -> int:
    return quantity.whole(memory)


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _refused(phrase: str, **values: object) -> RefusedError:
    return RefusedError(Problem(_FIELD, said(phrase, **values)))
