"""Which units of a job may start now, and why none of them may."""

from collections.abc import Iterator
from datetime import datetime

from rfuav_operator.core.capacity import explain
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.job import units
from rfuav_operator.core.job.podspec import output_of
from rfuav_operator.core.model import Job, Phase, Snapshot, may_live


def wants_room(job: Job) -> bool:
    """Whether anything of the job still waits to be admitted."""
    phase = job.status.phase
    if job.deleting or job.set_aside or phase is None or phase.terminal or job.spec.suspend or job.spec.cancel:
        return False
    return phase is Phase.QUEUED or (
        len(job.status.assignments) < units.width(job) and next(units.open_units(job), -1) != -1
    )


def ready_units(job: Job, snapshot: Snapshot, now: datetime) -> Iterator[units.Shard]:
    """Units that may start now: their backoff is over and no pod of an earlier attempt may live."""
    if job.status.phase is Phase.QUEUED and job.status.assignments:
        return  # resumed while its pods still stop
    room_for = units.width(job) - len(job.status.assignments)
    names_held = {a.pod for a in job.status.assignments}
    if snapshot.creating.get(job.uid, frozenset()) - names_held:
        return  # a create of an attempt that was given up is still on its way
    if earlier_pods(job, snapshot) or snapshot.leaving.get((job.namespace, job.name)):
        return
    left = [p for p in snapshot.pods_of.get(job.uid, {}).values() if p.name not in names_held]
    alive = {None if job.spec.nodes > 1 else p.index for p in left if may_live(p, snapshot.nodes)}
    for shard in units.open_units(job):
        if room_for <= 0:
            return
        until = units.not_before(job.status, shard)
        if (until is None or until <= now) and not (None in alive or (shard or 0) in alive):
            room_for -= 1
            yield shard


def earlier_pods(job: Job, snapshot: Snapshot) -> list[str]:
    """Live pods in the job's namespace that were made for another job of its name and write to the same output."""
    held = snapshot.made_for.get((job.namespace, job.name))
    if not held:
        return []
    own, output = snapshot.pods_of.get(job.uid, {}), output_of(job)
    others = (p for p in held.values() if p.output == output and own.get(p.name) is not p)
    return sorted(p.name for p in others if may_live(p, snapshot.nodes))


def not_ready(job: Job, snapshot: Snapshot) -> Reason:
    """Why none of the open units may start: backoff, or pods of an earlier attempt."""
    waits = [t for t in (units.not_before(job.status, s) for s in units.open_units(job)) if t is not None]
    last = job.status.failures[-1] if job.status.failures else None
    if waits:
        again = f"{min(waits):%Y-%m-%dT%H:%M:%SZ}"
        why = f"attempt {last.attempt} failed: {last.reason}: {last.message}; " if last else ""
        word = explain.BACKING_OFF
        if last is not None and last.reason == explain.REJECTED_BY_CLUSTER:
            word, why = explain.REJECTED_BY_CLUSTER, f"{last.message}; "
        return Reason(reason=word, message=f"{why}tried again at {again}")
    if earlier := earlier_pods(job, snapshot):
        text = f"waits until pods of an earlier job of this name are gone: {', '.join(earlier[:3])} (the same output)"
        return Reason(reason=explain.WAITING_FOR_CAPACITY, message=text)
    pods = sorted(
        {a.pod for a in job.status.assignments}
        | {p.name for p in snapshot.pods_of.get(job.uid, {}).values() if may_live(p, snapshot.nodes)}
    )
    text = f"waits until pods of an earlier attempt are gone: {', '.join(pods[:3])}"
    if not pods:
        text = "waits until it is known whether the cluster has made an earlier pod of this name"
    return Reason(reason=explain.WAITING_FOR_CAPACITY, message=text)
