"""Pools and quotas as the page shows them: how full they are, who is there, and how much waits.

In: a snapshot of the cluster. Out: the same for all readers; `pools` and `quotas` leave out what one may not see.

GPUs are counted as the pool's limits divide them: a GPU for 1 training or 3 inferences that has 1 inference is one
third in use.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec

from rfuav_crds.contract import GPU
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_gateway.tasks.rows import key
from rfuav_gateway.tasks.sight import Sight
from rfuav_operator.core.capacity.room import Room
from rfuav_operator.core.capacity.usage import Usage
from rfuav_operator.core.model import Kind, Phase, Pool, PoolQuota, Snapshot
from rfuav_operator.core.queue.quotas import entry_of

MOST_NODES = 200  # of one pool
MOST_JOBS = 64  # of one node
_SHARED = "-SHARED"  # GPU feature discovery adds it to the product's name
_TYPES: dict[Kind, TaskType] = {Kind.TRAINING: "training", Kind.INFERENCE: "inference"}
_encode = msgspec.json.Encoder().encode

_JobKey = tuple[TaskType, str, str]


class ByType(msgspec.Struct, frozen=True):
    """A number for each type of job."""

    training: int = 0
    inference: int = 0


class NodeView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One node."""

    name: str
    product: str
    gpus: int
    """Physical ones, healthy."""
    held_gpus: float
    slots: ByType
    held: ByType
    open: bool
    why: str
    """Why it takes no new jobs."""
    jobs: tuple[_JobKey, ...]


class PoolView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One pool."""

    name: str
    gpus: int
    slots: ByType
    """GPU slots that jobs of a type alone could use."""
    held: ByType
    held_gpus: float
    foreign: int
    """GPU slots that pods of others have."""
    waiting: ByType
    ready: bool
    message: str
    nodes: tuple[NodeView, ...]
    nodes_more: int


class QuotaView(msgspec.Struct, frozen=True, kw_only=True):
    """What a namespace uses of a pool, in GPU slots."""

    namespace: str
    pool: str
    nominal: int | None
    used: int
    borrowed: int
    limit: int | None
    """Nominal and what it may borrow; null: no limit."""
    running: ByType
    waiting: ByType


class Board(msgspec.Struct, frozen=True):
    """All of them."""

    pools: tuple[PoolView, ...] = ()
    quotas: tuple[QuotaView, ...] = ()


def board(snapshot: Snapshot, now: datetime) -> Board:
    """Pools and quotas of a cluster."""
    usage = Usage(snapshot, snapshot.jobs, now)
    names = {job.uid: (_TYPES[job.kind], job.namespace, job.name) for job in snapshot.jobs.values()}
    waiting: defaultdict[tuple[str, str], Counter[Kind]] = defaultdict(Counter)  # pool, namespace
    for job in snapshot.jobs.values():
        if job.status.phase in (None, Phase.QUEUED) and not job.spec.cancel:
            waiting[job.spec.pool, job.namespace][job.kind] += 1
    return Board(
        pools=tuple(
            _pool(pool, usage.rooms.get(name, {}), names, _waiting_for(name, waiting))
            for name, pool in sorted(snapshot.pools.items())
        ),
        quotas=tuple(_quotas(snapshot, usage, waiting)),
    )


def _waiting_for(pool: str, waiting: Mapping[tuple[str, str], Counter[Kind]]) -> Counter[Kind]:
    found: Counter[Kind] = Counter()
    for (name, _), counts in waiting.items():
        if name == pool:
            found.update(counts)
    return found


def _by_type(counts: Mapping[Kind, int]) -> ByType:
    return ByType(counts.get(Kind.TRAINING, 0), counts.get(Kind.INFERENCE, 0))


# --- pools


def _pool(pool: Pool, rooms: Mapping[Any, Room], names: Mapping[Any, _JobKey], waiting: Mapping[Kind, int]) -> PoolView:
    views = [_node(room, names) for _, room in sorted(rooms.items())]
    conditions = pool.status.get("conditions") or ()
    ready: Mapping[str, Any] = next((one for one in conditions if one.get("type") == "Ready"), {})
    return PoolView(
        name=pool.name,
        gpus=sum(one.gpus for one in views),
        slots=_sum(one.slots for one in views),
        held=_sum(one.held for one in views),
        held_gpus=round(sum(one.held_gpus for one in views), 2),
        foreign=sum(room.foreign_gpus for room in rooms.values()),
        waiting=_by_type(waiting),
        ready=ready.get("status") == "True",
        message=str(ready.get("message") or ""),
        nodes=tuple(views[:MOST_NODES]),
        nodes_more=max(0, len(views) - MOST_NODES),
    )


def _sum(counts: Iterator[ByType]) -> ByType:
    found = list(counts)
    return ByType(sum(one.training for one in found), sum(one.inference for one in found))


def _node(room: Room, names: Mapping[Any, _JobKey]) -> NodeView:
    node = room.node
    held = {kind: slots.used for kind, slots in room.slots.items()}
    jobs = sorted({names[uid] for uid, _ in room.holders if uid in names})
    return NodeView(
        name=node.name,
        product=node.labels.get(f"{GPU}.product", "").removesuffix(_SHARED),
        gpus=node.gpus,
        held_gpus=round(_gpus_in_use(room), 2),
        slots=_by_type(room.slot_limits),
        held=_by_type(held),
        open=node.is_open,
        why=_why_closed(room),
        jobs=tuple(jobs[:MOST_JOBS]),
    )


def _gpus_in_use(room: Room) -> float:
    """Physical GPUs, as the limits divide them; what others have counts in slots of one GPU."""
    gpus = room.node.gpus
    if not gpus:
        return 0.0
    used = sum(slots.used * gpus / slots.limit for slots in room.slots.values() if slots.limit)
    used += room.foreign_gpus / (room.node.gpu_replicas or 1)
    return min(float(gpus), used)


def _why_closed(room: Room) -> str:
    node = room.node
    if node.unreadable:
        return "it cannot be read"
    if node.deleting:
        return "it is being deleted"
    if node.unschedulable:
        return "it is cordoned"
    if not node.ready:
        return "it is not ready"
    return node.gpu_problem or node.gpu_unknown


# --- quotas


def _quotas(
    snapshot: Snapshot, usage: Usage, waiting: Mapping[tuple[str, str], Mapping[Kind, int]]
) -> Iterator[QuotaView]:
    named = {(entry.name, namespace) for namespace, quota in snapshot.quotas.items() for entry in quota.spec.pools}
    for pool, namespace in sorted(named | usage.shares.keys() | waiting.keys(), key=lambda one: one[::-1]):
        entry = entry_of(namespace, pool, snapshot)
        has_one = (pool, namespace) in named or _default_of(snapshot, pool) is not None
        share, borrowing = usage.share(pool, namespace), entry.gpus.borrowing_limit
        yield QuotaView(
            namespace=namespace,
            pool=pool,
            nominal=entry.gpus.nominal if has_one else None,
            used=share.gpus,
            borrowed=max(0, share.gpus - entry.gpus.nominal) if has_one else 0,
            limit=None if borrowing is None else entry.gpus.nominal + borrowing,
            running=_by_type(share.jobs),
            waiting=_by_type(waiting.get((pool, namespace), {})),
        )


def _default_of(snapshot: Snapshot, pool: str) -> PoolQuota | None:
    held = snapshot.pools.get(pool)
    return None if held is None else held.spec.default_quota


# --- as one reader sees them


def pools(found: Board, sight: Sight) -> bytes:
    """The pools as JSON; jobs that the reader may not see are of a type, and nameless."""
    shown = found.pools if sight.pools else ()
    return _encode({"pools": [{**msgspec.to_builtins(pool), "nodes": _nodes(pool, sight)} for pool in shown]})


def _nodes(pool: PoolView, sight: Sight) -> list[dict[str, Any]]:
    return [{**msgspec.to_builtins(node), "jobs": [_job(one, sight) for one in node.jobs]} for node in pool.nodes]


def _job(one: _JobKey, sight: Sight) -> str | dict[str, Any]:
    kind, namespace, _ = one
    return key(*one) if sight.sees(kind, namespace) else {"type": kind, "hidden": True}


def quotas(found: Board, sight: Sight) -> bytes:
    """The quotas of namespaces that the reader may see, as JSON."""
    return _encode({"quotas": [one for one in found.quotas if sight.sees_quota(one.namespace)]})
