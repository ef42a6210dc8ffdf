"""A job as a task: its status word, its story in one line, its progress and its metrics under their old names.

`Task` and `Metrics` are the bodies of the same names again, as structs: building and encoding one takes microseconds. A
test compares the two field by field.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from rfuav_crds.bounds import bounded
from rfuav_gateway.tasks import jobs
from rfuav_gateway.tasks.bodies import TaskStatus, TaskType
from rfuav_gateway.tasks.jobs import Job
from rfuav_gateway.tasks.priorities import priority_of
from rfuav_gateway.tasks.words import Phrases, Said

_WORDS: dict[str | None, TaskStatus] = {
    None: "pending",
    "Queued": "queued",
    "Admitted": "queued",  # it has room, and no pod runs yet
    "Running": "running",
    "Suspended": "queued",
    "Succeeded": "completed",
    "Failed": "failed",
    "Cancelled": "cancelled",
}
ENDED = ("Succeeded", "Failed", "Cancelled")
"""The phases after which a job never moves again."""
_BRIEF = 200  # characters of a message in a list
_PRECISION = 6  # digits after the point: more than a metric has


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """As `bodies.Metrics`."""

    epoch: int | None
    total_epochs: int | None
    train_loss: float | None
    train_acc: float | None
    val_loss: float | None
    val_acc: float | None
    macro_f1: float | None
    micro_f1: float | None
    mAP: float | None  # noqa: N815
    top1_acc: float | None
    top3_acc: float | None
    top5_acc: float | None
    macro_precision: float | None
    macro_recall: float | None
    micro_precision: float | None
    micro_recall: float | None
    precision: float | None
    recall: float | None
    learning_rate: float | None
    best_acc: float | None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """As `bodies.Task`."""

    task_id: str
    task_type: TaskType
    status: TaskStatus
    message: str | None
    progress: float | None
    device: str | None
    priority: int | None
    created_at: datetime
    updated_at: datetime
    current_epoch: int | None
    total_epochs: int | None
    latest_metrics: Metrics | None


class TaskList(msgspec.Struct, frozen=True, kw_only=True):
    """As `bodies.TaskList`."""

    training_tasks: list[Task]
    inference_tasks: list[Task]
    total_training: int
    total_inference: int
    next_cursor: str | None


_encoder = msgspec.json.Encoder()


def encode(value: Task | TaskList) -> bytes:
    """The value as JSON."""
    return _encoder.encode(value)


def ended(job: Job) -> bool:
    """Whether the task has ended: a cancelled one has, while its pods still stop."""
    return job.status.phase in ENDED or job.spec.cancel


def status_of(job: Job) -> TaskStatus:
    """The status word. A cancellation counts from when it is written, because nothing takes it back."""
    if job.spec.cancel and job.status.phase not in ENDED:
        return "cancelled"
    return _WORDS.get(job.status.phase, "pending")


def view(job: Job, phrases: Phrases, *, notes: Sequence[Said] = (), brief: bool = False) -> Task:
    """The task.

    Args:
        job: as it is held.
        phrases: of the language of the caller.
        notes: what is added to the message, of a task that was just created.
        brief: whether a long message is cut, for lists.
    """
    status, progress = status_of(job), job.status.progress
    message = "; ".join([story(job, phrases), *(note.text(phrases) for note in notes)])
    training = job.type == "training"
    epoch = progress.epoch if progress is not None and training else None
    total = progress.total_epochs if progress is not None and training else None
    if training and total is None:
        total = job.spec.training.epochs
    return Task(
        task_id=job.task_id,
        task_type=job.type,
        status=status,
        message=message[: _BRIEF - 3] + "..." if brief and len(message) > _BRIEF else message,
        progress=100.0 if status == "completed" else float((progress and progress.percent) or 0),
        device=job.device,
        priority=priority_of(job.spec.priority_class_name),
        created_at=local(job.created),
        updated_at=local(job.changed),
        current_epoch=epoch,
        total_epochs=total,
        latest_metrics=None if job.status.metrics is None else metrics(job.status.metrics, epoch, total),
    )


def local(at: datetime) -> datetime:
    """An instant of UTC as the model service writes it: without its zone."""
    return at.replace(tzinfo=None)


def metrics(found: jobs.Metrics, epoch: int | None, total: int | None) -> Metrics:
    """Metrics under their old names, with the epoch that they are of."""
    return Metrics(
        epoch=epoch,
        total_epochs=total,
        train_loss=found.train_loss,
        train_acc=_per_cent(found.train_accuracy),
        val_loss=found.val_loss,
        val_acc=_per_cent(found.val_accuracy),
        macro_f1=found.macro_f1,
        micro_f1=found.micro_f1,
        mAP=found.mean_average_precision,
        top1_acc=_per_cent(found.top1),
        top3_acc=_per_cent(found.top3),
        top5_acc=_per_cent(found.top5),
        macro_precision=found.macro_precision,
        macro_recall=found.macro_recall,
        micro_precision=found.micro_precision,
        micro_recall=found.micro_recall,
        precision=found.macro_precision,
        recall=found.macro_recall,
        learning_rate=found.learning_rate,
        best_acc=_per_cent(found.best_val_accuracy),
    )


def _per_cent(share: float | None) -> float | None:
    return None if share is None else round(share * 100, _PRECISION)


def story(job: Job, phrases: Phrases) -> str:
    """Why the task is where it is, in one line."""
    status, by = job.status, job.cancelled_by
    match status.phase:
        case "Cancelled":
            return phrases.cancelled_by.format(user=by) if by else phrases.cancelled
        case "Failed":
            return phrases.failed.format(reason=status.reason, message=status.message)
        case "Succeeded":
            return status.message
    if job.spec.cancel:
        return phrases.cancelling_by.format(user=by) if by else phrases.cancelling
    match status.phase:
        case "Running":
            return status.message
        case "Admitted":
            return f"{phrases.starting}: {status.message}" if status.message else phrases.starting
        case "Suspended":
            return phrases.suspended
        case "Queued":
            return _wait(status, phrases)
        case _:
            return phrases.pending


def _wait(status: jobs.Status, phrases: Phrases) -> str:
    queue = status.queue
    if queue is None:
        return status.message or phrases.pending
    place = phrases.in_queue.format(position=queue.position, of=queue.of)
    why = f"{place}: {status.message}" if status.message else place
    if queue.estimated_start is None:
        return why
    at = local(bounded(queue.estimated_start)).isoformat(sep=" ", timespec="minutes")
    return f"{why}; {phrases.estimated_start.format(at=at)}"
