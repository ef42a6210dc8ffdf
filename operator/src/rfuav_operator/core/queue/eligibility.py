"""Reasons for which a job may not run whatever the room: holds, mistakes, a volume or a training that it waits for.

They depend on the job, its pool, its namespace's quota, its volumes and the TrainingJobs, which are kept by name here.
"""

from collections.abc import Mapping

from rfuav_operator.core.capacity import explain, room, volumes
from rfuav_operator.core.capacity.explain import Reason
from rfuav_operator.core.job import priority
from rfuav_operator.core.model import Job, Kind, Pool, Snapshot, Uid

HOLDS = ("Hold", "HoldAndDrain")


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
        if pool.spec.stop_policy in HOLDS:
            why = pool.unreadable or f"stopPolicy: {pool.spec.stop_policy}"
            text = f"pool {pool.name} admits nothing new ({why})"
            return Reason(reason=explain.ON_HOLD, message=text)
        quota = snapshot.quotas.get(job.namespace)
        if quota is not None and quota.spec.stop_policy in HOLDS:
            why = quota.unreadable or "stopPolicy: Hold"
            text = f"namespace {job.namespace} admits nothing new (GPUQuota default, {why})"
            return Reason(reason=explain.ON_HOLD, message=text)
        problem = _problem(job, pool, snapshot)
        if problem:
            return Reason(reason=explain.MISCONFIGURED, message=problem)
        no_volume = volumes.waits(job, snapshot)
        if no_volume:
            return Reason(reason=explain.WAITING_FOR_VOLUME, message=no_volume)
        if job.spec.model.from_training_job and job.status.source is None:
            return Reason(reason=explain.WAITING_FOR_TRAINING_JOB, message=self._why_waiting(job, snapshot))
        return None

    @staticmethod
    def no_pool(job: Job, snapshot: Snapshot) -> Reason:
        """The pool that the job names does not exist."""
        known = ", ".join(sorted(snapshot.pools)) or "none"
        text = f"pool {job.spec.pool} does not exist; existing pools: {known}"
        return Reason(reason=explain.MISCONFIGURED, message=text)

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
        room.need_of(job)
    except ValueError as error:
        return f"spec.resources: {error}"
    return ""
