"""Trainings that landed on one physical GPU beyond what the pool allows there: said on each of them.

Which GPU a slot lands on is the device plugin's choice, so it is known only when the trainers report it. Jobs and
rooms come in, statuses with the condition `GPUShared` set or cleared go out.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_operator.core import conditions
from rfuav_operator.core.capacity.room import Room
from rfuav_operator.core.model import Job, JobStatus, Kind, NodeName, Uid, is_active

CONDITION = "GPUShared"
_SHOWN = 3


def flags(
    jobs: Mapping[Uid, Job], room_of: Callable[[NodeName], Room | None], now: datetime
) -> Iterator[tuple[Uid, JobStatus]]:
    """The statuses that change because trainings share a GPU, or no longer do."""
    on_gpu: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs.values():
        if job.kind is Kind.TRAINING and is_active(job):
            for node, uuid in {(a.node, a.gpu_uuid) for a in job.status.assignments if a.gpu_uuid and not a.stopping}:
                on_gpu[node, uuid].append(job)
    messages: dict[Uid, str] = {}
    unknown: set[Uid] = set()  # what their GPU takes is not known now: what was said stays
    for (node, uuid), sharers in on_gpu.items():
        room = room_of(NodeName(node))
        if room is not None and room.node.gpu_unknown:
            unknown.update(job.uid for job in sharers)
            continue
        for job in sharers:
            if room is not None and len(sharers) > room.tier.training:
                messages[job.uid] = _message(node, uuid, [other for other in sharers if other is not job])
    for job in jobs.values():
        changed = conditions.of(job, now)
        if job.uid in messages:
            changed.put(CONDITION, value=True, reason=reasons.TRAININGS_SHARE_GPU, message=messages[job.uid])
        elif job.uid not in unknown:
            words = "its GPU runs no more trainings than the pool allows"
            changed.clear(CONDITION, reason=reasons.ALONE, message=words)
        if changed.settled is not job.status.conditions:
            yield job.uid, replace(job.status, conditions=changed.settled)


def _message(node: str, uuid: str, others: list[Job]) -> str:
    names = sorted(f"{job.namespace}/{job.name}" for job in others)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"{uuid} of node {node} also runs training {', '.join(names[:_SHOWN])}{more}: the device plugin chose the same "
        "GPU; both are slower than planned, and one that runs out of memory is run again. Delete one of the pods to "
        "have it placed again"
    )
