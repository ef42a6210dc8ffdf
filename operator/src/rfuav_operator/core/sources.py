"""The TrainingJobs that InferenceJobs wait for, found by name once somebody asks."""

from collections.abc import Mapping

from rfuav_operator.core.model import Job, Kind, Uid


class Sources:
    """TrainingJobs by namespace and name; the index is built at the first question."""

    def __init__(self, jobs: Mapping[Uid, Job]) -> None:
        self._jobs = jobs
        self._index: dict[tuple[str, str], Uid] | None = None

    def of(self, job: Job) -> Job | None:
        """The TrainingJob that `job` takes its weights from; None: it names none, or there is none (yet)."""
        name = job.spec.model.from_training_job
        if not name:
            return None
        if self._index is None:
            found = (j for j in self._jobs.values() if j.kind is Kind.TRAINING and not j.deleting)
            self._index = {(j.namespace, j.name): j.uid for j in found}
        uid = self._index.get((job.namespace, name))
        return None if uid is None else self._jobs.get(uid)

    def why_waiting(self, job: Job) -> str:
        """What the job waits for, in words: the TrainingJob, its phase and how far it is."""
        name, source = job.spec.model.from_training_job, self.of(job)
        if source is None:
            return f"waits for TrainingJob {name}, which does not exist in namespace {job.namespace} (yet)"
        phase = source.status.phase.value if source.status.phase else "new"
        done = source.status.progress.percent if source.status.progress else None
        return f"waits for TrainingJob {name}, which is {phase}" + (f" ({done} %)" if done is not None else "")
