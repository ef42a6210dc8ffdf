"""What can be done for a job that is blocked: stop others for it, or keep the next room for it, or nothing."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from heapq import nsmallest

from msgspec.structs import replace

from rfuav_operator.core import conditions
from rfuav_operator.core.admission.plan import PoolPlan, claims
from rfuav_operator.core.capacity import explain, volumes
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.room import Holder, Need, Room
from rfuav_operator.core.job.priority import age_of, priority
from rfuav_operator.core.model import Job, NodeName, Phase
from rfuav_operator.core.preemption.candidates import Victim, stopped


def keep_what_is_cleared(at: PoolPlan) -> None:
    """Keep what others are clearing for those they clear it for."""
    waiting = [at.jobs[uid] for uid in at.making_room if uid in at.jobs]
    waiting = [j for j in waiting if j.spec.pool == at.pool.name and claims(j.status) and at.stands_in_line(j.uid)]
    for job in sorted(waiting, key=lambda j: (-(priority(j, at.snapshot) or 0), age_of(j))):
        making = _making(at, job)
        if making:
            _wait_for(at, job, at.need(volumes.need_of(job, at.snapshot)), making)


def stand_up_for(at: PoolPlan, job: Job, need: Need, *, by_quota: bool) -> None:
    """Do for a blocked job what can be done: stop others, or keep the next room for it."""
    making = _making(at, job)
    if making:
        _wait_for(at, job, need, making)
        return
    if at.preemption is not None and not at.made_room:
        answer = at.preemption.find(job, need, kept=at.kept, by_quota=by_quota)
        at.result.again(answer.look_again)
        if answer.victims:
            at.made_room = True
            _wait_for(at, job, need, _stop(at, answer.victims, job))
            return
    if by_quota or at.first is not None:
        return
    at.first = job.uid
    starved = (job.status.queued_at or job.created) + timedelta(seconds=at.pool.spec.starvation_seconds)
    if starved > at.now:
        at.result.again(starved)
        return
    _keep(at, job, need, {})


def is_nobody_helped(at: PoolPlan) -> bool:
    """Whether those behind that cannot be admitted just wait: nobody (more) is stopped for them in this plan."""
    return (at.preemption is None or at.made_room) and not at.making_room


def _wait_for(at: PoolPlan, job: Job, need: Need, making: Mapping[Holder, NodeName]) -> None:
    at.own[job.uid] = _waits_for(need, making)
    _keep(at, job, need, making)


def _keep(at: PoolPlan, job: Job, need: Need, making: Mapping[Holder, NodeName]) -> None:
    """Let nobody behind it take the next room on the nearest nodes, nor what its namespace may use.

    The nearest are those that lack least when the pods that make room for it are gone, and of them those for which
    that makes the difference.
    """
    nodes = set(making.values())
    enough = [
        name
        for name in nodes
        if name not in at.kept
        and at.rooms.is_suiting(name, need)
        and name not in need.avoided
        and at.rooms.rooms[name].lacks(need)
        and not at.rooms.rooms[name].without(making).lacks(need)
    ]
    if len(enough) >= need.nodes:  # none is nearer
        at.kept |= dict.fromkeys(sorted(enough)[: need.nodes], (job.uid, need))
        at.quotas.promise(job, need)
        return

    def distance(room: Room) -> tuple[tuple[bool, int, int, int], bool, str]:
        if room.node.name not in nodes or not room.lacks(need):
            return _missing(room, need), True, room.node.name
        return _missing(room.without(making), need), False, room.node.name

    free = (room for room in at.rooms.suits(need) if room.node.name not in at.kept)
    for room in nsmallest(need.nodes, free, key=distance):
        at.kept[room.node.name] = job.uid, need
    at.quotas.promise(job, need)


def _making(at: PoolPlan, job: Job) -> Mapping[Holder, NodeName]:
    """Pods that stop for this job, and their nodes; those on a node that is lost may never be seen to end."""
    found = at.making_room.get(job.uid, {})
    return {pod: node for pod, node in found.items() if (room := at.rooms.rooms.get(node)) and room.node.ready}


def _stop(at: PoolPlan, victims: Collection[Victim], waiting: Job) -> Mapping[Holder, NodeName]:
    """Stop the victims: they save a checkpoint, leave, and queue again in their old place. Their pods and nodes."""
    making: dict[Holder, NodeName] = {}
    mine = priority(waiting, at.snapshot) or 0
    for uid in dict.fromkeys(v.job.uid for v in victims):
        victim = at.jobs[uid]
        theirs = next(v for v in victims if v.job.uid == uid)
        why = "to give back borrowed GPUs" if theirs.priority >= mine else f"of priority {mine} over {theirs.priority}"
        text = f"preempted by {waiting.kind} {waiting.namespace}/{waiting.name}, {why}; runs again from its checkpoint"
        held = stopped(victim, [v for v in victims if v.job.uid == uid], waiting)
        settled = conditions.put(
            victim.status.conditions,
            "Evicted",
            value=True,
            reason="Preempted",
            message=text,
            now=at.now,
            generation=victim.generation,
        )
        runs = any(a.started_at is not None and not a.stopping for a in held)
        status = replace(
            victim.status,
            phase=Phase.RUNNING if runs else Phase.ADMITTED,
            assignments=held,
            conditions=settled,
            reason="Preempted",
            message=text,
        )
        at.jobs[uid] = replace(victim, status=status)
        at.result.statuses[uid] = status
        leaving = [a for a in held if a.stopping_for == waiting.uid]
        making |= {(uid, a.pod): NodeName(a.node) for a in leaving}
        at.result.delete.setdefault(uid, []).extend(a.pod for a in leaving)
        at.result.moved[uid] = None
    return making


def _waits_for(need: Need, making: Mapping[Holder, NodeName]) -> Reason:
    pods = ", ".join(f"{pod} on {node}" for (_, pod), node in sorted(making.items())[:3])
    more = f" and {len(making) - 3} more" if len(making) > 3 else ""  # noqa: PLR2004  shown above
    text = f"{explain.needs(need)}; waits until preempted pods have stopped: {pods}{more}"
    return Reason(reason=explain.WAITING_FOR_PREEMPTED_JOBS, message=text)


def _missing(room: Room, need: Need) -> tuple[bool, int, int, int]:
    """How much of what the shape needs the node is short of: the nearest first."""
    jobs_free = room.cpu_jobs[need.kind] - room.jobs_used[need.kind]
    slots = max(0, need.gpus - room.free[need.kind] if need.gpus > 0 else 1 - jobs_free)
    cpu = max(0, need.cpu_milli - (room.node.cpu_milli - room.cpu_milli))
    memory = max(0, need.memory_bytes - (room.node.memory_bytes - room.memory_bytes))
    closed = room.node.name in need.avoided or room.alone
    return closed, slots, cpu, memory
