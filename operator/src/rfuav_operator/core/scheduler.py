"""The only way into the core: a snapshot goes in, actions come out.

A turn steps the jobs that changed or are due through their lifecycle and, when room or the queue may have changed,
plans admission. Every job gets at most one status write per turn, before the effects that depend on it.

`turn` is for everybody: one question, one snapshot. `Scheduler` is for the operator's loop: it keeps an index of the
snapshot between turns, so that the cost of a turn depends on what changed and not on what exists. The index adds no
knowledge: `turn` makes the same decisions.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from rfuav_operator.core import pool_status
from rfuav_operator.core.admission.index import Admission
from rfuav_operator.core.admission.plan import Plan
from rfuav_operator.core.alarms import Alarms
from rfuav_operator.core.capacity import gpu_sharing
from rfuav_operator.core.capacity.room import Shape, shape_of
from rfuav_operator.core.capacity.usage import Usage, planned
from rfuav_operator.core.job import deadlines, events, lifecycle, podspec
from rfuav_operator.core.job.aside import Aside, search, stand_in, told
from rfuav_operator.core.job.lifecycle import Facts, Outcome
from rfuav_operator.core.job.priority import age_of, priority
from rfuav_operator.core.model import (
    Action,
    Assignment,
    CreatePod,
    DeleteJob,
    DeletePod,
    GpuTier,
    Job,
    JobStatus,
    NodeName,
    PatchLimitsStatus,
    PatchStatus,
    PerNodeCpu,
    Phase,
    Pod,
    Pool,
    PoolSpec,
    Quota,
    Report,
    ScaleUp,
    Snapshot,
    Uid,
)
from rfuav_operator.core.queue.eligibility import wants_room
from rfuav_operator.core.queue.quotas import Quotas
from rfuav_operator.core.stored import bounds

_OVERDUE = timedelta(seconds=30)  # when to check again what was due and had no visible effect yet
_LIMITS_EVERY = timedelta(seconds=1)  # how often the status of pools and quotas is made
_PLAN_AGAIN = timedelta(seconds=10)  # after a plan that failed, and no job was to blame
_ATTEMPTS = 4  # in one turn: those that fail before the plan hide those that fail in it
_FOR_EVER = 10**9  # seconds
# The terms of jobs in a pool that is missing or unreadable: no timeout expires until it is back.
_NO_POOL = PoolSpec(
    per_gpu=(GpuTier(training=1000, inference=1000),),
    per_node_cpu=PerNodeCpu(training=1000, inference=1000),
    schedule_timeout_seconds=_FOR_EVER,
    start_timeout_seconds=_FOR_EVER,
    scale_up=ScaleUp(timeout_seconds=_FOR_EVER),
)
_WIDE = 64  # pods at a time past which a job's status is not written for each of them
_NO_PODS: Mapping[str, Pod] = {}


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What changed since the last turn."""

    jobs: Collection[Uid] = ()
    nodes: Collection[NodeName] = ()
    namespaces: Collection[str] = ()  # their ResourceQuotas
    plan: bool = False
    everything: bool = False  # pools, quotas, priority classes or settings: the index is rebuilt


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What failed."""

    of: Job | Pool | Quota | None  # what was handled; None: the plan, and no job is to blame
    error: Exception


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn of the loop decided."""

    actions: Sequence[Action]
    wake_at: datetime | None = None  # the next instant at which time alone changes something (backoff, TTL, deadlines)
    faults: Sequence[Fault] = ()  # what failed in this turn, and was set aside

    def status_of(self, job: Job) -> JobStatus:
        """The job's status after this turn."""
        written = (a.status for a in self.actions if isinstance(a, PatchStatus) and a.job.uid == job.uid)
        return next(written, job.status)


class Jobs(MutableMapping[Uid, Job]):
    """The snapshot's jobs with those of this turn over them; only these are stored, with a status that fits."""

    def __init__(self, read: Mapping[Uid, Job]) -> None:
        self._read = read
        self.changed: dict[Uid, Job] = {}
        self.last: Uid | None = None  # the jobs handled last, in case something fails

    def __getitem__(self, uid: Uid) -> Job:
        self.last = uid
        found = self.changed.get(uid)
        return self._read[uid] if found is None else found

    def __setitem__(self, uid: Uid, job: Job) -> None:
        read = self._read[uid]
        self.changed[uid] = job if job is read else bounds.fitted(job, read.status)

    def __delitem__(self, uid: Uid) -> None:
        raise TypeError("jobs are deleted by the API server")

    def __iter__(self) -> Iterator[Uid]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)

    def __contains__(self, uid: object) -> bool:
        return uid in self._read


def turn(
    snapshot: Snapshot,
    *,
    now: datetime,
    changed: Collection[Uid] | None = None,
    reports: Sequence[Report] = (),
    plan: bool = True,
) -> Turn:
    """The decisions on one snapshot at one instant, without further knowledge.

    When would a job start? Put it into the snapshot's `jobs`, with an empty status if it does not exist yet, and read
    `Turn.status_of`: it is `Admitted` with the nodes that it would get, or `Queued` with its place, the reason, and
    when it may start as far as running jobs report that. Nothing is written: actions are values.

    Args:
        snapshot: what the API server holds.
        now: the API server's time.
        changed: the jobs to step through their lifecycle; None: all.
        reports: progress to apply.
        plan: whether jobs are admitted too.
    """
    stepped = snapshot.jobs.keys() if changed is None else changed
    return Scheduler().turn(snapshot, Changes(jobs=stepped, plan=plan), reports=reports, now=now)


class _Failed(Exception):  # noqa: N818  a state of the turn, not a fault
    """The handling of these jobs failed."""

    def __init__(self, jobs: Mapping[Uid, Exception]) -> None:
        super().__init__(", ".join(jobs))
        self.jobs = jobs


class Scheduler:
    """Decides turn after turn."""

    def __init__(self) -> None:
        self._aside = Aside()
        self._no_plan_before: datetime | None = None  # it failed, and no job is to blame
        self._last: Uid | None = None  # the jobs handled last in a turn that failed
        self._admission: Admission | None = None
        self._alarms: Alarms[Uid] = Alarms()
        self._plan_at: datetime | None = None
        self._gpu_users: set[Uid] = set()  # jobs that reported a GPU, or are flagged for it
        self._limits_at: datetime | None = None  # when the status of pools and quotas was made last
        self._limits_due = False
        self._faults: list[Fault] = []  # of this turn: pools and quotas

    def turn(self, snapshot: Snapshot, changes: Changes, *, reports: Sequence[Report], now: datetime) -> Turn:
        """Make all decisions that follow from the changes.

        Jobs whose time has come (backoff, TTL, deadline, timeouts) need not be named; admission is planned without
        `changes.plan` too when a step gave room back or changed the queue. Reports of jobs and pods that are not
        current are ignored. A job that fails is set aside, and the others are decided as usual.
        """
        back = self._aside.let_back(snapshot.jobs, now)
        if back:
            changes = replace(changes, jobs={*changes.jobs, *back}, plan=True)
        try:
            done = self._turn(self._over(snapshot), changes, self._aside, reports=reports, now=now)
        except Exception as error:  # noqa: BLE001  whatever it is, it must not end the others
            done = self._without_those_at_fault(snapshot, changes, error, reports=reports, now=now)
        else:
            self._aside.all_went_well()
        actions = [*done.actions, *self._tell_those_aside(snapshot, now)]
        times = [t for t in (done.wake_at, self._aside.next()) if t is not None]
        return replace(done, actions=actions, wake_at=min(times, default=None))

    @property
    def aside(self) -> Iterator[Uid]:
        """The jobs whose handling failed, until it is tried again."""
        return iter(self._aside)

    @property
    def usage(self) -> Usage | None:
        """What was in use when the last turn ended; None: before the first, and after one that failed."""
        return None if self._admission is None else self._admission.usage

    def _over(self, snapshot: Snapshot) -> Snapshot:
        jobs = self._aside.over(snapshot.jobs)
        return snapshot if jobs is snapshot.jobs else replace(snapshot, jobs=jobs)

    def _without_those_at_fault(
        self, snapshot: Snapshot, changes: Changes, error: Exception, *, reports: Sequence[Report], now: datetime
    ) -> Turn:
        """The turn once more from the start, without the jobs for which it failed; without a plan, if it is none's."""
        changes = replace(changes, jobs={*changes.jobs, *self._aside}, plan=True, everything=True)
        faults: list[Fault] = []
        for _ in range(_ATTEMPTS):
            blamed = self._blame(snapshot, changes, error, reports=reports, now=now)
            for uid, fault in blamed.items():
                self._aside.add(snapshot.jobs[uid], fault, now)
                faults.append(Fault(of=snapshot.jobs[uid], error=fault))
            if not blamed:
                break
            try:
                done = self._turn(self._over(snapshot), changes, self._aside, reports=reports, now=now)
            except Exception as again:  # noqa: BLE001  there may be more of them
                error = again
            else:
                self._aside.all_went_well()
                return replace(done, faults=[*faults, *done.faults])
        faults.append(Fault(of=None, error=error))
        self._no_plan_before = now + _PLAN_AGAIN
        try:
            done = self._turn(self._over(snapshot), changes, self._aside, reports=reports, now=now)
        except Exception:  # noqa: BLE001  the next turn may see another state
            done = Turn(actions=())
        self._admission = None
        return replace(done, faults=faults, wake_at=min(done.wake_at or self._no_plan_before, self._no_plan_before))

    def _blame(
        self, snapshot: Snapshot, changes: Changes, error: Exception, *, reports: Sequence[Report], now: datetime
    ) -> dict[Uid, Exception]:
        """The jobs for which a turn failed."""
        if isinstance(error, _Failed):
            return {uid: fault for uid, fault in error.jobs.items() if uid in snapshot.jobs}
        seen = self._over(snapshot)
        left = [uid for uid in snapshot.jobs if uid not in self._aside]
        absent = {uid: stand_in(snapshot.jobs[uid], "at fault?") for uid in left}

        def fails(left_out: Collection[Uid]) -> bool:
            jobs = {**seen.jobs, **{uid: absent[uid] for uid in left_out}}
            aside = {*self._aside, *left_out}
            try:
                Scheduler()._turn(replace(seen, jobs=jobs), changes, aside, reports=reports, now=now)  # noqa: SLF001  one that knows nothing
            except Exception:  # noqa: BLE001  that is the question
                return True
            return False

        found = search(left, [self._last] if self._last in absent else [], fails)
        if len(found) > 1 and all(uid in found or not _may_wait(snapshot.jobs[uid]) for uid in left):
            return {}  # it fails for whoever waits
        return dict.fromkeys(found, error)

    def _tell_those_aside(self, snapshot: Snapshot, now: datetime) -> Iterator[Action]:
        """Write into each job's status that its handling failed."""
        for uid, why in self._aside.whys():
            job = snapshot.jobs[uid]
            try:
                status = bounds.fitted(replace(job, status=told(job, now, why)), job.status).status
                deserved = list(events.events(job, status))
            except Exception:  # noqa: BLE001, S112  the log has it; nothing more can be said of this one
                continue
            if status != job.status:
                yield PatchStatus(job=job, status=status)
                yield from deserved

    def _turn(
        self, snapshot: Snapshot, changes: Changes, aside: Collection[Uid], *, reports: Sequence[Report], now: datetime
    ) -> Turn:
        jobs = Jobs(snapshot.jobs)
        try:
            return self._decide(snapshot, jobs, changes, aside, reports=reports, now=now)
        except Exception:
            self._last = jobs.last
            self._admission, self._limits_due = None, True  # a part of it may have happened
            raise

    def _decide(
        self,
        snapshot: Snapshot,
        jobs: Jobs,
        changes: Changes,
        aside: Collection[Uid],
        *,
        reports: Sequence[Report],
        now: datetime,
    ) -> Turn:
        """One turn over the jobs that are not set aside."""
        everyone = self._admission is None or changes.everything
        if self._admission is None or changes.everything:
            admission = self._rebuild(snapshot, jobs, now)
        else:
            admission = self._admission
        by_job: dict[Uid, list[Report]] = defaultdict(list)
        for report in reports:
            by_job[report.job_uid].append(report)

        # 1. The jobs to step: named, reported on, due, or holding room on a node that changed.
        nodes = {*changes.nodes, *(expired := admission.usage.expires.due(now))}
        near = (uid for node in nodes for uid in admission.usage.on_node(node))
        todo = {
            uid for uid in (*changes.jobs, *by_job, *near, *self._alarms.due(now)) if uid in jobs and uid not in aside
        }
        gone = [uid for uid in changes.jobs if uid not in jobs]
        if not everyone:
            admission.update(gone, nodes, snapshot, jobs, now)
            for uid in todo:  # a new job may wait for one that is about to go
                admission.gates.index(uid, snapshot.jobs[uid])
        steps = _Steps(snapshot, jobs, by_job, admission, now)
        outcomes = steps.run(todo)
        if steps.failed:
            raise _Failed(steps.failed)
        plan = (self._no_plan_before is None or self._no_plan_before <= now) and (
            changes.plan
            or changes.everything
            or bool(gone)
            or bool(expired)
            or (self._plan_at is not None and self._plan_at <= now)
            or any(_moves_queue(snapshot.jobs[uid], jobs[uid]) for uid in todo)
        )

        # 2. The index follows.
        admission.update(todo, (), snapshot, jobs, now)

        # 3. Admission, on the jobs as the steps left them; the index follows that too.
        planned_now = Plan()
        if plan:
            admission.quotas_changed(changes.namespaces)
            planned_now = admission.plan(snapshot, jobs, now, stepped=todo, everyone=everyone)
            self._plan_at = planned_now.look_again
            admission.update(planned_now.moved, (), snapshot, jobs, now)

        # 4. Trainings that the device plugin put on one GPU.
        flagged = self._flag_gpus(todo | set(gone), jobs, admission, now) if plan else {}

        # 5. One write a job, then its effects.
        touched = {**outcomes, **planned_now.statuses, **flagged}
        failed: dict[Uid, Exception] = {}
        self._faults = []
        actions: list[Action] = []
        for uid in touched:
            try:
                actions += _actions_of(
                    snapshot.jobs[uid],
                    jobs[uid],
                    outcomes.get(uid),
                    planned_now,
                    snapshot,
                    usage=admission.usage,
                    final=_is_final(by_job.get(uid)),
                )
            except Exception as error:  # noqa: BLE001  it is set aside
                failed[uid] = error
        # 6. When time alone changes something.
        for uid in {**touched, **dict.fromkeys(todo)}:
            try:
                self._alarms.set(uid, _next_time(jobs[uid], snapshot, now))
            except Exception as error:  # noqa: BLE001  it is set aside
                failed[uid] = error
        if failed:
            raise _Failed(failed)
        for uid in gone:
            self._alarms.set(uid, None)
        actions += self._limits(snapshot, jobs, admission, now, changed=plan)
        return Turn(actions=actions, wake_at=self._wake_at(now), faults=self._faults)

    def _rebuild(self, snapshot: Snapshot, jobs: Jobs, now: datetime) -> Admission:
        made = self._admission = Admission(snapshot, jobs, now)
        self._alarms = Alarms()
        self._gpu_users = set()
        for uid, job in jobs.items():
            try:
                self._alarms.set(uid, _next_time(job, snapshot, None))
            except Exception as error:  # noqa: BLE001  it is set aside
                made.failed[uid] = error
            if _uses_gpu(job):
                self._gpu_users.add(uid)
        if made.failed:
            raise _Failed(made.failed)
        return made

    def _wake_at(self, now: datetime) -> datetime | None:
        limits_at = self._limits_at + _LIMITS_EVERY if self._limits_due and self._limits_at else None
        expires = self._admission.usage.expires.next() if self._admission else None
        times = [t for t in (self._alarms.next(), self._plan_at, limits_at, expires) if t is not None]
        at = min(times, default=None)
        return at if at is None or at > now else now + timedelta(milliseconds=1)

    def _flag_gpus(
        self, changed: Iterable[Uid], jobs: Jobs, admission: Admission, now: datetime
    ) -> dict[Uid, JobStatus]:
        for uid in changed:
            job = jobs.get(uid)
            if job is not None and _uses_gpu(job):
                self._gpu_users.add(uid)
            else:
                self._gpu_users.discard(uid)
        users = {uid: jobs[uid] for uid in self._gpu_users if uid in jobs}
        found = dict(gpu_sharing.flags(users, admission.usage.room, now))
        for uid, status in found.items():
            jobs[uid] = replace(jobs[uid], status=status)
        return found

    def _limits(
        self, snapshot: Snapshot, jobs: Jobs, admission: Admission, now: datetime, *, changed: bool
    ) -> Iterator[Action]:
        """The status of pools and quotas, at most once a second: it follows, nothing waits for it."""
        self._limits_due = self._limits_due or changed
        if not self._limits_due or (self._limits_at is not None and now < self._limits_at + _LIMITS_EVERY):
            return
        self._limits_due, self._limits_at = False, now
        for target, status in pool_status.statuses(snapshot, jobs, admission, now):
            try:
                fits = bounds.fitted_limits(target, status())
            except Exception as error:  # noqa: BLE001  it is made again with the next
                self._faults.append(Fault(of=target, error=error))
                continue
            if any(target.status.get(key) != value for key, value in fits.items()):
                yield PatchLimitsStatus(target=target, status=fits)


class _Steps:
    """Steps jobs through their lifecycle."""

    def __init__(
        self,
        snapshot: Snapshot,
        jobs: Jobs,
        reports: Mapping[Uid, Sequence[Report]],
        admission: Admission,
        now: datetime,
    ) -> None:
        self._snapshot = snapshot
        self.failed: dict[Uid, Exception] = {}  # jobs whose step failed
        self._jobs = jobs
        self._reports = reports
        self._admission = admission
        self._now = now

    def run(self, uids: Iterable[Uid]) -> dict[Uid, Outcome]:
        """The outcomes; the jobs have their new status."""
        outcomes: dict[Uid, Outcome] = {}
        facts: dict[Uid, Facts] = {}
        for uid in sorted(uids):
            try:
                facts[uid] = self._facts(self._snapshot.jobs[uid])
                outcomes[uid] = self._step(uid, facts[uid])
            except Exception as error:  # noqa: BLE001  it is set aside
                self.failed[uid] = error
        if self.failed:
            return {}
        recreate = {uid: outcome.create for uid, outcome in outcomes.items() if outcome.create}
        for uid in outcomes if recreate else ():
            self._admission.usage.update_job(uid, self._jobs[uid], self._snapshot)
        for uid, gone in self._withdrawn(recreate).items():
            facts[uid] = replace(facts[uid], withdrawn=gone)
            outcomes[uid] = self._step(uid, facts[uid])
        for uid in list(outcomes):
            if crowded := self._crowded(uid):
                outcomes[uid] = self._step(uid, replace(facts[uid], crowded=crowded))
        return outcomes

    def _crowded(self, uid: Uid) -> dict[str, str]:
        """Pods that the scheduler, which knows no limits, has put where these have no room for them, and why.

        Each is looked at once: when it has landed, or, where its node's GPUs were not known then, when they are.
        """
        found: dict[str, str] = {}
        job, before = self._jobs[uid], {a.pod: a for a in self._snapshot.jobs[uid].status.assignments}
        pool = self._snapshot.pools.get(job.spec.pool)
        for a in job.status.assignments:
            was = before.get(a.pod)
            if was is None or not a.node or a.stopping or pool is None:
                continue
            if was.node == a.node and was.provisional == a.provisional:
                continue
            self._admission.usage.update_job(uid, job, self._snapshot)
            owner, room = self._admission.usage.pool_of(NodeName(a.node)), self._admission.usage.room(NodeName(a.node))
            if owner != pool.name:
                found[a.pod] = f"of pool {owner}" if owner else "of no pool"
            elif room is not None and not a.provisional and (over := room.crowded()):
                found[a.pod] = f"with too little room left ({over})"
        return found

    def _facts(self, job: Job) -> Facts:
        snapshot = self._snapshot
        source = self._admission.gates.source(job, snapshot.jobs) if job.status.source is None else None
        return Facts(
            now=self._now,
            pods=snapshot.pods_of.get(job.uid, _NO_PODS),
            creating=snapshot.creating.get(job.uid, frozenset()),
            nodes=snapshot.nodes,
            pool=_pool_spec(job, snapshot),
            pool_missing=_pool_missing(job, snapshot),
            defaults=snapshot.defaults,
            reports=self._reports.get(job.uid, ()),
            rejected=snapshot.rejected.get(job.uid, ""),
            gone=snapshot.gone.get(job.uid, ()),
            awaited=self._admission.gates.awaited(job, snapshot),
            source=source,
        )

    def _step(self, uid: Uid, facts: Facts) -> Outcome:
        job = self._snapshot.jobs[uid]
        outcome = lifecycle.step(job, facts)
        self._jobs[uid] = job if outcome.status == job.status else replace(job, status=outcome.status)
        return outcome

    def _withdrawn(self, recreate: Mapping[Uid, Sequence[Assignment]]) -> dict[Uid, set[str]]:
        """Recorded pods that were never made and have no room (any more), by job.

        A crash, or a refused status, can lose the write that gave room back but not the one that took it: then two
        records name the same room, and a pod that is there already keeps it. Room is all that admission looks at: the
        node, the number of jobs that wait for one, and the namespace's quotas.
        """
        usage = self._admission.usage
        for uid, held in recreate.items():
            for a in held:
                usage.release(uid, a.pod)
        waiting = {name: set(self._admission.unplaced(name)) - recreate.keys() for name in self._snapshot.pools}
        gone: dict[Uid, set[str]] = {}
        order = sorted(recreate, key=lambda u: (-(priority(self._jobs[u], self._snapshot) or 0), age_of(self._jobs[u])))
        for uid in order:
            job = self._jobs[uid]
            shape = replace(shape_of(job), avoided=frozenset(), nodes=1)
            for a in recreate[uid]:
                if not self._has_room(job, shape, a, waiting):
                    gone.setdefault(uid, set()).add(a.pod)
                    continue
                usage.hold(uid, a.pod, planned(job, shape, a.node))
                if not a.node and job.spec.pool in waiting:
                    waiting[job.spec.pool].add(uid)
        return gone

    def _has_room(self, job: Job, shape: Shape, a: Assignment, waiting: Mapping[str, Collection[Uid]]) -> bool:
        """Whether one recorded pod would be admitted now as it is recorded. `waiting`: jobs without a node by pool."""
        usage, pool = self._admission.usage, self._snapshot.pools.get(job.spec.pool)
        if a.node:
            room = usage.room(NodeName(a.node))
            if room is None or room.mismatch(shape) or room.lacks(shape):
                return False
        elif pool is not None and len({*waiting[pool.name], job.uid}) > pool.spec.scale_up.max_jobs:
            return False
        if pool is None:
            return True
        teams = self._admission.queues.namespaces(pool.name)
        quotas = Quotas(pool.name, self._snapshot, usage, usage.rooms[pool.name].values(), teams)
        return quotas.refuses(job.namespace, shape, started=bool(usage.holds(job.uid))) is None


def _pool_spec(job: Job, snapshot: Snapshot) -> PoolSpec:
    return _NO_POOL if _pool_missing(job, snapshot) else snapshot.pools[job.spec.pool].spec


def _pool_missing(job: Job, snapshot: Snapshot) -> str:
    """Why the terms of the job's pool are not known; empty: they are."""
    pool = snapshot.pools.get(job.spec.pool)
    if pool is None:
        return "does not exist"
    return "cannot be read" if pool.problems else ""


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


def _may_wait(job: Job) -> bool:
    return job.status.phase is None or wants_room(job)


def _uses_gpu(job: Job) -> bool:
    flagged = any(c.type == gpu_sharing.CONDITION and c.status == "True" for c in job.status.conditions)
    return flagged or any(a.gpu_uuid for a in job.status.assignments)


def _is_final(reports: Sequence[Report] | None) -> bool:
    return any(report.final for report in reports or ())


def _actions_of(
    read: Job, job: Job, outcome: Outcome | None, plan: Plan, snapshot: Snapshot, *, usage: Usage, final: bool
) -> Iterator[Action]:
    """What is done for one job: its record first, then what follows from it."""
    if job.status != read.status:
        urgent = events.is_transition(read.status, job.status)
        slow = not urgent and not final and events.is_place_alone(read.status, job.status)
        wide = len(job.status.assignments) > _WIDE and read.status.phase is job.status.phase
        yield PatchStatus(job=read, status=job.status, urgent=urgent, final=final, slow=slow, wide=wide)
    pods = snapshot.pods_of.get(job.uid, _NO_PODS)
    leaving = [*(outcome.delete if outcome else ()), *(pods[n] for n in plan.delete.get(job.uid, ()) if n in pods)]
    for pod in leaving:
        yield DeletePod(job_uid=job.uid, namespace=job.namespace, name=pod.name, uid=pod.uid)
    if outcome is not None and outcome.remove_job:
        yield DeleteJob(job=read)
    stopping = {a.pod for a in job.status.assignments if a.stopping}
    fresh = [*(outcome.create if outcome else ()), *plan.create.get(job.uid, ())]
    fresh = [a for a in fresh if a.pod not in stopping]
    service = podspec.service(job) if fresh and job.spec.nodes > 1 else None
    for assignment in fresh:
        landing = None
        if not assignment.node:
            landing = podspec.landing(job, usage.nodes_held(), _pool_spec(job, snapshot).node_selector)
        yield CreatePod(
            job_uid=job.uid,
            namespace=job.namespace,
            name=assignment.pod,
            manifest=podspec.manifest(job, assignment, snapshot.defaults, landing=landing),
            landing=landing,
            service=service,
        )
    yield from events.events(read, job.status)


def _next_time(job: Job, snapshot: Snapshot, now: datetime | None) -> datetime | None:
    """When time alone changes the job. What was due in a turn is looked at again a while later, until it was seen."""
    phase, pods = job.status.phase, snapshot.pods_of.get(job.uid, _NO_PODS)
    times = job.status.not_before or job.status.avoided_nodes or job.status.shards
    if phase is Phase.QUEUED and not times and not pods:
        return None  # most jobs of a long queue
    at = deadlines.next_time(job, pods, _pool_spec(job, snapshot))
    return now + _OVERDUE if now is not None and at is not None and at <= now else at
