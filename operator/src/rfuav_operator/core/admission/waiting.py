"""What those that wait are told: the first reason that applies, with the numbers of now, and their place."""

from collections.abc import Collection
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from rfuav_operator.core import conditions
from rfuav_operator.core.admission import positions
from rfuav_operator.core.admission.plan import PoolPlan
from rfuav_operator.core.capacity import explain
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.capacity.room import Need
from rfuav_operator.core.model import Job, JobStatus, Phase, Queue, Uid
from rfuav_operator.core.queue.queues import Key


def tell(at: PoolPlan, told: positions.Places, *, stepped: Collection[Uid], everyone: bool) -> None:
    """Tell those that are due, and those that changed.

    Args:
        at: the plan, when nobody more is admitted.
        told: who was told when.
        stepped: jobs that changed in this turn.
        everyone: tell all that wait.
    """
    line = positions.Line(at.queue, at.quotas, at.admitted)
    changed = sorted(uid for uid in {*stepped, *at.own} if at.stands_in_line(uid))
    chosen = told.choose(line, stepped=changed, everyone=everyone, now=at.now)
    at.result.again(told.refresh_at)
    ends = told.ends(at.usage, at.pool.name, at.jobs, at.now) if chosen else None
    far = {uid: g for uid in changed if (g := at.queues.group_of(uid)) is not None and not everyone}
    for uid, position, group in chosen:
        far.pop(uid, None)
        job = at.jobs[uid]
        start = ends.estimate(job.kind, position) if ends is not None else None
        why = _why(at, uid, group.key, told, everyone=everyone)
        at.result.wait(at.jobs, uid, status(job, why, positions.queue(job, position, line.length, start), at.now))
    for uid, group in far.items():  # their place follows when it is their turn to be told
        if uid not in at.admitted:
            why, job = _why(at, uid, group.key, told, everyone=False), at.jobs[uid]
            at.result.wait(at.jobs, uid, status(job, why, job.status.queue, at.now))
    for uid, why in at.queue.gated.items():
        if (everyone or uid in stepped) and at.jobs[uid].status.phase is Phase.QUEUED:
            at.result.wait(at.jobs, uid, status(at.jobs[uid], why, None, at.now))


def _why(at: PoolPlan, uid: Uid, key: Key, told: positions.Places, *, everyone: bool) -> Reason:
    """Why it waits, by what the plan left: the first reason that applies."""
    if uid in at.own:
        return at.own[uid]
    need = at.need(key.need)
    nowhere, never = at.rooms.never(need), at.quotas.never(key.namespace, need)
    if nowhere is not None and not at.may_scale_up(need):
        return _nowhere(at, need, nowhere, never)
    if never is not None:
        return never
    if (in_use := at.volume_in_use(key.need)) is not None:
        return in_use
    if at.rooms.is_refused(need):
        return explain.all_refused(need, at.jobs[uid])
    by_quota = key.namespace in at.heads  # that head stood before the one that stops everybody, or there is none
    head = at.heads.get(key.namespace if by_quota else "")
    if head is not None and head.uid != uid:
        return _behind(head, by_quota=by_quota)
    refusal = None
    if uid != at.first:  # what is promised to the first is not to be held against it
        refusal = at.quotas.refuses(key.namespace, need, started=key.started)
    why = refusal or nowhere or _kept_for_others(at, uid, need)
    if why is None:
        stale = at.rooms.is_stale(need)
        why = at.rooms.words(need, fresh=everyone or (stale and told.may_refresh_words()))
        why = replace(why, message=why.message + _lured(at, need))
    return why


def _lured(at: PoolPlan, need: Need) -> str:
    """Why a pool that could grow does not for this shape; empty: it does, or may not grow at all now."""
    lure = at.lure(need) if len(at.nodeless) < at.pool.spec.scale_up.max_jobs else ""
    text = f"; the pool does not grow for it, since the scheduler would bring it to {lure}"
    advice = "write spec.podTemplate.nodeSelector with labels that only suitable nodes carry"
    return f"{text}: {advice}" if lure else ""


def _nowhere(at: PoolPlan, need: Need, nowhere: Reason, never: Reason | None) -> Reason:
    """What a shape is told that no present node takes: a pool that grows may bring one, when it is its turn."""
    most = at.pool.spec.scale_up.max_jobs
    if most == 0:
        return nowhere
    waiting = len(at.nodeless)
    if lured := _lured(at, need):
        return never or Reason(reason=nowhere.reason, message=nowhere.message + lured)
    text = f"{nowhere.message}; {waiting} of at most {most} jobs wait for nodes that an autoscaler adds (scaleUp)"
    return never or Reason(reason=explain.WAITING_FOR_CAPACITY, message=text)


def _kept_for_others(at: PoolPlan, uid: Uid, need: Need) -> Reason | None:
    """Why room that is there is not given to this job; None: there is none but what is kept for itself."""
    its_own = {name for name, (holder, _) in at.kept.items() if holder == uid}  # enough for some of its nodes
    room = at.rooms.choose(need, exclude=its_own) if at.kept else None
    if room is None or room.node.name not in at.kept:
        return None
    head = at.jobs[at.kept[room.node.name][0]]
    text = f"{explain.needs(need)}; room on {room.node.name} is kept for {head.namespace}/{head.name}, which is first"
    return Reason(reason=explain.WAITING_FOR_CAPACITY, message=text)


def _behind(head: Job, *, by_quota: bool) -> Reason:
    what = "waits for quota" if by_quota else "does not fit"
    text = f"behind {head.namespace}/{head.name}, which {what} (queueing: StrictFIFO)"
    return Reason(reason=explain.WAITING_FOR_QUOTA if by_quota else explain.WAITING_FOR_CAPACITY, message=text)


def status(job: Job, why: Reason, queue: Queue | None, now: datetime) -> JobStatus:
    """The status of a job that waits whole: why, and its place."""
    if job.status.phase is not Phase.QUEUED:
        return job.status
    put = partial(conditions.put, reason=why.reason, message=why.message, now=now, generation=job.generation)
    clear = partial(conditions.clear, message=why.message, now=now, generation=job.generation)
    settled = put(job.status.conditions, "Admitted", value=False)
    settled = clear(settled, "Reconciling", reason="Queued")
    if why.reason == explain.MISCONFIGURED:
        settled = put(settled, "Stalled", value=True)
    else:
        settled = clear(settled, "Stalled", reason=why.reason)
    return replace(job.status, reason=why.reason, message=why.message, conditions=settled, queue=queue)
