"""The jobs of one pool in order: each is admitted, or something is done for it, or it just waits.

A plan comes in; what was decided is in it afterwards, in numbered steps.
"""

from datetime import datetime

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_crds.modes import Queueing
from rfuav_operator.core import conditions, names
from rfuav_operator.core.admission import reservations
from rfuav_operator.core.admission.plan import PoolPlan
from rfuav_operator.core.capacity.room import Room, Shape
from rfuav_operator.core.capacity.usage import planned
from rfuav_operator.core.job import phases, progress, units
from rfuav_operator.core.job.lifecycle import starting
from rfuav_operator.core.model import Assignment, Job, JobStatus, NodeName, Phase
from rfuav_operator.core.queue.eligibility import ready_units
from rfuav_operator.core.queue.ordering import InOrder


def admit_in_order(plan: PoolPlan) -> None:
    """Admit in order while quota and room last; what they take counts before the next is chosen."""
    # 1. What others are clearing is kept for those they clear it for; then one after the other, in order.
    reservations.keep_what_is_cleared(plan)
    line = InOrder(plan.queue.buckets.values(), plan.quotas.share, lambda group: plan.is_closed(group.key))
    while plan.open_shapes != set() and "" not in plan.heads and (turn := line.pop()) is not None:
        group, index = turn
        key, job = group.key, plan.jobs[group.ages[index][2]]
        shape = plan.shape_now(key.shape)
        # 2. Shapes that can never run.
        nowhere = plan.capacity.never(shape)
        if nowhere is not None and not plan.may_scale_up(shape):
            continue
        if plan.quotas.never(key.namespace, shape) is not None or plan.capacity.is_refused(shape):
            continue
        if plan.volume_in_use(key.shape) is not None:
            continue
        if key.claims and job.uid in plan.reasons:  # its room is being cleared
            if plan.pool.spec.queueing == Queueing.STRICT_FIFO:
                plan.heads.setdefault("", job)
            line.go_on(group, index)
            continue
        # 3. Quota, then room, pod by pod: what was admitted counts before the next is chosen.
        started = bool(job.status.assignments)  # since this plan, maybe
        over = plan.quotas.over_limits(key.namespace, shape, started=started)
        refusal = over or plan.quotas.over_resources(key.namespace, shape)
        closed = refusal is not None or nowhere is not None or plan.capacity.is_full(shape)
        chosen = [] if closed else _place(plan, job, shape)
        if not chosen and refusal is None and plan.may_scale_up(shape):
            chosen = _without_node(plan, job, shape)
        if chosen:
            job = plan.jobs[job.uid] = replace(job, status=_admit(job, chosen, key.priority, plan.now))
            plan.result.statuses[job.uid] = job.status
            plan.result.create.setdefault(job.uid, []).extend(chosen)
            plan.result.moved[job.uid] = None
            plan.result.unsettled |= bool(plan.kept)  # other nodes may now be nearest to the reserved room
            if plan.preemption is not None:  # a job that found no victims may now stop pods of a namespace that borrows
                plan.result.unsettled |= plan.preemption.asked and plan.quotas.borrowed(job.namespace) > 0
                plan.preemption.forget()
            if not key.started:
                plan.admitted.add(job.uid)
            line.go_on(group, index, same=_wants_more(plan, job))
            continue
        # 4. No: others stop for it, or it keeps the next room, or it just waits, and all like it.
        if nowhere is not None:
            continue  # further shards of a job that the pool grew for
        reservations.stand_up_for(plan, job, shape, by_quota=refusal is not None)
        if plan.pool.spec.queueing == Queueing.STRICT_FIFO:
            plan.heads.setdefault(key.namespace if refusal is not None else "", job)
        # 5. Where the answer is known by now, those behind are not asked.
        elif over is not None and reservations.is_nobody_helped(plan):
            plan.refused.add((key.namespace, shape.kind, shape.total_gpus, started))
        elif refusal is None and plan.starving is not None and reservations.is_nobody_helped(plan):
            plan.open_shapes = {
                one for one in (plan.queue.shapes if plan.open_shapes is None else plan.open_shapes) if _fits(plan, one)
            }
            if not plan.may_scale_up(shape):
                plan.open_shapes.discard(key.shape)  # one of several nodes has room, and all of them have not


def _fits(plan: PoolPlan, waiting: Shape) -> bool:
    """Whether a job of this shape may still find room in this plan; once it may not, it stays so: room only shrinks."""
    if plan.volume_in_use(waiting) is not None:
        return False
    shape = plan.shape_now(waiting)
    if plan.may_scale_up(shape):
        return True
    return plan.capacity.never(shape) is None and plan.capacity.choose(shape, kept=plan.kept) is not None


def _wants_more(plan: PoolPlan, job: Job) -> bool:
    """Whether a further shard of a job that was just admitted may start."""
    return job.spec.shards > 1 and next(ready_units(job, plan.snapshot, plan.now), -1) != -1


# --- placing


def _place(plan: PoolPlan, job: Job, shape: Shape) -> list[Assignment]:
    """Assignments for the next unit of a job, for one of several nodes whole; the room is taken at once."""
    if shape.nodes > 1:
        return _place_together(plan, job, shape)
    shard = next(ready_units(job, plan.snapshot, plan.now))
    room = plan.capacity.choose(shape, kept=plan.kept)
    if room is None:
        return []
    attempt = units.attempt_of(job.status, shard) + 1
    return [_take(plan, job, shape, room, names.pod_name(job, attempt, shard=shard), shard=shard)]


def _place_together(plan: PoolPlan, job: Job, shape: Shape) -> list[Assignment]:
    nodes: dict[NodeName, Room] = {}
    for _ in range(shape.nodes):
        room = plan.capacity.choose(shape, exclude=nodes, kept=plan.kept)
        if room is None:
            return []
        nodes[room.node.name] = room
    attempt = job.status.attempt + 1
    return [
        _take(plan, job, shape, room, names.pod_name(job, attempt, rank=rank), rank=rank)
        for rank, room in enumerate(nodes.values())
    ]


def _take(
    plan: PoolPlan, job: Job, shape: Shape, room: Room, pod: str, *, shard: int | None = None, rank: int | None = None
) -> Assignment:
    node = room.node.name
    plan.usage.hold(job.uid, pod, planned(job, shape, node))
    return Assignment(pod=pod, node=node, gpus=shape.gpus, shard=shard, rank=rank)


def _without_node(plan: PoolPlan, job: Job, shape: Shape) -> list[Assignment]:
    """Assignments without a node: their pending pods make an autoscaler add one each."""
    if job.status.assignments:
        return []  # further shards wait for existing nodes
    shard = next(ready_units(job, plan.snapshot, plan.now))
    attempt = units.attempt_of(job.status, shard) + 1
    chosen = []
    for rank in range(shape.nodes):
        pod = names.pod_name(job, attempt, shard=shard, rank=rank)
        plan.usage.hold(job.uid, pod, planned(job, shape, ""))
        several = rank if shape.nodes > 1 else None
        chosen.append(Assignment(pod=pod, node="", gpus=shape.gpus, shard=shard, rank=several))
    plan.unplaced.add(job.uid)
    return chosen


# --- the writes


def _admit(job: Job, admitted: list[Assignment], priority: int, now: datetime) -> JobStatus:
    """The record of one more unit, written before its pod exists: attempt, assignment, priority, Admitted."""
    at = now.replace(microsecond=0)
    status, shard = job.status, admitted[0].shard
    status = progress.begin_attempt(status, shard, job.kind)
    status = units.begin_attempt(status, shard, shards=job.spec.shards)
    running = status.phase is Phase.RUNNING
    message = starting([*(a for a in status.assignments if not a.stopping), *admitted])
    changed = conditions.Builder(status.conditions, now=now, generation=job.generation)
    changed.put("Admitted", value=True, reason=reasons.ADMITTED, message=message)
    changed.put("PodsReady", value=False, reason=reasons.STARTING, message=message)
    for kind in ("Evicted", "Reconciling", "Stalled"):
        changed.clear(kind, reason=reasons.ADMITTED, message=message)
    return phases.move(
        status,
        Phase.RUNNING if running else Phase.ADMITTED,
        reason=status.reason if running else reasons.STARTING,
        message=status.message if running else message,
        conditions=changed.settled,
        priority=priority,
        assignments=(*status.assignments, *admitted),
        queue=None,
        admitted_at=status.admitted_at if running else at,
    )
