"""A job as one row of the page: a few dozen values, encoded once for all who look at it."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from rfuav_gateway.tasks import views
from rfuav_gateway.tasks.bodies import TaskStatus, TaskType
from rfuav_gateway.tasks.jobs import Job, Metrics, Progress, most_gpus

MOST_WORDS = 300  # characters of a message
MOST_NODES = 8
_PROGRESS, _METRICS = Progress(), Metrics()


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the page shows of a job in a list; null: not known, or not of this type. Instants are UTC."""

    key: str
    id: str
    type: TaskType
    namespace: str
    name: str
    status: TaskStatus
    phase: str | None
    reason: str
    message: str
    model: str
    pool: str
    gpus: int
    """GPU slots of all its pods that run at the same time."""
    priority: int | None
    priority_class: str
    user: str
    created: datetime
    queued: datetime | None
    started: datetime | None
    finished: datetime | None
    updated: datetime
    attempt: int
    failures: int
    position: int | None
    of: int | None
    estimated_start: datetime | None
    percent: int | None
    epoch: int | None
    epochs: int | None
    processed: int | None
    total: int | None
    remaining: int | None
    """Seconds."""
    speed: float | None
    """Samples a second."""
    nodes: list[str]
    suspended: bool
    loss: float | None
    accuracy: float | None
    """Share, 0 to 1."""
    f1: float | None


def key(kind: TaskType, namespace: str, name: str) -> str:
    """What a job is called on the page."""
    return f"{kind}/{namespace}/{name}"


def row(job: Job, priority: Callable[[str], int | None] = lambda _named: None) -> Row:
    """The row of a job.

    Args:
        job: as it is held.
        priority: the value of a PriorityClass.
    """
    spec, status = job.spec, job.status
    progress, metrics, queue = status.progress or _PROGRESS, status.metrics or _METRICS, status.queue
    training = job.type == "training"
    return Row(
        key=key(job.type, job.namespace, job.name),
        id=job.task_id,
        type=job.type,
        namespace=job.namespace,
        name=job.name,
        status=views.status_of(job),
        phase=status.phase,
        reason=status.reason,
        message=shortened(status.message),
        model=spec.model.architecture or spec.model.from_training_job or spec.model.weights.rpartition("/")[2],
        pool=spec.pool,
        gpus=most_gpus(job),
        priority=priority(spec.priority_class_name) if status.priority is None else status.priority,
        priority_class=spec.priority_class_name,
        user=job.created_by,
        created=job.created,
        queued=status.queued_at,
        started=status.started_at,
        finished=status.finished_at,
        updated=job.changed,
        attempt=status.attempt,
        failures=status.counted_failures + status.uncounted_failures,
        position=None if queue is None else queue.position,
        of=None if queue is None else queue.of,
        estimated_start=None if queue is None else queue.estimated_start,
        percent=progress.percent,
        epoch=progress.epoch,
        epochs=progress.total_epochs or (spec.training.epochs if training else None),
        processed=progress.processed,
        total=progress.total,
        remaining=progress.remaining_seconds,
        speed=progress.samples_per_second,
        nodes=sorted({one.node for one in status.assignments if one.node})[:MOST_NODES],
        suspended=spec.suspend,
        loss=metrics.train_loss if metrics.val_loss is None else metrics.val_loss,
        accuracy=metrics.train_accuracy if metrics.val_accuracy is None else metrics.val_accuracy,
        f1=metrics.macro_f1,
    )


def shortened(text: str) -> str:
    """A message that fits a row."""
    return text if len(text) <= MOST_WORDS else text[: MOST_WORDS - 1] + "…"


_encoder = msgspec.json.Encoder()


def encoded(job: Job, priority: Callable[[str], int | None] = lambda _named: None) -> bytes:
    """The row as JSON."""
    return _encoder.encode(row(job, priority))
