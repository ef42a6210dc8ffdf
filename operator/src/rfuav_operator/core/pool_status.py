"""The status of pools and quotas: what they have, what is in use, how many jobs wait and run."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from rfuav_crds import reasons
from rfuav_crds.modes import StopPolicy
from rfuav_operator.core import conditions
from rfuav_operator.core.admission.index import Admission
from rfuav_operator.core.capacity import explain
from rfuav_operator.core.capacity.room import Room
from rfuav_operator.core.model import Condition, Job, Kind, Phase, Pool, Quota, Snapshot, Uid
from rfuav_operator.core.queue.quotas import entry_of

RIVAL = "SecondRelease"  # condition

Counts = Counter[tuple[str, str, Kind]]  # pool, namespace, kind


def statuses(
    snapshot: Snapshot, jobs: Mapping[Uid, Job], admission: Admission, now: datetime
) -> Iterator[tuple[Pool | Quota, Callable[[], dict[str, Any]]]]:
    """Every pool and quota, with what makes its status as JSON: where that fails, the others have theirs."""
    waiting: Counts = Counter()
    for pool_name, queue in admission.queues.pools.items():
        for key, group in queue.groups.items():
            if not key.started:
                waiting[pool_name, key.namespace, key.shape.kind] += len(group.ages)
        for uid in queue.gated:
            job = jobs[uid]
            if job.status.phase is Phase.QUEUED:
                waiting[pool_name, job.namespace, job.kind] += 1
    borrowed: dict[str, int] = defaultdict(int)
    running: dict[str, Counter[Kind]] = defaultdict(Counter)
    pending: dict[str, Counter[Kind]] = defaultdict(Counter)
    for (pool_name, namespace), share in admission.usage.shares.items():
        nominal = entry_of(namespace, pool_name, snapshot).gpus.nominal
        borrowed[pool_name] += max(0, share.gpus - nominal)
        running[pool_name].update(share.jobs)
    for (pool_name, _, kind), count in waiting.items():
        pending[pool_name][kind] += count
    for name, pool in snapshot.pools.items():
        rooms = list(admission.usage.rooms.get(name, {}).values())
        yield (
            pool,
            partial(
                _of_pool,
                pool,
                rooms,
                pending[name],
                running[name],
                borrowed=borrowed[name],
                now=now,
                rival=snapshot.defaults.rival,
            ),
        )
    for namespace, quota in snapshot.quotas.items():
        yield quota, partial(_of_quota, namespace, quota, snapshot, admission, waiting=waiting, now=now)


def _of_pool(
    pool: Pool,
    rooms: list[Room],
    pending: Mapping[Kind, int],
    running: Mapping[Kind, int],
    *,
    borrowed: int,
    now: datetime,
    rival: str = "",
) -> dict[str, Any]:
    usable = [room for room in rooms if room.node.is_open]
    unknown = explain.unknown_gpus(pool, rooms)
    sick = _unhealthy(rooms)
    if pool.unreadable:
        ready, reason, message = False, reasons.UNDECODABLE, pool.unreadable
    elif pool.problems:
        ready, reason, message = False, reasons.MISCONFIGURED, "; ".join(pool.problems)
    elif pool.spec.stop_policy != StopPolicy.NONE:
        ready, reason, message = False, reasons.ON_HOLD, f"stopPolicy is {pool.spec.stop_policy}"
    elif not usable:
        ready, reason, message = False, reasons.NO_NODES, f"none of {len(rooms)} nodes is ready and schedulable"
    elif unknown:
        ready, reason, message = any(room.takes_gpu_jobs for room in rooms), reasons.GPUS_UNKNOWN, unknown
    elif sick:
        ready, reason, message = True, reasons.GPUS_UNHEALTHY, sick
    else:
        ready, reason, message = True, reasons.READY, f"admits jobs on {len(usable)} of {len(rooms)} nodes"
    return {
        "observedGeneration": pool.generation,
        "nodes": len(rooms),
        "gpus": sum(room.node.gpus for room in rooms),
        "slots": sum(room.node.gpu_slots for room in rooms),
        "slotsInUse": {
            "training": sum(room.slots[Kind.TRAINING].used for room in rooms),
            "inference": sum(room.slots[Kind.INFERENCE].used for room in rooms),
        },
        "foreignSlots": sum(room.foreign_gpus for room in rooms),
        "pending": {**_by_kind(pending), "total": sum(pending.values())},
        "running": _by_kind(running),
        "borrowed": borrowed,
        "conditions": _settled(_rivalled(_ready(pool, ready, reason, message, now), rival)),
    }


def _rivalled(found: conditions.Builder, rival: str) -> conditions.Builder:
    """The conditions, with `SecondRelease` for a second release of the operator."""
    if not rival:
        words = "one release of the operator serves the cluster"
        return found.clear(RIVAL, reason=reasons.ONE_RELEASE, message=words)
    words = f"a second release of the operator ({rival}) is on standby: uninstall one of the two"
    return found.put(RIVAL, value=True, reason=reasons.STANDS_BY, message=words)


def _unhealthy(rooms: Iterable[Room]) -> str:
    """The first node that offers less than it has: its GPUs are unhealthy, or its device plugin does not run."""
    found = sorted(
        (room.node.name, room.node.gpu_slots, room.node.gpu_capacity)
        for room in rooms
        if room.node.gpu_slots < room.node.gpu_capacity
    )
    if not found:
        return ""
    name, slots, capacity = found[0]
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    why = "GPUs are unhealthy, or its device plugin does not run"
    return f"node {name}{others} offers {slots} of its {capacity} GPU slots: {why}"


def _of_quota(
    namespace: str, quota: Quota, snapshot: Snapshot, admission: Admission, *, waiting: Counts, now: datetime
) -> dict[str, Any]:
    used = []
    for entry in quota.spec.pools:
        share = admission.usage.share(entry.name, namespace)
        used.append(
            {
                "name": entry.name,
                "used": share.gpus,
                "borrowed": max(0, share.gpus - entry.gpus.nominal),
                "reserved": entry.gpus.reserved,
                "admitted": _by_kind(share.jobs),
                "pending": _by_kind({kind: waiting[entry.name, namespace, kind] for kind in Kind}),
            }
        )
    unknown = sorted(entry.name for entry in quota.spec.pools if entry.name not in snapshot.pools)
    if quota.unreadable:
        ready, reason, message = False, reasons.UNDECODABLE, quota.unreadable
    elif unknown:
        ready, reason, message = False, reasons.NO_SUCH_POOL, f"pools that do not exist: {', '.join(unknown)}"
    elif quota.spec.stop_policy != StopPolicy.NONE:
        ready, reason, message = False, reasons.ON_HOLD, f"stopPolicy is {quota.spec.stop_policy}"
    else:
        ready, reason, message = True, reasons.READY, "its pools exist, and jobs are admitted"
    return {
        "observedGeneration": quota.generation,
        "pools": used,
        "conditions": _settled(_ready(quota, ready, reason, message, now)),
    }


def _by_kind(counts: Mapping[Kind, int]) -> dict[str, int]:
    return {"training": counts.get(Kind.TRAINING, 0), "inference": counts.get(Kind.INFERENCE, 0)}


def _ready(target: Pool | Quota, value: bool, reason: str, message: str, now: datetime) -> conditions.Builder:
    try:
        old = msgspec.convert(target.status.get("conditions") or [], tuple[Condition, ...])
    except ValueError:  # another version's words: replaced
        old = ()
    changed = conditions.Builder(old, now=now, generation=target.generation)
    return changed.put("Ready", value=value, reason=reason, message=message)


def _settled(found: conditions.Builder) -> list[Any]:
    return [msgspec.to_builtins(condition) for condition in found.settled]
