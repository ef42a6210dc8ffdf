"""The one door of the core: what changed goes in, actions come out.

`turn` steps the dirty jobs through their lifecycle and, when room or the queue may have changed, plans admission. Every
job gets at most one status write a turn, and it stands before the effects that depend on it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

import msgspec
from msgspec.structs import replace

from rfuav_operator.core import admission, announce, gpusharing, lifecycle, podspec, poolstatus
from rfuav_operator.core.lifecycle import Facts, Outcome
from rfuav_operator.core.model import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    Job,
    JobStatus,
    PatchPoolStatus,
    PatchStatus,
    Phase,
    Pod,
    PoolSpec,
    Report,
    Snapshot,
    Uid,
)
from rfuav_operator.core.sources import Sources

_OVERDUE = timedelta(seconds=30)  # when to look again at what was due and whose effect was not seen yet
_NO_POOL = PoolSpec()
_NO_PODS: Mapping[str, Pod] = {}


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn of the loop decided."""

    actions: Sequence[Action]
    wake_at: datetime | None = None  # the next instant at which time alone changes something (backoff, TTL, deadlines)


def turn(snapshot: Snapshot, *, dirty: Collection[Uid], reports: Sequence[Report], now: datetime, plan: bool) -> Turn:
    """Decide everything that follows from `snapshot` for the `dirty` jobs, and admission when `plan` is set.

    Jobs whose time has come (backoff, TTL, deadline, timeouts) need not be named; admission is planned without `plan`
    too when a step gave room back or changed the queue. Reports of jobs and pods that are not current are ignored.
    """
    jobs = dict(snapshot.jobs)
    sources = Sources(snapshot.jobs)  # as recorded: what a source does in this turn is written first, then followed
    by_job: dict[Uid, list[Report]] = defaultdict(list)
    for report in reports:
        by_job[report.job_uid].append(report)

    # 1. The jobs to step: named, reported on, or due.
    todo = {uid for uid in (*dirty, *by_job, *_due(snapshot, now)) if uid in jobs}
    outcomes: dict[Uid, Outcome] = {}
    step_all = partial(
        _step_all, jobs=jobs, snapshot=snapshot, sources=sources, reports=by_job, now=now, outcomes=outcomes
    )
    step_all(todo)
    plan = plan or any(uid not in jobs for uid in dirty) or any(_moves_queue(snapshot.jobs[u], jobs[u]) for u in todo)

    # 2. What others' changes mean for jobs that were not named: nodes that were lost.
    if plan:
        step_all(set(_affected(jobs, snapshot)) - todo)

    # 3. Admission, on the jobs as the steps left them.
    planned = admission.plan(snapshot, jobs, sources, now) if plan else admission.Plan()
    for uid, status in planned.statuses.items():
        jobs[uid] = replace(jobs[uid], status=status)

    # 4. Trainings that the device plugin put on one GPU.
    flagged = dict(gpusharing.flags(jobs, planned.rooms, now)) if plan else {}
    for uid, status in flagged.items():
        jobs[uid] = replace(jobs[uid], status=status)

    # 5. One write a job, then its effects.
    actions: list[Action] = []
    for uid in {**outcomes, **planned.statuses, **flagged}:
        final = any(report.final for report in by_job.get(uid, ()))
        create = (
            [*outcomes[uid].create, *planned.create.get(uid, ())] if uid in outcomes else planned.create.get(uid, [])
        )
        actions += _status_actions(snapshot.jobs[uid], jobs[uid].status, final=final)
        actions += _effects(jobs[uid], outcomes.get(uid), snapshot)
        actions += [
            CreatePod(
                job_uid=uid,
                namespace=jobs[uid].namespace,
                name=assignment.pod,
                manifest=podspec.manifest(jobs[uid], assignment, snapshot.defaults),
            )
            for assignment in create
        ]
        actions += announce.events(snapshot.jobs[uid], jobs[uid].status)
    if plan:
        actions += _pool_actions(planned, jobs, snapshot, now)
    return Turn(actions=actions, wake_at=_wake_at(jobs, snapshot, now))


def _step_all(
    uids: Iterable[Uid],
    *,
    jobs: dict[Uid, Job],
    snapshot: Snapshot,
    sources: Sources,
    reports: Mapping[Uid, Sequence[Report]],
    now: datetime,
    outcomes: dict[Uid, Outcome],
) -> None:
    facts: dict[Uid, Facts] = {}
    for uid in sorted(uids):
        job = jobs[uid]
        facts[uid] = Facts(
            now=now,
            pods=snapshot.pods_of.get(uid, _NO_PODS),
            creating=snapshot.creating.get(uid, frozenset()),
            nodes=snapshot.nodes,
            pool=_pool_spec(job, snapshot),
            defaults=snapshot.defaults,
            reports=reports.get(uid, ()),
            rejected=snapshot.rejected.get(uid, ""),
            source=sources.of(job) if job.status.source is None else None,
        )
        outcomes[uid] = lifecycle.step(job, facts[uid])
        jobs[uid] = replace(job, status=outcomes[uid].status)
    recreate = {uid: outcomes[uid].create for uid in facts if outcomes[uid].create}
    for uid, gone in (admission.withdrawn(snapshot, jobs, recreate) if recreate else {}).items():
        job = snapshot.jobs[uid]
        outcomes[uid] = lifecycle.step(job, replace(facts[uid], withdrawn=gone))
        jobs[uid] = replace(job, status=outcomes[uid].status)


def _pool_spec(job: Job, snapshot: Snapshot) -> PoolSpec:
    pool = snapshot.pools.get(job.spec.pool)
    return _NO_POOL if pool is None else pool.spec


def _moves_queue(old: Job, new: Job) -> bool:
    """Whether a step changed who waits or what is held. Past its end, a job's pods still give room back."""
    a, b = old.status, new.status
    return (
        old.deleting
        or (a.phase is not None and a.phase.terminal)
        or a.phase is not b.phase
        or a.assignments != b.assignments
        or a.not_before != b.not_before
        or a.avoided_nodes != b.avoided_nodes
        or a.source != b.source
        or a.observed_generation != b.observed_generation
        or (a.shards is not None and b.shards is not None and a.shards.not_before != b.shards.not_before)
    )


def _affected(jobs: Mapping[Uid, Job], snapshot: Snapshot) -> Iterator[Uid]:
    for uid, job in jobs.items():
        phase = job.status.phase
        if job.deleting or phase is None or phase.terminal:
            continue
        if job.status.assignments:
            pods = snapshot.pods_of.get(uid, _NO_PODS)
            if any(a.pod in pods and pods[a.pod].deleting for a in job.status.assignments):
                yield uid


def _status_actions(job: Job, status: JobStatus, *, final: bool) -> Iterator[Action]:
    if status != job.status:
        yield PatchStatus(job=job, status=status, urgent=announce.is_transition(job.status, status), final=final)


def _effects(job: Job, outcome: Outcome | None, snapshot: Snapshot) -> Iterator[Action]:
    if outcome is None:
        return
    for pod in outcome.delete:
        yield DeletePod(job_uid=job.uid, namespace=job.namespace, name=pod.name, uid=pod.uid)
    if outcome.remove_job:
        yield DeleteJob(job=snapshot.jobs[job.uid])


def _pool_actions(
    planned: admission.Plan, jobs: Mapping[Uid, Job], snapshot: Snapshot, now: datetime
) -> Iterator[Action]:
    running = poolstatus.running_by_pool(jobs.values())
    for name, pool in snapshot.pools.items():
        rooms = planned.rooms.get(name, {}).values()
        status = poolstatus.pool_status(pool, rooms, planned.pending.get(name, ()), running, now)
        if any(pool.status.get(key) != value for key, value in status.items()):
            yield PatchPoolStatus(pool=pool, status=status)


def _due(snapshot: Snapshot, now: datetime) -> Iterator[Uid]:
    for uid, job in snapshot.jobs.items():
        at = _next_time(job, snapshot)
        if at is not None and at <= now:
            yield uid


def _next_time(job: Job, snapshot: Snapshot) -> datetime | None:
    phase = job.status.phase
    if phase is Phase.QUEUED and not (job.status.not_before or job.status.avoided_nodes or job.status.shards):
        return None  # most jobs of a long queue
    return lifecycle.next_time(job, snapshot.pods_of.get(job.uid, _NO_PODS), _pool_spec(job, snapshot))


def _wake_at(jobs: Mapping[Uid, Job], snapshot: Snapshot, now: datetime) -> datetime | None:
    times = (_next_time(job, snapshot) for job in jobs.values())
    return min((t if t > now else now + _OVERDUE for t in times if t is not None), default=None)
