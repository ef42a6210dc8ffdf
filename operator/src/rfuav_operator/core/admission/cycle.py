"""The jobs of one pool in order: each is admitted, or something is done for it, or it just waits.

A plan comes in; what was decided is in it afterwards, in numbered steps.
"""

from datetime import datetime

from msgspec.structs import replace

from rfuav_operator.core import conditions, names
from rfuav_operator.core.admission import reservations
from rfuav_operator.core.admission.plan import PoolPlan
from rfuav_operator.core.capacity.room import Need, Room
from rfuav_operator.core.capacity.usage import planned
from rfuav_operator.core.job import progress, units
from rfuav_operator.core.job.lifecycle import starting
from rfuav_operator.core.model import Assignment, Job, JobStatus, NodeName, Phase
from rfuav_operator.core.queue.eligibility import ready_units
from rfuav_operator.core.queue.ordering import InOrder

_STRICT = "StrictFIFO"


def admit_in_order(at: PoolPlan) -> None:
    """Admit in order while quota and room last; what they take counts before the next is chosen."""
    # 1. What others are clearing is kept for those they clear it for; then one after the other, in order.
    reservations.keep_what_is_cleared(at)
    line = InOrder(at.queue.buckets.values(), at.quotas.share, lambda group: at.is_closed(group.key))
    while at.open != set() and "" not in at.heads and (turn := line.pop()) is not None:
        group, index = turn
        key, job = group.key, at.jobs[group.ages[index][2]]
        need = at.need(key.need)
        # 2. Shapes that can never run.
        nowhere = at.rooms.never(need)
        if nowhere is not None and not at.may_scale_up(need):
            continue
        if at.quotas.never(key.namespace, need) is not None or at.rooms.is_refused(need):
            continue
        if at.volume_in_use(key.need) is not None:
            continue
        if key.claims and job.uid in at.own:  # its room is being cleared
            if at.pool.spec.queueing == _STRICT:
                at.heads.setdefault("", job)
            line.go_on(group, index)
            continue
        # 3. Quota, then room, pod by pod: what was admitted counts before the next is chosen.
        started = bool(job.status.assignments)  # since this plan, maybe
        over = at.quotas.over_limits(key.namespace, need, started=started)
        refusal = over or at.quotas.over_resources(key.namespace, need)
        closed = refusal is not None or nowhere is not None or at.rooms.is_full(need)
        chosen = [] if closed else _place(at, job, need)
        if not chosen and refusal is None and at.may_scale_up(need):
            chosen = _without_node(at, job, need)
        if chosen:
            job = at.jobs[job.uid] = replace(job, status=_admit(job, chosen, key.priority, at.now))
            at.result.statuses[job.uid] = job.status
            at.result.create.setdefault(job.uid, []).extend(chosen)
            at.result.moved[job.uid] = None
            at.result.unsettled |= bool(at.kept)  # other nodes may be the nearest to what is kept for
            if at.preemption is not None:  # who asked in vain may stop those of a namespace that borrows now
                at.result.unsettled |= at.preemption.asked and at.quotas.borrowed(job.namespace) > 0
                at.preemption.forget()
            if not key.started:
                at.admitted.add(job.uid)
            line.go_on(group, index, same=_wants_more(at, job))
            continue
        # 4. No: others stop for it, or it keeps the next room, or it just waits, and all like it.
        if nowhere is not None:
            continue  # further shards of a job that the pool grew for
        reservations.stand_up_for(at, job, need, by_quota=refusal is not None)
        if at.pool.spec.queueing == _STRICT:
            at.heads.setdefault(key.namespace if refusal is not None else "", job)
        # 5. Where the answer is known by now, those behind are not asked.
        elif over is not None and reservations.is_nobody_helped(at):
            at.refused.add((key.namespace, need.kind, need.total_gpus, started))
        elif refusal is None and at.first is not None and reservations.is_nobody_helped(at):
            at.open = {one for one in (at.queue.needs if at.open is None else at.open) if _fits(at, one)}
            if not at.may_scale_up(need):
                at.open.discard(key.need)  # one of several nodes has room, and all of them have not


def _fits(at: PoolPlan, shape: Need) -> bool:
    """Whether a job of this shape may still find room in this plan; once it may not, it stays so: room only shrinks."""
    if at.volume_in_use(shape) is not None:
        return False
    need = at.need(shape)
    if at.may_scale_up(need):
        return True
    return at.rooms.never(need) is None and at.rooms.choose(need, kept=at.kept) is not None


def _wants_more(at: PoolPlan, job: Job) -> bool:
    """Whether a further shard of a job that was just admitted may start."""
    return job.spec.shards > 1 and next(ready_units(job, at.snapshot, at.now), -1) != -1


# --- placing


def _place(at: PoolPlan, job: Job, need: Need) -> list[Assignment]:
    """Assignments for the next unit of a job, for one of several nodes whole; the room is taken at once."""
    if need.nodes > 1:
        return _place_together(at, job, need)
    shard = next(ready_units(job, at.snapshot, at.now))
    room = at.rooms.choose(need, kept=at.kept)
    if room is None:
        return []
    attempt = units.attempt_of(job.status, shard) + 1
    return [_take(at, job, need, room, names.pod_name(job, attempt, shard=shard), shard=shard)]


def _place_together(at: PoolPlan, job: Job, need: Need) -> list[Assignment]:
    nodes: dict[NodeName, Room] = {}
    for _ in range(need.nodes):
        room = at.rooms.choose(need, exclude=nodes, kept=at.kept)
        if room is None:
            return []
        nodes[room.node.name] = room
    attempt = job.status.attempt + 1
    return [
        _take(at, job, need, room, names.pod_name(job, attempt, rank=rank), rank=rank)
        for rank, room in enumerate(nodes.values())
    ]


def _take(
    at: PoolPlan, job: Job, need: Need, room: Room, pod: str, *, shard: int | None = None, rank: int | None = None
) -> Assignment:
    node = room.node.name
    at.usage.hold(job.uid, pod, planned(job, need, node))
    return Assignment(pod=pod, node=node, gpus=need.gpus, shard=shard, rank=rank)


def _without_node(at: PoolPlan, job: Job, need: Need) -> list[Assignment]:
    """Assignments whose nodes are still to come: their pending pods make an autoscaler add them."""
    if job.status.assignments:
        return []  # further shards wait for what is there
    shard = next(ready_units(job, at.snapshot, at.now))
    attempt = units.attempt_of(job.status, shard) + 1
    chosen = []
    for rank in range(need.nodes):
        pod = names.pod_name(job, attempt, shard=shard, rank=rank)
        at.usage.hold(job.uid, pod, planned(job, need, ""))
        several = rank if need.nodes > 1 else None
        chosen.append(Assignment(pod=pod, node="", gpus=need.gpus, shard=shard, rank=several))
    at.nodeless.add(job.uid)
    return chosen


# --- what is written


def _admit(job: Job, admitted: list[Assignment], priority: int, now: datetime) -> JobStatus:
    """The record of one more unit that stands before any pod of it does: attempt, assignment, priority, Admitted."""
    at = now.replace(microsecond=0)
    status, shard = job.status, admitted[0].shard
    status = progress.begin_attempt(status, shard, job.kind)
    status = units.begin_attempt(status, shard, shards=job.spec.shards)
    running = status.phase is Phase.RUNNING
    message = starting([*(a for a in status.assignments if not a.stopping), *admitted])
    settled = status.conditions
    for kind, value, reason, text in (
        ("Admitted", True, "Admitted", message),
        ("PodsReady", False, "Starting", message),
    ):
        settled = conditions.put(
            settled, kind, value=value, reason=reason, message=text, now=now, generation=job.generation
        )
    for kind in ("Evicted", "Reconciling", "Stalled"):
        settled = conditions.clear(
            settled, kind, reason="Admitted", message=message, now=now, generation=job.generation
        )
    return replace(
        status,
        phase=Phase.RUNNING if running else Phase.ADMITTED,
        reason=status.reason if running else "Starting",
        message=status.message if running else message,
        conditions=settled,
        priority=priority,
        assignments=(*status.assignments, *admitted),
        queue=None,
        admitted_at=status.admitted_at if running else at,
    )
