"""Who may run next, and why the others wait: one plan over all queued jobs, in numbered steps.

The snapshot and the jobs as this turn left them come in; the statuses of jobs that were admitted or whose reason or
place changed go out, with the assignments whose pods are to be created. Nothing is remembered between plans.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from rfuav_operator.core import conditions, names, placement, progress, reasons, units
from rfuav_operator.core.lifecycle import may_live, starting
from rfuav_operator.core.model import (
    Assignment,
    Job,
    JobStatus,
    Kind,
    NodeName,
    Phase,
    Pool,
    Queue,
    Snapshot,
    Uid,
)
from rfuav_operator.core.placement import Need, Room
from rfuav_operator.core.reasons import Reason
from rfuav_operator.core.sources import Sources

HOLD = "Hold"


@dataclass(slots=True)
class Plan:
    """What was decided: new statuses of the jobs it touched, the pods to create, and the room as it is then."""

    statuses: dict[Uid, JobStatus] = field(default_factory=dict)
    create: dict[Uid, list[Assignment]] = field(default_factory=dict)
    rooms: dict[str, dict[NodeName, Room]] = field(default_factory=dict)
    pending: dict[str, list[Job]] = field(default_factory=dict)  # by pool, in queue order, those still waiting


def plan(snapshot: Snapshot, jobs: Mapping[Uid, Job], sources: Sources, now: datetime) -> Plan:
    """Admit as many units as the limits and the room allow."""
    # 1. What is in use, computed anew.
    result = Plan(rooms=placement.rooms(snapshot, jobs))
    # 2. The queues, in order.
    for pool, queue in _queues(snapshot, jobs).items():
        _plan_pool(pool, queue, snapshot, sources, now=now, result=result)
    return result


def withdrawn(
    snapshot: Snapshot, jobs: Mapping[Uid, Job], recreate: Mapping[Uid, Sequence[Assignment]]
) -> dict[Uid, set[str]]:
    """Recorded pods that were never made and have no room (any more), by job.

    A crash can lose the write that gave room back but not the one that took it: then two records name the same room,
    and a pod that is there already keeps it.
    """
    absent = frozenset((uid, a.pod) for uid, held in recreate.items() for a in held)
    rooms = placement.rooms(snapshot, jobs, without=absent)
    gone: dict[Uid, set[str]] = {}
    for uid in sorted(recreate, key=lambda u: order(jobs[u], snapshot)):
        need = placement.need_of(jobs[uid])
        need = replace(need, avoided=frozenset())
        for a in recreate[uid]:
            room = rooms.get(jobs[uid].spec.pool, {}).get(NodeName(a.node))
            if room is None or room.mismatch(need) or room.lacks(need):
                gone.setdefault(uid, set()).add(a.pod)
            else:
                room.take(need.kind, gpus=need.gpus, cpu_milli=need.cpu_milli, memory_bytes=need.memory_bytes)
    return gone


def _plan_pool(
    pool_name: str, queue: list[Job], snapshot: Snapshot, sources: Sources, *, now: datetime, result: Plan
) -> None:
    pool = snapshot.pools.get(pool_name)
    rooms = result.rooms.get(pool_name, {})
    shapes = _Shapes(pool, list(rooms.values())) if pool is not None else None
    waiting: list[tuple[Job, Reason | Need]] = []
    head: Job | None = None  # StrictFIFO: the first that does not fit stops those behind it
    for job in queue:
        # 3. Jobs that may not run whatever the room.
        gate = _gate(job, pool, snapshot, sources)
        if gate is not None or pool is None or shapes is None:
            waiting.append((job, gate or _no_pool(job, snapshot)))
            continue
        # 4. Shapes that no node takes, then units whose time has not come.
        need = shapes.need(job)
        never = shapes.never_fits(need)
        ready = [] if never else list(_ready_units(job, snapshot, now))
        if never or not ready:
            waiting.append((job, never or _not_ready(job, snapshot)))
            continue
        # 5. Room, unit by unit, in the order of the queue.
        if head is not None:
            waiting.append((job, _behind(head)))
            continue
        admitted = _place(job, ready, need, shapes)
        if admitted:
            result.statuses[job.uid] = _admit(job, admitted, now)
            result.create[job.uid] = admitted
        elif pool.spec.queueing == "StrictFIFO":
            head = job
        if not admitted:
            waiting.append((job, need))
    # 6. Why the others wait, once a shape, with the numbers as they are after all admissions; and their places.
    waiting = [(job, why) for job, why in waiting if job.status.phase is Phase.QUEUED]
    for place, (job, why) in enumerate(waiting, start=1):
        reason = why if isinstance(why, Reason) or shapes is None else shapes.no_room(why)
        if isinstance(reason, Reason):
            result.statuses[job.uid] = _waits(job, reason, Queue(position=place, of=len(waiting)), now)
    result.pending[pool_name] = [job for job, _ in waiting]


class _Shapes:
    """Answers for one pool, each computed once a shape: within a plan room only shrinks, so a no stays a no."""

    def __init__(self, pool: Pool, rooms: list[Room]) -> None:
        self.pool = pool
        self.rooms = rooms
        self._never: dict[Need, Reason | None] = {}
        self._full: set[Need] = set()
        self._words: dict[Need, Reason] = {}
        self._effective: dict[Need, Need] = {}

    def need(self, job: Job) -> Need:
        """The job's shape. Nodes it avoids are forgiven when no other node could take it."""
        need = placement.need_of(job)
        if need.avoided and need not in self._effective:
            able = (r for r in self.rooms if not r.mismatch(need) and not r.too_small(need))
            others = any(r.node.name not in need.avoided for r in able)
            self._effective[need] = need if others else replace(need, avoided=frozenset())
        return self._effective.get(need, need)

    def never_fits(self, need: Need) -> Reason | None:
        if need not in self._never:
            self._never[need] = reasons.never_fits(need, self.pool, self.rooms)
        return self._never[need]

    def choose(self, need: Need) -> Room | None:
        if need in self._full:
            return None
        room = placement.choose(need, self.rooms, placement=self.pool.spec.placement)
        if room is None:
            self._full.add(need)
        return room

    def no_room(self, need: Need) -> Reason:
        if need not in self._words:
            self._words[need] = reasons.no_room(need, self.pool, self.rooms)
        return self._words[need]


# --- the queue


def priority(job: Job, snapshot: Snapshot) -> int | None:
    """The value that orders the job; None: it names a PriorityClass that does not exist."""
    defaults = snapshot.defaults
    if job.spec.priority_class_name:
        named = snapshot.priority_classes.get(job.spec.priority_class_name)
        return None if named is None else named.value
    if job.kind is Kind.TRAINING:
        name, otherwise = defaults.training_priority_class, defaults.training_priority
    else:
        name, otherwise = defaults.inference_priority_class, defaults.inference_priority
    found = snapshot.priority_classes.get(name)
    return otherwise if found is None else found.value


def order(job: Job, snapshot: Snapshot) -> tuple[int, datetime, datetime, Uid]:
    """The one place that orders a queue: priority, then age, then UID so that no two jobs are equal."""
    return -(priority(job, snapshot) or 0), job.status.queued_at or job.created, job.created, job.uid


def _queues(snapshot: Snapshot, jobs: Mapping[Uid, Job]) -> dict[str, list[Job]]:
    queues: dict[str, list[Job]] = {name: [] for name in snapshot.pools}
    for job in jobs.values():
        if _waits_for_room(job):
            queues.setdefault(job.spec.pool, []).append(job)
    for queue in queues.values():
        queue.sort(key=lambda job: order(job, snapshot))
    return queues


def _waits_for_room(job: Job) -> bool:
    phase = job.status.phase
    if job.deleting or phase is None or phase.terminal or job.spec.suspend or job.spec.cancel:
        return False
    return phase is Phase.QUEUED or (
        len(job.status.assignments) < units.width(job) and next(units.open_units(job), -1) != -1
    )


# --- reasons that do not depend on room


def _gate(job: Job, pool: Pool | None, snapshot: Snapshot, sources: Sources) -> Reason | None:
    """The first reason, in the order of the API page, for which the job may not run whatever the room."""
    if pool is None:
        return _no_pool(job, snapshot)
    if pool.spec.stop_policy == HOLD:
        return Reason(reason=reasons.ON_HOLD, message=f"pool {pool.name} admits nothing new (stopPolicy: Hold)")
    problem = _problem(job, pool, snapshot)
    if problem:
        return Reason(reason=reasons.MISCONFIGURED, message=problem)
    if job.spec.model.from_training_job and job.status.source is None:
        return Reason(reason=reasons.WAITING_FOR_TRAINING_JOB, message=sources.why_waiting(job))
    return None


def _problem(job: Job, pool: Pool, snapshot: Snapshot) -> str:
    if job.problems:
        return "; ".join(job.problems)
    if pool.problems:
        return f"pool {pool.name}: {'; '.join(pool.problems)}"
    if job.spec.nodes > 1:
        return "spec.nodes: training over several nodes is not built yet; write 1"
    if priority(job, snapshot) is None:
        known = ", ".join(sorted(snapshot.priority_classes)) or "none"
        return f"spec.priorityClassName: PriorityClass {job.spec.priority_class_name} does not exist; existing: {known}"
    if not job.spec.image and not snapshot.defaults.image:
        return "no image: write spec.image, or set the operator's default trainer image"
    try:
        placement.need_of(job)
    except ValueError as error:
        return f"spec.resources: {error}"
    return ""


def _no_pool(job: Job, snapshot: Snapshot) -> Reason:
    known = ", ".join(sorted(snapshot.pools)) or "none"
    text = f"pool {job.spec.pool} does not exist; existing pools: {known}"
    return Reason(reason=reasons.MISCONFIGURED, message=text)


# --- units


def _ready_units(job: Job, snapshot: Snapshot, now: datetime) -> Iterable[units.Shard]:
    """Units that may start now: their backoff is over and no pod of an earlier attempt may live."""
    places = units.width(job) - len(job.status.assignments)
    names_held = {a.pod for a in job.status.assignments}
    if snapshot.creating.get(job.uid, frozenset()) - names_held:
        return  # a create of an attempt that was given up is still on its way
    left = [p for p in snapshot.pods_of.get(job.uid, {}).values() if p.name not in names_held]
    alive = {p.index for p in left if may_live(p, snapshot.nodes)}
    for shard in units.open_units(job):
        if places <= 0:
            return
        until = units.not_before(job.status, shard)
        if (until is None or until <= now) and (shard or 0) not in alive:
            places -= 1
            yield shard


def _not_ready(job: Job, snapshot: Snapshot) -> Reason:
    """Why none of the open units may start: backoff, or pods of an earlier attempt."""
    waits = [t for t in (units.not_before(job.status, s) for s in units.open_units(job)) if t is not None]
    last = job.status.failures[-1] if job.status.failures else None
    if waits:
        again = f"{min(waits):%Y-%m-%dT%H:%M:%SZ}"
        why = f"attempt {last.attempt} failed: {last.reason}: {last.message}; " if last else ""
        word = reasons.BACKING_OFF
        if last is not None and last.reason == reasons.REJECTED_BY_CLUSTER:
            word, why = reasons.REJECTED_BY_CLUSTER, f"{last.message}; "
        return Reason(reason=word, message=f"{why}tried again at {again}")
    pods = sorted(
        {a.pod for a in job.status.assignments}
        | {p.name for p in snapshot.pods_of.get(job.uid, {}).values() if may_live(p, snapshot.nodes)}
    )
    text = f"waits until pods of an earlier attempt are gone: {', '.join(pods[:3])}"
    return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)


def _behind(head: Job) -> Reason:
    text = f"behind {head.namespace}/{head.name}, which does not fit (queueing: StrictFIFO)"
    return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)


def _place(job: Job, ready: list[units.Shard], need: Need, shapes: _Shapes) -> list[Assignment]:
    """Assignments for as many of the ready units as find room; the room is taken at once."""
    admitted: list[Assignment] = []
    for shard in ready:
        room = shapes.choose(need)
        if room is None:
            break
        room.take(job.kind, gpus=need.gpus, cpu_milli=need.cpu_milli, memory_bytes=need.memory_bytes)
        attempt = units.attempt_of(job.status, shard) + 1
        name = names.pod_name(job, attempt, shard)
        admitted.append(Assignment(pod=name, node=room.node.name, gpus=need.gpus, shard=shard))
    return admitted


# --- what is written


def _admit(job: Job, admitted: list[Assignment], now: datetime) -> JobStatus:
    """The record that stands before any pod does: attempt, assignment, Admitted."""
    at = now.replace(microsecond=0)
    status = job.status
    for assignment in admitted:
        status = progress.begin_attempt(status, assignment.shard, job.kind)
        status = units.begin_attempt(status, assignment.shard, shards=job.spec.shards)
    running = status.phase is Phase.RUNNING
    message = starting(admitted)
    settled = status.conditions
    for kind, value, reason, text in (
        ("Admitted", True, "Admitted", message),
        ("PodsReady", False, "Starting", message),
    ):
        settled = conditions.put(
            settled, kind, value=value, reason=reason, message=text, now=now, generation=job.generation
        )
    for kind in ("Evicted", "Reconciling", "Stalled"):
        settled = conditions.clear(settled, kind, reason="Admitted", now=now, generation=job.generation)
    return replace(
        status,
        phase=Phase.RUNNING if running else Phase.ADMITTED,
        reason=status.reason if running else "Starting",
        message=status.message if running else message,
        conditions=settled,
        assignments=(*status.assignments, *admitted),
        queue=None,
        admitted_at=status.admitted_at if running else at,
    )


def _waits(job: Job, why: Reason, queue: Queue, now: datetime) -> JobStatus:
    settled = conditions.put(
        job.status.conditions,
        "Admitted",
        value=False,
        reason=why.reason,
        message=why.message,
        now=now,
        generation=job.generation,
    )
    settled = conditions.clear(settled, "Reconciling", reason="Queued", now=now, generation=job.generation)
    if why.reason == reasons.MISCONFIGURED:
        settled = conditions.put(
            settled,
            "Stalled",
            value=True,
            reason=why.reason,
            message=why.message,
            now=now,
            generation=job.generation,
        )
    else:
        settled = conditions.clear(settled, "Stalled", reason=why.reason, now=now, generation=job.generation)
    return replace(job.status, reason=why.reason, message=why.message, conditions=settled, queue=queue)
