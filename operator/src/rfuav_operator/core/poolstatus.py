"""The status of a GPUPool: what it has, what is in use, how many jobs wait and run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from rfuav_operator.core import conditions
from rfuav_operator.core.model import Condition, Job, Kind, Pool
from rfuav_operator.core.placement import Room, is_active


def running_by_pool(jobs: Iterable[Job]) -> Mapping[tuple[str, Kind], int]:
    """Admitted or running jobs, by pool and kind."""
    return Counter((job.spec.pool, job.kind) for job in jobs if is_active(job))


def pool_status(
    pool: Pool, rooms: Iterable[Room], pending: Iterable[Job], running: Mapping[tuple[str, Kind], int], now: datetime
) -> dict[str, Any]:
    """The status of one pool, as JSON."""
    held = list(rooms)
    waiting = Counter(job.kind for job in pending)
    usable = [room for room in held if room.node.ready and not room.node.unschedulable]
    if pool.problems:
        ready, reason, message = False, "Misconfigured", "; ".join(pool.problems)
    elif pool.spec.stop_policy != "None":
        ready, reason, message = False, "OnHold", f"stopPolicy is {pool.spec.stop_policy}"
    elif not usable:
        ready, reason, message = False, "NoNodes", f"none of {len(held)} nodes is ready and not cordoned"
    else:
        ready, reason, message = True, "Ready", ""
    try:
        old = msgspec.convert(pool.status.get("conditions") or [], tuple[Condition, ...])
    except msgspec.ValidationError:  # another version's words: written anew
        old = ()
    settled = conditions.put(
        old, "Ready", value=ready, reason=reason, message=message, now=now, generation=pool.generation
    )
    return {
        "observedGeneration": pool.generation,
        "nodes": len(held),
        "gpus": sum(room.node.gpus for room in held),
        "slots": sum(room.node.gpu_slots for room in held),
        "slotsInUse": {
            "training": sum(room.slots_used[Kind.TRAINING] for room in held),
            "inference": sum(room.slots_used[Kind.INFERENCE] for room in held),
        },
        "foreignSlots": sum(room.foreign_gpus for room in held),
        "pending": {
            "training": waiting[Kind.TRAINING],
            "inference": waiting[Kind.INFERENCE],
            "total": waiting.total(),
        },
        "running": {
            "training": running.get((pool.name, Kind.TRAINING), 0),
            "inference": running.get((pool.name, Kind.INFERENCE), 0),
        },
        "conditions": [msgspec.to_builtins(condition) for condition in settled],
    }
