"""Whether a job may be admitted at all, were there room: the gates that it must pass, and which of its units are ready.

Gates are holds, mistakes, a volume or a training that the job waits for. They depend on the job, its pool, its
namespace's quota, its volumes and the TrainingJobs, which are kept by name here. A unit is ready when its backoff is
over and no pod of an earlier attempt may live.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

from rfuav_crds import reasons
from rfuav_crds.modes import StopPolicy
from rfuav_operator.core.capacity import room, volumes
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.job import priority, units
from rfuav_operator.core.job.podspec import output_of
from rfuav_operator.core.model import Job, Kind, Phase, Pool, Snapshot, Uid, may_live


class Gates:
    """Knows the TrainingJobs by name."""

    def __init__(self) -> None:
        self._trainings: dict[tuple[str, str], Uid] = {}
        self._names: dict[Uid, tuple[str, str]] = {}
        self._dependents: dict[tuple[str, str], set[Uid]] = {}  # by the TrainingJob that they take weights from
        self._named: dict[Uid, tuple[str, str]] = {}

    def index(self, uid: Uid, job: Job | None) -> None:
        """A job came, changed or went."""
        name = self._names.pop(uid, None)
        if name is not None and self._trainings.get(name) == uid:
            del self._trainings[name]
        if job is not None and job.kind is Kind.TRAINING and not job.deleting:
            self._names[uid] = job.namespace, job.name
            self._trainings[job.namespace, job.name] = uid
        self._index_dependent(uid, job)

    def _index_dependent(self, uid: Uid, job: Job | None) -> None:
        named = self._named.pop(uid, None)
        if named is not None:
            self._dependents[named].discard(uid)
            if not self._dependents[named]:
                del self._dependents[named]
        if job is not None and job.spec.model.from_training_job and not job.deleting:
            self._named[uid] = key = job.namespace, job.spec.model.from_training_job
            self._dependents.setdefault(key, set()).add(uid)

    def awaited(self, job: Job, snapshot: Snapshot) -> bool:
        """Whether a job still waits for what this training leaves, or has not stored yet what it took over."""
        for uid in self._dependents.get((job.namespace, job.name), ()) if job.kind is Kind.TRAINING else ():
            other = snapshot.jobs.get(uid)
            if other is None or (other.status.phase is not None and other.status.phase.terminal):
                continue
            if other.status.source is None or uid in snapshot.unwritten:
                return True
        return False

    def source(self, job: Job, jobs: Mapping[Uid, Job]) -> Job | None:
        """The TrainingJob that `job` takes its weights from; None: it names none, or there is none (yet)."""
        name = job.spec.model.from_training_job
        uid = self._trainings.get((job.namespace, name)) if name else None
        return None if uid is None else jobs.get(uid)

    def closed(self, job: Job, snapshot: Snapshot) -> Reason | None:
        """The first reason, in the order of docs/reasons.md, for which the job may not run."""
        pool = snapshot.pools.get(job.spec.pool)
        if pool is None:
            return self.no_pool(job, snapshot)
        if pool.spec.stop_policy != StopPolicy.NONE:
            why = pool.unreadable or f"stopPolicy: {pool.spec.stop_policy}"
            text = f"pool {pool.name} admits nothing new ({why})"
            return Reason(reason=reasons.ON_HOLD, message=text)
        quota = snapshot.quotas.get(job.namespace)
        if quota is not None and quota.spec.stop_policy != StopPolicy.NONE:
            why = quota.unreadable or "stopPolicy: Hold"
            text = f"namespace {job.namespace} admits nothing new (GPUQuota default, {why})"
            return Reason(reason=reasons.ON_HOLD, message=text)
        problem = _problem(job, pool, snapshot)
        if problem:
            return Reason(reason=reasons.MISCONFIGURED, message=problem)
        no_volume = volumes.waits(job, snapshot)
        if no_volume:
            return Reason(reason=reasons.WAITING_FOR_VOLUME, message=no_volume)
        if job.spec.model.from_training_job and job.status.source is None:
            return Reason(reason=reasons.WAITING_FOR_TRAINING_JOB, message=self._why_waiting(job, snapshot))
        return None

    @staticmethod
    def no_pool(job: Job, snapshot: Snapshot) -> Reason:
        """The pool that the job names does not exist."""
        known = ", ".join(sorted(snapshot.pools)) or "none"
        text = f"pool {job.spec.pool} does not exist; existing pools: {known}"
        return Reason(reason=reasons.MISCONFIGURED, message=text)

    def _why_waiting(self, job: Job, snapshot: Snapshot) -> str:
        """What the job waits for, in words: the TrainingJob, its phase and how far it is."""
        name, source = job.spec.model.from_training_job, self.source(job, snapshot.jobs)
        if source is None:
            return f"waits for TrainingJob {name}, which does not exist in namespace {job.namespace} (yet)"
        phase = source.status.phase.value if source.status.phase else "new"
        done = source.status.progress.percent if source.status.progress else None
        return f"waits for TrainingJob {name}, which is {phase}" + (f" ({done} %)" if done is not None else "")


def _problem(job: Job, pool: Pool, snapshot: Snapshot) -> str:
    if job.problems:
        return "; ".join(job.problems)
    if pool.problems:
        return f"pool {pool.name}: {'; '.join(pool.problems)}"
    if named := priority.problem(job, pool, snapshot):
        return named
    if not job.spec.image and not snapshot.defaults.image:
        return "no image: write spec.image, or set the operator's default trainer image"
    try:
        room.shape_of(job)
    except ValueError as error:
        return f"spec.resources: {error}"
    return ""


# --- units


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
        word = reasons.BACKING_OFF
        if last is not None and last.reason == reasons.REJECTED_BY_CLUSTER:
            word, why = reasons.REJECTED_BY_CLUSTER, f"{last.message}; "
        return Reason(reason=word, message=f"{why}next try at {again}")
    if earlier := earlier_pods(job, snapshot):
        text = f"waits until pods of an earlier job of this name are gone: {', '.join(earlier[:3])}"
        text += " (they write to the same output)"
        return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)
    pods = sorted(
        {a.pod for a in job.status.assignments}
        | {p.name for p in snapshot.pods_of.get(job.uid, {}).values() if may_live(p, snapshot.nodes)}
    )
    text = f"waits until pods of an earlier attempt are gone: {', '.join(pods[:3])}"
    if not pods:
        text = "waits until it is known whether an earlier pod of this name was created"
    return Reason(reason=reasons.WAITING_FOR_CAPACITY, message=text)
