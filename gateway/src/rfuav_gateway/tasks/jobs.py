"""A job as tasks see it: decoded in part from what the API server holds, and laid flat to be held many times.

What cannot be read of a job is left out; the job itself is never lost.
"""

from datetime import datetime
from typing import Annotated

import msgspec

from rfuav_crds import contract
from rfuav_crds.bounds import EARLIEST, bounded
from rfuav_gateway.tasks import identity
from rfuav_gateway.tasks.bodies import TaskType
from rfuav_kube.objects import Meta, Wire

Instant = Annotated[datetime, msgspec.Meta(tz=True)]

# --- as it is read


class Resources(Wire, frozen=True):
    """spec.resources."""

    gpus: int = 1


class Model(Wire, frozen=True):
    """spec.model."""

    architecture: str = ""
    from_training_job: str = ""
    weights: str = ""


class Loop(Wire, frozen=True):
    """spec.training."""

    epochs: int | None = None


class Spec(Wire, frozen=True):
    """The part of a spec that tasks show."""

    model: Model = Model()
    resources: Resources = Resources()
    training: Loop = Loop()
    pool: str = "default"
    nodes: int = 1
    shards: int = 1
    parallelism: int = 1
    priority_class_name: str = ""
    suspend: bool = False
    cancel: bool = False


class Queue(Wire, frozen=True):
    """Place in the queue, from 1."""

    position: int
    of: int
    estimated_start: Instant | None = None


class Progress(Wire, frozen=True):
    """What the pods last reported."""

    percent: int | None = None
    epoch: int | None = None
    total_epochs: int | None = None
    processed: int | None = None
    total: int | None = None
    samples_per_second: float | None = None
    remaining_seconds: int | None = None
    updated_at: Instant | None = None


class Metrics(Wire, frozen=True):
    """Metrics as last reported; accuracies are shares, 0 to 1."""

    train_loss: float | None = None
    train_accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    best_val_accuracy: float | None = None
    macro_f1: float | None = None
    micro_f1: float | None = None
    mean_average_precision: float | None = None
    top1: float | None = None
    top3: float | None = None
    top5: float | None = None
    macro_precision: float | None = None
    macro_recall: float | None = None
    micro_precision: float | None = None
    micro_recall: float | None = None
    learning_rate: float | None = None


class Assignment(Wire, frozen=True):
    """Where one pod of the job runs or will run."""

    pod: str
    node: str = ""
    gpus: int = 0
    shards: str = ""
    """Not empty: these pods, named `pod` followed by the shard, as ranges: 0-3,7."""


class Condition(Wire, frozen=True):
    """When one aspect of the job last changed."""

    last_transition_time: Instant | None = None


class Status(Wire, frozen=True):
    """The part of a status that tasks show."""

    phase: str | None = None
    reason: str = ""
    message: str = ""
    attempt: int = 0
    priority: int | None = None
    counted_failures: int = 0
    uncounted_failures: int = 0
    queue: Queue | None = None
    progress: Progress | None = None
    metrics: Metrics | None = None
    assignments: tuple[Assignment, ...] = ()
    running_seconds: int = 0
    running_since: Instant | None = None
    conditions: tuple[Condition, ...] = ()
    queued_at: Instant | None = None
    admitted_at: Instant | None = None
    started_at: Instant | None = None
    finished_at: Instant | None = None


class JobObject(Wire, frozen=True):
    """A TrainingJob or InferenceJob; to be decoded from JSON."""

    metadata: Meta
    spec: Spec = Spec()
    status: Status = Status()


# --- as it is held


class Job(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job of either kind, with the identity of its task. Instants are UTC."""

    type: TaskType
    namespace: str
    name: str
    uid: str
    resource_version: str
    created: datetime
    changed: datetime
    deleting: bool
    task_id: str
    digest: str
    device: str
    created_by: str
    cancelled_by: str
    callback_url: str
    spec: Spec
    status: Status
    unreadable: str = ""
    """What of it could not be read, and why."""


def job(kind: TaskType, read: JobObject, unreadable: str = "") -> Job:
    """The job; `unreadable` says why part of it was left out."""
    meta = read.metadata
    annotations = meta.annotations or {}
    created = bounded(meta.creation_timestamp or EARLIEST)
    return Job(
        type=kind,
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        created=created,
        changed=_changed(created, read.status),
        deleting=meta.deletion_timestamp is not None,
        task_id=identity.task_id_of(meta.namespace, meta.name, annotations),
        digest=annotations.get(contract.ANNOTATION_TASK_DIGEST, ""),
        device=annotations.get(contract.ANNOTATION_TASK_DEVICE, "") or ("cuda" if read.spec.resources.gpus else "cpu"),
        created_by=annotations.get(contract.ANNOTATION_CREATED_BY, ""),
        cancelled_by=annotations.get(contract.ANNOTATION_CANCELLED_BY, ""),
        callback_url=annotations.get(contract.ANNOTATION_CALLBACK_URL, ""),
        spec=read.spec,
        status=msgspec.structs.replace(read.status, conditions=()),  # they have said all that tasks show
        unreadable=unreadable,
    )


def most_gpus(job: Job) -> int:
    """GPU slots that it has when all its pods run that may at the same time."""
    pods = job.spec.nodes if job.type == "training" else min(job.spec.shards, job.spec.parallelism)
    return max(0, job.spec.resources.gpus) * max(1, pods)


def _changed(created: datetime, status: Status) -> datetime:
    """The newest instant that the job knows of itself."""
    times = [status.queued_at, status.admitted_at, status.started_at, status.finished_at]
    times += [one.last_transition_time for one in status.conditions]
    if status.progress is not None:
        times.append(status.progress.updated_at)
    return max([created, *(bounded(at) for at in times if at is not None)])
