"""The status of waiting jobs: the first reason that applies, with the current numbers, and their place."""

from collections.abc import Collection
from datetime import datetime

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_operator.core import conditions
from rfuav_operator.core.admission import positions
from rfuav_operator.core.admission.plan import PoolPlan
from rfuav_operator.core.capacity import explain
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.room import Shape
from rfuav_operator.core.model import Job, JobStatus, Phase, Queue, Uid
from rfuav_operator.core.queue.queues import Key


def tell(plan: PoolPlan, told: positions.Places, *, stepped: Collection[Uid], everyone: bool) -> None:
    """Set the status of the jobs that are due and of those that changed.

    Args:
        plan: the plan, once no further job is admitted.
        told: when each job's status was last updated.
        stepped: jobs that changed in this turn.
        everyone: update all waiting jobs.
    """
    line = positions.Line(plan.queue, plan.quotas, plan.admitted)
    changed = sorted(uid for uid in {*stepped, *plan.reasons} if plan.stands_in_line(uid))
    chosen = told.choose(line, stepped=changed, everyone=everyone, now=plan.now)
    plan.result.again(told.refresh_at)
    ends = told.ends(plan.usage, plan.pool.name, plan.jobs, plan.now) if chosen else None
    far = {uid: g for uid in changed if (g := plan.queues.group_of(uid)) is not None and not everyone}
    for uid, position, group in chosen:
        far.pop(uid, None)
        job = plan.jobs[uid]
        start = ends.estimate(job.kind, position) if ends is not None else None
        why = _why(plan, uid, group.key, told, everyone=everyone)
        plan.result.wait(plan.jobs, uid, status(job, why, positions.queue(job, position, line.length, start), plan.now))
    for uid, group in far.items():  # their place follows when it is their turn
        if uid not in plan.admitted:
            why, job = _why(plan, uid, group.key, told, everyone=False), plan.jobs[uid]
            plan.result.wait(plan.jobs, uid, status(job, why, job.status.queue, plan.now))
    for uid, why in plan.queue.gated.items():
        if (everyone or uid in stepped) and plan.jobs[uid].status.phase is Phase.QUEUED:
            plan.result.wait(plan.jobs, uid, status(plan.jobs[uid], why, None, plan.now))


def _why(plan: PoolPlan, uid: Uid, key: Key, told: positions.Places, *, everyone: bool) -> Reason:
    """Why it waits, by what the plan left: the first reason that applies."""
    if uid in plan.reasons:
        return plan.reasons[uid]
    shape = plan.shape_now(key.shape)
    nowhere, never = plan.capacity.never(shape), plan.quotas.never(key.namespace, shape)
    if nowhere is not None and not plan.may_scale_up(shape):
        return _nowhere(plan, shape, nowhere, never)
    if never is not None:
        return never
    if (in_use := plan.volume_in_use(key.shape)) is not None:
        return in_use
    if plan.capacity.is_refused(shape):
        return explain.all_refused(shape, plan.jobs[uid])
    by_quota = key.namespace in plan.heads  # that head stood before the one that stops everybody, or there is none
    head = plan.heads.get(key.namespace if by_quota else "")
    if head is not None and head.uid != uid:
        return _behind(head, by_quota=by_quota)
    refusal = None
    if uid != plan.starving:  # room promised to the first job does not count against it
        refusal = plan.quotas.refuses(key.namespace, shape, started=key.started)
    why = refusal or nowhere or _kept_for_others(plan, uid, shape)
    if why is None:
        stale = plan.capacity.is_stale(shape)
        why = plan.capacity.words(shape, fresh=everyone or (stale and told.may_refresh_words()))
        why = replace(why, message=why.message + _lured(plan, shape))
    return why


def _lured(plan: PoolPlan, shape: Shape) -> str:
    """Why a pool that could grow does not for this shape; empty: it does, or may not grow at all now."""
    lure = plan.lure(shape) if len(plan.unplaced) < plan.pool.spec.scale_up.max_jobs else ""
    text = f"; the pool does not grow for it: the scheduler would bind it to {lure}"
    advice = "write spec.podTemplate.nodeSelector with labels that only suitable nodes carry"
    return f"{text}: {advice}" if lure else ""


def _nowhere(plan: PoolPlan, shape: Shape, nowhere: Reason, never: Reason | None) -> Reason:
    """The reason of a shape that no existing node takes: a pool that grows may add one."""
    most = plan.pool.spec.scale_up.max_jobs
    if most == 0:
        return nowhere
    waiting = len(plan.unplaced)
    if lured := _lured(plan, shape):
        return never or Reason(reason=nowhere.reason, message=nowhere.message + lured)
    text = f"{nowhere.message}; {waiting} of at most {most} jobs wait for nodes that an autoscaler adds (scaleUp)"
    return never or Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)


def _kept_for_others(plan: PoolPlan, uid: Uid, shape: Shape) -> Reason | None:
    """Why free room is not given to this job; None: there is none, except room reserved for it."""
    its_own = {name for name, (holder, _) in plan.kept.items() if holder == uid}  # enough for some of its nodes
    room = plan.capacity.choose(shape, exclude=its_own) if plan.kept else None
    if room is None or room.node.name not in plan.kept:
        return None
    head = plan.jobs[plan.kept[room.node.name][0]]
    text = f"{explain.needs(shape)}; room on {room.node.name} is kept for {head.namespace}/{head.name}, which is first"
    return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)


def _behind(head: Job, *, by_quota: bool) -> Reason:
    what = "waits for quota" if by_quota else "does not fit"
    text = f"behind {head.namespace}/{head.name}, which {what} (queueing: StrictFIFO)"
    return Reason(reason=reasons.WAITING_FOR_QUOTA if by_quota else reasons.WAITING_FOR_CAPACITY, message=text)


def status(job: Job, why: Reason, queue: Queue | None, now: datetime) -> JobStatus:
    """The status of a job that waits whole: why, and its place."""
    if job.status.phase is not Phase.QUEUED:
        return job.status
    changed = conditions.of(job, now).put("Admitted", value=False, reason=why.reason, message=why.message)
    changed.clear("Reconciling", reason=reasons.QUEUED, message=why.message)
    if why.reason == reasons.MISCONFIGURED:
        changed.put("Stalled", value=True, reason=why.reason, message=why.message)
    else:
        changed.clear("Stalled", reason=why.reason, message=why.message)
    return replace(job.status, reason=why.reason, message=why.message, conditions=changed.settled, queue=queue)
