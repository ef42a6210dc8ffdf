"""What can be done for a job that is blocked: stop others for it, or keep the next room for it, or nothing."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from heapq import nsmallest

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_operator.core import conditions
from rfuav_operator.core.admission.plan import PoolPlan, claims
from rfuav_operator.core.capacity import explain, volumes
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.room import Holder, Room, Shape
from rfuav_operator.core.job import phases
from rfuav_operator.core.job.priority import age_of, priority
from rfuav_operator.core.model import Job, NodeName, Phase
from rfuav_operator.core.preemption.candidates import Victim, stopped


def keep_what_is_cleared(plan: PoolPlan) -> None:
    """Keep what others are clearing for those they clear it for."""
    waiting = [plan.jobs[uid] for uid in plan.clearing_for if uid in plan.jobs]
    waiting = [j for j in waiting if j.spec.pool == plan.pool.name and claims(j.status) and plan.stands_in_line(j.uid)]
    for job in sorted(waiting, key=lambda j: (-(priority(j, plan.snapshot) or 0), age_of(j))):
        making = _making(plan, job)
        if making:
            _wait_for(plan, job, plan.shape_now(volumes.shape_of(job, plan.snapshot)), making)


def stand_up_for(plan: PoolPlan, job: Job, shape: Shape, *, by_quota: bool) -> None:
    """Do for a blocked job what can be done: stop others, or keep the next room for it."""
    making = _making(plan, job)
    if making:
        _wait_for(plan, job, shape, making)
        return
    if plan.preemption is not None and not plan.made_room:
        answer = plan.preemption.find(job, shape, kept=plan.kept, by_quota=by_quota)
        plan.result.again(answer.look_again)
        if answer.victims:
            plan.made_room = True
            _wait_for(plan, job, shape, _stop(plan, answer.victims, job))
            return
    if by_quota or plan.starving is not None:
        return
    plan.starving = job.uid
    starved = (job.status.queued_at or job.created) + timedelta(seconds=plan.pool.spec.starvation_seconds)
    if starved > plan.now:
        plan.result.again(starved)
        return
    _keep(plan, job, shape, {})


def is_nobody_helped(plan: PoolPlan) -> bool:
    """Whether those behind that cannot be admitted just wait: nobody (more) is stopped for them in this plan."""
    return (plan.preemption is None or plan.made_room) and not plan.clearing_for


def _wait_for(plan: PoolPlan, job: Job, shape: Shape, making: Mapping[Holder, NodeName]) -> None:
    plan.reasons[job.uid] = _waits_for(shape, making)
    _keep(plan, job, shape, making)


def _keep(plan: PoolPlan, job: Job, shape: Shape, making: Mapping[Holder, NodeName]) -> None:
    """Reserve the next room on the nearest nodes, and what its namespace may use, against jobs behind it.

    The nearest nodes lack least once the pods that make room for it are gone; among them, those where these pods
    make the difference.
    """
    nodes = set(making.values())
    enough = [
        name
        for name in nodes
        if name not in plan.kept
        and plan.capacity.is_suiting(name, shape)
        and name not in shape.avoided
        and plan.capacity.rooms[name].lacks(shape)
        and not plan.capacity.rooms[name].without(making).lacks(shape)
    ]
    if len(enough) >= shape.nodes:  # none is nearer
        plan.kept |= dict.fromkeys(sorted(enough)[: shape.nodes], (job.uid, shape))
        plan.quotas.promise(job, shape)
        return
    for room in _nearest(plan, shape, making):
        plan.kept[room.node.name] = job.uid, shape
    plan.quotas.promise(job, shape)


def _nearest(plan: PoolPlan, shape: Shape, making: Mapping[Holder, NodeName]) -> list[Room]:
    """The rooms that lack least, one for each pod of the shape; those where `making` changes that come first."""
    nodes = set(making.values())

    def distance(room: Room) -> tuple[tuple[bool, int, tuple[int, ...]], bool, str]:
        if room.node.name not in nodes or not room.lacks(shape):
            return _missing(room, shape), True, room.node.name
        return _missing(room.without(making), shape), False, room.node.name

    free = [room for room in plan.capacity.suits(shape) if room.node.name not in plan.kept]
    if not nodes:  # as a rule many lack slots and nothing else: of those the first by name, and no other is compared
        kind, gpus, rest = shape.kind, shape.gpus, replace(shape.requests, slots=0)
        places = [room.free(kind, gpu=gpus > 0) for room in free]
        most = min(max(1, gpus), max(places, default=0))
        alike = [room for room, left in zip(free, places, strict=True) if left >= most]
        alike = [room for room in alike if not rest.too_large_for(room.left) and not _is_closed(room, shape)]
        if len(alike) >= shape.nodes:
            return nsmallest(shape.nodes, alike, key=lambda room: room.node.name)
    return nsmallest(shape.nodes, free, key=distance)


def _making(plan: PoolPlan, job: Job) -> Mapping[Holder, NodeName]:
    """Pods that stop for this job, and their nodes; those on a node that is lost may never be seen to end."""
    found = plan.clearing_for.get(job.uid, {})
    return {pod: node for pod, node in found.items() if (room := plan.capacity.rooms.get(node)) and room.node.ready}


def _stop(plan: PoolPlan, victims: Collection[Victim], waiting: Job) -> Mapping[Holder, NodeName]:
    """Stop the victims: they save a checkpoint, leave, and queue again in their old place. Their pods and nodes."""
    making: dict[Holder, NodeName] = {}
    mine = priority(waiting, plan.snapshot) or 0
    for uid in dict.fromkeys(v.job.uid for v in victims):
        victim = plan.jobs[uid]
        theirs = next(v for v in victims if v.job.uid == uid)
        why = "to give back borrowed GPUs" if theirs.priority >= mine else f"of priority {mine} over {theirs.priority}"
        text = f"preempted by {waiting.kind} {waiting.namespace}/{waiting.name}, {why}; runs again from its checkpoint"
        held = stopped(victim, [v for v in victims if v.job.uid == uid], waiting)
        evicted = conditions.of(victim, plan.now).put("Evicted", value=True, reason=reasons.PREEMPTED, message=text)
        runs = any(a.started_at is not None and not a.stopping for a in held)
        status = phases.move(
            victim.status,
            Phase.RUNNING if runs else Phase.ADMITTED,
            assignments=held,
            conditions=evicted.settled,
            reason=reasons.PREEMPTED,
            message=text,
        )
        plan.jobs[uid] = replace(victim, status=status)
        plan.result.statuses[uid] = status
        leaving = [a for a in held if a.stopping_for == waiting.uid]
        making |= {(uid, a.pod): NodeName(a.node) for a in leaving}
        plan.result.delete.setdefault(uid, []).extend(a.pod for a in leaving)
        plan.result.moved[uid] = None
    return making


def _waits_for(shape: Shape, making: Mapping[Holder, NodeName]) -> Reason:
    pods = ", ".join(f"{pod} on {node}" for (_, pod), node in sorted(making.items())[:3])
    more = f" and {len(making) - 3} more" if len(making) > 3 else ""  # noqa: PLR2004  shown above
    text = f"{explain.needs(shape)}; waits until preempted pods have stopped: {pods}{more}"
    return Reason(reason=reasons.WAITING_FOR_PREEMPTED_JOBS, message=text)


def _missing(room: Room, shape: Shape) -> tuple[bool, int, tuple[int, ...]]:
    """How much the node lacks of what the shape needs, for sorting: the nearest first."""
    places = max(0, max(1, shape.gpus) - room.free(shape.kind, gpu=shape.gpus > 0))
    return _is_closed(room, shape), places, shape.requests.shortfall(room.left).size


def _is_closed(room: Room, shape: Shape) -> bool:
    return room.alone or room.node.name in shape.avoided
