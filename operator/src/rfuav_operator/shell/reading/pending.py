"""What was decided and not yet seen back: statuses, and creates of pods, which take room from when they are planned."""

from typing import TYPE_CHECKING, Any

from rfuav_operator.core.model import Job, JobStatus, Landing, Uid

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pending:
    """What the API server will hold when all that is under way has succeeded, beside what it holds now."""

    def __init__(self) -> None:
        self.statuses: dict[Uid, JobStatus] = {}  # of jobs
        self.limits: dict[Uid, Mapping[str, Any]] = {}  # statuses of pools and quotas
        self.results: dict[Uid, bytes] = {}  # of jobs, as reported; they go with the next write of the status
        self.creating: dict[Uid, frozenset[str]] = {}  # names of pods
        self.landings: dict[tuple[Uid, str], Landing] = {}  # where such a pod may land, by job and name
        self.leaving: dict[tuple[str, str], frozenset[Uid]] = {}  # jobs that are gone, with a create under way

    def clear(self) -> None:
        """Nothing of it will be written any more."""
        self.statuses.clear()
        self.limits.clear()
        self.results.clear()
        self.creating.clear()
        self.landings.clear()
        self.leaving.clear()

    def begin_create(self, uid: Uid, pod: str, landing: Landing | None) -> None:
        """A pod's create is under way."""
        self.creating[uid] = self.creating.get(uid, frozenset()) | {pod}
        if landing is not None:
            self.landings[uid, pod] = landing

    def end_create(self, uid: Uid, pod: str) -> bool:
        """The outcome of a create is known; whether it was the job's last under way."""
        self.landings.pop((uid, pod), None)
        left = self.creating.get(uid, frozenset()) - {pod}
        if left:
            self.creating[uid] = left
            return False
        self.creating.pop(uid, None)
        return True

    def job_went(self, job: Job) -> None:
        """A job was deleted: as long as a create of it is under way, another of its name may not start."""
        self.statuses.pop(job.uid, None)
        self.results.pop(job.uid, None)
        if job.uid in self.creating:
            key = job.namespace, job.name
            self.leaving[key] = self.leaving.get(key, frozenset()) | {job.uid}

    def job_left(self, job: Job) -> None:
        """No create of a deleted job is under way any longer."""
        key = job.namespace, job.name
        if left := self.leaving.pop(key, frozenset()) - {job.uid}:
            self.leaving[key] = left
