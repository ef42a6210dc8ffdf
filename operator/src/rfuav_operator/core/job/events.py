"""What follows from a change of status: Events on transitions, and whether the write is urgent.

Queuing and starting cause no Event: conditions and status have both with their times, and each Event
is one more write for every job.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from rfuav_crds import reasons
from rfuav_operator.core import conditions
from rfuav_operator.core.capacity import gpu_sharing
from rfuav_operator.core.model import Job, JobStatus, Phase, RecordEvent

_NOTE_LIMIT = 1000  # the API allows 1024
_ENDINGS = {Phase.SUCCEEDED: "Normal", Phase.FAILED: "Warning", Phase.CANCELLED: "Normal"}


def is_transition(old: JobStatus, new: JobStatus) -> bool:
    """Whether more changed than progress, messages and places in the queue: such a write is never throttled."""
    return _skeleton(old) != _skeleton(new)


def is_place_alone(old: JobStatus, new: JobStatus) -> bool:
    """Whether nothing changed but the place in the queue and the words about it."""
    words = {"queue": None, "message": "", "reason": "", "conditions": ()}
    return replace(old, **words) == replace(new, **words)


def _skeleton(status: JobStatus) -> tuple[JobStatus, tuple[tuple[str, str, str], ...]]:
    bare = replace(
        status,
        message="",
        queue=None,
        progress=None,
        metrics={},
        custom_metrics=(),
        checkpoint=None,
        outputs={},
        conditions=(),
        shards=replace(status.shards, progress={}) if status.shards else None,
    )
    return bare, tuple((c.type, c.status, c.reason) for c in status.conditions)


def events(job: Job, new: JobStatus) -> Iterator[RecordEvent]:
    """The events that the step from `job.status` to `new` deserves."""
    old = job.status
    seen = set(old.failures)
    for failure in new.failures:
        if failure not in seen:
            again = "" if new.phase and new.phase.terminal else "; runs again after a pause"
            note = f"pod {failure.pod} on {failure.node or 'no node'}: {failure.message}{again}"
            yield _event(job, "Warning", failure.reason, "RetryPod" if again else "StopJob", note)
    before = {a.pod for a in old.assignments}
    if fresh := [a for a in new.assignments if a.pod not in before]:
        places = ", ".join(f"{a.pod} on {a.node or 'a new node'}" for a in fresh[:5])
        yield _event(job, "Normal", reasons.ADMITTED, "Admit", f"attempt {new.attempt}: {places}")
    if new.phase is not old.phase and new.phase is not None:
        yield from _phase_events(job, new)
    shared = conditions.find(new.conditions, gpu_sharing.CONDITION)
    if shared and shared.status == "True" and not conditions.is_true(old.conditions, gpu_sharing.CONDITION):
        yield _event(job, "Warning", shared.reason, "WatchPods", shared.message)
    if new.reason == reasons.MISCONFIGURED != old.reason:
        yield _event(job, "Warning", reasons.MISCONFIGURED, "Queue", new.message)
    if new.reason in (reasons.UNDECODABLE, reasons.INTERNAL_ERROR) and new.reason != old.reason:
        yield _event(job, "Warning", new.reason, "SetAside", new.message)


def _phase_events(job: Job, new: JobStatus) -> Iterator[RecordEvent]:
    if new.phase is Phase.SUSPENDED:
        yield _event(job, "Normal", reasons.SUSPENDED, "Suspend", "suspended; running pods save a checkpoint and stop")
    elif new.phase is Phase.QUEUED and job.status.phase is Phase.SUSPENDED:
        yield _event(job, "Normal", reasons.RESUMED, "Queue", "resumed; back in the queue")
    elif new.phase in _ENDINGS:
        yield _event(job, _ENDINGS[new.phase], new.phase.value, "FinishJob", new.message)


def _event(job: Job, kind: str, reason: str, action: str, note: str) -> RecordEvent:
    return RecordEvent(job=job, type=kind, reason=reason, action=action, note=note[:_NOTE_LIMIT])
